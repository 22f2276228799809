"""Usages of attempts, made up by Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from controlplane.model.job import AttemptState
from controlplane.model.usage import Usage

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
