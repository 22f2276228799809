"""How full a cluster gets: jobs come in random order, none ends, and each is placed where a packing
says or turned away. The experiment of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from controlplane.scheduling.fragmentation import WHOLE, Choice, Descent, Kind, Likely, Rooms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from controlplane.sim.cluster import Cluster
    from controlplane.sim.trace import TraceJob

MIB: Final = 1 << 20


class Packing(Protocol):
    """Where tasks go that come one after the other."""

    def choose(self, kind: Kind) -> Choice | None:
        """A place; None where there is none."""

    def take(self, kind: Kind, choice: Choice) -> None:
        """Have a task in its place."""


class BestFit:
    """On the node that has the least left, cores and GPUs counting alike, each as a part of the
    most that any node has; of its GPUs on the fullest."""

    def __init__(self, rooms: Rooms) -> None:
        """`rooms`: the nodes as they are; changed by `take`."""
        self._rooms = rooms
        self._most_cpu = max(int(rooms.cpu_milli.max(initial=1)), 1)
        self._most_gpu = max(int(rooms.gpus.sum(1).max(initial=1)), 1)

    def choose(self, kind: Kind) -> Choice | None:
        """The best fit."""
        rooms = self._rooms
        fits = (rooms.cpu_milli >= kind.cpu_milli) & (rooms.memory >= kind.memory)
        if kind.gpus:
            fits &= (rooms.gpus >= kind.gpu_milli).sum(1) >= kind.gpus
        if not fits.any():
            return None
        left = rooms.cpu_milli / self._most_cpu + rooms.gpus.sum(1) / self._most_gpu
        node = int(np.where(fits, left, np.inf).argmin())
        free = rooms.gpus[node]
        wide = sorted((int(free[i]), int(i)) for i in np.flatnonzero(free >= kind.gpu_milli))
        return Choice(node, tuple(i for _, i in wide[: kind.gpus]))

    def take(self, kind: Kind, choice: Choice) -> None:
        """Have a task in its place."""
        self._rooms.gpus[choice.node, list(choice.gpus)] -= kind.gpu_milli
        self._rooms.cpu_milli[choice.node] -= kind.cpu_milli
        self._rooms.memory[choice.node] -= kind.memory


def best_fit(rooms: Rooms, kinds: Counter[Kind]) -> Packing:
    """Best fit, which knows nothing of what comes."""
    del kinds
    return BestFit(rooms)


def descent(rooms: Rooms, kinds: Counter[Kind]) -> Packing:
    """Fragmentation-gradient descent, for the kinds of the trace as often as they come there."""
    return Descent(rooms, list(kinds), Likely(list(kinds), list(kinds.values())))


PACKINGS: Final[dict[str, Callable[[Rooms, Counter[Kind]], Packing]]] = {
    "best-fit": best_fit,
    "fgd": descent,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """How full the cluster was at one moment."""

    arrived: float
    """GPUs that had been asked for, as a part of the cluster's."""
    allocated: float
    """GPUs that were allocated, as a part of the cluster's."""


def kind_of(job: TraceJob) -> Kind:
    """What a job needs of its node; it must fit on one."""
    part = 0 < job.gpu_milli < WHOLE
    return Kind(
        gpus=job.gpus,
        gpu_milli=job.gpu_milli if part else WHOLE,
        cpu_milli=job.cpu_milli or 0,
        memory=(job.memory_bytes or 0) // MIB,
    )


def rooms_of(cluster: Cluster) -> Rooms:
    """Nodes on which nothing runs."""
    widest = max((node.gpus for node in cluster), default=0)
    gpus = [[WHOLE] * node.gpus + [0] * (widest - node.gpus) for node in cluster]
    return Rooms(
        np.array(gpus, np.int64).reshape(len(cluster), widest),
        np.array([node.cpus * 1000 for node in cluster], np.int64),
        np.array([node.memory_bytes // MIB for node in cluster], np.int64),
    )


def arrivals(kinds: Sequence[Kind], asked_milli: float, seed: int) -> list[Kind]:
    """The tasks of a trace in random order, and then others drawn from them, until so many
    thousandths of GPUs are asked for."""
    chance = Random(seed)
    coming = list(kinds)
    chance.shuffle(coming)
    asked = sum(kind.gpus * kind.gpu_milli for kind in coming)
    while True:
        kind = chance.choice(kinds)
        asked += kind.gpus * kind.gpu_milli
        if asked > asked_milli:
            return coming
        coming.append(kind)


def fill(
    jobs: Sequence[TraceJob],
    cluster: Cluster,
    packing: str,
    seed: int,
    marks: Sequence[float] = (1.3,),
) -> list[Filled]:
    """Fill a cluster, until so many times its GPUs were asked for as the last of the marks says;
    tell how full it was at each."""
    kinds = [kind_of(job) for job in jobs]
    rooms = rooms_of(cluster)
    whole = int(rooms.gpus.sum())
    place = PACKINGS[packing](rooms, Counter(kinds))
    asked = used = 0
    found: list[Filled] = []
    for kind in arrivals(kinds, marks[-1] * whole, seed):
        milli = kind.gpus * kind.gpu_milli
        while len(found) < len(marks) and asked + milli > marks[len(found)] * whole:
            found.append(Filled(arrived=asked / whole, allocated=used / whole))
        asked += milli
        choice = place.choose(kind)
        if choice is not None:
            place.take(kind, choice)
            used += milli
    rest = Filled(arrived=asked / whole, allocated=used / whole)
    return found + [rest] * (len(marks) - len(found))
