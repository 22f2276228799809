"""The figures: percentiles, shares and fairness, from runs that were worked out by hand."""

from __future__ import annotations

import itertools

import pytest

from controlplane.sim.cluster import uniform
from controlplane.sim.meter import Meter, even_shares
from controlplane.sim.simulate import simulate
from controlplane.sim.summary import jain, percentile, size_of
from tests.sim.test_centre import S, job


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (1, 1), (50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_the_nearest_rank(percent: int, value: int) -> None:
    assert percentile(range(1, 101), percent) == value
    assert percentile([7], percent) == 7
    assert percentile([], percent) == 0


def test_jains_index_is_one_where_all_are_equal_and_one_nth_where_one_has_all() -> None:
    assert jain([3, 3, 3]) == 1
    assert jain([1, 0, 0, 0]) == 0.25
    assert jain([]) == 1


def test_even_shares_go_to_none_beyond_what_it_asks_for() -> None:
    assert even_shares({"a": 1, "b": 10, "c": 10, "d": 0}, 9) == {"a": 1, "b": 4, "c": 4}
    assert even_shares({"a": 2}, 8) == {"a": 2}


@pytest.mark.parametrize(
    ("gpus", "name"), [(0, "0"), (1, "1"), (2, "2-4"), (8, "5-8"), (9, "9-32"), (33, "33+")]
)
def test_sizes_have_classes(gpus: int, name: str) -> None:
    assert size_of(gpus) == name


def test_the_figures_of_three_jobs() -> None:
    """Two nodes of 2 GPUs: a holds 3 GPUs for 10 s, b 1 GPU for 20 s, c wants 2 and waits."""
    trace = [
        job("a", 0, 10, 3, account="x"),
        job("b", 0, 20, 1, account="y"),
        job("c", 4, 6, 2, account="y"),
    ]

    result = simulate(trace, uniform(2, 2), "fifo")

    told = result.document()
    assert [(r.started_us or 0) / S for r in result.runs] == [0, 0, 10]
    assert told["jobs"] == 3
    assert told["avg_jct_s"] == pytest.approx((10 + 20 + 12) / 3, abs=1e-3)
    assert told["p99_jct_s"] == 20
    assert told["avg_wait_s"] == 2
    assert told["makespan_s"] == 20
    assert told["gpu_utilization"] == round((30 + 20 + 12) / (4 * 20), 6)
    # Idle: from 10 to 16 s 1 GPU beside b, from 16 to 20 s 3, of which 1 is beside b.
    assert told["fragmentation"] == round((6 + 4) / (6 + 12), 6)
    # While c waited, from 4 to 10 s, x had 3 of 4 GPUs; even would have been 2 each.
    assert told["shares"] == [
        {"account": "x", "used": 0.75, "fair": 0.5, "error": 0.25},
        {"account": "y", "used": 0.25, "fair": 0.5, "error": -0.25},
    ]
    assert told["jain_index"] == round(jain([0.75 / 0.5, 0.25 / 0.5]), 6)
    assert told["share_error"] == 0.25
    assert [group["name"] for group in told["by_size"]] == ["1", "2-4"]  # type: ignore[attr-defined]


def test_time_before_the_first_job_counts_where_a_window_begins_earlier() -> None:
    trace = [job("a", 10, 10, 2)]

    told = simulate(trace, uniform(1, 2), "fifo", begin_us=0).document()

    assert (told["makespan_s"], told["gpu_utilization"]) == (20, 0.5)
    assert simulate(trace, uniform(1, 2), "fifo").document()["gpu_utilization"] == 1


def test_points_over_time_are_thinned_out_evenly() -> None:
    meter = Meter(4)
    for now_us in range(10_000):
        meter.advance(now_us)
        meter.settle(0)

    moments = [point.now_us for point in meter.points]
    assert 1000 <= len(moments) <= 2000
    assert len({b - a for a, b in itertools.pairwise(moments)}) == 1
