"""When whoever has no place now will have one, and what must be left for it until then.

EASY backfill: D. Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995; its rule of nodes to spare:
A. Mu'alem and D. Feitelson, "Utilization, predictability, workloads, and user runtime estimates in
scheduling the IBM SP2 with backfilling", IEEE TPDS 12(6), 2001.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from controlplane.scheduling.columns import FOREVER_US, MILLI, Ints
from controlplane.scheduling.placement import choose
from controlplane.scheduling.room import Amounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from controlplane.model.node import Device
    from controlplane.model.view import Part, Running, Window
    from controlplane.scheduling.ask import Ask
    from controlplane.scheduling.columns import Nodes
    from controlplane.scheduling.placement import Fabric
    from controlplane.scheduling.room import Room


class Reservation:
    """What a gang will need of some nodes from a time on, and what is left of them beside it."""

    __slots__ = ("claim", "end_us", "job_id", "left", "rows", "start_us", "task_index")

    def __init__(
        self,
        *,
        who: tuple[int, int],
        start_us: int,
        end_us: int,
        rows: Ints,
        claim: Amounts,
        left: Amounts,
    ) -> None:
        """`who`: job and task. `end_us`: when it will have ended. `rows`: its nodes. `claim`: what
        it needs of each; `left`: what will be free of each at `start_us` beside it."""
        self.job_id, self.task_index = who
        self.start_us = start_us
        self.end_us = end_us
        self.rows = rows
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


class Leases:
    """What runs, one row for each part of it: on which node, until when, and what it will give
    back."""

    def __init__(self, nodes: Nodes) -> None:
        """`nodes`: on which it runs."""
        self._nodes = nodes
        self._ends: list[int] = []
        self._rows: list[int] = []
        self._amounts: list[tuple[int, int, int]] = []
        self._gpus: list[tuple[int, int, int]] = []
        self._kind_of: dict[str, int] = {}
        self._seen: set[int] = set()
        self._sorted: tuple[Ints, Ints, Ints, Ints] | None = None

    def add(self, row: int, part: Part, end_us: int) -> None:
        """A part that gives back what it holds at `end_us`."""
        nodes = self._nodes
        if row not in self._seen:
            self._seen.add(row)
            kinds = nodes.kinds
            for d in nodes.views[row].devices:
                self._kind_of[d.device_id] = kinds[d.kind, d.model, d.memory_bytes]
        self._sorted = None
        i = len(self._ends)
        self._ends.append(end_us)
        self._rows.append(row)
        self._amounts.append((part.cpu_millicores, part.memory_bytes, len(part.cpu_ids)))
        counts: dict[int, int] = {}
        for device in part.device_ids:
            kind = self._kind_of.get(device)
            if kind is not None:
                counts[kind] = counts.get(kind, 0) + 1
        self._gpus.extend((i, kind, number) for kind, number in counts.items())

    def add_running(self, running: Iterable[Running], now_us: int) -> None:
        """All that runs now. What is over its time already gives nothing back that could be
        counted on."""
        row_of = self._nodes.row
        for task in running:
            end_us = task.until_us if task.until_us is not None else task.placed_us + FOREVER_US
            if end_us < now_us and task.stopping:
                continue
            for part in task.parts:
                row = row_of.get(part.node_uuid)
                if row is not None:
                    self.add(row, part, max(end_us, now_us + 1))

    def columns(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Ends, rising, and for each: the node, (millicores, memory, cores), devices by kind."""
        if self._sorted is None:
            ends = np.array(self._ends, np.int64)
            order = np.argsort(ends, kind="stable")
            amounts = np.array(self._amounts, np.int64).reshape(-1, 3)
            gpus = np.zeros((len(ends), len(self._nodes.kinds)), np.int64)
            if self._gpus:
                given = np.array(self._gpus, np.int64)
                gpus[given[:, 0], given[:, 1]] = given[:, 2]
            rows = np.array(self._rows, np.int64)
            self._sorted = (ends[order], rows[order], amounts[order], gpus[order])
        return self._sorted

    def __len__(self) -> int:
        return len(self._ends)

    def at(self, room: Room, count: int) -> Amounts:
        """What will be free once the first `count` of them have ended."""
        return self.on(room.free, count)

    def on(self, before: Amounts, count: int) -> Amounts:
        """What will be free once the first `count` of them have ended, too."""
        _, rows, amounts, gpus = self.columns()
        rows, amounts, gpus = rows[:count], amounts[:count], gpus[:count]
        free = before.copy()
        size = len(free.millicores)
        free.millicores += _sum(rows, amounts[:, 0], size)
        free.memory += _sum(rows, amounts[:, 1], size)
        free.cores += _sum(rows, amounts[:, 2], size)
        for kind in range(gpus.shape[1]):
            free.gpus[:, kind] += _sum(rows, gpus[:, kind], size)
        return free


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
        claim=claim,
        left=left,
    )


def reserve(
    room: Room, leases: Leases, fabric: Fabric, ask: Ask, who: tuple[int, int], limit_us: int
) -> Reservation | None:
    """The earliest time at which a gang has a place, when what runs, and what was promised before,
    ends by its limits; None when even the last end gives it none.

    What is promised to others counts from now until its end, so more is free at each later moment,
    and the earliest is found by halving.
    """
    later = [r.end_us for r in room.reservations if r not in ask.exempt]
    moments = np.unique(np.concatenate((leases.columns()[0], np.array(later, np.int64))))
    low, high = 0, len(moments) - 1
    if high < 0 or (found := _try(room, leases, fabric, ask, int(moments[high]))) is None:
        return None
    while low < high:
        middle = (low + high) // 2
        sooner = _try(room, leases, fabric, ask, int(moments[middle]))
        if sooner is None:
            low = middle + 1
        else:
            high, found = middle, sooner
    free, chosen = found
    rows = np.array([row for row, _ in chosen], np.int64)
    workers = np.array([count for _, count in chosen], np.int64)
    left = Amounts(free.millicores[rows], free.memory[rows], free.cores[rows], free.gpus[rows])
    claim = left.claim(ask, workers)
    left.take(claim)
    start_us = int(moments[high])
    return Reservation(
        who=who,
        start_us=start_us,
        end_us=start_us + limit_us,
        rows=rows,
        claim=claim,
        left=left,
    )


def _try(
    room: Room, leases: Leases, fabric: Fabric, ask: Ask, moment_us: int
) -> tuple[Amounts, list[tuple[int, int]]] | None:
    """The nodes for a gang at a moment, and what is free of all nodes then."""
    free = leases.at(room, int(np.searchsorted(leases.columns()[0], moment_us, "right")))
    for reservation in room.reservations:
        if reservation.end_us > moment_us and reservation not in ask.exempt:
            reservation.claim_from(free)
    fits = free.fits(ask)
    fits[~(room.opens & ask.may)] = 0
    if ask.shape.exclusive:
        fits[~room.whole(free)] = 0
    chosen = choose(ask, fits, free.rank(), fabric)
    return None if chosen is None else (free, chosen)


def _sum(rows: Ints, amounts: Ints, size: int) -> Ints:
    # Sums of doubles are exact up to 2**53: 8 PiB of memory on one node.
    return np.bincount(rows, amounts, size).astype(np.int64)
