"""What a gang asks of nodes, made ready for looking at many of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.scheduling.columns import MILLI

if TYPE_CHECKING:
    from controlplane.model.view import Shape
    from controlplane.scheduling.backfill import Reservation
    from controlplane.scheduling.columns import Bools


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ask:
    """A shape, and the nodes that may serve it."""

    shape: Shape
    """What is asked for."""
    workers: int
    """Workers of the gang."""
    each: int
    """Exactly so many on each node; 0: as they fit."""
    millicores: int
    """Processor time of a worker."""
    memory: int
    """Memory of a worker, in bytes."""
    cores: int
    """Whole cores of a worker; 0 where it wants a fraction."""
    gpus: int
    """GPUs of a worker."""
    kinds: tuple[int, ...]
    """Columns of the GPUs that will do."""
    all_kinds: bool
    """Whether every GPU of the cluster will do."""
    may: Bools
    """The nodes that may serve it by queue, labels and owner, whatever is free."""
    everywhere: bool
    """Whether those are all nodes."""
    exempt: frozenset[Reservation] = frozenset()
    """What does not bind it: reservations that are its own people's."""


def ask(
    shape: Shape,
    kinds: tuple[int, ...],
    may: Bools,
    *,
    all_kinds: bool,
    exempt: frozenset[Reservation] = frozenset(),
) -> Ask:
    """Make a shape ready."""
    need = shape.resources
    return Ask(
        shape=shape,
        workers=shape.workers,
        each=shape.workers_per_node or 0,
        millicores=need.cpu_millicores,
        memory=need.memory_bytes,
        cores=need.cpu_millicores // MILLI if need.cpu_millicores % MILLI == 0 else 0,
        gpus=need.gpus,
        kinds=kinds,
        all_kinds=all_kinds,
        may=may,
        everywhere=bool(may.all()),
        exempt=exempt,
    )
