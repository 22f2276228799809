"""Steps: commands that are started beside a lease's workers while they run.

The agent orders one over the control socket, and sends descriptors along: a **line**, on which both
sides say what happens to the step, and, unless it is a detached one, what its standard input,
output and error shall be. Whoever holds the line's other end is connected with the step: when that
end closes, the step's process group gets SIGHUP. A detached step keeps its output beside the
workers', and nobody's going ends it.

On the line, one JSON object per packet: from here `started` (pid), `refused` (words), `ended`
(exit_code or signal, and message); to here `signal` (number).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from nodeagent import streams
from nodeagent.supervision import processes, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nodeagent.plan import StepPlan, WorkerPlan
    from nodeagent.supervision.record import Recorder

FOLDER = "steps"
"""In a lease's folder for output: the output of its detached steps, a folder for each."""
_LINE_BYTES = 4096
_DRAIN_BYTES = 2 << 20


class Order(NamedTuple):
    """What the agent wants started."""

    number: int
    """The step's number."""
    rank: int
    """The worker that it is started beside."""
    argv: tuple[str, ...]
    """The program and its arguments; empty for the account's shell."""
    env: dict[str, str]
    """Variables on top of the worker's."""
    terminal: bool
    """Whether its standard input, output and error are one terminal."""
    detach: bool
    """Whether it keeps its output here and goes on alone."""


def read_order(raw: dict[str, Any]) -> Order:
    """KeyError, TypeError or ValueError for what is no order."""
    return Order(
        number=int(raw["step"]),
        rank=int(raw["rank"]),
        argv=tuple(map(str, raw["argv"])),
        env={str(name): str(value) for name, value in raw["env"].items()},
        terminal=bool(raw["terminal"]),
        detach=bool(raw["detach"]),
    )


def beside(of: WorkerPlan, order: Order) -> WorkerPlan:
    """The process of a step, as its worker's but for the command."""
    env = {**of.env, **order.env, "CC_STEP_ID": str(order.number)}
    argv = order.argv or (of.env.get("SHELL") or "/bin/sh",)
    return replace(of, argv=(*of.before, *argv), env=env)


class _Step:
    """A step that runs, and what holds it."""

    def __init__(self, order: Order, pid: int, line: int) -> None:
        self.order, self.pid, self.line = order, pid, line
        self.pipes: dict[int, streams.StreamWriter] = {}


