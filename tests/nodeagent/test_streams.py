"""Output of workers on the disk: what is written in whatever pieces is read back byte for byte, by
offset, for as long as it is kept."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent import streams
from nodeagent.streams import StreamWriter, list_streams, read, tail
from tests.support.examples import examples

ALL_BYTES = bytes(range(256))


def writer(
    folder: Path,
    rank: int = 0,
    stream: streams.Stream = "out",
    *,
    segment_bytes: int = 10,
    cap_bytes: int = 1000,
) -> StreamWriter:
    made = StreamWriter(folder, rank, stream, segment_bytes=segment_bytes, cap_bytes=cap_bytes)
    _made.append(made)
    return made


_made: list[StreamWriter] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """No writer stays open longer than its test."""
    yield
    while _made:
        _made.pop().close()


def files(folder: Path) -> dict[str, bytes]:
    """Every segment by its name."""
    found = sorted((folder / streams.LOGS).iterdir())
    return {path.name: path.read_bytes() for path in found}


def read_on(
    folder: Path, offset: int = 0, limit: int = 1 << 20, stream: streams.Stream = "out"
) -> dict[int, bytes]:
    """All there is from an offset on, as it comes."""
    parts: dict[int, bytes] = {}
    while True:
        begin, data = read(folder, 0, stream, offset, limit)
        if not data:
            return parts
        parts[begin] = data
        offset = begin + len(data)


def content(folder: Path, stream: streams.Stream = "out") -> bytes:
    return b"".join(read_on(folder, stream=stream).values())


# --- segments -------------------------------------------------------------------------------------


def test_a_segment_bears_its_first_offset(tmp_path: Path) -> None:
    out = writer(tmp_path, rank=7, stream="err")
    out.write(b"0123456789abcdefghijKLM")

    assert files(tmp_path) == {
        "7.err.00000000000000000000": b"0123456789",
        "7.err.00000000000000000010": b"abcdefghij",
        "7.err.00000000000000000020": b"KLM",
    }
    assert (out.end_offset, out.lost_bytes) == (23, 0)


def test_a_segment_is_filled_before_the_next_begins(tmp_path: Path) -> None:
    out = writer(tmp_path)
    for piece in (b"012", b"3456", b"", b"78", b"9ab"):
        out.write(piece)

    assert list(files(tmp_path).values()) == [b"0123456789", b"ab"]


def test_a_stream_that_nobody_wrote_to_leaves_nothing(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.write(b"")
    out.close()

    assert list(tmp_path.iterdir()) == []
    assert list_streams(tmp_path) == {}
    assert read(tmp_path, 0, "out", 0, 10) == (0, b"")
    assert tail(tmp_path, 0, "out", 10) == ""


def test_a_closed_writer_goes_on_where_it_was(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.write(b"abc")
    out.close()
    out.write(b"def")

    assert out.end_offset == 6
    assert read_on(tmp_path) == {0: b"abc", 3: b"def"}


def test_every_stream_of_every_rank_is_listed_by_itself(tmp_path: Path) -> None:
    writer(tmp_path, 0, "out").write(b"a")
    writer(tmp_path, 0, "err").write(b"bcd")
    writer(tmp_path, 12, "out").write(b"e" * 25)

    assert list_streams(tmp_path) == {(0, "out"): (0, 1), (0, "err"): (0, 3), (12, "out"): (0, 25)}
    assert read(tmp_path, 0, "err", 0, 10) == (0, b"bcd")
    assert read(tmp_path, 1, "out", 0, 10) == (0, b"")


def test_files_of_others_are_no_segments(tmp_path: Path) -> None:
    writer(tmp_path).write(b"abc")
    for name in ("0.out.", "0.log.0", "x.out.0", "0.out.x", "0.out.0.swp", ".0.out.3", "core"):
        (tmp_path / streams.LOGS / name).write_bytes(b"other")

    assert list_streams(tmp_path) == {(0, "out"): (0, 3)}
    assert content(tmp_path) == b"abc"


def test_output_is_for_nobody_else_to_read(tmp_path: Path) -> None:
    writer(tmp_path).write(b"secret")

    (segment,) = (tmp_path / streams.LOGS).iterdir()
    assert segment.stat().st_mode & 0o077 == 0
    assert segment.parent.stat().st_mode & 0o077 == 0


# --- the cap --------------------------------------------------------------------------------------


def test_the_oldest_segments_go_first(tmp_path: Path) -> None:
    out = writer(tmp_path, cap_bytes=30)
    out.write(b"0123456789abcdefghijABCDEFGHIJ")
    assert list_streams(tmp_path) == {(0, "out"): (0, 30)}

    out.write(b"!")

    assert list_streams(tmp_path) == {(0, "out"): (10, 31)}
    assert content(tmp_path) == b"abcdefghijABCDEFGHIJ!"


def test_a_cap_below_the_segment_still_keeps_the_newest(tmp_path: Path) -> None:
    out = writer(tmp_path, segment_bytes=1000, cap_bytes=6)
    out.write(b"0123456789")

    assert list_streams(tmp_path) == {(0, "out"): (6, 10)}
    assert content(tmp_path) == b"6789"


def test_a_dropped_offset_is_answered_from_the_first_that_is_kept(tmp_path: Path) -> None:
    writer(tmp_path, cap_bytes=20).write(b"0123456789abcdefghijXYZ")

    assert read(tmp_path, 0, "out", 0, 4) == (10, b"abcd")
    assert read(tmp_path, 0, "out", 9, 4) == (10, b"abcd")
    assert read(tmp_path, 0, "out", 12, 4) == (12, b"cdef")


# --- reading --------------------------------------------------------------------------------------


def test_reading_goes_from_segment_to_segment(tmp_path: Path) -> None:
    writer(tmp_path).write(b"0123456789abcdefghijXYZ")

    assert read_on(tmp_path, offset=4, limit=4) == {
        4: b"4567",
        8: b"89",
        10: b"abcd",
        14: b"efgh",
        18: b"ij",
        20: b"XYZ",
    }


def test_past_the_end_there_are_no_bytes_yet(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.write(b"0123456789")

    assert read(tmp_path, 0, "out", 10, 5) == (10, b"")
    assert read(tmp_path, 0, "out", 77, 5) == (77, b"")
    out.write(b"a")
    assert read(tmp_path, 0, "out", 10, 5) == (10, b"a")


def test_bytes_are_bytes(tmp_path: Path) -> None:
    data = ALL_BYTES * 5
    writer(tmp_path, segment_bytes=100, cap_bytes=10_000).write(data)

    assert content(tmp_path) == data


def test_a_segment_that_goes_between_the_listing_and_the_reading_is_looked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = writer(tmp_path, cap_bytes=20)
    out.write(b"0123456789abcdefghij")
    real = os.open
    gone: list[str] = []

    def rotate_first(path: str, flags: int, *mode: int) -> int:
        if not flags & os.O_WRONLY and not gone:
            gone.append(path)
            out.write(b"X")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", rotate_first)

    assert read(tmp_path, 0, "out", 3, 4) == (10, b"abcd")
    assert gone


def test_a_reader_beside_a_busy_writer_sees_every_byte_in_its_place(tmp_path: Path) -> None:
    """Every four bytes say their own offset, so that a byte in a wrong place shows."""
    out = writer(tmp_path, segment_bytes=64, cap_bytes=512)
    enough = threading.Event()

    def write() -> None:
        while not enough.is_set():
            pattern = range(out.end_offset // 4 * 4, out.end_offset + 40, 4)
            words = b"".join(offset.to_bytes(4) for offset in pattern)
            out.write(words[out.end_offset % 4 :][:37])

    thread = threading.Thread(target=write)
    thread.start()
    deadline = time.monotonic() + 30
    at = reads = 0
    try:
        while reads < 500 or at < out.end_offset:
            assert time.monotonic() < deadline
            first, end = list_streams(tmp_path).get((0, "out"), (0, 0))
            assert first <= end
            begin, data = read(tmp_path, 0, "out", at, 100)
            assert begin >= at
            for offset, byte in enumerate(data, begin):
                assert byte == (offset // 4 * 4).to_bytes(4)[offset % 4]
            at, reads = begin + len(data), reads + bool(data)
            if reads == 500:
                enough.set()
    finally:
        enough.set()
        thread.join()


# --- the tail -------------------------------------------------------------------------------------


def test_the_tail_is_the_last_bytes_across_segments(tmp_path: Path) -> None:
    writer(tmp_path).write(b"0123456789abcdefghijXYZ")

    assert tail(tmp_path, 0, "out", 5) == "ijXYZ"
    assert tail(tmp_path, 0, "out", 15) == "89abcdefghijXYZ"
    assert tail(tmp_path, 0, "out", 4096) == "0123456789abcdefghijXYZ"


def test_the_tail_begins_where_the_stream_is_kept(tmp_path: Path) -> None:
    writer(tmp_path, cap_bytes=20).write(b"0123456789abcdefghijXYZ")

    assert tail(tmp_path, 0, "out", 4096) == "abcdefghijXYZ"


def test_the_tail_is_text_whatever_was_written(tmp_path: Path) -> None:
    writer(tmp_path).write(b"\xff\xfe\x00ok" + "größer".encode())

    assert tail(tmp_path, 0, "out", 4096) == "\ufffd\ufffd\x00okgrößer"
    for limit in range(1, 20):
        assert len(tail(tmp_path, 0, "out", limit).encode()) <= limit


# --- pipes ----------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.FileIO]]:
    out, into = os.pipe()
    os.set_blocking(out, False)
    with io.FileIO(out), io.FileIO(into, "w") as end:
        yield out, end


def test_a_pipe_is_emptied_without_waiting(tmp_path: Path, pipe: tuple[int, io.FileIO]) -> None:
    stream = writer(tmp_path)
    pipe[1].write(b"hello ")

    assert stream.pump(pipe[0])
    pipe[1].write(b"world")
    assert stream.pump(pipe[0])
    assert stream.pump(pipe[0])
    assert content(tmp_path) == b"hello world"


def test_the_end_of_a_pipe_comes_after_its_last_byte(
    tmp_path: Path, pipe: tuple[int, io.FileIO]
) -> None:
    stream = writer(tmp_path)
    pipe[1].write(b"bye")
    pipe[1].close()

    assert not stream.pump(pipe[0])
    assert content(tmp_path) == b"bye"


def test_a_turn_takes_about_its_budget(tmp_path: Path, pipe: tuple[int, io.FileIO]) -> None:
    stream = writer(tmp_path, segment_bytes=1 << 16, cap_bytes=1 << 20)
    pipe[1].write(bytes(60_000))
    assert stream.pump(pipe[0], 0)
    assert stream.end_offset == 0

    assert stream.pump(pipe[0], 1)
    assert stream.end_offset == 60_000


def test_a_full_pipe_is_widened(tmp_path: Path, pipe: tuple[int, io.FileIO]) -> None:
    """1 MiB is what the kernel lets anyone have."""
    stream = writer(tmp_path, segment_bytes=1 << 20, cap_bytes=4 << 20)
    data = os.urandom(1 << 16)
    pipe[1].write(data)
    assert stream.pump(pipe[0])
    os.set_blocking(pipe[1].fileno(), False)

    assert (pipe[1].write(bytes(1 << 20)) or 0) > 1 << 16
    assert content(tmp_path) == data


# --- a full disk ----------------------------------------------------------------------------------


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file grows past so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_bytes_without_room_are_counted_and_passed_over(tmp_path: Path) -> None:
    out = writer(tmp_path, segment_bytes=100, cap_bytes=10_000)
    with files_of_at_most(7):
        out.write(b"0123456789")
        assert (out.end_offset, out.lost_bytes) == (10, 3)
        out.write(b"abcdefghijk")
    assert (out.end_offset, out.lost_bytes) == (21, 7)
    out.write(b"there is room again")

    assert read_on(tmp_path) == {0: b"0123456", 10: b"abcdefg", 21: b"there is room again"}
    assert read(tmp_path, 0, "out", 8, 3) == (10, b"abc")
    assert list_streams(tmp_path) == {(0, "out"): (0, 40)}
    assert tail(tmp_path, 0, "out", 4096) == "0123456abcdefgthere is room again"


def test_a_disk_without_any_room_keeps_no_worker_waiting(tmp_path: Path) -> None:
    out = writer(tmp_path)
    with files_of_at_most(0):
        out.write(b"lost")
        out.write(b"lost too")

    assert (out.end_offset, out.lost_bytes) == (12, 12)
    out.write(b"kept")
    assert read_on(tmp_path) == {12: b"kept"}


def test_a_disk_that_was_full_at_the_first_byte_keeps_what_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even the folder of the segments found no room."""
    out = writer(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", full)
        out.write(b"lost")
    out.write(b"kept")

    assert (out.end_offset, out.lost_bytes) == (8, 4)
    assert read_on(tmp_path) == {4: b"kept"}


def test_what_is_no_lack_of_room_is_raised(tmp_path: Path) -> None:
    (tmp_path / streams.LOGS).write_text("in the way")

    with pytest.raises(OSError, match=streams.LOGS):
        writer(tmp_path).write(b"abc")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB and eight files."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root and mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=8", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], timeout=30, check=True)


