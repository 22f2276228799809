"""What becomes of a task whose program asks to be started again."""

from __future__ import annotations

import pytest

from controlplane.model.job import (
    Attempt,
    AttemptState,
    Cause,
    CauseKind,
    Job,
    JobState,
    Task,
)
from controlplane.model.retry import MAX_QUICK_REQUEUES, SETTLED_US, judge
from controlplane.model.spec import parse_spec

NOW = 10**15
JOB = Job(
    job_id=1,
    spec=parse_spec({"command": ["true"], "requeue_exit_codes": [75, 85]}),
    spec_sha256="",
    owner="ada",
    priority=0,
    created_us=0,
)


def attempt(number: int = 1, ran_us: int = 1, exit_code: int = 75) -> Attempt:
    cause = Cause(kind=CauseKind.APPLICATION, message="it exited", rank=0, exit_code=exit_code)
    return Attempt(
        job_id=1,
        number=number,
        state=AttemptState.FAILED,
        outcome=AttemptState.FAILED,
        cause=cause,
        lease_ids=(),
        workers=(),
        created_us=NOW - ran_us - 5,
        started_us=NOW - ran_us,
        ended_us=NOW,
    )


def task(quick: int = 0) -> Task:
    return Task(job_id=1, state=JobState.ACTIVE, attempts=1, quick_requeues=quick)


@pytest.mark.parametrize("exit_code", [75, 85])
def test_who_asks_is_started_again_at_once_and_it_counts_against_nothing(exit_code: int) -> None:
    found = judge(JOB, task(), attempt(exit_code=exit_code), NOW).task

    assert (found.state, found.not_before_us) == (JobState.PENDING, 0)
    assert (found.application_faults, found.infrastructure_faults) == (0, 0)


def test_another_exit_code_is_a_fault() -> None:
    assert judge(JOB, task(), attempt(exit_code=74), NOW).task.state is JobState.FAILED


def test_a_program_that_does_nothing_but_ask_is_ended() -> None:
    found, asked = task(), 0
    while (verdict := judge(JOB, found, attempt(), NOW)).task.state is JobState.PENDING:
        found, asked = verdict.task, asked + 1

    assert asked == MAX_QUICK_REQUEUES == 100
    assert verdict.task.state is JobState.FAILED
    assert verdict.reason == (
        "it exited (100 attempts in a row were started again for it, none of which ran for 10 min:"
        " no further one)"
    )


def test_one_attempt_that_ran_for_long_begins_a_new_row() -> None:
    full = task(MAX_QUICK_REQUEUES)

    assert judge(JOB, full, attempt(ran_us=SETTLED_US - 1), NOW).task.state is JobState.FAILED
    found = judge(JOB, full, attempt(ran_us=SETTLED_US), NOW).task
    assert (found.state, found.quick_requeues) == (JobState.PENDING, 0)
