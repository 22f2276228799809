"""Lines of a report, points that are thinned, and an end that is extrapolated."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.progress import (
    HISTORY,
    MOST_METRICS,
    SERIES_LIMIT,
    Checkpoint,
    LeaseProgress,
    Point,
    Progress,
    Series,
    added,
    extrapolated,
    merged,
    remembered,
)
from controlplane.model.progressline import LONGEST_LINE, Saved, parse_line

POINTS = st.builds(
    Point,
    time_us=st.just(0),
    step=st.none() | st.integers(0, 2**63 - 1),
    fraction=st.none() | st.floats(0, 1),
    metrics=st.dictionaries(st.sampled_from("abc"), st.floats(-9, 9)).map(
        lambda found: tuple(sorted(found.items()))
    ),
)

KEYS = st.sampled_from(["step", "progress", "metrics", "checkpoint", "path"])


def at(time_us: int, **fields: Any) -> Point:
    return Point(time_us=time_us, **fields)


def in_time(points: list[Point]) -> list[Point]:
    return [
        Point(time_us=i, step=p.step, fraction=p.fraction, metrics=p.metrics)
        for i, p in enumerate(points, start=1)
    ]


def test_a_line_says_what_it_says() -> None:
    line = parse_line(b'{"step": 1200, "progress": 0.42, "metrics": {"loss": 0.3, "acc": 1}}')
    assert (line.step, line.fraction, line.faults) == (1200, 0.42, ())
    assert line.metrics == (("acc", 1.0), ("loss", 0.3))
    saved = parse_line(b'{"checkpoint": {"path": "/a", "step": 7}}')
    assert (saved.checkpoint, saved.says_something) == (Saved(path="/a", step=7), False)


EXAMPLE = '{"step": 1200, "progress": 0.42, "metrics": {"loss": 0.3}}'
WRONG = {
    b'{"progress": 1.7}': "progress: 1.7: must be 0 to 1",
    b'{"progress": true}': "progress: true: must be 0 to 1",
    b'{"progress": NaN}': "progress: NaN: must be 0 to 1",
    b'{"step": -1}': "step: -1: must be a whole number from 0 to 9223372036854775807",
    b'{"step": 1e400}': "step: Infinity: must be a whole number from 0 to 9223372036854775807",
    b'{"metrics": {"loss": NaN}}': "metrics.loss: NaN: must be a finite number",
    b'{"metrics": {"loss": -Infinity}}': "metrics.loss: -Infinity: must be a finite number",
    b'{"metrics": {"loss": 1' + b"0" * 400 + b"}}": (
        "metrics.loss: a number of more than 40 digits: must be a finite number"
    ),
    b'{"metrics": {"": 1}}': 'metrics: the name "" must be 1 to 64 printable characters',
    b'{"metrics": 3}': 'metrics: 3: must be an object: {"loss": 0.3}',
    b'{"checkpoint": "/a"}': ('checkpoint: "/a": must be an object: {"path": "…", "step": 1}'),
    b'{"los": 1, "step": 2}': (
        '"los": is passed over; there are step, progress, metrics, checkpoint'
    ),
    b'{"progres": 1}': '"progres": is passed over; did you mean "progress"?',
    b"epoch 3": f"is no JSON; write e.g. {EXAMPLE}",
    b"[1]": f"must be an object: {EXAMPLE}",
    b"x" * (LONGEST_LINE + 1): "has 16385 bytes; at most 16384 are read of a line",
    b"[" * 9000: f"is no JSON; write e.g. {EXAMPLE}",
}


@pytest.mark.parametrize("data", WRONG, ids=lambda data: data[:24].decode())
def test_what_is_wrong_is_told_and_the_rest_counts(data: bytes) -> None:
    assert parse_line(data).faults == (WRONG[data],)


def test_a_fault_of_one_key_leaves_the_others() -> None:
    line = parse_line(b'{"progress": 2, "step": 3, "metrics": {"a": 1, "b": "x"}}')
    assert (line.step, line.fraction, line.metrics) == (3, None, (("a", 1.0),))
    assert len(line.faults) == 2


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["step", "progress", "metrics", "checkpoint", "path"])
                | st.text(max_size=3),
                inner,
                max_size=5,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_a_line_within_limits(data: bytes) -> None:
    line = parse_line(data)
    assert line.fraction is None or 0 <= line.fraction <= 1
    assert line.step is None or 0 <= line.step < 2**63
    assert len(line.metrics) <= MOST_METRICS


@given(st.lists(POINTS, max_size=3 * SERIES_LIMIT))
def test_a_series_stays_small_and_keeps_the_newest_of_everything(points: list[Point]) -> None:
    told = in_time(points)
    series = Series()
    for point in told:
        series = series.after(point)
        assert series.after(point) == series  # a repeat
    assert len(series.points) <= SERIES_LIMIT
    assert [p.time_us for p in series.all] == sorted({p.time_us for p in series.all})
    if told:
        whole, kept = told[0], series.all[0]
        for point in told[1:]:
            whole = merged(whole, point)
        for point in series.all[1:]:
            kept = merged(kept, point)
        assert kept == whole


def test_the_stride_doubles_at_the_limit() -> None:
    series = Series()
    for i in range(1, 5 * SERIES_LIMIT):
        series = series.after(at(i, step=i))
    assert series.stride == 8
    assert SERIES_LIMIT // 2 <= len(series.points) <= SERIES_LIMIT


@given(st.lists(POINTS, min_size=1, max_size=100))
def test_points_of_a_short_while_stay_few(points: list[Point]) -> None:
    kept: tuple[Point, ...] = ()
    for point in in_time(points):
        kept = added(kept, point, 16)
    assert len(kept) <= 16
    assert kept[-1].time_us == len(points)


def test_the_end_is_told_at_the_rate_of_the_second_half() -> None:
    history: tuple[tuple[int, float], ...] = ()
    for minute, fraction in ((0, 0.0), (10, 0.1), (11, 0.2), (20, 0.6)):
        history = remembered(history, minute * 60, fraction)
    assert extrapolated(history) == 20 * 60 + 480  # 0.5 in 10 min, and 0.4 are left
    assert extrapolated(history[:1]) is None
    assert extrapolated(remembered(history, 21 * 60, 0.1)) is None  # it began anew
    assert extrapolated(remembered(history, 21 * 60, 1.0)) == 21 * 60


@given(st.lists(st.floats(0, 1), max_size=80))
def test_a_history_rises_and_stays_short(fractions: list[float]) -> None:
    history: tuple[tuple[int, float], ...] = ()
    for i, fraction in enumerate(fractions):
        history = remembered(history, i * 1_000_000, fraction)
        assert len(history) <= HISTORY
        assert [f for _, f in history] == sorted({f for _, f in history})
        end_us = extrapolated(history)
        assert end_us is None or end_us >= history[-1][0]


def progress() -> Progress:
    return Progress(job_id=1, task_index=0, attempt=1)


def told(rank: int, *points: Point, lease_id: int = 7, **more: Any) -> LeaseProgress:
    return LeaseProgress(lease_id=lease_id, token=9, rank=rank, points=points, **more)


def test_the_lowest_rank_that_reports_counts() -> None:
    found = progress().after(told(3, at(10, step=30)))
    assert (found.rank, found.last) == (3, at(10, step=30))
    found = found.after(told(0, at(5, step=1)))
    assert (found.rank, found.last) == (0, at(5, step=1))
    assert found.after(told(3, at(20, step=40))) is found


def test_a_repeat_changes_nothing() -> None:
    news = told(0, at(5, step=1, fraction=0.1), faults=("rank 0's report: x",))
    found = progress().after(news)
    assert found.revision == 1
    assert found.after(news) is found


def test_a_checkpoint_is_displaced_by_a_later_one_only() -> None:
    first, second = (Checkpoint(time_us=t, rank=1, path=f"/{t}") for t in (5, 9))
    found = progress().after(told(0, at(5, step=1), checkpoint=second))
    found = found.after(told(0, at(10, step=2)))
    assert found.after(told(1, lease_id=8, checkpoint=first)).checkpoint == second
