"""What runs, and when it gives back what it holds: one row for each part on a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from controlplane.scheduling.columns import FOREVER_US, Bools, Ints

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from controlplane.model.view import Part, Running
    from controlplane.scheduling.columns import Nodes
    from controlplane.scheduling.room import Amounts

Key = tuple[int, int]


class Rows(NamedTuple):
    """Columns of parts: ends, nodes, and what each gives back."""

    ends: Ints
    rows: Ints
    amounts: Ints
    """Millicores, bytes of memory and cores of each."""
    gpus: Ints
    """Devices of each kind."""

    def where(self, chosen: Ints | Bools) -> Rows:
        """Some of them, in the order asked for."""
        return Rows(*(column[chosen] for column in self))

    def beside(self, other: Rows) -> Rows:
        """These and others."""
        pairs = zip(self, other, strict=True)
        return Rows(*(np.concatenate(pair) for pair in pairs))


def rows_of(nodes: Nodes, parts: Iterable[tuple[Part, int]]) -> Rows:
    """Columns of parts, each with its end. What is on nodes that are no more is left out."""
    there = [(nodes.row[p.node_uuid], p, end) for p, end in parts if p.node_uuid in nodes.row]
    count = len(there)
    gpus = np.zeros((count, len(nodes.kinds)), np.int64)
    for i, (row, part, _) in enumerate(there):
        if not part.device_ids:
            continue
        group = int(nodes.group[row])
        if group >= 0:
            gpus[i, group] = len(part.device_ids)
        else:
            for kind in nodes.kinds_of(row, part.device_ids):
                gpus[i, kind] += 1
    amounts = [(p.cpu_millicores, p.memory_bytes, len(p.cpu_ids)) for _, p, _ in there]
    return Rows(
        ends=np.array([end for *_, end in there], np.int64),
        rows=np.array([row for row, *_ in there], np.int64),
        amounts=np.array(amounts, np.int64).reshape(-1, 3),
        gpus=gpus,
    )


def end_of(task: Running) -> int:
    """When a task will have ended by its limit."""
    return task.until_us if task.until_us is not None else task.placed_us + FOREVER_US


class Held:
    """What runs, kept from one decision to the next."""

    def __init__(self, nodes: Nodes, running: Mapping[Key, Running]) -> None:
        """`running`: all that runs."""
        self._nodes = nodes
        self._numbers: dict[Key, int] = {}
        self._next = 0
        self._rows = rows_of(nodes, ())
        self._of: Ints = np.empty(0, np.int64)
        self._stops: Bools = np.empty(0, np.bool_)
        self.change(running)

    def change(self, running: Mapping[Key, Running | None]) -> None:
        """Take over what changed; None for what runs no more."""
        gone = [self._numbers.pop(key) for key in running if key in self._numbers]
        if gone:
            keep = ~np.isin(self._of, np.array(gone, np.int64))
            self._rows, self._of = self._rows.where(keep), self._of[keep]
            self._stops = self._stops[keep]
        parts, numbers, stops = [], [], []
        for key, task in running.items():
            if task is None:
                continue
            self._numbers[key] = self._next
            end_us = end_of(task)
            for part in task.parts:
                if part.node_uuid in self._nodes.row:
                    parts.append((part, end_us))
                    numbers.append(self._next)
                    stops.append(task.stopping)
            self._next += 1
        if parts:
            self._rows = self._widened().beside(rows_of(self._nodes, parts))
            self._of = np.concatenate((self._of, np.array(numbers, np.int64)))
            self._stops = np.concatenate((self._stops, np.array(stops, np.bool_)))

    def _widened(self) -> Rows:
        missing = len(self._nodes.kinds) - self._rows.gpus.shape[1]
        if not missing:
            return self._rows
        return self._rows._replace(gpus=np.pad(self._rows.gpus, ((0, 0), (0, missing))))

    def rows(self, now_us: int) -> Rows:
        """All of it. What should have ended already gives nothing back that could be counted
        on where it was told to end, and else may end at any moment."""
        rows = self._widened()
        stuck = self._stops & (rows.ends < now_us)
        if stuck.any():
            rows = rows.where(~stuck)
        return rows._replace(ends=np.maximum(rows.ends, now_us + 1))


class Leases:
    """What will be free when, as one decision sees it."""

    def __init__(self, nodes: Nodes, rows: Rows) -> None:
        """`rows`: what runs."""
        self._nodes = nodes
        self._added: list[tuple[Part, int]] = []
        self._rows = _sorted(rows)

    def add(self, part: Part, end_us: int) -> None:
        """A part that gives back what it holds at `end_us`."""
        self._added.append((part, end_us))

    @property
    def rows(self) -> Rows:
        """All of it, those first that end first."""
        if self._added:
            self._rows = _sorted(self._rows.beside(rows_of(self._nodes, self._added)))
            self._added = []
        return self._rows

    def __len__(self) -> int:
        return len(self.rows.ends)

    def on(self, before: Amounts, count: int) -> Amounts:
        """What will be free once the first `count` of them have ended."""
        _, rows, amounts, gpus = self.rows.where(np.arange(count))
        free = before.copy()
        size = len(free.millicores)
        free.millicores += _sum(rows, amounts[:, 0], size)
        free.memory += _sum(rows, amounts[:, 1], size)
        free.cores += _sum(rows, amounts[:, 2], size)
        for kind in range(gpus.shape[1]):
            free.gpus[:, kind] += _sum(rows, gpus[:, kind], size)
        return free


def _sorted(rows: Rows) -> Rows:
    return rows.where(np.argsort(rows.ends, kind="stable"))


def _sum(rows: Ints, amounts: Ints, size: int) -> Ints:
    # Sums of doubles are exact up to 2**53: 8 PiB of memory on one node.
    return np.bincount(rows, amounts, size).astype(np.int64)
