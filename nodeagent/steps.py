"""Steps of this node's leases: what the agent does between the control plane, which asks for one,
and the supervisor that starts it.

For each there is a call of ServeStep, a line to the supervisor, and pipes or a terminal of which
the agent holds one side. What goes and comes is handed on piece by piece: whoever is slower makes
the other wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import logging
import os
import struct
import termios
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from controlplane.model.lease import LeasePhase
from controlplane.model.signals import NAMES, signal_number
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1 import step_pb2
from nodeagent import status
from nodeagent.supervision.steps import make_line

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from nodeagent.folders import LeaseKey
    from nodeagent.leases import Leases

log = logging.getLogger(__name__)

CHUNK_BYTES = 128 << 10
"""Bytes of one message."""
START_S = 10.0
"""A supervisor starts a process, or says why not, within so long."""
LONGEST_S = 30 * 86400.0
"""No step is served for longer; the end of its lease comes first."""
SETTLE_S = 0.5
"""What a step's terminal still holds after its end is waited for so long at most."""
LEAVE_S = 10.0
"""The control plane takes in a step's end within so long."""
REMEMBERED = 64
"""Numbers of steps that were served last, so that none is served twice."""

Serve = Any
"""Makes a call of ServeStep: `serve(timeout_s=…)` gives a stream of both directions."""


@dataclass(slots=True)
class _Ends:
    """What the agent holds of a step's streams, and what the step gets."""

    stdin: int = -1
    """To write to; -1 once closed."""
    outputs: dict[str, int] = field(default_factory=dict)
    """To read from, by the name of their field in `StepOutput`."""
    theirs: list[int] = field(default_factory=list)
    """The step's: input, output, error."""
    terminal: bool = False
    """Whether all of them are one terminal."""

    def close_theirs(self) -> None:
        for fd in set(self.theirs):
            os.close(fd)
        self.theirs = []

    def close(self) -> None:
        self.close_theirs()
        for fd in {*self.outputs.values(), self.stdin} - {-1}:
            os.close(fd)
        self.outputs, self.stdin = {}, -1


def open_ends(order: pb.StepOrder) -> _Ends:
    """Pipes or a terminal for a step; nothing for a detached one. OSError when there are none."""
    if order.detach:
        return _Ends()
    ends = _Ends()
    try:
        if order.HasField("terminal"):
            ours, theirs = os.openpty()
            ends = _Ends(ours, {"stdout": ours}, [theirs] * 3, terminal=True)
            set_size(ours, order.terminal.size)
        else:
            theirs_in, ends.stdin = os.pipe()
            ends.theirs.append(theirs_in)
            for name in ("stdout", "stderr"):
                ends.outputs[name], into = os.pipe()
                ends.theirs.append(into)
        for fd in {ends.stdin, *ends.outputs.values()}:
            os.set_blocking(fd, False)
    except OSError:
        ends.close()
        raise
    return ends


