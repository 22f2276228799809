"""Hands output of workers over to the centre's log store; offsets make a repeat harmless. It stays
here until the store has settled it, which is once, when the lease is over.

What waits is looked for and read in a thread, so that a flood of output keeps the agent from
nothing else; and each stream has its share of a call, so that it keeps no other output waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus, WorkerState
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1 import job_service_pb2 as jobs_pb
from controlplane.wire.basics import timestamp
from nodeagent import streams
from nodeagent.found import Found
from nodeagent.supervision.steps import FOLDER as STEPS

if TYPE_CHECKING:
    from pathlib import Path

    from nodeagent.held import Held
    from nodeagent.leases import Leases

CHUNK_BYTES = 256 << 10
CALL_BYTES = 2 << 20
UNWANTED = 1 << 62
"""A stream that the control plane does not want was handed over up to here."""
_WIRE = {"out": jobs_pb.LOG_STREAM_STDOUT, "err": jobs_pb.LOG_STREAM_STDERR}

Place = tuple[int, streams.Stream, int]
"""A stream of a lease: its worker's rank, which, and the detached step that wrote it, or 0."""
Ship = Callable[[pb.ShipLogsRequest], Awaitable[pb.ShipLogsResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """A stream with output that was not handed over, or is not settled."""

    held: Held
    """Its lease."""
    folder: Path
    """Where its segments lie."""
    place: Place
    """Which one it is."""
    starts: Sequence[int]
    """Its segments."""
    found: Found
    """How far it goes."""
    over: bool
    """Whether its lease is, and forgotten."""

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self.found.end - self.found.at

    @property
    def to_settle(self) -> bool:
        """Whether nothing else waits, and the store must say that it has it for good."""
        return self.over and self.size <= 0 and self.found.settled < self.found.end


async def ship_once(leases: Leases, node_uuid: str, ship: Ship, now_us: int) -> bool:
    """Hand over what there is, at most one call's worth; whether there may be more at once.

    Drops leases that are forgotten and have nothing left to hand over.
    """
    # Asked before the look whether it is over: what is printed after it is not lost.
    sources = [
        (held, leases.data(held.key), held.forgotten and held.status.phase is LeasePhase.ENDED)
        for held in leases.held.values()
    ]
    if not sources:
        return False
    request = pb.ShipLogsRequest(node_uuid=node_uuid)
    packed = await asyncio.to_thread(_pack, sources, now_us, request)
    busy = {id(each.held) for each in packed}
    for held, _, over in sources:
        if over and id(held) not in busy:
            _drop(leases, held, now_us)
    if not packed:
        return False
    answer = await ship(request)
    for each, chunk, end in zip(packed, request.chunks, answer.next_offsets, strict=True):
        # -1: the lease is unknown there, and nobody will ask for its output.
        each.found.hand_over(end if end >= 0 else UNWANTED)
        if chunk.settle:
            each.found.settled = each.found.at
    return any(each.size > 0 for each in packed)


def _look(sources: Sequence[tuple[Held, Path, bool]], now_us: int) -> list[_Waiting]:
    """The streams with output that was not handed over, or is not settled."""
    waiting = []
    for held, folder, over in sources:
        places = [] if _was_silent(held.status) else [(0, folder)]
        for step, source in places + _detached_steps(folder):
            for (rank, stream), starts in streams.segments(source).items():
                place = (rank, stream, step)
                found = held.found.setdefault(place, Found())
                found.look(streams.end(source, rank, stream, starts), now_us)
                each = _Waiting(
                    held=held, folder=source, place=place, starts=starts, found=found, over=over
                )
                if each.size > 0 or each.to_settle:
                    waiting.append(each)
    return waiting


def _pack(
    sources: Sequence[tuple[Held, Path, bool]], now_us: int, request: pb.ShipLogsRequest
) -> list[_Waiting]:
    """Fill a call, and tell whose each chunk is. What has little is taken whole; the others share
    what room is left."""
    waiting = sorted(_look(sources, now_us), key=lambda each: each.size)
    packed = []
    room = CALL_BYTES
    for number, each in enumerate(waiting):
        share = room // (len(waiting) - number)
        last = [_chunk(each, each.found.end, settle=True)] if each.to_settle else []
        for chunk in last or _chunks(each, share):
            request.chunks.append(chunk)
            packed.append(each)
            room -= len(chunk.data)
    return packed


def _chunks(each: _Waiting, share: int) -> Iterator[pb.LogChunk]:
    """What waits in a stream, `share` bytes at most, in chunks of one moment."""
    rank, stream, _ = each.place
    at, end = each.found.at, each.found.end
    while at < end and share > 0:
        limit = min(CHUNK_BYTES, share, end - at)
        at, data = streams.read(each.folder, rank, stream, at, limit, each.starts)
        if not data or at >= end:
            return
        time_us, following = each.found.moment(at)
        data = data[: following - at]
        yield _chunk(each, at, data=data, read_time=timestamp(time_us))
        share -= len(data)
        at += len(data)


def _chunk(each: _Waiting, offset: int, **fields: Any) -> pb.LogChunk:
    rank, stream, step = each.place
    return pb.LogChunk(
        lease_id=each.held.key.lease_id,
        token=each.held.key.token,
        rank=rank,
        stream=_WIRE[stream],
        offset=offset,
        step=step,
        **fields,
    )


def _drop(leases: Leases, held: Held, now_us: int) -> None:
    """Drop a lease once what its workers reported of their progress has been handed over, too."""
    with contextlib.suppress(OSError):  # no room to write it down: another time
        done = held.reports is None or held.reports.is_done(now_us)
        if done and leases.held.get(held.key.lease_id) is held:
            leases.drop(held.key.lease_id)


def _detached_steps(folder: Path) -> list[tuple[int, Path]]:
    """The folders of those that have printed anything, by number."""
    try:
        names = os.listdir(folder / STEPS)
    except FileNotFoundError:
        return []
    return sorted((int(name), folder / STEPS / name) for name in names if name.isdecimal())


def _was_silent(status: LeaseStatus) -> bool:
    """Whether all of it ended in order without a byte of output: there is nothing to look for."""
    return (
        status.phase is LeasePhase.ENDED
        and status.end is not LeaseEnd.SUPERVISOR_LOST
        and all(w.state is WorkerState.ENDED for w in status.workers)
        and not any(w.stdout_bytes or w.stderr_bytes for w in status.workers)
    )
