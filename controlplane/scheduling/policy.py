"""The steps of a decision, in order: who goes next, where, and why the others wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.plan import Hold, Place, Plan
from controlplane.scheduling.placement import place
from controlplane.scheduling.reasons import explain
from controlplane.scheduling.scratch import ScratchNode

if TYPE_CHECKING:
    from controlplane.model.view import View, Waiting


def plan(view: View) -> Plan:
    """Place as many waiting gangs as fit, by priority and then age; say of each other one why it
    waits.

    Within one plan room only shrinks: a gang that asks for what an earlier one did not get cannot
    get it either, and is
    held for the same reason without another look. So a long line of like jobs costs little.
    """
    nodes = sorted((ScratchNode(node) for node in view.nodes), key=lambda n: n.view.uuid)
    choosy = {node.only_owner for node in view.nodes}
    places: list[Place] = []
    holds: list[Hold] = []
    refused: dict[tuple[object, ...], str] = {}
    for gang in sorted(view.waiting, key=_order):
        if gang.held:
            reason = gang.held
        elif gang.not_before_us > view.now_us:
            wait_s = -(-(gang.not_before_us - view.now_us) // 1_000_000)
            reason = f"backs off after a fault: the next attempt may start in {wait_s} s"
        else:
            whose = gang.owner if gang.owner in choosy else ""
            shape = (whose, gang.shape)
            reason = refused.get(shape, "")
            for index in (gang.task_index, *gang.coming):
                parts = place(gang, nodes) if not reason else None
                if parts is None:
                    reason = refused[shape] = reason or explain(gang, nodes)
                    break
                places.append(Place(job_id=gang.job_id, task_index=index, parts=parts))
            reason = reason or gang.limited
        if reason:
            holds.append(Hold(job_id=gang.job_id, task_index=gang.task_index, reason=reason))
    return Plan(seq=view.seq, places=tuple(places), holds=tuple(holds))


def _order(gang: Waiting) -> tuple[int, int, int, int]:
    return (-gang.priority, gang.created_us, gang.job_id, gang.task_index)