def set_size(terminal: int, size: step_pb2.WindowSize) -> None:
    """Give a terminal a size; its foreground processes get SIGWINCH."""
    rows, columns = min(max(size.rows, 1), 10_000), min(max(size.columns, 1), 10_000)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Steps:
    """Serves the steps that the control plane calls for. Lives in the event loop's thread."""

    def __init__(self, leases: Leases, serve: Serve, node_uuid: str) -> None:
        """`serve`: opens a call of ServeStep."""
        self._leases, self._serve, self._node_uuid = leases, serve, node_uuid
        self._known: dict[int, asyncio.Task[None] | None] = {}

    def known(self) -> list[int]:
        """Numbers of those that were called for lately."""
        return list(self._known)

    def call(self, calls: Iterable[pb.StepCall]) -> None:
        """Serve what is not served yet."""
        for each in calls:
            if each.step not in self._known:
                self._known[each.step] = asyncio.create_task(self._one(each))
        while len(self._known) > REMEMBERED:
            oldest = next((n for n, task in self._known.items() if task is None), None)
            if oldest is None:
                return
            del self._known[oldest]

    async def close(self) -> None:
        """Hang up on all of them."""
        tasks = [task for task in self._known.values() if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, call: pb.StepCall) -> None:
        stream = self._serve(timeout_s=LONGEST_S)
        try:
            claim = pb.StepClaim(node_uuid=self._node_uuid, step=call.step, token=call.token)
            await stream.write(pb.ServeStepRequest(claim=claim))
            first = await asyncio.wait_for(stream.read(), START_S)
            if first is grpc.aio.EOF or first.WhichOneof("part") != "order":
                return
            await _Served(stream, first.order, self._folder(first.order)).run()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as error:
            log.debug("a step's connection ended: %s", error)
        except OSError as error:
            log.warning("a step could not be served: %s", error)
        finally:
            stream.cancel()
            self._known[call.step] = None

    def _folder(self, order: pb.StepOrder) -> Path | None:
        """The control folder of the lease that an order names, if it runs here."""
        held = self._leases.held.get(order.lease_id)
        if held is None or held.key.token != order.token:
            return None
        return self._leases.control(held.key) if held.status.phase is LeasePhase.RUNNING else None


