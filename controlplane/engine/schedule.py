"""The scheduling cycle: look once, decide once, commit once."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from controlplane.model.event import CONTROL_PLANE
from controlplane.model.policy import DEFAULT
from controlplane.model.scene import Scene
from controlplane.model.words import count
from controlplane.registry.placing import Refusal, commit_places, commit_promises
from controlplane.registry.preempting import end_saved, preempt
from controlplane.scheduling.board import Board
from controlplane.scheduling.decision import Decision
from controlplane.scheduling.explain import explain_task
from controlplane.scheduling.policy import decide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.model.explanation import Explanation
    from controlplane.model.plan import Plan
    from controlplane.model.policy import Policy
    from controlplane.model.view import Promise, View, Waiting
    from controlplane.registry.draft import Draft
    from controlplane.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a cycle."""

    placed: int
    """Gangs that were started."""
    held: int
    """Tasks that wait on."""
    preempted: int
    """Attempts that are being ended for others."""
    promised: int
    """Starts that were promised for the first time."""
    refused: tuple[Refusal, ...]
    """Placements that were no longer possible at the commit; the next cycle looks again."""

    def __str__(self) -> str:
        """The cycle in one sentence."""
        sentence = f"placed {count(self.placed, 'gang')}, {self.held} wait"
        if self.preempted:
            sentence += f", {count(self.preempted, 'attempt')} ended for them"
        if self.refused:
            sentence += f", {len(self.refused)} refused at the commit"
        return sentence


class Scheduler:
    """Looks, decides and commits; keeps from one cycle to the next what it saw, so that a cycle
    after few changes is short."""

    def __init__(self, registry: Registry, policy: Policy = DEFAULT) -> None:
        """`policy`: how the site wants it."""
        self.registry = registry
        self._policy = policy
        self._lock = threading.Lock()
        self._board: Board | None = None
        self.decided: Plan | None = None
        """What the last cycle wanted done."""

    def cycle(self, now_us: int, deadline_s: float = 60) -> Outcome:
        """One decision over everything that waits. `deadline_s`: the longest to wait for the
        commit."""
        with self._lock:
            return self._cycle(now_us, deadline_s)

    def explain(self, job_id: int, task_index: int | None, now_us: int) -> Explanation | None:
        """Why a task waits: of a job without an index the first that does. None when none does. It
        decides anew, and commits nothing."""
        with self._lock:
            view, board = self._look(now_us)
            decision = Decision(board, view, self._policy)
            decision.plan()
            rows = np.flatnonzero(board.tasks.job == job_id).tolist()
            if task_index is not None:
                rows = [row for row in rows if _concerns(board.tasks.entries[row], task_index)]
            if not rows:
                return None
            return explain_task(decision, min(rows, key=lambda row: int(board.tasks.task[row])))

    def scene(self, now_us: int) -> Scene:
        """Everything that the next decision would depend on."""
        return Scene(view=self.registry.view(now_us), policy=self._policy)

    def _look(self, now_us: int) -> tuple[View, Board]:
        if self._board is not None and self._board.overgrown:
            self._board = None
        kept, self._board = self._board, None  # until what was told of is on it
        view, changes = self.registry.look(now_us, whole=kept is None)
        if kept is None or changes.whole:
            kept = Board(
                replace(
                    view,
                    nodes=tuple(node for node in changes.nodes.values() if node is not None),
                    waiting=tuple(w for entries in changes.waiting.values() for w in entries),
                    running=tuple(task for task in changes.running.values() if task is not None),
                )
            )
        else:
            kept.change(changes)
        self._board = kept
        return view, kept

    def _cycle(self, now_us: int, deadline_s: float) -> Outcome:
        self._end_saved(deadline_s)
        view, board = self._look(now_us)
        decided = self.decided = decide(board, view, self._policy)
        told = {(p.job_id, p.task_index) for p in view.promises}
        new = [p for p in decided.promises if (p.job_id, p.task_index) not in told]
        refused = self._commit(decided, new, deadline_s)
        self.registry.hold(decided)
        return Outcome(
            placed=len(decided.places) - len(refused),
            held=len(decided.holds),
            preempted=len(decided.preempts),
            promised=len(new),
            refused=refused,
        )

    def _end_saved(self, deadline_s: float) -> None:
        """End what was asked to save its state, and has, or has had its time."""
        if keys := self.registry.saving():
            ended = self.registry.submit(lambda draft: end_saved(draft, keys), CONTROL_PLANE)
            ended.result(timeout=deadline_s)

    def _commit(
        self, decided: Plan, promises: Sequence[Promise], deadline_s: float
    ) -> tuple[Refusal, ...]:
        if not decided.places and not decided.preempts and not promises:
            return ()

        def command(draft: Draft) -> tuple[Refusal, ...]:
            commit_promises(draft, promises)
            preempt(draft, decided.preempts)
            return commit_places(draft, decided.places)

        return self.registry.submit(command, CONTROL_PLANE).result(timeout=deadline_s)


def _concerns(entry: Waiting, task_index: int) -> bool:
    return task_index == entry.task_index or task_index in entry.coming
