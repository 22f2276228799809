"""First fit by the order of nodes, in counts of GPUs alone: the placement that simulators of the
literature have.

A gang that one node can hold goes on the first that has room for all of it. A larger one takes
whole idle nodes, and what remains of it goes on one more.
"""

from __future__ import annotations

from collections.abc import Sequence

Spot = tuple[tuple[int, int], ...]
"""Where a gang is: (number of the node, GPUs there)."""


class Racks:
    """Free GPUs of each node while decisions are made. Changed by `take` and `give` alone."""

    __slots__ = ("_first", "free", "left", "sizes", "widest")

    def __init__(self, sizes: Sequence[int]) -> None:
        """`sizes`: GPUs of each node, in order."""
        self.sizes = tuple(sizes)
        self.widest = max(self.sizes, default=0)
        self.clear()

    def clear(self) -> None:
        """Have all of it free."""
        self.free = list(self.sizes)
        self.left = sum(self.free)
        # No node before `_first[n]` has room for n: within a decision that only moves on.
        self._first = [0] * (self.widest + 1)

    def take(self, gpus: int) -> Spot | None:
        """Claim a place for so many GPUs; None, and nothing claimed, when there is none now."""
        if gpus > self.left:
            return None
        if gpus == 0:
            return ()
        if gpus > self.widest:
            return self._take_wide(gpus)
        free, i = self.free, self._first[gpus]
        end = len(free)
        while i < end and free[i] < gpus:
            i += 1
        self._first[gpus] = i
        if i == end:
            return None
        free[i] -= gpus
        self.left -= gpus
        return ((i, gpus),)

    def _take_wide(self, gpus: int) -> Spot | None:
        left, spot = gpus, []
        for i, (free, size) in enumerate(zip(self.free, self.sizes, strict=True)):
            if 0 < free == size <= left:
                spot.append((i, free))
                left -= free
                if not left:
                    break
        if left:
            whole = {i for i, _ in spot}
            rest = next((i for i, n in enumerate(self.free) if n >= left and i not in whole), None)
            if rest is None:
                return None
            spot.append((rest, left))
        for i, count in spot:
            self.free[i] -= count
        self.left -= gpus
        return tuple(spot)

    def give(self, spot: Spot) -> None:
        """Have a gang's GPUs free again."""
        for i, count in spot:
            self.free[i] += count
            self.left += count
            for n in range(1, self.free[i] + 1):
                self._first[n] = min(self._first[n], i)

    @property
    def stranded(self) -> int:
        """Free GPUs on nodes that are partly in use: no whole node can be made of them."""
        pairs = zip(self.free, self.sizes, strict=True)
        return self.left - sum(free for free, size in pairs if free == size)