@pytest.mark.root
def test_a_real_disk_that_fills_up_and_is_emptied_again(tiny_disk: Path) -> None:
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(40 << 10))
    out = writer(tiny_disk, segment_bytes=1 << 20, cap_bytes=8 << 20)
    data = os.urandom(40 << 10)
    out.write(data)
    kept = len(data) - out.lost_bytes
    assert 0 < kept < len(data)

    ballast.unlink()
    out.write(b"after")

    out.close()
    assert out.end_offset == len(data) + 5
    assert read_on(tiny_disk) == {0: data[:kept], len(data): b"after"}


@pytest.mark.root
def test_a_real_disk_that_takes_no_more_files(tiny_disk: Path) -> None:
    fillers = []
    with contextlib.suppress(OSError):
        for number in range(10):
            (tiny_disk / f"filler{number}").touch()
            fillers.append(tiny_disk / f"filler{number}")
    out = writer(tiny_disk)
    out.write(b"lost")
    for filler in fillers:
        filler.unlink()

    out.write(b"kept")
    out.close()

    assert (out.end_offset, out.lost_bytes) == (8, 4)
    assert read_on(tiny_disk) == {4: b"kept"}


# --- whatever is written in whatever pieces -------------------------------------------------------

pieces = st.lists(st.binary(max_size=30) | st.just(None), max_size=10)
"""What is written; None closes the open segment."""
sizes = st.integers(1, 40)


