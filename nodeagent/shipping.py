"""Hands output of workers over to the centre's log store; offsets make a repeat harmless.

What waits is looked for and read in a thread, so that a flood of output keeps the agent from
nothing else; and each stream has its share of a call, so that it keeps no other output waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus, WorkerState
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1 import job_service_pb2 as jobs_pb
from controlplane.wire.basics import timestamp
from nodeagent import streams
from nodeagent.found import Found
from nodeagent.supervision.steps import FOLDER as STEPS

if TYPE_CHECKING:
    from pathlib import Path

    from nodeagent.leases import Held, Leases

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
    """A stream with output that was not handed over."""

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

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self.found.end - self.found.at


async def ship_once(leases: Leases, node_uuid: str, ship: Ship, now_us: int) -> bool:
    """Hand over what there is, at most one call's worth; whether there may be more at once.

    Drops leases that are forgotten and have nothing left to hand over.
    """
    sources = [(held, leases.data(held.key)) for held in leases.held.values()]
    if not sources:
        return False
    # Asked before the look: what is printed after it is not lost.
    over = [held for held, _ in sources if held.forgotten and held.status.phase is LeasePhase.ENDED]
    request = pb.ShipLogsRequest(node_uuid=node_uuid)
    packed = await asyncio.to_thread(_pack, sources, now_us, request)
    busy = {id(each.held) for each in packed}
    for held in over:
        if id(held) not in busy:
            _drop(leases, held, now_us)
    if not packed:
        return False
    answer = await ship(request)
    for each, end in zip(packed, answer.next_offsets, strict=True):
        # -1: the lease is unknown there, and nobody will ask for its output.
        each.found.hand_over(end if end >= 0 else UNWANTED)
    return any(each.size > 0 for each in packed)


def _look(sources: Sequence[tuple[Held, Path]], now_us: int) -> list[_Waiting]:
    """The streams with output that was not handed over."""
    waiting = []
    for held, folder in sources:
        places = [] if _was_silent(held.status) else [(0, folder)]
        for step, source in places + _detached_steps(folder):
            for (rank, stream), starts in streams.segments(source).items():
                place = (rank, stream, step)
                found = held.found.setdefault(place, Found())
                found.look(streams.end(source, rank, stream, starts), now_us)
                each = _Waiting(held=held, folder=source, place=place, starts=starts, found=found)
                if each.size > 0:
                    waiting.append(each)
    return waiting


def _pack(
    sources: Sequence[tuple[Held, Path]], now_us: int, request: pb.ShipLogsRequest
) -> list[_Waiting]:
    """Fill a call, and tell whose each chunk is. What has little is taken whole; the others share
    what room is left."""
    waiting = sorted(_look(sources, now_us), key=lambda each: each.size)
    packed = []
    room = CALL_BYTES
    for number, each in enumerate(waiting):
        for chunk in _chunks(each, room // (len(waiting) - number)):
            request.chunks.append(chunk)
            packed.append(each)
            room -= len(chunk.data)
    return packed


def _chunks(each: _Waiting, share: int) -> Iterator[pb.LogChunk]:
    """What waits in a stream, `share` bytes at most, in chunks of one moment."""
    rank, stream, step = each.place
    at, end = each.found.at, each.found.end
    while at < end and share > 0:
        limit = min(CHUNK_BYTES, share, end - at)
        at, data = streams.read(each.folder, rank, stream, at, limit, each.starts)
        if not data or at >= end:
            return
        time_us, following = each.found.moment(at)
        data = data[: following - at]
        yield pb.LogChunk(
            lease_id=each.held.key.lease_id,
            token=each.held.key.token,
            rank=rank,
            stream=_WIRE[stream],
            offset=at,
            data=data,
            read_time=timestamp(time_us),
            step=step,
        )
        share -= len(data)
        at += len(data)


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
