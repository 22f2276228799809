"""Reads a job's output out of the log store, and follows it until everything that was written has
been sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from controlplane.model.errors import NotFound
from controlplane.service.hub import wait
from controlplane.service.logstore import StreamId
from controlplane.v1 import job_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from controlplane.model.job import Attempt
    from controlplane.registry.store import JobRecord
    from controlplane.service.context import House
    from controlplane.service.logstore import LogStore, Stream

PERIOD_S = 1.0
"""Looks again at least so often, for what no wake-up tells of."""
PATIENCE = 5
"""So many periods without news are waited for the last output of an attempt that has ended, and one
by who does not follow; its node may be gone."""

_STREAMS: dict[int, tuple[Stream, ...]] = {
    pb.LOG_STREAM_UNSPECIFIED: ("out", "err"),
    pb.LOG_STREAM_STDOUT: ("out",),
    pb.LOG_STREAM_STDERR: ("err",),
}
_WIRE = {"out": pb.LOG_STREAM_STDOUT, "err": pb.LOG_STREAM_STDERR}


async def read_logs(
    house: House, job_id: int, request: pb.ReadLogsRequest
) -> AsyncIterator[pb.ReadLogsResponse]:
    """The output that a request asks for. NotFound for a job or an attempt that there is not."""
    given = {
        (p.rank, each): p.offset for p in request.positions for each in _STREAMS.get(p.stream, ())
    }
    number = request.attempt
    with house.hub.listening(("job", job_id), ("log", job_id)) as changed:
        while True:
            record = await asyncio.to_thread(house.registry.job, job_id)
            attempt = _attempt(record, number)
            if attempt is None:
                if number and not request.follow:
                    raise NotFound(f"jobs/{job_id} has no attempt {number}")
                if not request.follow or record.job.state.final:
                    return
                await wait(changed, PERIOD_S)
                continue
            async for piece in _read_attempt(house, attempt, request, given, changed):
                yield piece
            if not request.follow or request.attempt:
                return
            record = await asyncio.to_thread(house.registry.job, job_id)
            if record.job.state.final and record.tasks[0].attempts == attempt.number:
                return
            number, given = attempt.number + 1, {}


def _attempt(record: JobRecord, number: int) -> Attempt | None:
    if not number:
        return record.attempts[-1] if record.attempts else None
    return next((a for a in record.attempts if a.number == number), None)


async def _read_attempt(
    house: House,
    attempt: Attempt,
    request: pb.ReadLogsRequest,
    given: dict[tuple[int, Stream], int],
    changed: asyncio.Event,
) -> AsyncIterator[pb.ReadLogsResponse]:
    logs = house.logs
    at: dict[StreamId, int] = {}
    quiet = 0
    while True:
        sent = False
        for which in list(_wanted(logs, attempt, request)):
            if which not in at:
                at[which] = _begin(logs, which, request, given)
            async for piece in _pieces(logs, which, at):
                sent = True
                yield piece
        record = await asyncio.to_thread(house.registry.job, attempt.job_id)
        fresh = _attempt(record, attempt.number)
        if request.step and not house.relays.lives(request.step):
            quiet = 0 if sent else quiet + 1
            if quiet > 1 or not request.follow:
                return
        elif fresh is not None and fresh.state.final:
            if not sent and _complete(logs, fresh, request):
                return
            quiet = 0 if sent else quiet + 1
            if quiet > (PATIENCE if request.follow else 1):
                return
        elif not request.follow:
            return
        if not sent:
            await wait(changed, PERIOD_S)


def _wanted(logs: LogStore, attempt: Attempt, request: pb.ReadLogsRequest) -> Iterator[StreamId]:
    for which in logs.streams(
        attempt.job_id, attempt.task_index, attempt.number, max(request.step, 0)
    ):
        if request.ranks and which.rank not in request.ranks:
            continue
        if which.stream in _STREAMS.get(request.stream, ()):
            yield which


def _begin(
    logs: LogStore,
    which: StreamId,
    request: pb.ReadLogsRequest,
    given: dict[tuple[int, Stream], int],
) -> int:
    start = given.get((which.rank, which.stream), 0)
    if request.tail_bytes > 0:
        start = max(start, logs.end(which) - request.tail_bytes)
    return start


async def _pieces(
    logs: LogStore, which: StreamId, at: dict[StreamId, int]
) -> AsyncIterator[pb.ReadLogsResponse]:
    while True:
        offset, data = await asyncio.to_thread(logs.read, which, at[which])
        if not data:
            return
        at[which] = offset + len(data)
        yield pb.ReadLogsResponse(
            attempt=which.attempt,
            rank=which.rank,
            stream=_WIRE[which.stream],
            offset=offset,
            data=data,
        )


def _complete(logs: LogStore, attempt: Attempt, request: pb.ReadLogsRequest) -> bool:
    """Whether everything that the workers wrote has come from their nodes."""
    for worker in attempt.workers:
        if request.ranks and worker.rank not in request.ranks:
            continue
        for stream in _STREAMS.get(request.stream, ()):
            written = worker.stdout_bytes if stream == "out" else worker.stderr_bytes
            if not written:
                continue
            which = StreamId(
                job_id=attempt.job_id,
                task_index=attempt.task_index,
                attempt=attempt.number,
                rank=worker.rank,
                stream=stream,
            )
            if logs.end(which) < written:
                return False
    return True
