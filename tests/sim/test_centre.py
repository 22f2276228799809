"""The real scheduler over made-up traces: every invariant looked at after every event."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from controlplane.registry import jobs
from controlplane.registry.which import Which
from controlplane.sim.agents import AGENT
from controlplane.sim.centre import Centre, PreemptionCost
from controlplane.sim.cluster import uniform
from controlplane.sim.meter import Meter
from controlplane.sim.recipe import Section
from controlplane.sim.simulate import simulate
from controlplane.sim.synthetic import synthetic
from controlplane.sim.trace import TraceJob

S = 1_000_000


def made_up(**changes: Any) -> list[TraceJob]:
    fields: dict[str, Any] = {
        "jobs": 120,
        "arrivals": {"per_hour": 40},
        "gpus": {"0": 1, "1": 6, "3": 1, "4": 2, "8": 1, "12": 1},
        "duration": {"median": "20m", "sigma": 1.2, "most": "12h"},
        "accounts": {"vision": 2, "speech": 1},
        "cpus_per_gpu": 2,
        "limit_factor": 1.3,
    }
    return synthetic(Section(Path("made-up"), "", fields | changes))


def job(name: str, submit: float, length: float, gpus: int, **more: Any) -> TraceJob:
    return TraceJob(
        name=name,
        submit_us=round(submit * S),
        duration_us=round(length * S),
        gpu_milli=gpus * 1000,
        **more,
    )


def spans(runs: Any) -> list[tuple[float, float]]:
    return [(r.started_us / S, r.ended_us / S) for r in runs]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_invariants_hold_after_every_event(seed: int) -> None:
    result = simulate(made_up(seed=seed), uniform(4, 4), "default", check=True)

    assert result.summary.overall.jobs == 120
    assert result.broken_promises == 0
    assert all(run.started_us is not None for run in result.runs)


def test_the_same_trace_gives_the_same_end() -> None:
    first, second = (
        simulate(made_up(jobs=60), uniform(3, 4), "default").document() for _ in range(2)
    )

    assert first == second


def test_a_higher_class_goes_first_and_ends_what_a_lower_one_runs() -> None:
    trace = [
        job("a", 0, 10, 4),
        job("b", 1, 10, 4),
        job("c", 2, 10, 4, priority=5000),
        job("d", 3, 10, 4, priority=0),
        job("e", 4, 10, 4),
    ]

    result = simulate(trace, uniform(1, 4), "default", check=True)

    assert spans(result.runs) == [(0, 20), (20, 30), (2, 12), (40, 50), (30, 40)]
    assert [run.preemptions for run in result.runs] == [1, 0, 0, 0, 0]


def test_a_job_larger_than_a_node_is_split_into_equal_parts() -> None:
    result = simulate([job("a", 0, 10, 12), job("b", 0, 10, 4)], uniform(4, 4), "default")

    assert spans(result.runs) == [(0, 10), (0, 10)]
    assert result.points[0].busy == 16


def test_a_job_that_one_node_can_hold_is_on_one_node() -> None:
    trace = [job("a", 0, 10, 3), job("b", 0, 20, 3), job("c", 0, 5, 2)]

    result = simulate(trace, uniform(2, 4), "default")

    assert spans(result.runs) == [(0, 10), (0, 20), (10, 15)], "c is not split over both"


def test_what_can_never_run_is_told_and_stops_nobody() -> None:
    trace = [job("huge", 0, 10, 100), job("a", 0, 10, 4)]

    result = simulate(trace, uniform(2, 4), "default", check=True)

    assert result.summary.never[0][0] == "huge"
    assert "the whole cluster has room for" in result.summary.never[0][1]
    assert spans(result.runs[1:]) == [(0, 10)]
    assert result.document()["never_jobs"] == 1


def test_an_account_may_have_any_name_in_a_trace() -> None:
    names = ["", "default", "vision", "Vision & Speech", "x" * 100]
    trace = [job(str(i), 0, 10, 1, account=name) for i, name in enumerate(names)]

    result = simulate(trace, uniform(2, 4), "default", check=True)

    assert spans(result.runs) == [(0, 10)] * 5
    assert [group.name for group in result.summary.by_account] == sorted(names)


def test_cores_and_memory_bind_where_the_trace_tells_of_them() -> None:
    trace = [job(name, 0, 10, 1, cpu_milli=6000) for name in "ab"]

    result = simulate(trace, uniform(1, 4, cpus=8), "default")

    assert spans(result.runs) == [(0, 10), (10, 20)]


class Requeuing(Centre):
    """An operator requeues the first job at 30 s: it takes the way that a preemption takes."""

    def _decide(self, came: Iterable[int]) -> None:
        if self._now_us == 30 * S:
            self._do(lambda draft: jobs.requeue(draft, [Which(1)]), AGENT)
        super()._decide(came)


def test_an_interrupted_job_goes_on_where_it_was_and_pays_for_it() -> None:
    meter = Meter(4)
    cost = PreemptionCost(checkpoint_us=5 * S, restart_us=20 * S)
    centre = Requeuing(uniform(1, 4), meter, cost=cost, check=True)

    run, _ = centre.run([job("a", 0, 100, 4), job("b", 30, 1, 0)])

    assert run.preemptions == 1
    assert run.ended_us == (30 + 5 + 20 + 70) * S
    assert meter.lost_us == 4 * 25 * S
