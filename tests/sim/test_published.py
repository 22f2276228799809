"""With the semantics of the literature's simulators, their figures come out to the rounding."""

from __future__ import annotations

import pytest

from controlplane.sim.cluster import uniform
from controlplane.sim.simulate import read_jobs, simulate
from controlplane.sim.trace import Window
from tests.sim.traces import published

WEEKS = Window(from_us=2_986_159_000_000, to_us=4_195_759_000_000)
"""2017-10-09 to 10-22, where 0 is 2017-09-04 10:30:41."""


@pytest.mark.parametrize(
    ("policy", "avg_jct_s", "p99_jct_s"),
    [
        ("srtf", 190_377.377, 4_501_678.821),
        ("srsf", 183_965.978, 3_666_482.587),
        ("sjf", 261_780.995, 5_017_287.836),
        ("fifo-skip", 520_027.858, 4_141_488.831),
        ("fifo", 1_053_201.548, 1_789_991.601),
    ],
)
def test_muri_trace_3(policy: str, avg_jct_s: float, p99_jct_s: float) -> None:
    jobs = read_jobs(published("muri_trace3.csv.gz"), Window())

    told = simulate(jobs, uniform(8, 8), policy).document()

    assert (told["avg_jct_s"], told["p99_jct_s"]) == (avg_jct_s, p99_jct_s)
    assert (told["makespan_s"], told["jobs"]) == (8_173_902.669, 992)
    assert round(float(str(told["gpu_utilization"])), 3) == 0.815


@pytest.mark.parametrize(
    ("policy", "avg_jct_s", "avg_wait_s", "makespan_s"),
    [
        ("fifo", 11_897.438, 2802.804, 3_680_033),
        ("fifo-skip", 10_052.54, 957.907, 3_666_271),
        ("sjf", 9877.184, 782.55, 3_694_258),
        pytest.param("srtf", 9176.036, 0.668, 3_704_881, marks=pytest.mark.slow),
        pytest.param("srsf", 9157.224, 0.548, 3_696_783, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(600)
def test_two_weeks_of_philly(
    policy: str, avg_jct_s: float, avg_wait_s: float, makespan_s: float
) -> None:
    jobs = read_jobs(published("philly_first60days.csv.gz"), WEEKS)

    told = simulate(jobs, uniform(80, 8), policy, begin_us=WEEKS.from_us).document()

    assert told["jobs"] == 26_936
    assert (told["avg_jct_s"], told["avg_wait_s"]) == (avg_jct_s, avg_wait_s)
    assert told["makespan_s"] == makespan_s
