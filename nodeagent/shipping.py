"""Hands output of workers over to the centre's log store; offsets make a repeat harmless."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from controlplane.model.lease import LeasePhase
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1 import job_service_pb2 as jobs_pb
from nodeagent import streams

if TYPE_CHECKING:
    from nodeagent.leases import Held, Leases

CHUNK_BYTES = 256 << 10
CALL_BYTES = 2 << 20
_WIRE = {"out": jobs_pb.LOG_STREAM_STDOUT, "err": jobs_pb.LOG_STREAM_STDERR}

Ship = Callable[[pb.ShipLogsRequest], Awaitable[pb.ShipLogsResponse]]


async def ship_once(leases: Leases, node_uuid: str, ship: Ship) -> bool:
    """Hand over what there is, at most one call's worth; whether there may be more at once.

    Drops leases that are forgotten and have nothing left to hand over.
    """
    request = pb.ShipLogsRequest(node_uuid=node_uuid)
    places: list[tuple[Held, tuple[int, streams.Stream]]] = []
    room = CALL_BYTES
    for lease_id, held in list(leases.held.items()):
        pending = False
        if held.folder is not None and room > 0:
            for key, (_, end) in streams.list_streams(held.folder).items():
                rank, stream = key
                at = held.offsets.get(key, 0)
                while at < end and room > 0:
                    begin, data = streams.read(
                        held.folder, rank, stream, at, min(CHUNK_BYTES, room)
                    )
                    if not data:
                        break
                    request.chunks.append(
                        pb.LogChunk(
                            lease_id=lease_id,
                            token=held.status.token,
                            rank=rank,
                            stream=_WIRE[stream],
                            offset=begin,
                            data=data,
                        )
                    )
                    places.append((held, key))
                    room -= len(data)
                    at = begin + len(data)
                    pending = True
        if held.forgotten and not pending and room > 0 and held.status.phase is LeasePhase.ENDED:
            leases.drop(lease_id)
    if not request.chunks:
        return False
    answer = await ship(request)
    for (held, key), end in zip(places, answer.next_offsets, strict=True):
        # -1: the lease is unknown there, and nobody will ask for its output.
        held.offsets[key] = end if end >= 0 else 1 << 62
    return room <= 0
