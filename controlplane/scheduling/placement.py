"""Where a gang goes: all of it or none, on the fewest nodes behind the fewest switches, best fit.

Best fit leaves the least behind on the nodes, and in the parts of the fabric, that it uses, so that
whole ones stay free for large gangs (Coffman, Garey and Johnson, "Approximation algorithms for bin
packing", 1984).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from controlplane.model.view import Packing

if TYPE_CHECKING:
    from controlplane.model.view import Part
    from controlplane.scheduling.ask import Ask
    from controlplane.scheduling.columns import Ints, Nodes
    from controlplane.scheduling.room import Room

Chosen = list[tuple[int, int]]
"""Nodes by their rows, and how many workers go to each, in order of rank."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Level:
    """One level of the fabric."""

    key: str
    """The label that tells it."""
    domain: Ints
    """Each node's part of it, as a number; -1 for a node that does not say."""
    count: int
    """How many parts it has."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fabric:
    """How near nodes are to each other."""

    levels: tuple[Level, ...] = ()
    """The narrowest first; those that no node tells of are left out."""


def fabric_of(nodes: Nodes, keys: tuple[str, ...]) -> Fabric:
    """The fabric that these labels tell of. `keys`: the widest first."""
    levels = []
    for key in reversed(keys):
        domain = nodes.label(key)
        if (count := int(domain.max(initial=-1)) + 1) > 0:
            levels.append(Level(key=key, domain=domain, count=count))
    return Fabric(levels=tuple(levels))


def place(room: Room, ask: Ask, fabric: Fabric, end_us: int) -> tuple[Part, ...] | None:
    """Claim a place for the whole gang until `end_us`; None, and nothing claimed, when there is
    none now."""
    if ask.gpus and room.hopeless(ask):
        return None
    alone = ask.each in (0, ask.workers) and ask.shape.packing is Packing.PACK
    if alone and not ask.shape.exclusive:
        row = room.one(ask, ask.workers, end_us)
        if row >= 0:
            return (room.take(row, ask, ask.workers, ask.shape.ports, end_us),)
        if ask.each or ask.workers == 1:
            return None
    chosen = choose(ask, room.fits(ask, end_us), room.rank, fabric)
    if chosen is None:
        return None
    if ask.shape.ports:
        wanted = ask.shape.ports
        first = next((i for i, (row, _) in enumerate(chosen) if room.ports(row) >= wanted), -1)
        if first < 0:
            return None
        chosen.insert(0, chosen.pop(first))
    return tuple(
        room.take(row, ask, workers, ask.shape.ports if i == 0 else 0, end_us)
        for i, (row, workers) in enumerate(chosen)
    )


def would_fit(room: Room, ask: Ask, fabric: Fabric, end_us: int = 0) -> bool:
    """Whether the gang would have a place until `end_us`; by default, if nothing were promised to
    others."""
    if ask.gpus and room.hopeless(ask):
        return False
    return choose(ask, room.fits(ask, end_us), room.rank, fabric) is not None


def choose(ask: Ask, fits: Ints, rank: Ints, fabric: Fabric) -> Chosen | None:
    """The nodes for a gang, where so many workers fit on each. `rank`: the lower, the better."""
    if ask.each:
        slots, want = (fits >= ask.each).astype(np.int64), ask.workers // ask.each
    else:
        slots, want = fits, ask.workers
    if int(slots.sum()) < want:
        return None
    rows = np.flatnonzero(slots)
    within = _narrowed(ask, rows, slots, want, fabric)
    if within is None:
        return None
    rows, inner = within
    if ask.shape.packing is Packing.SPREAD:
        chosen = _spread(rows, slots[rows], rank[rows], want)
    else:
        chosen = _packed(rows, slots, rank, want, inner)
    return [(row, count * ask.each) for row, count in chosen] if ask.each else chosen


def _narrowed(
    ask: Ask, rows: Ints, slots: Ints, want: int, fabric: Fabric
) -> tuple[Ints, tuple[Level, ...]] | None:
    """The smallest part of the fabric that holds the gang, and the levels below it. Without one,
    all nodes; None where the gang must have one."""
    below: list[Level] = []
    for level in fabric.levels:
        domain = level.domain[rows]
        told = domain >= 0
        room = np.bincount(domain[told], slots[rows[told]], level.count).astype(np.int64)
        enough = room >= want
        if enough.any():
            best = int(np.where(enough, room, np.iinfo(np.int64).max).argmin())
            return rows[domain == best], tuple(below)
        if level.key == ask.shape.within:
            return None
        below.append(level)
    return None if ask.shape.within else (rows, tuple(below))


def _packed(rows: Ints, slots: Ints, rank: Ints, want: int, inner: tuple[Level, ...]) -> Chosen:
    """As few parts of the fabric, and as few nodes, as will do; the rest where it fits best."""
    keys = [rows, rank[rows], -slots[rows]]
    for level in inner:
        domain = level.domain[rows]
        room = np.bincount(domain + 1, slots[rows], level.count + 1)
        keys += [domain, -room[domain + 1]]
    rows = rows[np.lexsort(keys)]
    width = slots[rows]
    upto = np.cumsum(width)
    last = int(np.searchsorted(upto, want))
    chosen = list(zip(rows[:last].tolist(), width[:last].tolist(), strict=True))
    left = want - (int(upto[last - 1]) if last else 0)
    rest = rows[last:]
    near = slots[rest] >= left
    if inner:
        leaf = inner[0].domain
        near &= leaf[rest] == leaf[rest[0]]
    rest = rest[near]
    best = rest[np.lexsort((rest, rank[rest]))[0]]
    return [*chosen, (int(best), left)]


def _spread(rows: Ints, slots: Ints, rank: Ints, want: int) -> Chosen:
    """As evenly as room allows, on as many nodes as will do; the emptiest first."""
    order = np.lexsort((rows, -rank))
    rows, slots = rows[order], slots[order]
    level = np.zeros_like(slots)
    left = want
    while left:
        open_ = np.flatnonzero(level < slots)[:left]
        level[open_] += 1
        left -= len(open_)
    used = np.flatnonzero(level)
    return list(zip(rows[used].tolist(), level[used].tolist(), strict=True))
