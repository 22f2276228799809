"""StepService: commands and shells inside running jobs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from controlplane.model.errors import FieldFault, InvalidRequest, NotAllowed, WrongState
from controlplane.model.event import CONTROL_PLANE
from controlplane.model.job import AttemptState
from controlplane.model.specfaults import shown
from controlplane.registry import steps as commands
from controlplane.service.asked import asked, which_of
from controlplane.service.auth import CALLER
from controlplane.service.errors import streams
from controlplane.service.hub import wait
from controlplane.service.steprelay import Relay
from controlplane.v1 import agent_service_pb2 as agents_pb
from controlplane.v1 import step_pb2
from controlplane.v1 import step_service_pb2 as pb
from controlplane.v1.step_service_pb2_grpc import StepServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from controlplane.registry.draft import Draft
    from controlplane.registry.which import Which
    from controlplane.service.context import House

FIRST_S = 10.0
"""The first message comes within so long."""
CLAIM_S = 10.0
"""A node's agent comes for a step within so long of the call for it."""
START_S = 15.0
"""It tells of the start within so long after that."""
BEGUN_S = 60.0
"""A job's own script waits for the other parts of its job for so long."""
LARGEST_SIDE = 10_000
"""Rows or columns of a terminal."""
LARGEST_ORDER = 32 << 10
"""Bytes of command and variables together."""


class StepService(StepServiceServicer):
    """Starts steps and connects their users with them."""

    def __init__(self, house: House) -> None:
        """`house`: the rooms to speak to."""
        self._house = house

    @streams
    async def Exec(
        self, request: AsyncIterator[pb.ExecRequest], context: Any
    ) -> AsyncIterator[pb.ExecResponse]:
        """Start a step and relay."""
        house = self._house
        start = await _first(request)
        check_start(start)
        which = await asked(house, start.job, "job")
        number = which.job_id
        script = CALLER.get().job_id
        if script is not None:
            if script != number:
                words = (
                    f"jobs/{number}: this is the token of the script of jobs/{script}, which may"
                )
                raise NotAllowed(f"{words} start steps in that one alone", f"jobs/{number}")
            await _begun(house, which)
        wanted = commands.Wanted(
            job=which,
            rank=start.rank if start.HasField("rank") else None,
            node=start.node.removeprefix("nodes/"),
            program=start.command[0] if start.command else "",
            terminal=start.HasField("terminal"),
            detach=start.detach,
        )
        actor = house.actor(context)
        room = house.relays.check_room
        placed = await house.write(lambda draft: commands.place(draft, wanted, room), actor)
        relay = Relay(placed, _order(start, placed))
        house.relays.want(relay)
        reading: asyncio.Task[None] | None = None
        try:
            await self._called(relay)
            reading = asyncio.create_task(_read(request, relay))
            async for output in _outputs(relay):
                yield pb.ExecResponse(output=output)
                if start.detach and output.HasField("started"):
                    return
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            if relay.claimed.is_set():
                relay.hung_up.set()  # its agent's call tells the end
            else:
                house.relays.over(relay)
                _tell_end(house, relay, "it was never started: its user or its node was gone")

    async def _called(self, relay: Relay) -> None:
        """Call the node's agent for a step. WrongState when it does not come."""
        house = self._house
        house.hub.tell([("node", relay.node_uuid)])
        try:
            await asyncio.wait_for(relay.claimed.wait(), CLAIM_S)
        except TimeoutError:
            node = house.registry.node(relay.node_uuid)
            silent = node is None or node.silent_since_us is not None
            words = "it is silent" if silent else "is it older than this control plane?"
            raise WrongState(
                f"the agent of {relay.placed.node_display_name} did not come for the step within"
                f" {CLAIM_S:g} s: {words}"
            ) from None


async def _begun(house: House, which: Which) -> None:
    """Wait until all parts of a job run: its script may have begun before the others."""
    with house.hub.listening(("job", which.job_id)) as changed:
        deadline = asyncio.get_running_loop().time() + BEGUN_S
        while asyncio.get_running_loop().time() < deadline:
            record = await asyncio.to_thread(house.registry.job, *which)
            last = record.attempts[-1].state if record.attempts else AttemptState.STAGING
            if last not in (AttemptState.STAGING, AttemptState.STARTING):
                return
            await wait(changed, 1.0)


