"""Nodes in order of how little is free of them, by kind of device: the best fit is the first that
has enough, and seldom far from where it is looked for."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.scheduling.columns import Ints

MEMORY_SHIFT = 20
FIELD_BITS = 24
ROW_BITS = 24
DEVICES_SHIFT = 2 * FIELD_BITS
MASK = (1 << ROW_BITS) - 1
MOST = (1 << FIELD_BITS) - 1
BARE = -1
"""The group of nodes without devices."""
MIXED = -2
"""The group of nodes with devices of several kinds."""


def rank_of(devices: int, millicores: int, memory: int) -> int:
    """The less is free, the lower: devices first, then cores, then memory in MiB."""
    memory_mib = min(memory >> MEMORY_SHIFT, MOST)
    return (devices << DEVICES_SHIFT) | (millicores << FIELD_BITS) | memory_mib


class Ranked:
    """Rows of nodes by group, each sorted by (rank, row)."""

    def __init__(self, group: Ints, rank: Ints, rows: Ints) -> None:
        """`group` and `rank` of each of these rows."""
        self._groups: dict[int, list[int]] = {}
        order = np.lexsort((rows, rank, group))
        columns = (group[order].tolist(), rank[order].tolist(), rows[order].tolist())
        for number, its, row in zip(*columns, strict=True):
            self._groups.setdefault(number, []).append((its << ROW_BITS) | row)

    def copy(self) -> Ranked:
        """The same, to be changed."""
        made = Ranked.__new__(Ranked)
        made._groups = {group: list(keys) for group, keys in self._groups.items()}
        return made

    def remove(self, group: int, row: int, rank: int) -> None:
        """A node is no more among them."""
        keys = self._groups[group]
        del keys[bisect_left(keys, (rank << ROW_BITS) | row)]

    def add(self, group: int, row: int, rank: int) -> None:
        """A node is among them now."""
        insort(self._groups.setdefault(group, []), (rank << ROW_BITS) | row)

    def move(self, group: int, row: int, before: int, after: int) -> None:
        """A node's rank has changed."""
        self.remove(group, row, before)
        self.add(group, row, after)

    def lists(self, kinds: tuple[int, ...], devices: int) -> Iterator[tuple[bool, list[int], int]]:
        """Where so many devices of these kinds may be found, or of any kind where none are asked
        for: whether only a part of a node's devices may do, the keys, and at which of them to
        begin."""
        if not devices:
            for keys in self._groups.values():
                yield False, keys, 0
            return
        least = devices << (DEVICES_SHIFT + ROW_BITS)
        for group in (*kinds, MIXED):
            keys = self._groups.get(group, [])
            start = bisect_left(keys, least)
            if start < len(keys):
                yield group == MIXED, keys, start
