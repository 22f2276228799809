"""The centre's log store: every byte once, under the offset that its node gave it."""

from __future__ import annotations

import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.service import logstore
from controlplane.service.logstore import LogStore, StreamId
from tests.support.disk import room_for

OUT = StreamId(job_id=1234, task_index=0, attempt=2, rank=7, stream="out")
ERR = StreamId(job_id=1234, task_index=0, attempt=2, rank=7, stream="err")
NOW = 1_770_000_000_000_000
TEXT = random.Random(1).randbytes(4000)


def everything(store: LogStore, which: StreamId, offset: int = 0) -> bytes:
    """All that is kept from an offset on; its parts must follow on each other."""
    kept = b""
    while True:
        begin, data = store.read(which, offset)
        if not data:
            return kept
        assert begin >= offset
        assert not kept or begin == offset
        kept += data
        offset = begin + len(data)


def test_streams_are_found_by_attempt_and_know_their_ends(tmp_path: Path) -> None:
    store = LogStore(tmp_path, 1 << 20)

    assert store.append(OUT, 0, b"hello ", NOW) == 6
    assert store.append(OUT, 6, b"world", NOW) == 11
    assert store.append(ERR, 0, b"oh", NOW) == 2

    assert list(store.streams(1234, 0, 2)) == [ERR, OUT]
    assert list(store.streams(1234, 0, 1)) == []
    assert (store.end(OUT), store.end(ERR)) == (11, 2)
    assert everything(store, OUT, 3) == b"lo world"


def test_a_gap_that_the_node_could_not_keep_is_passed_over(tmp_path: Path) -> None:
    store = LogStore(tmp_path, 1 << 20)
    store.append(OUT, 0, b"begin", NOW)
    store.append(OUT, 100, b"end", NOW)

    assert store.read(OUT, 5) == (100, b"end")
    assert store.read(OUT, 103) == (103, b"")


def test_what_a_full_disk_took_a_part_of_is_there_once_after_a_repeat(tmp_path: Path) -> None:
    store = LogStore(tmp_path, 1 << 20)
    store.append(OUT, 0, TEXT[:1000], NOW)
    with room_for(1500), pytest.raises(OSError, match="too large"):
        store.append(OUT, 1000, TEXT[1000:3000], NOW)

    assert everything(store, OUT) == TEXT[:1500]
    assert store.append(OUT, 1000, TEXT[1000:], NOW) == 4000
    assert everything(store, OUT) == TEXT


def test_a_repeat_beside_the_call_that_it_repeats_doubles_nothing(tmp_path: Path) -> None:
    store = LogStore(tmp_path, 1 << 20)

    def write(_: int) -> None:
        for offset in range(0, 4000, 50):
            store.append(OUT, offset, TEXT[offset : offset + 50], NOW)
            store.end(OUT)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))

    assert everything(store, OUT) == TEXT


def test_the_oldest_segments_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logstore, "SEGMENT_BYTES", 100)
    store = LogStore(tmp_path, 1000)
    for offset in range(0, 4000, 50):
        store.append(OUT, offset, TEXT[offset : offset + 50], NOW)

    first, _ = store.read(OUT, 0)
    assert 3000 <= first <= 3200
    assert everything(store, OUT) == TEXT[first:]
    assert sum(path.stat().st_size for path in tmp_path.rglob("7.out.*")) <= 1000 + 100


@given(
    st.lists(st.tuples(st.integers(0, 3900), st.integers(1, 300)), max_size=20),
    st.sampled_from([64, 1000]),
)
def test_a_repeat_or_an_overlap_changes_nothing_and_a_restart_loses_nothing(
    parts: list[tuple[int, int]], segment: int
) -> None:
    before, logstore.SEGMENT_BYTES = logstore.SEGMENT_BYTES, segment
    try:
        with tempfile.TemporaryDirectory() as folder:
            store, kept, end = LogStore(Path(folder), 1 << 20), set[int](), 0
            for offset, length in parts:
                data = TEXT[offset : offset + length]
                kept |= set(range(max(offset, end), offset + len(data)))
                end = max(end, offset + len(data))
                assert store.append(OUT, offset, data, NOW) == end

            for reader in (store, LogStore(Path(folder), 1 << 20)):
                assert reader.end(OUT) == end
                seen, at = set[int](), 0
                while (piece := reader.read(OUT, at))[1]:
                    begin, data = piece
                    assert data == TEXT[begin : begin + len(data)]
                    seen |= set(range(begin, begin + len(data)))
                    at = begin + len(data)
                assert seen == kept
    finally:
        logstore.SEGMENT_BYTES = before
