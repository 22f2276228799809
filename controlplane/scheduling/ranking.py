"""The order of one decision: where each task stands in line, and where what runs would."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from controlplane.model.policy import FairShare, Order
from controlplane.scheduling.priority import (
    WHOLE,
    Factors,
    factors,
    most_of_fractions,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.model.policy import Policy
    from controlplane.model.view import Running, View
    from controlplane.scheduling.board import Board
    from controlplane.scheduling.columns import Ints

BIG = 1 << 50
"""More than any priority: what waits in a queue with more comes first, whatever its priority."""


class Ranking:
    """Who goes before whom."""

    def __init__(self, board: Board, view: View, policy: Policy) -> None:
        """`board`: what waits; `view`: accounts, queues, promises and the time."""
        self._board, self._view, self._policy = board, view, policy
        self._now = view.now_us
        self._queues = {queue.name: queue.priority for queue in view.queues}

    def scores(self) -> Ints:
        """Of each task that waits: the higher, the sooner. Of equals the older goes first."""
        tasks, policy = self._board.tasks, self._policy
        if policy.order is Order.FIFO:
            score: Ints = np.zeros(len(tasks), np.int64)
        else:
            score = self.factors().score(policy)
        most = most_of_fractions(policy)
        # Within its class what yields to any other comes last, or it would take back what it gave.
        score = score - most * tasks.yields
        for promise in self._view.promises:
            # What was promised goes first within its class, so that only a higher class breaks it.
            at = (tasks.job == promise.job_id) & (tasks.task == promise.task_index)
            score[np.flatnonzero(at)] += most
        if any(self._queues.values()):
            of = [self._queues.get(shape.queue, 0) for shape in tasks.shapes.values]
            score = score + BIG * np.array(of, np.int64)[tasks.shape]
        return score

    def factors(self) -> Factors:
        """What makes up the priorities of all that wait."""
        tasks, shares, qos = self._board.tasks, self._shares, self._qos
        return factors(tasks, self._policy, self._now, self._cluster, shares, qos)

    def of_running(self, task: Running) -> tuple[int, int, int]:
        """Where a task that runs would stand if it waited: (score, later, later)."""
        policy, weights, shape = self._policy, self._policy.weights, task.shape
        score = 0
        if policy.order is not Order.FIFO:
            limit = max(policy.age_limit_us, 1)
            age = min(max(self._now - task.created_us, 0), limit) * WHOLE // limit
            size = min(shape.workers * shape.resources.gpus * WHOLE // max(self._cluster, 1), WHOLE)
            fractions = (
                weights.age * age
                + weights.fair_share * self._shares.get((task.account, task.owner), 0)
                + weights.size * size
                + weights.qos * self._qos.get(task.account, 0)
            )
            score = weights.priority_class * task.priority + fractions // WHOLE
        score -= most_of_fractions(policy) * task.preemptible
        score += BIG * self._queues.get(shape.queue, 0)
        return score, -task.created_us, -task.job_id

    @cached_property
    def _shares(self) -> Mapping[tuple[str, str], int]:
        tree = self._policy.fair_share is FairShare.TREE
        return self._board.fair_shares(self._view) if tree else {}

    @cached_property
    def _qos(self) -> Mapping[str, int]:
        return {account.name: account.qos for account in self._view.accounts}

    @cached_property
    def _cluster(self) -> int:
        return int(self._board.nodes.has_gpus.sum())
