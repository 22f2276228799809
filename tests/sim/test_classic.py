"""The classic policies on traces that were worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.scheduling.classic import Classic, level_of
from controlplane.scheduling.firstfit import Racks
from controlplane.sim.classic import simulate
from controlplane.sim.meter import Meter
from controlplane.sim.trace import TraceJob

S = 1_000_000
HOUR = 3600

# (submitted, length, GPUs), in seconds; on two nodes of 4 GPUs.
FIVE = [(0, 10, 4), (0, 6, 4), (1, 4, 8), (2, 1, 1), (3, 8, 1)]


def trace(*jobs: tuple[float, float, int]) -> list[TraceJob]:
    return [
        TraceJob(
            name=str(i),
            submit_us=round(submit * S),
            duration_us=round(length * S),
            gpu_milli=gpus * 1000,
        )
        for i, (submit, length, gpus) in enumerate(jobs)
    ]


def run(policy: str, jobs: list[TraceJob], sizes: tuple[int, ...] = (4, 4), **more: Any) -> Any:
    meter = Meter(sum(sizes))
    runs = simulate(jobs, sizes, Classic(policy), meter, **more)
    return runs, meter


@pytest.mark.parametrize(
    ("policy", "spans"),
    [
        # The third needs both nodes, and stops the two behind it.
        ("fifo", [(0, 10), (0, 6), (10, 14), (14, 15), (14, 22)]),
        # They pass it, and it waits for the last of them.
        ("fifo-skip", [(0, 10), (0, 6), (14, 18), (6, 7), (6, 14)]),
        # The fourth is shorter than the third; the fifth is longer, and waits behind it.
        ("sjf", [(0, 10), (0, 6), (10, 14), (6, 7), (14, 22)]),
        ("srtf", [(0, 19), (0, 10), (1, 6), (2, 3), (6, 14)]),
        ("srsf", [(0, 14), (0, 6), (14, 18), (2, 3), (3, 11)]),
        # All of one level: who came first goes first, at each event anew.
        ("las", [(0, 10), (0, 6), (10, 14), (6, 7), (6, 18)]),
    ],
)
def test_five_jobs_worked_out_by_hand(policy: str, spans: list[tuple[int, int]]) -> None:
    runs, meter = run(policy, trace(*FIVE))

    assert [(r.started_us / S, r.ended_us / S) for r in runs] == spans
    assert meter.busy == meter.running == meter.waiting == meter.waiting_gpus == 0


def test_shortest_remaining_time_counts_each_preemption() -> None:
    runs, _ = run("srtf", trace(*FIVE))

    assert [r.preemptions for r in runs] == [1, 2, 1, 0, 0]


def test_a_preemption_costs_its_job_time_and_the_centre_gpus() -> None:
    runs, meter = run("srtf", trace((0, 10, 2), (1, 2, 2)), (2,), preemption_cost_us=3 * S)

    assert [r.ended_us for r in runs] == [15 * S, 3 * S]
    assert meter.lost_us == 2 * 3 * S


def test_least_attained_service_moves_a_job_down_while_it_runs() -> None:
    jobs = trace((0, 2 * HOUR, 1), (HOUR / 2, HOUR / 2, 1))

    runs, _ = run("las", jobs, (1,))

    # The first has had its GPU-hour after an hour; nothing else happens then.
    assert [r.started_us for r in runs] == [0, HOUR * S]
    assert [r.ended_us for r in runs] == [2.5 * HOUR * S, 1.5 * HOUR * S]


def test_a_wide_job_is_served_by_its_gpus() -> None:
    jobs = trace((0, HOUR, 4), (60, HOUR, 4))

    runs, _ = run("las", jobs, (4,))

    # 4 GPUs have a GPU-hour of service after a quarter of an hour.
    assert runs[1].started_us == HOUR / 4 * S


@pytest.mark.parametrize(
    ("hours", "level"), [(0, 0), (0.999, 0), (1, 1), (9.999, 1), (10, 2), (1e9, 6)]
)
def test_levels_of_service(hours: float, level: int) -> None:
    assert level_of(round(hours * HOUR * S)) == level


def test_what_the_cluster_is_too_small_for_stops_nobody() -> None:
    runs, _ = run("fifo", trace((0, 5, 9), (1, 2, 1)))

    assert runs[0].never == "it needs 9 GPUs, and the nodes are too small or too few"
    assert (runs[0].started_us, runs[1].started_us) == (None, S)


def test_a_job_without_gpus_starts_at_once() -> None:
    runs, _ = run("fifo", trace((0, 9, 8), (1, 2, 8), (2, 3, 0)))

    assert runs[2].started_us == 9 * S, "strict is strict"
    runs, _ = run("srtf", trace((0, 9, 8), (1, 2, 8), (2, 3, 0)))
    assert runs[2].started_us == 2 * S


class TestRacks:
    def test_a_gang_goes_on_the_first_node_that_holds_it(self) -> None:
        racks = Racks([2, 4, 4])

        assert [racks.take(n) for n in (3, 1, 1, 2, 2, 1)] == [
            ((1, 3),),
            ((0, 1),),
            ((0, 1),),
            ((2, 2),),
            ((2, 2),),
            ((1, 1),),
        ]
        assert racks.left == 0

    def test_a_wide_gang_takes_idle_nodes_and_a_remainder(self) -> None:
        racks = Racks([4, 4, 4])
        racks.take(1)

        assert racks.take(7) == ((1, 4), (0, 3))
        assert racks.take(5) is None, "one idle node, and no room for the remainder"
        assert racks.left == 4

    def test_a_wide_gang_that_fills_nodes_needs_no_remainder(self) -> None:
        racks = Racks([4, 4, 4])

        assert racks.take(8) == ((0, 4), (1, 4))

    def test_idle_gpus_on_nodes_in_use_are_stranded(self) -> None:
        racks = Racks([4, 4])
        spot = racks.take(1)

        assert (racks.left, racks.stranded) == (7, 3)
        racks.give(spot or ())
        assert (racks.left, racks.stranded) == (8, 0)

    @given(
        st.lists(st.integers(1, 8), min_size=1, max_size=6),
        st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=40),
    )
    def test_it_finds_the_first_place_there_is(
        self, sizes: list[int], steps: list[tuple[bool, int]]
    ) -> None:
        racks, held = Racks(sizes), []
        for take, gpus in steps:
            if take:
                free = list(racks.free)
                first = next((i for i, n in enumerate(free) if n >= gpus), None)
                spot = racks.take(gpus)
                if 0 < gpus <= max(sizes):
                    assert spot == (None if first is None else ((first, gpus),))
                if spot is not None:
                    assert sum(n for _, n in spot) == gpus
                    assert len({i for i, _ in spot}) == len(spot)
                    held.append(spot)
            elif held:
                racks.give(held.pop(gpus % len(held)))
            used = [sum(n for spot in held for j, n in spot if j == i) for i in range(len(sizes))]
            assert racks.free == [size - n for size, n in zip(sizes, used, strict=True)]
            assert racks.left == sum(racks.free)


@given(
    st.sampled_from([policy.value for policy in Classic]),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20), st.integers(0, 8)), max_size=25),
)
def test_every_job_ends_and_no_gpu_is_used_twice(
    policy: str, jobs: list[tuple[int, int, int]]
) -> None:
    runs, meter = run(policy, trace(*sorted(jobs)))

    assert all(r.ended_us is not None for r in runs)
    assert meter.busy == meter.waiting == meter.running == 0
    assert all(0 <= point.busy <= 8 for point in meter.points)
    for r in runs:
        waited_us = r.started_us - r.job.submit_us
        assert waited_us >= 0
        assert r.ended_us - r.job.submit_us >= r.job.duration_us + waited_us
    assert run(policy, trace(*sorted(jobs)))[0] == runs, "the same input gives the same end"
