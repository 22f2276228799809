"""Who goes first: class, age, fair share, size and quality of service, as Slurm's
priority/multifactor weighs them (https://slurm.schedmd.com/priority_multifactor.html).

Every factor is an integer in millionths, and so is every sum: the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.model.policy import Policy
    from controlplane.scheduling.columns import Ints, Tasks

WHOLE = 1_000_000
"""A factor of 1."""


def most_of_fractions(policy: Policy) -> int:
    """More than all factors but the class can add."""
    weights = policy.weights
    return weights.age + weights.fair_share + weights.size + weights.qos + 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Factors:
    """What makes up the priorities of tasks: a column for each factor, in millionths."""

    priority_class: Ints
    """Value of the class; this one is no fraction."""
    age: Ints
    fair_share: Ints
    size: Ints
    qos: Ints

    def score(self, policy: Policy) -> Ints:
        """The weighted sums: the higher goes first."""
        weights = policy.weights
        fractions = (
            weights.age * self.age
            + weights.fair_share * self.fair_share
            + weights.size * self.size
            + weights.qos * self.qos
        )
        score: Ints = weights.priority_class * self.priority_class + fractions // WHOLE
        return score


def factors(
    tasks: Tasks,
    policy: Policy,
    now_us: int,
    cluster_gpus: int,
    fair_share: Mapping[tuple[str, str], int],
    qos: Mapping[str, int],
) -> Factors:
    """The factors of all tasks. `fair_share`: by account and user; `qos`: by account; both in
    millionths, and 0 for who is not there."""
    limit = max(policy.age_limit_us, 1)  # at most 100 days, so that this fits
    age = np.clip(now_us - tasks.created, 0, limit) * WHOLE // limit
    accounts, owners = tasks.accounts.values, tasks.owners.values
    shares = np.zeros(len(tasks), np.int64)
    if fair_share:
        pair = tasks.account * len(owners) + tasks.owner
        table = np.zeros(len(accounts) * len(owners), np.int64)
        number = {name: i for i, name in enumerate(owners)}
        at = {name: i for i, name in enumerate(accounts)}
        for (account, user), factor in fair_share.items():
            if account in at and user in number:
                table[at[account] * len(owners) + number[user]] = factor
        shares = table[pair]
    served = np.array([qos.get(name, 0) for name in accounts], np.int64)
    return Factors(
        priority_class=tasks.priority,
        age=age,
        fair_share=shares,
        size=np.minimum(tasks.gpus * WHOLE // max(cluster_gpus, 1), WHOLE),
        qos=served[tasks.account],
    )
