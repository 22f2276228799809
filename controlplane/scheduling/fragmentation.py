"""Fragmentation-gradient descent: place each gang where what is likely to come loses the least room
(Weng et al., "Beware of Fragmentation", USENIX ATC 2023).

A node's fragmentation in the eyes of one kind of task is what it has left of its GPUs and that task
can't use: all of it where the task does not fit; else the GPUs of which less is left than it needs
of each. The measure of a node is the mean over the kinds, by how often each comes. GPUs count in
thousandths, so that tasks may share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WHOLE: Final = 1000
"""Thousandths of a GPU."""
STEP: Final = 40
"""Growth is compared in steps of so many thousandths, and the tightest fit decides between equals:
a measure of averages is not so sharp that less would mean anything. The paper's own score has the
same steps: a hundredth of a sigmoid of the growth in GPUs."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What tasks of one kind need of one node."""

    gpus: int = 0
    """GPUs."""
    gpu_milli: int = WHOLE
    """Thousandths of each of them; less than 1000 only of a single one."""
    cpu_milli: int = 0
    """Thousandths of cores."""
    memory: int = 0
    """Memory, in any unit that nodes have too."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What is left of nodes, as columns."""

    gpus: Ints
    """Thousandths that are left of each GPU: a row for each node. What a node does not have is 0,
    as what is used up."""
    cpu_milli: Ints
    """Thousandths of cores, of each node."""
    memory: Ints
    """Memory, of each node."""


class Likely:
    """The kinds of tasks that are likely to come, each with its part of all."""

    def __init__(self, kinds: Sequence[Kind], weights: Sequence[float]) -> None:
        """`weights`: how often each kind comes; kinds without GPUs leave none of them in pieces,
        and count for nothing."""
        taken = [(kind, weight) for kind, weight in zip(kinds, weights, strict=True) if kind.gpus]
        whole = sum(weight for _, weight in taken) or 1.0
        self._part: Floats = np.array([weight / whole for _, weight in taken])
        self._gpus: Ints = np.array([kind.gpus for kind, _ in taken], np.int64)
        self._cpu: Ints = np.array([kind.cpu_milli for kind, _ in taken], np.int64)
        self._memory: Ints = np.array([kind.memory for kind, _ in taken], np.int64)
        needs = np.array([kind.gpu_milli for kind, _ in taken], np.int64)
        # Many kinds need the same of a GPU: each such need is looked at once.
        self._needs, self._need_of = np.unique(needs, return_inverse=True)

    def fragments(self, rooms: Rooms) -> Floats:
        """Thousandths of GPUs that are fragments, of each node."""
        wide = rooms.gpus[:, None, :] >= self._needs[None, :, None]
        count = wide.sum(2)[:, self._need_of]
        usable = (wide * rooms.gpus[:, None, :]).sum(2)[:, self._need_of]
        fits = (
            (count >= self._gpus)
            & (rooms.cpu_milli[:, None] >= self._cpu)
            & (rooms.memory[:, None] >= self._memory)
        )
        found: Floats = rooms.gpus.sum(1) - (usable * fits) @ self._part
        return found


@dataclass(frozen=True, slots=True)
class Choice:
    """A place for a task."""

    node: int
    """Number of the node."""
    gpus: tuple[int, ...]
    """Numbers of the GPUs there."""


