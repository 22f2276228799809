"""The checker can fail: each fault is planted into accounts in which all is well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.check import Accounts, Happened, Known, Line, Told, faults
from tests.faults.logbooks import suspicious

FIRST, SECOND = "jobs/1/tasks/0/attempts/1", "jobs/1/tasks/0/attempts/2"
LOST = {"job_state": "pending", "cause": "a was silent", "cause_kind": "infrastructure"}
STORY: list[tuple[str, str, dict[str, Any]]] = [
    ("job.submitted", "jobs/1", {}),
    ("jobs.submitted", "jobs/2-3", {"held_by": "admin"}),
    ("attempt.placed", FIRST, {}),
    ("attempt.running", FIRST, {}),
    ("attempt.node_lost", FIRST, LOST),
    ("attempt.placed", SECOND, {}),
    ("job.cancelled", "jobs/2", {}),
    ("job.cancelled", "jobs/3", {}),
    ("attempt.succeeded", SECOND, {"job_state": "succeeded"}),
]
WELL = Accounts(
    events=[
        Happened(seq=seq, kind=kind, resource=of, changed=changed)
        for seq, (kind, of, changed) in enumerate(STORY, start=1)
    ],
    jobs={
        "jobs/1": Known(state="succeeded", reason="every worker ended", exit_code=0),
        "jobs/2": Known(state="cancelled", reason="cancelled by admin", exit_code=130),
        "jobs/3": Known(state="cancelled", reason="cancelled by admin", exit_code=130),
    },
    lines=[
        Line(what="begin", job=1, attempt=1, rank=0, size=2),
        Line(what="begin", job=1, attempt=2, rank=0, size=2),
        Line(what="begin", job=1, attempt=2, rank=1, size=2),
        Line(what="end", job=1, attempt=2, rank=0),
        Line(what="end", job=1, attempt=2, rank=1),
    ],
    site=["prolog 1.0.1 on a", "prolog 1.0.2 on b", "epilog 1.0.1 on a", "epilog 1.0.2 on b"],
    printed={(SECOND, rank): f"begin {rank}\nend {rank}\n" for rank in range(2)},
    told=[
        Told(what="submitted", names=("jobs/1",), request_id="r1"),
        Told(what="submitted", names=("jobs/2", "jobs/3"), request_id="r2"),
        Told(what="submitted", names=("jobs/1",), request_id="r1"),
        Told(what="saw", names=("jobs/1",), state="active"),
        Told(what="cancelled", names=("jobs/2",)),
        Told(what="held", names=("jobs/2",)),
    ],
)


def events(change: Callable[[list[Happened]], object]) -> Accounts:
    """The accounts with other events, numbered anew."""
    told = list(WELL.events)
    change(told)
    again = [replace(event, seq=seq) for seq, event in enumerate(told, start=1)]
    return replace(WELL, events=again)


def happened(kind: str, of: str, **changed: Any) -> Happened:
    return Happened(seq=0, kind=kind, resource=of, changed=changed)


def told(what: str, *names: str, **more: str) -> Accounts:
    return replace(WELL, told=[*WELL.told, Told(what=what, names=names, **more)])


def line(what: str, **more: int) -> Accounts:
    return replace(WELL, lines=[*WELL.lines, Line(what=what, job=1, **more)])


def job(**changes: Any) -> Accounts:
    return replace(WELL, jobs={**WELL.jobs, "jobs/1": replace(WELL.jobs["jobs/1"], **changes)})


def test_all_is_well() -> None:
    assert faults(WELL) == []


PLANTED: dict[str, tuple[Accounts, str]] = {
    "a gap in the numbers": (replace(WELL, events=WELL.events[1:]), "events: 2 follows 0"),
    "an acknowledged job is lost": (
        replace(WELL, jobs={n: j for n, j in WELL.jobs.items() if n != "jobs/1"}),
        "jobs/1: was acknowledged, and is not known",
    ),
    "another answer to a repeat": (
        told("submitted", "jobs/2", request_id="r1"),
        "r1: was answered with ('jobs/1',), and then with ('jobs/2',)",
    ),
    "a number given out twice": (
        told("submitted", "jobs/1", request_id="r9"),
        "jobs/1: was given to r1 and to r9",
    ),
    "a job from nowhere": (
        replace(WELL, jobs={**WELL.jobs, "jobs/9": WELL.jobs["jobs/2"]}),
        "jobs/9: is known, and no event tells of it",
    ),
    "submitted twice": (
        events(lambda all_: all_.append(happened("job.submitted", "jobs/1"))),
        "jobs/1: was submitted 2 times",
    ),
    "a cancel that was not made": (
        told("cancelled", "jobs/1"),
        "jobs/1: is told as cancelled, and no event tells of it",
    ),
    "a cancel without effect": (
        events(lambda all_: all_.append(happened("job.cancelled", "jobs/1"))),
        "",
    ),
    "a requeue that was not made": (
        told("requeued", "jobs/1/tasks/0"),
        "jobs/1/tasks/0: is told as requeued, and no event tells of it",
    ),
    "a terminal state that changes": (
        told("saw", "jobs/1", state="failed"),
        "jobs/1: was seen failed, and is succeeded",
    ),
    "two attempts at once": (
        events(lambda all_: all_.pop(4)),
        f"{SECOND}: was placed while attempt 1 lived",
    ),
    "an attempt after the end": (
        events(lambda all_: all_.append(happened("attempt.placed", f"{SECOND[:-1]}3"))),
        "jobs/1/tasks/0/attempts/3: was placed after its task's end",
    ),
    "an attempt that is left out": (
        events(lambda all_: all_.__delitem__(slice(2, 5))),
        f"{SECOND}: was placed after attempt 0",
    ),
    "placed while held": (
        events(
            lambda all_: all_.insert(2, happened("attempt.placed", "jobs/3/tasks/0/attempts/1"))
        ),
        "jobs/3/tasks/0/attempts/1: was placed while held",
    ),
    "placed after a cancel": (
        events(lambda all_: all_.append(happened("attempt.placed", "jobs/2/tasks/0/attempts/1"))),
        "jobs/2/tasks/0/attempts/1: was placed after a cancel",
    ),
    "an attempt without an end": (events(lambda all_: all_.pop()), f"{SECOND}: never ended"),
    "a task that runs twice": (
        line("twice", attempt=2),
        f"{SECOND}: rank 0 ran while a worker of another attempt did",
    ),
    "a worker started twice": (
        line("begin", attempt=2, size=2),
        f"{SECOND} rank 0: was started 2 times",
    ),
    "a worker of no attempt": (
        line("begin", attempt=3),
        "jobs/1/tasks/0/attempts/3: rank 0 ran, and no event tells of the attempt",
    ),
    "an end without a cause": (
        events(
            lambda all_: all_.__setitem__(
                4, happened("attempt.node_lost", FIRST, job_state="pending")
            )
        ),
        f"{FIRST}: is node_lost without a cause",
    ),
    "an end without somebody's doing": (
        events(
            lambda all_: all_.__setitem__(
                4, happened("attempt.node_lost", FIRST, job_state="pending", cause="a was silent")
            )
        ),
        f"{FIRST}: is node_lost, and nobody knows whose doing that was",
    ),
    "a job that does not end": (
        job(state="pending", reason="waits"),
        "jobs/1: has not ended: pending, waits",
    ),
    "a job without a reason": (job(reason=""), "jobs/1: is succeeded without a reason"),
    "a wrong exit code": (job(exit_code=1), "jobs/1: is succeeded with exit code 1"),
    "a success that is none": (
        replace(WELL, lines=WELL.lines[:-1]),
        f"{SECOND}: is told as succeeded, and only ranks [0] say so",
    ),
    "output that is lost": (
        replace(WELL, printed={(SECOND, 0): "begin 0\n"}),
        f"{SECOND}: the output of rank 0 is 'begin 0\\n'",
    ),
    "output that is there twice": (
        replace(WELL, printed={(SECOND, 1): "begin 1\nbegin 1\nend 1\n"}),
        f"{SECOND}: the output of rank 1 is",
    ),
    "a prolog without an epilog": (
        replace(WELL, site=[*WELL.site, "prolog 1.0.2 on a"]),
        "1.0.2 on a: its prolog ran, and no epilog after it",
    ),
    "something left behind": (replace(WELL, left=["process 7: sleep"]), "left behind: process 7"),
}
PLANTED["a cancel without effect"] = (
    replace(
        PLANTED["a cancel without effect"][0],
        told=[*WELL.told, Told(what="cancelled", names=("jobs/1",))],
    ),
    "jobs/1: is told as cancelled, and is succeeded",
)


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_is_found(fault: str) -> None:
    accounts, words = PLANTED[fault]
    assert [found for found in faults(accounts) if words in found], faults(accounts)


AWAY = "controlplane.model.errors.StoreUnavailable: the database does not answer"
TRACE = "Traceback (most recent call last):\n  File 'a.py', line 1, in f\n"
LOG = """CC_FAILPOINTS is set
12:00:00.000 info    controlplane.daemon.serve: serving
12:00:01.000 error   controlplane.kit.loop: the duty schedule failed; it is tried again
{trace}{end}
12:00:02.000 warning nodeagent.session: the control plane does not answer
"""


def test_a_log_may_tell_of_what_was_done_to_a_daemon_and_not_of_its_own_mistakes() -> None:
    assert suspicious(LOG.format(trace=TRACE, end=AWAY)) == []
    (found,) = suspicious(LOG.format(trace=TRACE, end="KeyError: 7"))
    assert found.startswith("12:00:01.000 error")
    assert found.endswith("KeyError: 7")
    assert suspicious("12:00:00.000 critical controlplane: another has taken over\n")
