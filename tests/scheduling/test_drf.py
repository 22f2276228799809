"""Dominant-resource fairness, by the example of its paper."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from controlplane.model.policy import Backfill, FairShare, Policy
from controlplane.model.view import Account, View
from controlplane.scheduling.policy import plan
from tests.scheduling.test_policy import NOW, gang, node

GIB = 1 << 30
DRF = Policy(fair_share=FairShare.DRF, backfill=Backfill.SKIP)


def started(view: View, policy: Policy = DRF) -> Counter[str]:
    whose = {w.job_id: w.account for w in view.waiting}
    return Counter(whose[place.job_id] for place in plan(view, policy).places)


def test_the_example_of_the_paper() -> None:
    """9 cores and 18 GB; A's tasks need 1 core and 4 GB, B's 3 cores and 1 GB: A runs three tasks,
    B two, and each has two thirds of what it needs most (section 4.1)."""
    one = replace(node("a", cpus=9), memory_bytes=18 * GIB, free_memory_bytes=18 * GIB)
    a = [gang(i, memory_bytes=4 * GIB, account="A") for i in range(1, 20)]
    b = [
        gang(i, cpu_millicores=3000, memory_bytes=GIB, account="B", created_us=i)
        for i in range(20, 40)
    ]
    view = View(now_us=NOW, seq=1, nodes=(one,), waiting=(*a, *b))
    assert started(view) == {"A": 3, "B": 2}


def test_shares_weigh_and_a_higher_class_comes_first() -> None:
    tasks = [gang(i, account="A" if i % 2 else "B") for i in range(1, 41)]
    view = View(now_us=NOW, seq=1, nodes=(node("a", cpus=9),), waiting=tuple(tasks))
    assert started(view) == {"A": 5, "B": 4}
    accounts = (Account(name="A", parent="", shares=2), Account(name="B", parent=""))
    assert started(replace(view, accounts=accounts)) == {"A": 6, "B": 3}
    urgent = tuple(replace(w, priority=2000) if w.account == "B" else w for w in tasks)
    assert started(replace(view, waiting=urgent)) == {"B": 9}


def test_what_runs_counts() -> None:
    from tests.scheduling.test_explain import ran

    tasks = [gang(i, account="A" if i < 5 else "B") for i in range(1, 21)]
    view = View(now_us=NOW, seq=1, nodes=(node("a", cpus=8),), waiting=tuple(tasks))
    for job in (1, 2):
        view = ran(view, job, None)
    assert started(view) == {"A": 2, "B": 4}
