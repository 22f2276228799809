"""Dominant-resource fairness: next is whoever has the least of what it has most of (Ghodsi et al.,
"Dominant Resource Fairness: Fair Allocation of Multiple Resource Types", NSDI 2011)."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from controlplane.scheduling.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from controlplane.model.view import Account, Running, Shape
    from controlplane.scheduling.columns import Ints, Nodes, Tasks

BILLION = 10**9


class Dominance:
    """What each account has of the cluster now. Changed by `take` alone."""

    def __init__(
        self, nodes: Nodes, accounts: Iterable[Account], running: Iterable[Running]
    ) -> None:
        """`accounts`: their shares are the weights; an account that is not there has 1."""
        self._whole = (
            int(nodes.has_gpus.sum()),
            int(nodes.has_millicores.sum()),
            int(nodes.has_memory.sum()),
        )
        self._weight = {account.name: max(account.shares, 1) for account in accounts}
        self._used: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for task in running:
            self.take(task.account, task.shape)

    def take(self, account: str, shape: Shape) -> None:
        """Count a task that runs."""
        need, used = shape.resources, self._used[account]
        used[0] += shape.workers * need.gpus
        used[1] += shape.workers * need.cpu_millicores
        used[2] += shape.workers * need.memory_bytes

    def share(self, account: str) -> int:
        """An account's dominant share over its weight, in billionths."""
        pairs = zip(self._used[account], self._whole, strict=True)
        most = max(used * BILLION // whole if whole else 0 for used, whole in pairs)
        return most // self._weight.get(account, 1)


class FairLines:
    """Lines of each account; the one with the least dominant share comes next, within the highest
    class of those that are first in their account's lines."""

    def __init__(self, rows: Ints, line: Ints, tasks: Tasks, dominance: Dominance) -> None:
        """`rows`: tasks, in order; `line`: the line of each."""
        self._priority = tasks.priority
        self._dominance = dominance
        self._lines: dict[str, Lines] = {}
        self._turn: Lines | None = None
        account = tasks.account[rows]
        for number in np.unique(account).tolist():
            mine = account == number
            _, narrow = np.unique(line[mine], return_inverse=True)
            name = tasks.accounts.values[number]
            self._lines[name] = Lines(rows[mine], narrow, tasks.limit[rows[mine]])

    def __iter__(self) -> Iterator[tuple[int, object, int]]:
        """As `Lines`."""
        while True:
            heads = {name: head for name, lines in self._lines.items() if (head := lines.head())}
            if not heads:
                return
            name = min(heads, key=lambda each: self._rank(each, heads[each][0]))
            self._turn = self._lines[name]
            row, line, at = heads[name]
            yield row, (name, line), at

    def _rank(self, account: str, row: int) -> tuple[int, int, str]:
        return -int(self._priority[row]), self._dominance.share(account), account

    @property
    def _now(self) -> Lines:
        assert self._turn is not None, "something was given"
        return self._turn

    def advance(self) -> None:
        """As `Lines`."""
        self._now.advance()

    def drop(self) -> Ints:
        """As `Lines`."""
        return self._now.drop()

    def shorten(self, limit_us: int) -> Ints:
        """As `Lines`."""
        return self._now.shorten(limit_us)

    def rest(self) -> Ints:
        """As `Lines`."""
        return np.concatenate([lines.rest() for lines in self._lines.values()])