def check_reads(folder: Path, written: Sequence[int | None], cap_bytes: int, limit: int) -> None:
    """`written`: the byte at each offset; None for one that was lost."""
    first, end = list_streams(folder).get((0, "out"), (0, 0))
    assert first <= end <= len(written)
    assert end - first <= cap_bytes
    assert all(byte is None for byte in written[end:])
    for offset in range(len(written) + 2):
        kept = (at for at in range(max(first, offset), end) if written[at] is not None)
        expected = next(kept, None)
        begin, data = read(folder, 0, "out", offset, limit)
        if expected is None:
            assert data == b""
            continue
        assert begin == expected
        assert 0 < len(data) <= limit
        assert list(data) == list(written[begin : begin + len(data)])


@settings(deadline=None, max_examples=examples(60))
@given(pieces, sizes, sizes, sizes)
def test_every_kept_offset_gives_its_own_bytes(
    pieces: list[bytes | None], segment_bytes: int, cap_bytes: int, limit: int
) -> None:
    whole = b"".join(piece or b"" for piece in pieces)
    with TemporaryDirectory() as name:
        folder = Path(name)
        out = writer(folder, segment_bytes=segment_bytes, cap_bytes=cap_bytes)
        for piece in pieces:
            if piece is None:
                out.close()
            else:
                out.write(piece)
        out.close()

        assert (out.end_offset, out.lost_bytes) == (len(whole), 0)
        if whole:
            first, end = list_streams(folder)[0, "out"]
            assert end == len(whole)
            assert first == 0 or end + segment_bytes > cap_bytes
        check_reads(folder, whole, cap_bytes, limit)


@settings(deadline=None, max_examples=examples(60))
@given(st.data(), sizes, sizes, sizes)
def test_bytes_that_found_no_room_leave_the_others_in_their_place(
    data: st.DataObject, segment_bytes: int, cap_bytes: int, limit: int
) -> None:
    written: list[int | None] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        out = writer(folder, segment_bytes=segment_bytes, cap_bytes=cap_bytes)
        for piece in data.draw(st.lists(st.binary(min_size=1, max_size=30), max_size=8)):
            lost = out.lost_bytes
            with files_of_at_most(data.draw(st.just(1 << 20) | st.integers(0, 20))):
                out.write(piece)
            lost = out.lost_bytes - lost
            assert 0 <= lost <= len(piece)
            written += [*piece[: len(piece) - lost], *[None] * lost]
            assert out.end_offset == len(written)
        out.close()

        check_reads(folder, written, cap_bytes, limit)
