"""Usages of attempts, made up by Hypothesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from controlplane.model.event import CONTROL_PLANE
from controlplane.model.job import Attempt, AttemptState, Job, JobState, Task
from controlplane.model.spec import parse_spec, spec_sha256
from controlplane.model.usage import Usage
from controlplane.registry.draft import Draft

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.registry.store import Store

FINAL = [state for state in AttemptState if state.final]


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """What an attempt used between the microseconds 0 and 1000."""
    job_id, attempt = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    edges = sorted(draw(st.tuples(st.integers(0, 1000), st.integers(0, 1000))))
    devices = draw(st.dictionaries(st.sampled_from(["A100", "H100", "é"]), st.integers(1, 8)))
    return Usage(
        job_id=job_id,
        task_index=0,
        attempt=attempt,
        owner=f"user-{job_id % 2}",
        account=f"account-{job_id % 3}",
        state=draw(st.sampled_from(FINAL)),
        seq=draw(st.integers(1, 9)),
        from_us=edges[0],
        until_us=edges[1],
        devices=tuple(sorted(devices.items())),
        cpu_millicores=draw(st.integers(1, 10**6)),
        memory_bytes=draw(st.integers(1, 10**12)),
        peak_memory_bytes=draw(st.none() | st.integers(0, 10**12)),
        stdout_bytes=draw(st.integers(0, 10**12)),
        stderr_bytes=draw(st.integers(0, 10**12)),
        waiting_us=draw(st.integers(0, 1000)),
        staging_us=0,
        starting_us=0,
        running_us=edges[1] - edges[0],
        stopping_us=0,
    )


def commit_usages(store: Store, several: Iterable[Usage]) -> None:
    """Write usages down, with the jobs and attempts that they are of."""
    draft = Draft(store.open(), 0, CONTROL_PLANE)
    spec = parse_spec({"command": ["true"]})
    for usage in several:
        draft.jobs[usage.job_id] = Job(
            job_id=usage.job_id,
            spec=spec,
            spec_sha256=spec_sha256(spec),
            owner=usage.owner,
            priority=0,
            state=JobState.SUCCEEDED,
            created_us=0,
            revision=1,
        )
        draft.tasks[usage.job_id, 0] = Task(
            job_id=usage.job_id, index=0, state=JobState.SUCCEEDED, attempts=usage.attempt
        )
        draft.attempts[usage.key] = Attempt(
            job_id=usage.job_id,
            task_index=0,
            number=usage.attempt,
            state=usage.state,
            lease_ids=(),
            workers=(),
            created_us=0,
        )
        draft.usages.append(usage)
    store.commit(draft, {})
