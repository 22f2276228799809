"""Tokens by which a job's own script starts steps in its job.

Derived from the cluster's secret, so that none is kept anywhere; and good only while the attempt
lives that it was made for.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.model.job import Attempt
    from controlplane.registry.facts import Facts

PREFIX = "ccs_"
"""How every such token begins, and no other does."""


def make(cluster_secret: str, attempt: Attempt) -> str:
    """The token of an attempt."""
    named = f"{PREFIX}{attempt.job_id}_{attempt.task_index}_{attempt.number}"
    code = hmac.new(cluster_secret.encode(), named.encode(), hashlib.sha256).hexdigest()
    return f"{named}_{code}"


def job_of(facts: Facts, token: str) -> int | None:
    """The job whose living attempt a token was made for; None for any other text."""
    numbers = token.removeprefix(PREFIX).split("_")[:3]
    if not all(n.isascii() and n.isdecimal() and len(n) < 19 for n in numbers) or len(numbers) < 3:
        return None
    job_id, task_index, number = map(int, numbers)
    attempt = facts.attempts.get((job_id, task_index, number))
    if attempt is None or attempt.state.final or job_id not in facts.jobs:
        return None
    good = make(facts.cluster.secret, attempt)
    return job_id if hmac.compare_digest(good.encode(), token.encode()) else None
