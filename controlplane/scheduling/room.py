"""What is still free while a plan is being made: earlier placements of the same plan took theirs.

Most gangs fit on one node, and are placed by a look into a sorted list; the others by a look at
whole columns. Both choose the same node where both can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from controlplane.scheduling.ranked import (
    DEVICES_SHIFT,
    FIELD_BITS,
    MASK,
    MEMORY_SHIFT,
    MIXED,
    MOST,
    rank_of,
)
from controlplane.scheduling.stock import Stock

if TYPE_CHECKING:
    from controlplane.model.view import Part
    from controlplane.scheduling.ask import Ask
    from controlplane.scheduling.backfill import Reservation
    from controlplane.scheduling.columns import Bools, Ints, Nodes

LOOKS = 100
"""After so many looks into the sorted list without luck the columns are cheaper."""
NOBODY = 1 << 200


class Amounts:
    """What is free of each node, as columns."""

    __slots__ = ("cores", "gpus", "memory", "millicores")

    def __init__(self, millicores: Ints, memory: Ints, cores: Ints, gpus: Ints) -> None:
        """One row for each node; `gpus` has one column for each kind of device."""
        self.millicores = millicores
        self.memory = memory
        self.cores = cores
        self.gpus = gpus

    def copy(self) -> Amounts:
        """The same, to be changed."""
        return Amounts(
            self.millicores.copy(), self.memory.copy(), self.cores.copy(), self.gpus.copy()
        )

    def devices(self, ask: Ask) -> Ints:
        """Free devices that will do, of each node."""
        if not ask.kinds:
            return np.zeros(len(self.gpus), np.int64)
        total: Ints = self.gpus[:, ask.kinds[0]]
        for kind in ask.kinds[1:]:
            total = total + self.gpus[:, kind]
        return total

    def fits(self, ask: Ask) -> Ints:
        """How many workers of a gang would fit on each node."""
        if ask.gpus:
            # Where most nodes lack devices, only the others are looked at further.
            able = np.flatnonzero(self.devices(ask) >= ask.gpus)
            if len(able) < len(self.millicores) // 2:
                most = np.zeros(len(self.millicores), np.int64)
                some = Amounts(
                    self.millicores[able], self.memory[able], self.cores[able], self.gpus[able]
                )
                most[able] = some._fits(ask)
                return most
        return self._fits(ask)

    def _fits(self, ask: Ask) -> Ints:
        most: Ints = self.millicores // ask.millicores
        if ask.cores:
            np.minimum(most, self.cores // ask.cores, out=most)
        if ask.memory:
            np.minimum(most, self.memory // ask.memory, out=most)
        if ask.gpus:
            np.minimum(most, self.devices(ask) // ask.gpus, out=most)
        return np.maximum(most, 0, out=most)

    def claim(self, ask: Ask, workers: Ints) -> Amounts:
        """What so many workers need of each node. Of several kinds of devices that would do, those
        that are there."""
        if ask.shape.exclusive:
            claim = self.copy()
            claim.gpus[:] = 0
        else:
            claim = Amounts(
                ask.millicores * workers,
                ask.memory * workers,
                ask.cores * workers,
                np.zeros_like(self.gpus),
            )
        wanted = ask.gpus * workers
        for kind in ask.kinds:
            claim.gpus[:, kind] = np.minimum(self.gpus[:, kind], wanted)
            wanted = wanted - claim.gpus[:, kind]
        return claim

    def take(self, claim: Amounts) -> None:
        """Take that off."""
        self.millicores -= claim.millicores
        self.memory -= claim.memory
        self.cores -= claim.cores
        self.gpus -= claim.gpus

    def rank(self) -> Ints:
        """The less is free, the lower: devices first, then cores, then memory."""
        total = self.gpus.sum(axis=1)
        memory = np.minimum(self.memory >> MEMORY_SHIFT, MOST)
        rank: Ints = (total << DEVICES_SHIFT) | (self.millicores << FIELD_BITS) | memory
        return rank


class Room:
    """What is free now, and what is promised to whom from when on."""

    def __init__(self, nodes: Nodes) -> None:
        """`nodes`: as the decision found them."""
        self.nodes = nodes
        self.free = Amounts(nodes.millicores, nodes.memory, nodes.cores, nodes.gpus).copy()
        self.reservations: list[Reservation] = []
        self.opens = nodes.takes
        self._whole = self.whole(self.free)
        self._free_ports = nodes.ports.copy()
        self._ports: list[int] = nodes.ports.tolist()
        self._rank = nodes.rank.copy()
        rows = np.flatnonzero(nodes.takes)
        self._ranked = nodes.ranked.copy()
        self._millicores: list[int] = self.free.millicores.tolist()
        self._memory: list[int] = self.free.memory.tolist()
        self._cores: list[int] = self.free.cores.tolist()
        self._gpus: list[list[int]] = self.free.gpus.tolist()
        self._total: list[int] = self.free.gpus.sum(axis=1).tolist()
        self._by_kind: list[int] = self.free.gpus[rows].sum(axis=0).tolist()
        self._stocks: dict[int, Stock] = {}
        self._reserved: dict[int, list[tuple[Reservation, int]]] = {}

    # --- looking ---------------------------------------------------------------------------------

    def hopeless(self, ask: Ask) -> bool:
        """Whether the whole cluster has not enough free devices: known at once."""
        return sum(self._by_kind[k] for k in ask.kinds) < ask.workers * ask.gpus

    def one(self, ask: Ask, workers: int, end_us: int) -> int:
        """The node that so many workers fit best, until `end_us`; -1 when there is none."""
        gpus = ask.gpus * workers
        millicores, memory, cores = (
            ask.millicores * workers,
            ask.memory * workers,
            ask.cores * workers,
        )
        some, ports = not ask.everywhere, ask.shape.ports
        best = NOBODY
        for partly, keys, start in self._ranked.lists(ask.kinds, gpus):
            for key in keys[start : start + LOOKS]:
                if key >= best:
                    break
                row = key & MASK
                if (
                    self._millicores[row] < millicores
                    or self._memory[row] < memory
                    or self._cores[row] < cores
                    or self._ports[row] < ports
                ):
                    continue
                if partly and sum([self._gpus[row][k] for k in ask.kinds]) < gpus:
                    continue
                if some and not ask.may[row]:
                    continue
                if row in self._reserved and not self._spared(row, ask, workers, end_us):
                    continue
                best = key
                break
            else:
                if start + LOOKS < len(keys):
                    return self._one_of_all(ask, workers, end_us)
        return best & MASK if best != NOBODY else -1

    def _one_of_all(self, ask: Ask, workers: int, end_us: int) -> int:
        free = self.free
        will = self.opens & (free.millicores >= ask.millicores * workers)
        if ask.shape.ports:
            will &= self._free_ports >= ask.shape.ports
        if not ask.everywhere:
            will &= ask.may
        if ask.memory:
            will &= free.memory >= ask.memory * workers
        if ask.cores:
            will &= free.cores >= ask.cores * workers
        if ask.gpus:
            will &= free.devices(ask) >= ask.gpus * workers
        for reservation in self.reservations:
            if reservation.start_us < end_us and reservation not in ask.exempt:
                will[reservation.rows] &= reservation.fits(ask) >= workers
        rank = np.where(will, self._rank, np.iinfo(np.int64).max)
        best = int(rank.argmin()) if len(rank) else -1
        return best if best >= 0 and will[best] else -1

    def _spared(self, row: int, ask: Ask, workers: int, end_us: int) -> bool:
        return all(
            reservation.start_us >= end_us
            or reservation in ask.exempt
            or reservation.spares(at, ask, workers)
            for reservation, at in self._reserved[row]
        )

    def fits(self, ask: Ask, end_us: int) -> Ints:
        """How many workers would fit on each node until `end_us`."""
        most = self.free.fits(ask)
        most[~self.opens] = 0
        if not ask.everywhere:
            most[~ask.may] = 0
        if ask.shape.exclusive:
            most[~self._whole] = 0
        for reservation in self.reservations:
            if reservation.start_us < end_us and reservation not in ask.exempt:
                rows = reservation.rows
                most[rows] = np.minimum(most[rows], reservation.fits(ask))
        return most

    def whole(self, free: Amounts) -> Bools:
        """The nodes of which nothing is taken."""
        nodes = self.nodes
        whole: Bools = (free.millicores == nodes.has_millicores) & (free.memory == nodes.has_memory)
        return whole

    def ports(self, row: int) -> int:
        """Free ports of a node that are known."""
        return self._ports[row]

    @property
    def rank(self) -> Ints:
        """The less is free of a node, the lower."""
        return self._rank

    # --- taking ----------------------------------------------------------------------------------

    def take(self, row: int, ask: Ask, workers: int, ports: int, end_us: int) -> Part:
        """Claim room for so many workers until `end_us`; the caller has seen that they fit."""
        stock = self._stocks.get(row)
        if stock is None:
            stock = self._stocks[row] = Stock(
                self.nodes.views[row], mixed=self.nodes.group[row] == MIXED
            )
        part, devices = stock.take(ask, workers, ports)
        self._millicores[row] -= part.cpu_millicores
        self._memory[row] -= part.memory_bytes
        self._cores[row] -= len(part.cpu_ids)
        free, have, kinds = self.free, self._gpus[row], self.nodes.kinds
        free.millicores[row] = self._millicores[row]
        free.memory[row] = self._memory[row]
        free.cores[row] = self._cores[row]
        if part.ports:
            self._ports[row] -= len(part.ports)
            self._free_ports[row] = self._ports[row]
        if devices:
            group = int(self.nodes.group[row])
            self._total[row] -= len(devices)
            if group >= 0:
                have[group] -= len(devices)
                self._by_kind[group] -= len(devices)
            else:
                for device in devices:
                    kind = kinds[device.kind, device.model, device.memory_bytes]
                    have[kind] -= 1
                    self._by_kind[kind] -= 1
            free.gpus[row] = have
        for reservation, at in self._reserved.get(row, ()):
            if reservation.start_us < end_us:
                reservation.spend(at, part, devices, kinds)
        self._whole[row] = False
        before = int(self._rank[row])
        after = rank_of(self._total[row], self._millicores[row], self._memory[row])
        self._rank[row] = after
        self._ranked.move(int(self.nodes.group[row]), row, before, after)
        return part

    def reserve(self, reservation: Reservation) -> None:
        """Keep what is promised from what would run into it."""
        self.reservations.append(reservation)
        for at, row in enumerate(reservation.rows.tolist()):
            self._reserved.setdefault(row, []).append((reservation, at))