class Steps:
    """The steps of one lease."""

    def __init__(
        self,
        plan: StepPlan,
        record: Recorder,
        listen: Callable[[int, Callable[[], None]], None],
        unlisten: Callable[[int], None],
        place: Callable[[int], Sequence[str]],
    ) -> None:
        """`listen` has a function called when a descriptor can be read, `unlisten` closes it.
        `place`: the control groups of a process beside a rank."""
        self._plan, self._record = plan, record
        self._listen, self._unlisten, self._place = listen, unlisten, place
        self._by_pid: dict[int, _Step] = {}
        self._seen: set[int] = set()

    def start(self, order: Order, fds: Sequence[int], refusal: str) -> None:
        """Start one, with these descriptors: its line, then input, output and error.

        `refusal`: why none can be started now; empty when one can. The descriptors are closed here,
        but for the line of a step that runs.
        """
        line = fds[0]
        try:
            if refusal or order.number in self._seen:
                words = refusal or f"step {order.number} was started already"
                _say(line, refused=words)
                return
            if len(fds) != (1 if order.detach else 4):
                _say(line, refused="the agent sent no streams for it")
                return
            self._seen.add(order.number)
            self._start(order, os.dup(line), fds[1:])
        except OSError as error:
            _say(line, refused=f"its process cannot be started: {error.strerror or error}")
        finally:
            for fd in fds:
                os.close(fd)

    def _start(self, order: Order, line: int, given: Sequence[int]) -> None:
        pipes: dict[int, streams.StreamWriter] = {}
        ends: list[int] = []
        stdin, stdout, stderr = given if given else (None, -1, -1)
        try:
            here = self._worker(order.rank)
            if order.detach:
                pipes, ends = self._kept(order)
                stdout, stderr = ends
            if stdin is not None and order.terminal and self._plan.identity is not None:
                os.fchown(stdin, self._plan.identity.uid, -1)
            pid = worker.start(
                beside(here, order),
                self._plan.identity,
                stdout,
                stderr,
                stderr,  # what the host refuses is its user's to read
                stdin=stdin,
                terminal=order.terminal,
                groups=self._place(order.rank),
            )
        except OSError:
            for fd in (*pipes, line):
                os.close(fd)
            raise
        finally:
            for fd in ends:
                os.close(fd)
        step = self._by_pid[pid] = _Step(order, pid, line)
        step.pipes = pipes
        process = processes.look(pid)
        self._record.tell(
            "step_started",
            step=order.number,
            rank=order.rank,
            pid=pid,
            ticks=process.ticks if process else 0,
            detached=order.detach,
        )
        os.set_blocking(line, False)
        self._listen(line, lambda: self._hear(step))
        for pipe in pipes:
            self._listen(pipe, lambda pipe=pipe: self._pump(step, pipe))  # type: ignore[misc]
        _say(line, started=pid)

    def _worker(self, rank: int) -> WorkerPlan:
        for place in self._plan.places:
            if place.rank == rank:
                return place
        each = self._plan.ranks_per_worker
        for of in self._plan.workers:
            if of.rank <= rank < of.rank + each:
                return of
        raise OSError(f"rank {rank} is none of this node's")

    def _kept(self, order: Order) -> tuple[dict[int, streams.StreamWriter], list[int]]:
        """Pipes into files, for a step that nobody is connected with."""
        pipes: dict[int, streams.StreamWriter] = {}
        ends = []
        folder = os.path.join(self._plan.output_dir, FOLDER, str(order.number))
        for stream in streams.STREAMS:
            out, into = os.pipe()
            ends.append(into)
            os.set_blocking(out, False)
            pipes[out] = streams.StreamWriter(
                folder,
                order.rank,
                stream,
                segment_bytes=self._plan.log_segment_bytes,
                cap_bytes=self._plan.log_cap_bytes,
            )
        return pipes, ends

    def _hear(self, step: _Step) -> None:
        try:
            data = os.read(step.line, _LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                number = signal.Signals(json.loads(data)["signal"])
                processes.signal_groups([step.pid], number)
            return
        line, step.line = step.line, -1
        self._unlisten(line)
        if not step.order.detach and step.pid in self._by_pid:
            processes.signal_groups([step.pid], signal.SIGHUP)
            processes.signal_groups([step.pid], signal.SIGCONT)

    def _pump(self, step: _Step, pipe: int, budget: int = 1 << 20) -> None:
        if not step.pipes[pipe].pump(pipe, budget):
            self._unlisten(pipe)
            step.pipes.pop(pipe).close()

    def reaped(self, pid: int, code: int, why: str) -> bool:
        """Tell the end of a step's process; whether it was one. `why`: words on the job's end."""
        step = self._by_pid.pop(pid, None)
        if step is None:
            return False
        for pipe in list(step.pipes):
            self._pump(step, pipe, _DRAIN_BYTES)
        how = {"exit_code": code} if code >= 0 else {"signal": -code}
        self._record.tell("step_exited", step=step.order.number, **how, message=why)
        if step.line >= 0:
            _say(step.line, ended=how, message=why)
            line, step.line = step.line, -1
            self._unlisten(line)
        return True


def _say(line: int, **what: Any) -> None:
    # Nobody may listen any more.
    with contextlib.suppress(OSError):
        os.write(line, json.dumps(what, separators=(",", ":")).encode())


def make_line() -> tuple[socket.socket, socket.socket]:
    """The two ends of a line: whole packets, and an end that both notice."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
