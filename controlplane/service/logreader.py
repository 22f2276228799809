"""Reads a job's output out of the log store, and follows it until everything that was written has
been sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.model.errors import FieldFault, InvalidRequest, NotFound
from controlplane.service import logsegments
from controlplane.service.asked import of_one_task
from controlplane.service.hub import wait
from controlplane.service.logstore import StreamId
from controlplane.v1 import job_service_pb2 as pb
from controlplane.wire.basics import from_timestamp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from controlplane.model.job import Attempt
    from controlplane.registry.store import JobRecord
    from controlplane.registry.which import Which
    from controlplane.service.context import House
    from controlplane.service.logsegments import Segment, Stream
    from controlplane.service.logstore import LogStore

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Time:
    """Which time's output is wanted; None: no bound. UTC in microseconds."""

    since_us: int | None
    """Printed at or after."""
    until_us: int | None
    """Printed before."""

    @property
    def bound(self) -> bool:
        """Whether a time is asked for."""
        return self.since_us is not None or self.until_us is not None


def _time(request: pb.ReadLogsRequest) -> _Time:
    """The time that a request asks for. InvalidRequest when it can be none."""
    read = {}
    for field in ("since_time", "until_time"):
        try:
            read[field] = from_timestamp(request, field)
        except ValueError as error:
            raise InvalidRequest(FieldFault(field=field, description=str(error))) from None
    time = _Time(since_us=read["since_time"], until_us=read["until_time"])
    if time.until_us is not None and request.follow:
        words = "says where to end, and follow goes on until the job ends; leave one of them out"
        raise InvalidRequest(FieldFault(field="until_time", description=words))
    if time.since_us is not None and time.until_us is not None and time.since_us >= time.until_us:
        since, until = request.since_time.ToJsonString(), request.until_time.ToJsonString()
        words = f"{since} is not before until_time, which is {until}; nothing lies between them"
        raise InvalidRequest(FieldFault(field="since_time", description=words))
    return time


async def read_logs(
    house: House, which: Which, request: pb.ReadLogsRequest
) -> AsyncIterator[pb.ReadLogsResponse]:
    """The output that a request asks for. NotFound for a job or an attempt that there is not."""
    time = _time(request)
    job_id = which.job_id
    given = {
        (p.rank, each): p.offset for p in request.positions for each in _STREAMS.get(p.stream, ())
    }
    one = bool(request.attempt or request.step)
    number = request.attempt or (1 if time.bound and not one else 0)
    with house.hub.listening(("job", job_id), ("log", job_id)) as changed:
        while True:
            record = await asyncio.to_thread(house.registry.job, *which)
            of_one_task(which, record.job)
            attempt = _attempt(record, number)
            if attempt is None:
                over = any(task.state.final for task in record.tasks)
                waits = request.follow and not (record.job.state.final or over)
                if request.attempt and not waits:
                    raise NotFound(f"{which} has no attempt {number}")
                if not waits:
                    return
                await wait(changed, PERIOD_S)
                continue
            _check_kept(house, record)
            async for piece in _read_attempt(house, attempt, request, time, given, changed):
                yield piece
            if one or not (request.follow or time.bound):
                return
            record = await asyncio.to_thread(house.registry.job, *which)
            (task,) = record.tasks
            if task.state.final and task.attempts == attempt.number:
                return
            number, given = attempt.number + 1, {}


def _check_kept(house: House, record: JobRecord) -> None:
    """NotFound when a job's output is kept no longer: it must not look like one that wrote none."""
    gone = house.registry.output_gone(record.job)
    if gone is not None:
        raise gone


def _attempt(record: JobRecord, number: int) -> Attempt | None:
    if not number:
        return record.attempts[-1] if record.attempts else None
    return next((a for a in record.attempts if a.number == number), None)


async def _read_attempt(
    house: House,
    attempt: Attempt,
    request: pb.ReadLogsRequest,
    time: _Time,
    given: Mapping[tuple[int, Stream], int],
    changed: asyncio.Event,
) -> AsyncIterator[pb.ReadLogsResponse]:
    logs = house.logs
    at: dict[StreamId, int] = {}
    quiet = 0
    while True:
        sent = False
        found = await asyncio.to_thread(_wanted, logs, attempt, request)
        for which, segments in found.items():
            if at.get(which, -1) >= segments[-1].end:
                continue
            end = None
            if which not in at or time.until_us is not None:
                bounds = await asyncio.to_thread(_bounds, segments, time, request.tail_bytes)
                if bounds is None:
                    continue  # nothing of that time yet
                begin, end = bounds
                at.setdefault(which, max(given.get((which.rank, which.stream), 0), begin))
            async for piece in _pieces(which, segments, at, end):
                sent = True
                yield piece
        record = await asyncio.to_thread(house.registry.job, attempt.job_id, attempt.task_index)
        _check_kept(house, record)
        fresh = _attempt(record, attempt.number)
        if request.step and not house.relays.lives(request.step):
            quiet = 0 if sent else quiet + 1
            if quiet > 1 or not request.follow:
                return
        elif fresh is not None and fresh.state.final:
            if not sent and _complete(found, fresh, request):
                return
            quiet = 0 if sent else quiet + 1
            if quiet > (PATIENCE if request.follow else 1):
                return
        elif not request.follow:
            return
        if not sent:
            await wait(changed, PERIOD_S)


def _wanted(
    logs: LogStore, attempt: Attempt, request: pb.ReadLogsRequest
) -> dict[StreamId, list[Segment]]:
    found = logs.streams(attempt.job_id, attempt.task_index, attempt.number, max(request.step, 0))
    return {
        which: segments
        for which, segments in found.items()
        if (not request.ranks or which.rank in request.ranks)
        and which.stream in _STREAMS.get(request.stream, ())
    }


def _bounds(
    segments: Sequence[Segment], time: _Time, tail_bytes: int
) -> tuple[int, int | None] | None:
    """Where to begin in a stream, and where to end if anywhere; None: it holds nothing that is
    wanted."""
    begin, end = 0, segments[-1].end
    if time.bound:
        window = logsegments.window(segments, time.since_us, time.until_us)
        if window is None:
            return None
        begin, end = window
    if tail_bytes > 0:
        begin = max(begin, end - tail_bytes)
    return begin, end if time.until_us is not None else None


async def _pieces(
    which: StreamId, segments: Sequence[Segment], at: dict[StreamId, int], end: int | None
) -> AsyncIterator[pb.ReadLogsResponse]:
    while True:
        offset, data = await asyncio.to_thread(logsegments.read, segments, at[which])
        if end is not None:
            data = data[: max(end - offset, 0)]
        if not data:
            return
        at[which] = offset + len(data)
        yield pb.ReadLogsResponse(
            attempt=which.attempt,
            rank=which.rank,
            stream=_WIRE[which.stream],
            offset=offset,
            data=data,
            first_kept=segments[0].start,
        )


def _complete(
    found: Mapping[StreamId, Sequence[Segment]], attempt: Attempt, request: pb.ReadLogsRequest
) -> bool:
    """Whether everything that the workers wrote had come from their nodes when it was looked for;
    what has come since is another look's."""
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
            if which not in found or found[which][-1].end < written:
                return False
    return True