async def serve(
    house: House, request: AsyncIterator[agents_pb.ServeStepRequest], relay: Relay
) -> AsyncIterator[agents_pb.ServeStepResponse]:
    """The agent's side of a step that it has claimed."""
    reading = asyncio.create_task(_take(house, request, relay))
    hung_up = asyncio.create_task(relay.hung_up.wait())
    coming: asyncio.Task[Any] | None = None
    try:
        yield agents_pb.ServeStepResponse(order=relay.order)
        while True:
            coming = asyncio.create_task(relay.down.get())
            enders = {reading} if relay.order.detach else {reading, hung_up}
            await asyncio.wait({coming, *enders}, return_when=asyncio.FIRST_COMPLETED)
            if any(task.done() for task in enders):
                return
            piece = coming.result()
            yield agents_pb.ServeStepResponse(input=piece)
    finally:
        for task in (reading, hung_up, coming):
            if task is not None:
                task.cancel()
        await asyncio.gather(reading, hung_up, return_exceptions=True)
        house.relays.over(relay)
        relay.gone.set()
        words = "" if relay.ended is not None else "the connection was lost"
        if relay.hung_up.is_set() and relay.ended is None:
            words = "its user hung up"
        if not (relay.order.detach and relay.started):  # such a one goes on: see `take_in_end`
            _tell_end(house, relay, words)
        house.hub.tell([("log", relay.placed.lease.job_id)])


async def _take(
    house: House, request: AsyncIterator[agents_pb.ServeStepRequest], relay: Relay
) -> None:
    """Take what a step prints, as fast as its user does."""
    async for message in request:
        output = message.output
        if output.HasField("started"):
            relay.started = True
            if relay.order.detach:
                house.relays.goes_on(relay.placed.number)
            output.started.attempt = relay.placed.attempt
            output.started.rank = relay.placed.rank
            output.started.node_display_name = relay.placed.node_display_name
        if output.HasField("ended"):
            relay.ended = output.ended
        if output.WhichOneof("kind") is not None and not (
            relay.hung_up.is_set() and relay.order.detach
        ):
            await relay.up.put(output)
        if relay.ended is not None:
            return


def _tell_end(house: House, relay: Relay, words: str) -> None:
    """Have the end of a step written down. Nobody waits for the commit."""
    over = relay.ended or step_pb2.StepEnded()
    job_id, number = relay.placed.lease.job_id, relay.placed.number
    house.registry.submit(_end(job_id, number, over, words or over.message), CONTROL_PLANE)


async def take_in_end(house: House, job_id: int, told: agents_pb.StepEnd) -> None:
    """Have the end of a detached step written down that its node tells, unless it was."""
    async with house.relays.ending:
        if told.step not in house.relays.detached and await asyncio.to_thread(
            commands.is_over, house.registry.store, job_id, told.step
        ):
            return
        await house.write(_end(job_id, told.step, told.ended, told.ended.message), CONTROL_PLANE)
        house.relays.detached.pop(told.step, None)
    house.hub.tell([("log", job_id)])


def _end(job_id: int, number: int, over: step_pb2.StepEnded, words: str) -> Callable[[Draft], None]:
    code = over.exit_code if over.HasField("exit_code") else None
    signal = over.signal if over.HasField("signal") else None
    return lambda draft: commands.end(draft, job_id, number, code, signal, words)


async def _outputs(relay: Relay) -> AsyncIterator[step_pb2.StepOutput]:
    try:
        first = await asyncio.wait_for(_next(relay), START_S)
    except TimeoutError:
        raise WrongState(
            f"{relay.placed.node_display_name} did not start the step within {START_S:g} s"
        ) from None
    output: step_pb2.StepOutput | None = first
    started = False
    while output is not None:
        if output.HasField("ended") and not started:
            raise WrongState(f"the step was not started: {output.ended.message}")
        started = True
        yield output
        if output.HasField("ended"):
            return
        output = await _next(relay)
    raise WrongState(
        f"the connection to {relay.placed.node_display_name} was lost, and the step was told to"
        " end by SIGHUP"
    )


