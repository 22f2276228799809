"""Who is ended for whom: only where that makes the whole gang a place, and who loses the least."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controlplane.model.policy import Policy
from controlplane.model.view import Account, Quota, View, Waiting
from controlplane.scheduling.policy import plan
from tests.scheduling.test_explain import HOUR, ran
from tests.scheduling.test_policy import NOW, gang, node


def busy(*gpus: int, **changes: Any) -> View:
    """Nodes with two GPUs each, and a job of the lowest class for each number, which run."""
    nodes = tuple(node(f"n{i}", gpus=2) for i in range(len(gpus)))
    waiting = tuple(gang(i, gpus=g, priority=100, **changes) for i, g in enumerate(gpus, 1))
    view = View(now_us=NOW, seq=1, nodes=nodes, waiting=waiting)
    for i in range(1, len(gpus) + 1):
        view = ran(view, i, None)
    return view


def asked(view: View, *gangs: Waiting) -> View:
    return replace(view, waiting=(*view.waiting, *gangs))


def ended(view: View) -> list[int]:
    return [preempt.job_id for preempt in plan(view).preempts]


def test_the_one_that_loses_the_least_since_its_last_checkpoint_is_ended() -> None:
    view = busy(2, 2, 2)
    saved = (NOW - 2 * HOUR, NOW - HOUR, NOW - 3 * HOUR)
    running = tuple(replace(r, saved_us=s) for r, s in zip(view.running, saved, strict=True))
    view = asked(replace(view, running=running), gang(9, gpus=2, priority=1000))
    decided = plan(view)
    assert [(p.job_id, p.attempt, p.reason) for p in decided.preempts] == [
        (2, 1, "makes room for job 9")
    ]
    (hold,) = decided.holds
    assert hold.reason == "waits for room: 1 of lower rank are being ended for it"


def test_nobody_of_the_same_class_is_ended_and_nobody_for_a_gang_that_has_no_place_then() -> None:
    assert ended(asked(busy(2, 2), gang(9, gpus=2, priority=100))) == []
    assert ended(asked(busy(2, 2), gang(9, 2, gpus=2, priority=1000, preempts=False))) == []
    assert ended(asked(busy(2, 2), gang(9, 3, gpus=2, priority=1000))) == []
    assert ended(asked(busy(2, 2), gang(9, 2, gpus=2, priority=1000))) == [1, 2]
    off = asked(busy(2, 2), gang(9, 2, gpus=2, priority=1000))
    assert plan(off, Policy(preemption=False)).preempts == ()


def test_no_more_are_ended_than_are_needed_and_free_devices_count() -> None:
    assert ended(asked(busy(1, 2), gang(9, gpus=2, priority=1000))) == [1]
    assert ended(asked(busy(1, 1), gang(9, 2, gpus=1, priority=1000))) == []


def test_who_is_being_ended_is_waited_for_and_nobody_else_is_ended() -> None:
    view = asked(busy(2, 2), gang(9, gpus=2, priority=1000))
    first, second = view.running
    stopping = replace(first, stopping=True, until_us=NOW + 10_000_000)
    assert ended(replace(view, running=(stopping, second))) == []
    stuck = replace(first, stopping=True, until_us=NOW - 1)
    assert ended(replace(view, running=(stuck, second))) == [2], "one that will not die holds none"


def test_a_job_that_lets_others_end_it_makes_room_for_its_own_class() -> None:
    view = busy(2)
    (task,) = view.running
    view = replace(view, running=(replace(task, preemptible=True),))
    assert ended(asked(view, gang(9, gpus=2, priority=100))) == [1]
    assert ended(asked(view, gang(9, gpus=2, priority=100, preemptible=True))) == []


def test_borrowed_gpus_are_given_back_to_whom_they_belong() -> None:
    accounts = (
        Account(name="lender", parent="", quota=Quota(gpus=2)),
        Account(name="borrower", parent="", quota=Quota(gpus=2, borrow_gpus=None)),
    )
    view = replace(busy(2, 2, account="borrower"), accounts=accounts)
    wants = gang(9, gpus=2, priority=100, account="lender")
    assert len(ended(asked(view, wants))) == 1
    assert ended(asked(view, replace(wants, account="borrower"))) == []


def test_nobody_is_ended_who_would_be_ahead_in_line_again() -> None:
    """Else both would take the room from each other for ever."""
    view = busy(2, created_us=NOW - 7 * 24 * HOUR)
    younger = gang(9, gpus=2, priority=101, created_us=NOW)
    assert ended(asked(view, younger)) == []
    assert ended(asked(view, replace(younger, priority=1000))) == [1]


def test_what_is_given_back_is_not_borrowed_again_before_its_owner_has_it() -> None:
    accounts = (
        Account(name="lender", parent="", quota=Quota(gpus=2)),
        Account(name="borrower", parent="", quota=Quota(gpus=0, borrow_gpus=None)),
    )
    view = View(now_us=NOW, seq=1, nodes=(node("a", gpus=2),), waiting=(), accounts=accounts)
    borrows = gang(1, gpus=1, account="borrower", created_us=0)
    assert [p.job_id for p in plan(asked(view, borrows)).places] == [1]
    both = asked(view, borrows, gang(2, gpus=2, account="lender", created_us=5))
    decided = plan(both)
    assert [p.job_id for p in decided.places] == [2]
    assert "its siblings leave 0 idle" in decided.holds.reason(1)
    never = gang(3, gpus=2, gpu_model="B900", account="lender")
    assert [p.job_id for p in plan(asked(view, borrows, never)).places] == [1]


def test_one_that_yields_comes_last_within_its_class() -> None:
    view = View(now_us=NOW, seq=1, nodes=(node("a", gpus=1),), waiting=())
    yields = gang(1, gpus=1, preemptible=True, created_us=0)
    assert [p.job_id for p in plan(asked(view, yields, gang(2, gpus=1))).places] == [2]
    assert [p.job_id for p in plan(asked(view, yields, gang(2, gpus=1, priority=1))).places] == [1]


def test_what_is_reclaimed_is_so_whoever_would_be_ahead() -> None:
    accounts = (
        Account(name="lender", parent="", quota=Quota(gpus=2)),
        Account(name="borrower", parent="", quota=Quota(gpus=0, borrow_gpus=None)),
    )
    view = replace(busy(2, account="borrower", created_us=0), accounts=accounts)
    wants = gang(9, gpus=2, priority=101, account="lender", created_us=NOW)
    assert ended(asked(view, wants)) == [1]
