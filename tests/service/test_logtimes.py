"""Moments of output: nothing that may be of a time is left out of it, whatever the files hold."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.service import logsegments, logstore, logtimes
from controlplane.service.logsegments import list_segments
from controlplane.service.logstore import LogStore, StreamId
from controlplane.service.logtimes import GRAIN_US, Mark, Span, spans, window

OUT = StreamId(job_id=1, task_index=0, attempt=1, rank=0, stream="out")
NOON = 1_770_000_000_000_000


def records(*marks: tuple[int, int]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "times"
        for mark in marks:
            logtimes.write(path, Mark(*mark))
        return path.read_bytes() if marks else b""


def test_bytes_are_of_the_last_moment_before_them() -> None:
    told = records((NOON, 100), (NOON + 9, 150), (NOON + 12, 170))
    assert spans(told, 100, 180) == (
        Span(100, 150, NOON),
        Span(150, 170, NOON + 9),
        Span(170, 180, NOON + 12),
    )
    # The last was written down, and its bytes did not come.
    assert spans(told, 100, 170)[-1] == Span(150, 170, NOON + 9)


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"torn",
        records((NOON, 150), (NOON + 9, 120)),
        records((NOON, 50)),
        records((0, 100)),
        records((-5, 100)),
        records((NOON, 100), (0, 0)),
        b"\xff" * 64,
    ],
)
def test_what_is_no_row_of_moments_says_nothing(told: bytes) -> None:
    assert spans(told, 100, 180) == (Span(100, 180, None),)


def test_a_record_that_a_crash_tore_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "times"
    path.write_bytes(records((NOON, 100)) + b"torn")
    assert spans(path.read_bytes(), 100, 180) == (Span(100, 180, NOON),)
    logtimes.write(path, Mark(NOON + 9, 150))
    assert path.read_bytes() == records((NOON, 100), (NOON + 9, 150))


def test_bytes_of_unknown_moment_lie_between_their_neighbours() -> None:
    row = [Span(0, 10, None), Span(10, 20, NOON), Span(20, 30, None), Span(30, 40, 2 * NOON)]
    assert window(row, NOON + GRAIN_US, None) == (20, 40)
    assert window(row, NOON, None) == (0, 40)
    assert window(row, None, NOON) == (0, 10)
    assert window(row, NOON + 2 * GRAIN_US, 2 * NOON) == (20, 30)
    assert window([Span(0, 10, None)], NOON, NOON + 1) == (0, 10)
    assert window(row, 3 * NOON, None) is None


pieces = st.lists(
    st.tuples(st.integers(1, 40), st.integers(-300_000, 3 * GRAIN_US)), min_size=1, max_size=40
)


@given(pieces, st.integers(0, 40), st.integers(1, 60), st.sampled_from([64, 1000]))
def test_all_of_a_time_is_found_and_not_much_more(
    printed: list[tuple[int, int]], since_at: int, seconds: int, segment: int
) -> None:
    """`printed`: of each piece its length, and how long after the one before it came."""
    since = NOON + since_at * GRAIN_US
    until = since + seconds * GRAIN_US
    before, logstore.SEGMENT_BYTES = logstore.SEGMENT_BYTES, segment
    try:
        with tempfile.TemporaryDirectory() as folder:
            store, now, times = LogStore(Path(folder), 1 << 20), NOON, list[int]()
            for number, (length, later) in enumerate(printed):
                now += later
                store.append(OUT, len(times), b"x" * (length - 1) + b"\n", now)
                times += [now] * length
                if number % 7 == 3:
                    store = LogStore(Path(folder), 1 << 20)  # a restart
            (segments,) = store.streams(1, 0, 1).values()
            found = logsegments.window(segments, since, until)
            wanted = [i for i, time in enumerate(times) if since <= time < until]
            begin, end = found or (0, 0)
            assert all(begin <= i < end for i in wanted)
            if all(later >= 0 for _, later in printed):
                assert all(since - GRAIN_US < time < until + GRAIN_US for time in times[begin:end])
    finally:
        logstore.SEGMENT_BYTES = before


@given(st.binary(max_size=80), st.booleans())
def test_no_file_of_moments_loses_any_output(nonsense: bytes, gone: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = LogStore(Path(folder), 1 << 20)
        store.append(OUT, 0, b"before\n", NOON)
        (path,) = Path(folder).rglob(f"*{logtimes.SUFFIX}")
        path.unlink() if gone else path.write_bytes(nonsense)
        for reader in (store, LogStore(Path(folder), 1 << 20)):
            end = reader.end(OUT)
            assert reader.append(OUT, end, b"after\n", NOON + 9 * GRAIN_US) == end + 6
        assert store.read(OUT, 0) == (0, b"before\nafter\nafter\n")
        (segments,) = store.streams(1, 0, 1).values()
        if gone:
            assert logsegments.window(segments, NOON + 9 * GRAIN_US, None) is not None


def test_moments_go_with_their_segment_and_count_under_the_cap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logstore, "SEGMENT_BYTES", 200)
    store, end = LogStore(tmp_path, 1000), 0
    for second in range(200):
        end = store.append(OUT, end, b"x\n", NOON + second * GRAIN_US)
    assert sum(path.stat().st_size for path in tmp_path.rglob("0.out.*")) <= 1200
    (folder,) = {path.parent for path in tmp_path.rglob("0.out.*")}
    (segments,) = list_segments(folder).values()
    assert len(list(folder.iterdir())) == 2 * len(segments)
    assert all(segment.times_size for segment in segments)
