"""When whoever has no place now will have one, and what must be left for it until then.

EASY backfill: D. Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995; its rule of nodes to spare:
A. Mu'alem and D. Feitelson, "Utilization, predictability, workloads, and user runtime estimates in
scheduling the IBM SP2 with backfilling", IEEE TPDS 12(6), 2001.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from controlplane.scheduling.columns import MILLI, Ints
from controlplane.scheduling.placement import choose
from controlplane.scheduling.room import Amounts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from controlplane.model.node import Device
    from controlplane.model.view import Part, Reserved, Window
    from controlplane.scheduling.ask import Ask
    from controlplane.scheduling.columns import Nodes
    from controlplane.scheduling.leases import Leases
    from controlplane.scheduling.placement import Chosen, Fabric
    from controlplane.scheduling.room import Room


Found = tuple[Amounts, Ints, "Chosen"]
"""What is free of all nodes at a moment, how many workers fit on each, and the nodes for a gang."""


class Reservation:
    """What a gang will need of some nodes from a time on, and what is left of them beside it."""

    __slots__ = ("claim", "end_us", "job_id", "left", "rows", "start_us", "task_index", "workers")

    def __init__(
        self,
        *,
        who: tuple[int, int],
        start_us: int,
        end_us: int,
        rows: Ints,
        workers: Ints,
        claim: Amounts,
        left: Amounts,
    ) -> None:
        """`who`: job and task. `end_us`: when it will have ended. `rows`: its nodes, with so many
        `workers` on each. `claim`: what it needs of each; `left`: what will be free of each at
        `start_us` beside it."""
        self.job_id, self.task_index = who
        self.start_us = start_us
        self.end_us = end_us
        self.rows = rows
        self.workers = workers
        self.claim = claim
        self.left = left

    def fits(self, ask: Ask) -> Ints:
        """How many workers may stay beyond the start, on each of its nodes."""
        return self.left.fits(ask)

    def spares(self, at: int, ask: Ask, workers: int) -> bool:
        """Whether so many workers may stay beyond the start on one of its nodes."""
        left = self.left
        return bool(
            left.millicores[at] >= ask.millicores * workers
            and left.memory[at] >= ask.memory * workers
            and left.cores[at] >= ask.cores * workers
            and (not ask.gpus or left.gpus[at, list(ask.kinds)].sum() >= ask.gpus * workers)
        )

    def claim_from(self, free: Amounts) -> None:
        """Take off what it needs from what is free of all nodes."""
        rows, claim = self.rows, self.claim
        free.millicores[rows] -= claim.millicores
        free.memory[rows] -= claim.memory
        free.cores[rows] -= claim.cores
        free.gpus[rows] -= claim.gpus

    def spend(
        self,
        at: int,
        part: Part,
        devices: Sequence[Device],
        kinds: Mapping[tuple[str, str, int], int],
    ) -> None:
        """Take off what was placed on one of its nodes and stays beyond the start."""
        left = self.left
        left.millicores[at] -= part.cpu_millicores
        left.memory[at] -= part.memory_bytes
        left.cores[at] -= len(part.cpu_ids)
        for device in devices:
            left.gpus[at, kinds[device.kind, device.model, device.memory_bytes]] -= 1


def closed(window: Window, nodes: Nodes) -> Reservation:
    """A window as what is promised: everything of its nodes, and nothing left."""
    rows = np.array(sorted(nodes.row[uuid] for uuid in window.nodes if uuid in nodes.row), np.int64)
    zero = np.zeros(len(rows), np.int64)
    left = Amounts(
        zero, zero.copy(), zero.copy(), np.zeros((len(rows), nodes.gpus.shape[1]), np.int64)
    )
    claim = Amounts(
        nodes.has_millicores[rows],
        nodes.has_memory[rows],
        nodes.has_millicores[rows] // MILLI,
        nodes.has_gpus[rows],
    )
    return Reservation(
        who=(0, 0),
        start_us=window.begin_us,
        end_us=window.end_us,
        rows=rows,
        workers=zero,
        claim=claim,
        left=left,
    )


def reserve(
    room: Room,
    leases: Leases,
    fabric: Fabric,
    ask: Ask,
    who: tuple[int, int],
    limit_us: int,
    before: Reserved | None = None,
) -> Reservation | None:
    """The earliest time at which a gang has a place, when what runs, and what was promised before,
    ends by its limits; None when even the last end gives it none.

    What is promised to others counts from now until its end, so more is free at each later moment,
    and the earliest is found by halving. `before`: what was reserved for it in the last decision:
    of nodes that are as good it gets the same again, so that an unchanged world is decided the
    same.
    """
    later = [r.end_us for r in room.reservations if r not in ask.exempt]
    moments = np.unique(np.concatenate((leases.rows.ends, np.array(later, np.int64))))

    def at(place: int) -> Found | None:
        return _try(room, leases, fabric, ask, int(moments[place]))

    place, found = _as_before(moments, at, before)
    if found is None:
        low, place = 0, len(moments) - 1
        if place < 0 or (found := at(place)) is None:
            return None
        while low < place:
            middle = (low + place) // 2
            sooner = at(middle)
            if sooner is None:
                low = middle + 1
            else:
                place, found = middle, sooner
    free, fits, chosen = found
    start_us = int(moments[place])
    if before is not None and before.start_us <= start_us:
        chosen = _same(room, fits, before) or chosen
    rows = np.array([row for row, _ in chosen], np.int64)
    workers = np.array([count for _, count in chosen], np.int64)
    left = Amounts(free.millicores[rows], free.memory[rows], free.cores[rows], free.gpus[rows])
    claim = left.claim(ask, workers)
    left.take(claim)
    return Reservation(
        who=who,
        start_us=start_us,
        end_us=start_us + limit_us,
        rows=rows,
        workers=workers,
        claim=claim,
        left=left,
    )


def _as_before(
    moments: Ints, at: Callable[[int], Found | None], before: Reserved | None
) -> tuple[int, Found | None]:
    """The moment of the last decision, where it is still the earliest: mostly it is, and two looks
    show that."""
    if before is None:
        return 0, None
    place = int(np.searchsorted(moments, before.start_us))
    if place == len(moments) or moments[place] != before.start_us:
        return 0, None
    found = at(place)
    if found is None or (place and at(place - 1) is not None):
        return 0, None
    return place, found


def _same(room: Room, fits: Ints, before: Reserved) -> Chosen | None:
    """The nodes of the last decision, where they would still do."""
    nodes = room.nodes.row
    if any(uuid not in nodes or fits[nodes[uuid]] < count for uuid, count in before.nodes):
        return None
    return [(nodes[uuid], count) for uuid, count in before.nodes]


def _try(room: Room, leases: Leases, fabric: Fabric, ask: Ask, moment_us: int) -> Found | None:
    """The nodes for a gang at a moment, with what is free of all nodes then."""
    count = int(np.searchsorted(leases.rows.ends, moment_us, "right"))
    free = leases.on(room.free, count)
    for reservation in room.reservations:
        if reservation.end_us > moment_us and reservation not in ask.exempt:
            reservation.claim_from(free)
    fits = free.fits(ask)
    fits[~(room.opens & ask.may)] = 0
    if ask.shape.exclusive:
        fits[~room.whole(free)] = 0
    chosen = choose(ask, fits, free.rank(), fabric)
    return None if chosen is None else (free, fits, chosen)
