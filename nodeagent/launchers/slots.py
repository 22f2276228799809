"""Who is who in a gang: the numbers of each worker and its share of the lease's cores."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from controlplane.model.launch import GangMember, Launch

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The place of one worker in its gang; all numbers count from 0."""

    rank: int
    """Number in the gang."""
    size: int
    """Workers of the gang."""
    local_rank: int
    """Number on its node."""
    local_size: int
    """Workers of the gang on its node."""
    node_rank: int
    """Number of its node in the gang."""
    nodes: int
    """Nodes of the gang."""
    cross_rank: int
    """Number of its node among those that have a worker with this local rank."""
    cross_size: int
    """How many nodes have one."""


def slots(launch: Launch) -> tuple[Slot, ...]:
    """The places of this node's workers, by local rank."""
    here = launch.here
    found = []
    for local_rank in range(here.workers):
        peers = [i for i, member in enumerate(launch.members) if member.workers > local_rank]
        found.append(
            Slot(
                rank=here.first_rank + local_rank,
                size=launch.size,
                local_rank=local_rank,
                local_size=here.workers,
                node_rank=launch.member_index,
                nodes=len(launch.members),
                cross_rank=peers.index(launch.member_index),
                cross_size=len(peers),
            )
        )
    return tuple(found)


def core_slices(
    cpu_ids: Sequence[int], workers: int, cpu_map: Mapping[int, int]
) -> tuple[tuple[int, ...], ...]:
    """Divide a lease's cores among its workers: neighbours together, sizes as even as can be.

    The answer is in the host's own core numbers. With fewer cores than workers all share all of
    them.
    """
    cores = tuple(dict.fromkeys(cpu_map.get(core, core) for core in cpu_ids))
    if len(cores) < workers:
        return (cores,) * workers
    each, more = divmod(len(cores), workers)
    slices, start = [], 0
    for worker in range(workers):
        end = start + each + (worker < more)
        slices.append(cores[start:end])
        start = end
    return tuple(slices)


def labels(members: Sequence[GangMember]) -> tuple[str, ...]:
    """A name for each member that is unique in the gang and safe in a URL and in a list.

    The nodes' display names where those will do; else the member's number stands behind each.
    """
    names = [_UNSAFE.sub("-", member.node_display_name) or "node" for member in members]
    if len(set(names)) == len(names):
        return tuple(names)
    return tuple(f"{name}.{index}" for index, name in enumerate(names))
