"""What workers print, kept on the node: each stream is a row of segment files that bear their first
offset.

``logs/<rank>.<out|err>.<start offset, 20 digits>`` in the lease's folder. A supervisor appends, and
removes the oldest
segments over the cap; an agent reads beside it. An offset names the same byte for ever, whether it
is still kept or not.
A stream that nobody wrote to has no file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Stream = Literal["out", "err"]
"""A worker's standard output or standard error."""
STREAMS: tuple[Stream, ...] = get_args(Stream)
"""Both."""

LOGS = "logs"
"""The folder of the segments in a lease's folder."""

_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Follower(Protocol):
    """Who wants to know what has been kept of a stream."""

    def begun(self, start: int, path: str) -> None:
        """A segment was made that begins at this offset."""
        ...

    def grown(self, end: int) -> None:
        """What was written so far ends at this offset."""
        ...


class StreamWriter:
    """The writing end of one stream; there is one at a time."""

    def __init__(
        self,
        folder: str | Path,
        rank: int,
        stream: Stream,
        *,
        segment_bytes: int,
        cap_bytes: int,
        follower: Follower | None = None,
    ) -> None:
        """Write under `folder` (a lease's); no file is made before the first byte."""
        self._follower = follower
        self._prefix = os.path.join(folder, LOGS, f"{rank}.{stream}.")
        self._cap = cap_bytes
        # Whole segments are dropped, so the cap must hold at least two.
        self._segment = max(1, min(segment_bytes, cap_bytes // 2))
        self._starts: list[int] = []
        self._fd = -1
        self.end_offset = 0
        """Bytes written to the stream so far, the dropped ones included."""
        self.lost_bytes = 0
        """Bytes that could not be kept because the disk was full."""

    def write(self, data: bytes) -> None:
        """Append. Bytes that find no room on the disk are counted and dropped: a worker never
        waits for a disk."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._append(view) :]
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._close_segment()
                self.end_offset += len(view)
                self.lost_bytes += len(view)
                break
        if self._follower is not None:
            self._follower.grown(self.end_offset)

    def pump(self, pipe: int, budget: int = _CHUNK) -> bool:
        """Move what a non-blocking pipe holds, about `budget` bytes at most; False when it has
        ended."""
        while budget > 0:
            try:
                data = os.read(pipe, _CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            if len(data) == 65536:
                _widen(pipe)
            self.write(data)
            budget -= len(data)
        return True

    def close(self) -> None:
        """Close the open segment; a later write opens another."""
        self._close_segment()

    def _append(self, view: memoryview) -> int:
        if self._fd < 0 or self.end_offset - self._starts[-1] >= self._segment:
            self._rotate()
        room = self._segment - (self.end_offset - self._starts[-1])
        written = os.write(self._fd, view[:room])
        self.end_offset += written
        return written

    def _rotate(self) -> None:
        self._close_segment()
        while self._starts and self.end_offset - self._starts[0] + self._segment > self._cap:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(self._starts[0]))
            del self._starts[0]
        if not self._starts:
            os.makedirs(os.path.dirname(self._prefix), mode=0o700, exist_ok=True)
        self._fd = os.open(
            self._path(self.end_offset),
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
        if not self._starts or self._starts[-1] != self.end_offset:
            self._starts.append(self.end_offset)
            if self._follower is not None:
                self._follower.begun(self.end_offset, self._path(self.end_offset))

    def _close_segment(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _path(self, start: int) -> str:
        return f"{self._prefix}{start:020}"


def list_streams(folder: str | Path) -> dict[tuple[int, Stream], tuple[int, int]]:
    """For each stream that was written to: the first offset that is kept, and the one after the
    last."""
    return {key: (starts[0], end(folder, *key, starts)) for key, starts in segments(folder).items()}


def end(folder: str | Path, rank: int, stream: Stream, starts: Sequence[int]) -> int:
    """The offset after the last byte of a stream whose segments were listed."""
    try:
        size = os.stat(_name(folder, rank, stream, starts[-1])).st_size
    except FileNotFoundError:  # Rotated away while we looked: the next look tells.
        size = 0
    return starts[-1] + size


def read(
    folder: str | Path,
    rank: int,
    stream: Stream,
    offset: int,
    limit: int,
    starts: Sequence[int] | None = None,
) -> tuple[int, bytes]:
    """At most `limit` bytes from `offset` on, and the offset at which they really begin.

    That lies further on when bytes in between are no longer kept. No bytes means that there are
    none yet; fewer than
    `limit` means nothing. `starts`: the stream's segments, where they were listed just now.
    """
    while True:
        if starts is None:
            starts = segments(folder, rank, stream).get((rank, stream), [])
        step = _read_listed(folder, rank, stream, starts, offset, limit)
        if step is not None:
            return step
        starts = None


def tail(folder: str | Path, rank: int, stream: Stream, limit: int) -> str:
    """The end of a stream as text of at most `limit` bytes; what is no UTF-8 is replaced."""
    first, last = list_streams(folder).get((rank, stream), (0, 0))
    offset = max(first, last - limit)
    kept = b""
    while offset < last:
        offset, data = read(folder, rank, stream, offset, last - offset)
        if not data:
            break
        kept += data
        offset += len(data)
    text = kept.decode(errors="replace")
    return text.encode()[-limit:].decode(errors="ignore")


def _read_listed(
    folder: str | Path, rank: int, stream: Stream, starts: Sequence[int], offset: int, limit: int
) -> tuple[int, bytes] | None:
    """One attempt over a listing; None when a listed segment has been removed meanwhile."""
    covering = [start for start in starts if start <= offset]
    for start in (*covering[-1:], *starts[len(covering) :]):
        # A listed segment with a listed successor is complete: when it holds nothing at the
        # offset, the next one goes on.
        offset = max(offset, start)
        try:
            fd = os.open(_name(folder, rank, stream, start), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            data = os.pread(fd, limit, offset - start)
        finally:
            os.close(fd)
        if data:
            return offset, data
    return offset, b""


def segments(
    folder: str | Path, rank: int | None = None, stream: Stream | None = None
) -> dict[tuple[int, Stream], list[int]]:
    """The first offsets of the segments of each stream, of one alone if so asked, in order."""
    found: dict[tuple[int, Stream], list[int]] = {}
    try:
        names = os.listdir(os.path.join(folder, LOGS))
    except FileNotFoundError:
        return found
    for name in names:
        of_rank, _, rest = name.partition(".")
        of_stream, _, start = rest.partition(".")
        if not (of_rank.isdigit() and start.isdigit()):
            continue
        for known in STREAMS:
            if known == of_stream and stream in (None, known) and rank in (None, int(of_rank)):
                found.setdefault((int(of_rank), known), []).append(int(start))
    for starts in found.values():
        starts.sort()
    return found


def _name(folder: str | Path, rank: int, stream: Stream, start: int) -> str:
    return os.path.join(folder, LOGS, f"{rank}.{stream}.{start:020}")


def _widen(pipe: int) -> None:
    """Give a busy pipe a buffer of 1 MiB: fewer turns for more bytes. The host may say no."""
    try:
        if fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) < _CHUNK:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _CHUNK)
    except OSError:
        pass