async def _next(relay: Relay) -> step_pb2.StepOutput | None:
    """What comes from the step next; None when its agent is gone, and nothing is left."""
    if not relay.up.empty():
        return relay.up.get_nowait()
    waits = [asyncio.create_task(relay.up.get()), asyncio.create_task(relay.gone.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if waits[0].done():
            output: step_pb2.StepOutput = waits[0].result()  # type: ignore[assignment]
            return output
        return None
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _read(request: AsyncIterator[pb.ExecRequest], relay: Relay) -> None:
    """Hand on what a user sends; what is wrong is left out."""
    async for message in request:
        if message.WhichOneof("part") != "input":
            continue
        piece = message.input
        if piece.HasField("size") and size_fault(piece.size):
            continue
        await relay.down.put(piece)


async def _first(request: AsyncIterator[pb.ExecRequest]) -> step_pb2.StepStart:
    try:
        message = await asyncio.wait_for(anext(aiter(request)), FIRST_S)
    except (StopAsyncIteration, TimeoutError):
        message = pb.ExecRequest()
    if message.WhichOneof("part") != "start":
        words = "the first message must say what to start"
        raise InvalidRequest(FieldFault(field="start", description=words))
    return message.start


def check_start(start: step_pb2.StepStart) -> None:
    """InvalidRequest, with every fault, for what can be started nowhere."""
    which_of(start.job, "job")
    faults = []
    if start.HasField("rank") and start.node:
        faults.append(("node", "name a rank or a node, not both"))
    if start.HasField("rank") and start.rank < 0:
        faults.append(("rank", f"{start.rank}: ranks count from 0"))
    if start.command and not start.command[0]:
        faults.append(("command", "its first word is empty; name a program"))
    if any("\0" in word for word in start.command):
        faults.append(("command", "a word holds a NUL, which no program can be given"))
    for name, value in start.env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            faults.append(("env", f"{shown(name)}: no variable can be called that or hold that"))
        elif name.startswith("CC_"):
            faults.append(("env", f"{shown(name)}: names that begin with CC_ are ours"))
    size = sum(len(text.encode()) for pair in start.env.items() for text in pair)
    size += sum(len(word.encode()) for word in start.command)
    if size > LARGEST_ORDER:
        words = f"{size} bytes with its variables; at most {LARGEST_ORDER} are allowed:"
        words += " send long scripts by standard input, or put them into a file"
        faults.append(("command", words))
    if start.HasField("terminal"):
        if fault := size_fault(start.terminal.size):
            faults.append(("terminal.size", fault))
        if start.detach:
            faults.append(("detach", "a step with a terminal cannot be detached; leave one out"))
        if "\0" in start.terminal.term:
            faults.append(("terminal.term", "holds a NUL"))
    if start.detach and not start.command:
        faults.append(("detach", "a detached step needs a command: a shell would end at once"))
    if faults:
        raise InvalidRequest(*(FieldFault(field=f, description=words) for f, words in faults))


def size_fault(size: step_pb2.WindowSize) -> str:
    """What is wrong with a terminal's size; empty when nothing is."""
    if 1 <= size.rows <= LARGEST_SIDE and 1 <= size.columns <= LARGEST_SIDE:
        return ""
    return (
        f"{size.rows} × {size.columns}: a terminal has 1 to {LARGEST_SIDE} rows and columns;"
        " without one, leave the terminal out"
    )


def _order(start: step_pb2.StepStart, placed: commands.Placed) -> agents_pb.StepOrder:
    return agents_pb.StepOrder(
        step=placed.number,
        lease_id=placed.lease.lease_id,
        token=placed.lease.token,
        rank=placed.rank,
        command=start.command,
        env=start.env,
        terminal=start.terminal if start.HasField("terminal") else None,
        detach=start.detach,
    )
