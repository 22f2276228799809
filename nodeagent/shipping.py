"""Hands output of workers over to the centre's log store; offsets make a repeat harmless."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus, WorkerState
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1 import job_service_pb2 as jobs_pb
from nodeagent import streams
from nodeagent.supervision.steps import FOLDER as STEPS

if TYPE_CHECKING:
    from pathlib import Path

    from nodeagent.leases import Held, Leases

CHUNK_BYTES = 256 << 10
CALL_BYTES = 2 << 20
_WIRE = {"out": jobs_pb.LOG_STREAM_STDOUT, "err": jobs_pb.LOG_STREAM_STDERR}

Place = tuple[int, streams.Stream, int]
"""A stream of a lease: its worker's rank, which, and the detached step that wrote it, or 0."""
Ship = Callable[[pb.ShipLogsRequest], Awaitable[pb.ShipLogsResponse]]


async def ship_once(leases: Leases, node_uuid: str, ship: Ship, now_us: int = 0) -> bool:
    """Hand over what there is, at most one call's worth; whether there may be more at once.

    Drops leases that are forgotten and have nothing left to hand over.
    """
    request = pb.ShipLogsRequest(node_uuid=node_uuid)
    places: list[tuple[Held, Place]] = []
    room = CALL_BYTES
    for held in list(leases.held.values()):
        pending = False
        for place, chunk in _new_output(leases.data(held.key), held, room):
            places.append((held, place))
            request.chunks.append(chunk)
            room -= len(chunk.data)
            pending = True
        if held.forgotten and not pending and room > 0 and held.status.phase is LeasePhase.ENDED:
            _drop(leases, held, now_us)
        if room <= 0:
            break
    if not request.chunks:
        return False
    answer = await ship(request)
    for (held, place), end in zip(places, answer.next_offsets, strict=True):
        # -1: the lease is unknown there, and nobody will ask for its output.
        held.offsets[place] = end if end >= 0 else 1 << 62
    return room <= 0


def _drop(leases: Leases, held: Held, now_us: int) -> None:
    """Drop a lease once what its workers reported of their progress has been handed over, too."""
    with contextlib.suppress(OSError):  # no room to write it down: another time
        if held.reports is None or held.reports.is_done(now_us):
            leases.drop(held.key.lease_id)


def _new_output(folder: Path, held: Held, room: int) -> Iterator[tuple[Place, pb.LogChunk]]:
    """What a lease's workers have written and was not handed over, `room` bytes at most."""
    sources = [] if _was_silent(held.status) else [(0, folder)]
    sources += _detached_steps(folder)
    for step, source in sources:
        for place, chunk in _new_in(source, step, held, room):
            room -= len(chunk.data)
            yield place, chunk


def _detached_steps(folder: Path) -> list[tuple[int, Path]]:
    """The folders of those that have printed anything, by number."""
    try:
        names = os.listdir(folder / STEPS)
    except FileNotFoundError:
        return []
    return sorted((int(name), folder / STEPS / name) for name in names if name.isdecimal())


def _new_in(folder: Path, step: int, held: Held, room: int) -> Iterator[tuple[Place, pb.LogChunk]]:
    for (rank, stream), (_, end) in streams.list_streams(folder).items():
        at = held.offsets.get((rank, stream, step), 0)
        while at < end and room > 0:
            begin, data = streams.read(folder, rank, stream, at, min(CHUNK_BYTES, room))
            if not data:
                break
            chunk = pb.LogChunk(
                lease_id=held.key.lease_id,
                token=held.key.token,
                rank=rank,
                stream=_WIRE[stream],
                offset=begin,
                data=data,
                step=step,
            )
            yield (rank, stream, step), chunk
            room -= len(data)
            at = begin + len(data)


def _was_silent(status: LeaseStatus) -> bool:
    """Whether all of it ended in order without a byte of output: there is nothing to look for."""
    return (
        status.phase is LeasePhase.ENDED
        and status.end is not LeaseEnd.SUPERVISOR_LOST
        and all(w.state is WorkerState.ENDED for w in status.workers)
        and not any(w.stdout_bytes or w.stderr_bytes for w in status.workers)
    )
