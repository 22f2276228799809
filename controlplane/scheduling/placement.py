"""Where a gang goes: all of it or none, best fit, on the fewest nodes.

Best fit leaves the least behind on the nodes that it uses, so that whole nodes stay free for large
gangs (Coffman, Garey and Johnson, "Approximation algorithms for bin packing", 1984).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.model.view import Part, Waiting
    from controlplane.scheduling.scratch import ScratchNode


def place(gang: Waiting, nodes: Iterable[ScratchNode]) -> tuple[Part, ...] | None:
    """Claim a place for the whole gang; None, and nothing claimed, when there is none now."""
    need = gang.shape.resources
    room = [(n, fit) for n in nodes if n.serves(gang.owner) and (fit := n.fits(need))]
    chosen = _even(gang, room) if gang.shape.workers_per_node else _packed(gang, room)
    if chosen is None:
        return None
    if gang.shape.ports:
        first = next(
            (i for i, (node, _) in enumerate(chosen) if len(node.ports) >= gang.shape.ports), -1
        )
        if first < 0:
            return None
        chosen.insert(0, chosen.pop(first))
    return tuple(
        node.take(need, workers, gang.shape.ports if i == 0 else 0)
        for i, (node, workers) in enumerate(chosen)
    )


Room = list[tuple["ScratchNode", int]]


def _even(gang: Waiting, room: Room) -> Room | None:
    """Exactly `workers_per_node` on each of the nodes that fit it best."""
    each = gang.shape.workers_per_node or 1
    wide_enough = [node for node, fit in room if fit >= each]
    count = gang.shape.workers // each
    if len(wide_enough) < count:
        return None
    wide_enough.sort(key=lambda node: node.leftover(gang.shape.resources, each))
    return [(node, each) for node in wide_enough[:count]]


def _packed(gang: Waiting, room: Room) -> Room | None:
    """As few nodes as will do: the widest first, and for the rest the one that fits it best."""
    if sum(fit for _, fit in room) < gang.shape.workers:
        return None
    need, left = gang.shape.resources, gang.shape.workers
    room.sort(key=lambda pair: (-pair[1], pair[0].leftover(need, pair[1])))
    chosen: Room = []
    for i, (node, fit) in enumerate(room):
        if fit >= left:
            # `room` falls, so all that still fit the rest are here, side by side.
            rest = [n for n, f in room[i:] if f >= left]
            best = min(rest, key=lambda n: n.leftover(need, left))  # used at once
            return [*chosen, (best, left)]
        chosen.append((node, fit))
        left -= fit
    return chosen
