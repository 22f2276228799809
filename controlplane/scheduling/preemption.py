"""Whom to end so that who outranks them has room: only when that gives the whole gang a place, and
those that lose the least.

What a victim loses is its GPU time since its last checkpoint; one that never reported any loses all
since it was placed, so that silence protects nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from controlplane.scheduling.leases import Leases, rows_of
from controlplane.scheduling.placement import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from controlplane.model.view import Running, Waiting
    from controlplane.scheduling.ask import Ask
    from controlplane.scheduling.placement import Chosen, Fabric
    from controlplane.scheduling.quotas import Quotas
    from controlplane.scheduling.room import Amounts, Room

TRIALS = 64
"""So many victims at most are each tried to be spared."""


def cost(task: Running, now_us: int) -> tuple[int, int, int, int, int]:
    """What it costs to end a task, the least first: the lowest class, then the least GPU time to
    lose."""
    return (
        task.priority,
        lost_us(task, now_us),
        -task.placed_us,
        task.job_id,
        task.task_index,
    )


def victims(
    gang: Waiting,
    running: Sequence[Running],
    quotas: Quotas,
    behind: Callable[[Running], bool],
) -> list[Running]:
    """Of tasks in order of their cost those that may be ended for a gang. `behind`: whether a task
    would stand behind the gang in line, so that it does not take back the room that it gave."""
    reclaims = quotas.owns(gang.account, gang.shape.workers * gang.shape.resources.gpus)

    def may_end(task: Running) -> bool:
        if task.stopping:
            return False
        outranked = task.priority < gang.priority or (task.preemptible and not gang.preemptible)
        if outranked and behind(task):
            return True
        return reclaims and task.account != gang.account and quotas.borrows(task.account)

    return [task for task in running if may_end(task)]


def lost_us(task: Running, now_us: int) -> int:
    """GPU time that would be lost with an attempt, in microseconds; its workers' time, where it has
    no GPUs."""
    width = task.shape.workers * max(task.shape.resources.gpus, 1)
    return width * max(now_us - task.saved_us, 0)


def make_room(
    room: Room, ask: Ask, fabric: Fabric, candidates: Sequence[Running], base: Leases
) -> list[Running] | None:
    """Those of the candidates that give the whole gang a place, as few as will do; None when even
    all of them do not. `base`: what is being ended already; empty where that alone will do."""
    ending = base.on(room.free, len(base))
    if _placed(room, ask, fabric, ending) is not None:
        return []
    parts = [(part, number) for number, task in enumerate(candidates) for part in task.parts]
    leases = Leases(room.nodes, rows_of(room.nodes, parts))
    counts = np.searchsorted(leases.rows.ends, np.arange(len(candidates) + 1), "left").tolist()

    def fits(number: int) -> Chosen | None:
        return _placed(room, ask, fabric, leases.on(ending, counts[number]))

    low, high = 1, len(candidates)
    if high < low or fits(high) is None:
        return None
    while low < high:
        middle = (low + high) // 2
        if fits(middle) is None:
            low = middle + 1
        else:
            high = middle
    rows = {room.nodes.views[row].uuid for row, _ in fits(high) or ()}
    chosen = [t for t in candidates[:high] if any(p.node_uuid in rows for p in t.parts)]
    return _spared(room, ask, fabric, chosen, ending)


def _spared(
    room: Room, ask: Ask, fabric: Fabric, chosen: list[Running], ending: Amounts
) -> list[Running]:
    """Without those that turn out not to be needed, the dearest tried first."""
    for task in chosen[::-1][:TRIALS]:
        without = [other for other in chosen if other is not task]
        parts = [(part, 0) for other in without for part in other.parts]
        leases = Leases(room.nodes, rows_of(room.nodes, parts))
        if _placed(room, ask, fabric, leases.on(ending, len(leases))) is not None:
            chosen = without
    return chosen


def _placed(room: Room, ask: Ask, fabric: Fabric, free: Amounts) -> Chosen | None:
    free = free.copy()
    for reservation in room.reservations:
        if reservation not in ask.exempt:
            reservation.claim_from(free)
    fits = free.fits(ask)
    fits[~(room.opens & ask.may)] = 0
    if ask.shape.exclusive:
        fits[~room.whole(free)] = 0
    return choose(ask, np.maximum(fits, 0), free.rank(), fabric)
