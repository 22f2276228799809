"""Decisions made again from a file, and what another policy would decide in their place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from controlplane.model.document import to_document
from controlplane.model.scene import digest, write_scene
from controlplane.scheduling.policy import plan

if TYPE_CHECKING:
    from controlplane.model.plan import Place, Plan
    from controlplane.model.policy import Policy
    from controlplane.model.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A decision that was made again."""

    plan: Plan
    """The decision."""
    text: str
    """It as one JSON document: equal decisions give equal text."""
    view_sha256: str
    """SHA-256 of what it was made of."""

    @property
    def plan_sha256(self) -> str:
        """SHA-256 of the decision."""
        return digest(self.text)


def replay(scene: Scene) -> Replay:
    """Make the decision of a scene."""
    decided = plan(scene.view, scene.policy)
    return Replay(plan=decided, text=write_plan(decided), view_sha256=digest(write_scene(scene)))


def write_plan(decided: Plan) -> str:
    """A plan as one JSON document, without a space."""
    document = {
        "seq": decided.seq,
        "places": [to_document(place) for place in decided.places],
        "preempts": [to_document(preempt) for preempt in decided.preempts],
        "promises": [to_document(promise) for promise in decided.promises],
        "reserved": [to_document(reserved) for reserved in decided.reserved],
        "holds": [to_document(hold) for hold in decided.holds],
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


class Effect(StrEnum):
    """What another policy does to a task."""

    STARTS = "starts"
    """It would start now, and would not before."""
    WAITS = "waits"
    """It would wait, and would start now before."""
    MOVES = "moves"
    """It would start on other nodes."""
    ENDS = "ends"
    """It runs, and would be ended for another."""
    STAYS = "stays"
    """It would have been ended for another, and would not be."""
    SOONER = "sooner"
    """Its reserved start would be earlier."""
    LATER = "later"
    """Its reserved start would be later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What another policy does to one task."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    effect: Effect
    """What happens to it."""
    words: str
    """How, in words."""


Key = tuple[int, int]


def differences(scene: Scene, policy: Policy) -> list[Difference]:
    """What a policy would do otherwise than the scene's own, now; by job and task."""
    names = {node.uuid: node.display_name for node in scene.view.nodes}
    before, after = plan(scene.view, scene.policy), plan(scene.view, policy)
    was, is_ = _places(before), _places(after)
    found: dict[Key, tuple[Effect, str]] = {}
    held = {(hold.job_id, hold.task_index): hold.reason for hold in after.holds}
    for key in was.keys() | is_.keys():
        old, new = was.get(key), is_.get(key)
        if old is None and new is not None:
            found[key] = (Effect.STARTS, f"on {_where(new, names)}")
        elif new is None:
            found[key] = (Effect.WAITS, held.get(key, ""))
        elif old is not None and _where(old, names) != _where(new, names):
            words = f"from {_where(old, names)} to {_where(new, names)}"
            found[key] = (Effect.MOVES, words)
    ended = {(p.job_id, p.task_index): p.reason for p in before.preempts}
    ends = {(p.job_id, p.task_index): p.reason for p in after.preempts}
    found |= {key: (Effect.ENDS, ends[key]) for key in ends.keys() - ended.keys()}
    found |= {key: (Effect.STAYS, ended[key]) for key in ended.keys() - ends.keys()}
    starts = {(r.job_id, r.task_index): r.start_us for r in before.reserved}
    for reserved in after.reserved:
        key = (reserved.job_id, reserved.task_index)
        moved_s = (reserved.start_us - starts.get(key, reserved.start_us)) // 1_000_000
        if moved_s and key not in found:
            effect = Effect.LATER if moved_s > 0 else Effect.SOONER
            found[key] = (effect, f"by {abs(moved_s)} s")
    return [
        Difference(job_id=job, task_index=task, effect=effect, words=words)
        for (job, task), (effect, words) in sorted(found.items())
    ]


def _places(decided: Plan) -> dict[Key, Place]:
    return {(place.job_id, place.task_index): place for place in decided.places}


def _where(place: Place, names: dict[str, str]) -> str:
    return ", ".join(names.get(part.node_uuid, part.node_uuid) for part in place.parts)