class Descent:
    """Nodes to which tasks come one after the other, each placed where fragmentation grows the
    least. What a node would say to each kind is worked out when it changes, and not for each task.
    """

    def __init__(self, rooms: Rooms, kinds: Sequence[Kind], likely: Likely) -> None:
        """`rooms`: the nodes as they are; changed by `take`. `kinds`: all that may be asked for."""
        self._rooms, self._likely = rooms, likely
        self._number = {kind: i for i, kind in enumerate(kinds)}
        self._kinds = list(kinds)
        self._known: dict[bytes, tuple[Floats, Ints, Floats]] = {}
        nodes = len(rooms.cpu_milli)
        self._growth: Floats = np.full((len(kinds), nodes), np.inf)
        self._gpu: Ints = np.zeros((len(kinds), nodes), np.int64)
        self._left: Floats = np.full((len(kinds), nodes), np.inf)
        for node in range(nodes):
            self._look(node)

    def choose(self, kind: Kind, among: NDArray[np.bool_] | None = None) -> Choice | None:
        """The best place for a task of this kind, on one of these nodes; None where there is none.

        Of places that are equally good that on the node which has the least left, then the first.
        """
        row = self._number[kind]
        growth = self._growth[row]
        if among is not None:
            growth = np.where(among, growth, np.inf)
        least = growth.min(initial=np.inf)
        if not np.isfinite(least):
            return None
        equal = np.flatnonzero(growth == least)
        node = int(equal[np.argmin(self._left[row, equal])])
        free = self._rooms.gpus[node]
        if not kind.gpus:
            gpus: tuple[int, ...] = ()
        elif kind.gpu_milli < WHOLE:
            gpus = (int(np.flatnonzero(free == self._gpu[row, node])[0]),)
        else:
            gpus = tuple(int(i) for i in np.flatnonzero(free == WHOLE)[: kind.gpus])
        return Choice(node, gpus)

    def take(self, kind: Kind, choice: Choice) -> None:
        """Have a task of this kind in its place."""
        rooms, node = self._rooms, choice.node
        for i in choice.gpus:
            rooms.gpus[node, i] -= kind.gpu_milli
        rooms.cpu_milli[node] -= kind.cpu_milli
        rooms.memory[node] -= kind.memory
        self._look(node)

    def fragments(self) -> float:
        """Thousandths of GPUs that are fragments now, of all nodes."""
        return float(self._likely.fragments(self._rooms).sum())

    def _look(self, node: int) -> None:
        """What the node would say to each kind: growth, what that GPU has, and what would be
        left."""
        rooms = self._rooms
        free = np.sort(rooms.gpus[node])
        key = free.tobytes() + rooms.cpu_milli[node].tobytes() + rooms.memory[node].tobytes()
        known = self._known.get(key)
        if known is None:
            cpu, memory = int(rooms.cpu_milli[node]), int(rooms.memory[node])
            known = self._known[key] = self._answers(free, cpu, memory)
        self._growth[:, node], self._gpu[:, node], self._left[:, node] = known

    def _answers(self, free: Ints, cpu: int, memory: int) -> tuple[Floats, Ints, Floats]:
        after, whose, from_gpu = [], [], []
        idle = int((free == WHOLE).sum())
        for row, kind in enumerate(self._kinds):
            if kind.cpu_milli > cpu or kind.memory > memory:
                continue
            if kind.gpus and kind.gpu_milli < WHOLE:
                spots = np.unique(free[free >= kind.gpu_milli])
                for spot in spots:
                    left = free.copy()
                    left[np.searchsorted(free, spot)] -= kind.gpu_milli
                    after.append(left)
                    whose.append(row)
                    from_gpu.append(int(spot))
            elif kind.gpus <= idle:
                left = free.copy()
                left[len(free) - kind.gpus :] = 0
                after.append(left)
                whose.append(row)
                from_gpu.append(WHOLE)
        growth = np.full(len(self._kinds), np.inf)
        gpu = np.zeros(len(self._kinds), np.int64)
        remains = np.full(len(self._kinds), np.inf)
        if not after:
            return growth, gpu, remains
        rows = np.array(whose)
        cpus = cpu - np.array([self._kinds[i].cpu_milli for i in whose], np.int64)
        memories = memory - np.array([self._kinds[i].memory for i in whose], np.int64)
        rooms = Rooms(np.array(after, np.int64), cpus, memories)
        now = self._likely.fragments(
            Rooms(free[None, :], np.array([cpu], np.int64), np.array([memory], np.int64))
        )[0]
        # Sums of floats: less than a thousandth of a step is nothing.
        steps = np.ceil((self._likely.fragments(rooms) - now) / STEP - 1e-3)
        # The least growth of each kind, and of equals the fullest GPU: they come in that order.
        for i in np.argsort(steps, kind="stable")[::-1]:
            growth[rows[i]], gpu[rows[i]] = steps[i], from_gpu[i]
            remains[rows[i]] = rooms.gpus[i].sum() + cpus[i] / 1e9
        return growth, gpu, remains
