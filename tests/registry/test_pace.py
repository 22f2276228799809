"""How much of their limits attempts of late have used."""

from __future__ import annotations

from dataclasses import replace

from controlplane.model.job import Attempt, AttemptState, Job
from controlplane.model.spec import parse_spec
from controlplane.registry.pace import ENOUGH, Recent

HOUR = 3_600_000_000
SPEC = parse_spec({"command": ["true"], "time_limit": "10h"})
JOB = Job(
    job_id=1,
    spec=SPEC,
    spec_sha256="",
    owner="ada",
    account="default",
    priority=1,
    created_us=0,
    time_limit_us=10 * HOUR,
)


def ran(hours: float, state: AttemptState = AttemptState.SUCCEEDED) -> Attempt:
    made = Attempt(job_id=1, number=1, lease_ids=(), workers=(), created_us=0)
    return replace(made, state=state, started_us=HOUR, ended_us=HOUR + round(hours * HOUR))


def test_the_pace_is_that_of_programs_that_ran_to_an_end() -> None:
    recent = Recent()
    for i in range(ENOUGH - 1):
        recent.ended(JOB, ran(i % 10))
        recent.ended(JOB, ran(9, AttemptState.CANCELLED))
        recent.ended(replace(JOB, time_limit_us=None), ran(9))
    assert recent.pace() == (1000, 1000, 1000)
    recent.ended(JOB, ran(9))
    assert recent.pace() == (100, 500, 800)
    for _ in range(1000):
        recent.ended(JOB, ran(30))
    assert recent.pace() == (1000, 1000, 1000)