class _Served:
    """One step, from its order to its end."""

    def __init__(self, stream: Any, order: pb.StepOrder, folder: Path | None) -> None:
        self._stream, self._order, self._folder = stream, order, folder
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Have it started, hand on what goes and comes, and tell its end."""
        if self._folder is None:
            await self._tell_refusal("the node does not run the job (any more)")
            return
        line, theirs = make_line()
        line.setblocking(False)
        ends = _Ends()
        try:
            try:
                ends = open_ends(self._order)
                fds = [theirs.fileno(), *ends.theirs]
                heard = status.start_step(self._folder, _plain(self._order), fds)
            finally:
                theirs.close()
                ends.close_theirs()
            if not heard:
                await self._tell_refusal("the job's supervisor does not answer")
                return
            said = await asyncio.wait_for(_hear(line), START_S)
            if "started" not in said:
                await self._tell_refusal(str(said.get("refused", "the job's supervisor is gone")))
                return
            started = step_pb2.StepStarted(step=self._order.step, pid=int(said["started"]))
            await self._tell(started=started)
            await self._relay(line, ends)
        finally:
            line.close()
            ends.close()

    async def _relay(self, line: socket.socket, ends: _Ends) -> None:
        end = asyncio.ensure_future(_hear(line))
        feed = asyncio.ensure_future(self._feed(line, ends))
        over = asyncio.Event()
        outputs = [
            asyncio.ensure_future(self._drain(name, fd, ends.terminal, over))
            for name, fd in ends.outputs.items()
        ]
        try:
            # The input's end is the connection's end, unless the step goes on without one.
            waits = {end} if self._order.detach else {end, feed}
            await asyncio.wait({*waits}, return_when=asyncio.FIRST_COMPLETED)
            if not end.done():
                return
            over.set()
            if not self._order.detach:
                await asyncio.gather(*outputs)
            said = end.result()
            how = said.get("ended", {})
            words = str(said.get("message", "")) if said else "the job's supervisor was lost"
            await self._tell(ended=step_pb2.StepEnded(**how, message=words))
            await self._stream.done_writing()
            # Until the other side has taken it: to leave earlier could take it back.
            await asyncio.wait({feed}, timeout=LEAVE_S)
        finally:
            for task in (end, feed, *outputs):
                task.cancel()
            await asyncio.gather(end, feed, *outputs, return_exceptions=True)

    async def _feed(self, line: socket.socket, ends: _Ends) -> None:
        """Hand on what comes for the step, until the connection ends."""
        while True:
            message = await self._stream.read()
            if message is grpc.aio.EOF:
                return
            kind = message.input.WhichOneof("kind")
            if kind == "data":
                await _write_all(ends, message.input.data)
            elif kind == "end":
                if ends.terminal:
                    await _write_all(ends, b"\x04")
                elif ends.stdin >= 0:
                    os.close(ends.stdin)
                    ends.stdin = -1
            elif kind == "size" and ends.terminal:
                set_size(ends.stdin, message.input.size)
            elif kind == "signal" and message.input.signal in NAMES:
                number = signal_number(message.input.signal)
                with contextlib.suppress(OSError):
                    line.send(json.dumps({"signal": number}).encode())

    async def _drain(self, name: str, fd: int, terminal: bool, over: asyncio.Event) -> None:
        """Hand on what a step prints: to the end of the stream, or to what it holds when the step
        is over, for others may keep it open."""
        loop = asyncio.get_running_loop()
        until: float | None = None
        while True:
            if over.is_set() and until is None:
                until = loop.time() + SETTLE_S
            data = _read(fd)
            if data is not None and not data:
                return
            if data:
                await self._tell(**{name: data})
                if until is not None and loop.time() > until + SETTLE_S:
                    return
            elif until is None:
                await _first(_ready(fd, loop.add_reader, loop.remove_reader), over.wait())
            elif not terminal or loop.time() >= until:
                return
            else:
                # What was written to a terminal comes out of it a moment later, and then its end.
                with contextlib.suppress(TimeoutError):
                    ready = _ready(fd, loop.add_reader, loop.remove_reader)
                    await asyncio.wait_for(ready, until - loop.time())

    async def _tell(self, **output: Any) -> None:
        async with self._writing:
            message = pb.ServeStepRequest(output=step_pb2.StepOutput(**output))
            await self._stream.write(message)

    async def _tell_refusal(self, words: str) -> None:
        await self._tell(ended=step_pb2.StepEnded(message=words))
        await self._stream.done_writing()
        await asyncio.wait_for(self._stream.read(), LEAVE_S)


def step_end_message(key: LeaseKey, number: int, end: status.StepEnd) -> pb.StepEnd:
    """The end of a detached step, as it is told."""
    ended = step_pb2.StepEnded(exit_code=end.exit_code, signal=end.signal, message=end.message)
    return pb.StepEnd(step=number, lease_id=key.lease_id, token=key.token, ended=ended)


def _plain(order: pb.StepOrder) -> dict[str, object]:
    """An order as supervisors read it."""
    env = dict(order.env)
    if order.HasField("terminal"):
        env = {"TERM": order.terminal.term or "dumb", **env}
    return {
        "step": order.step,
        "rank": order.rank,
        "argv": list(order.command),
        "env": env,
        "terminal": order.HasField("terminal"),
        "detach": order.detach,
    }


def _read(fd: int) -> bytes | None:
    """What a descriptor holds; nothing at its end, None when there is nothing yet."""
    try:
        return os.read(fd, CHUNK_BYTES)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal that nobody has open any more
            return b""
        raise


async def _write_all(ends: _Ends, data: bytes) -> None:
    """Write to a step's input; what it does not want to read any more is dropped."""
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view and ends.stdin >= 0:
        try:
            view = view[os.write(ends.stdin, view) :]
        except BlockingIOError:
            await _ready(ends.stdin, loop.add_writer, loop.remove_writer)
        except OSError:
            return


async def _hear(line: socket.socket) -> dict[str, Any]:
    """The next word on a line; empty when its other end is gone."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = line.recv(64 << 10)
        except BlockingIOError:
            await _ready(line.fileno(), loop.add_reader, loop.remove_reader)
            continue
        except OSError:
            data = b""
        said: dict[str, Any] = json.loads(data) if data else {}
        return said


async def _ready(fd: int, add: Callable[..., None], remove: Callable[[int], Any]) -> None:
    """Wait until a descriptor can be used."""
    done = asyncio.get_running_loop().create_future()
    add(fd, lambda: None if done.done() else done.set_result(None))
    try:
        await done
    finally:
        remove(fd)


async def _first(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
