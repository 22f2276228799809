"""The centre's log store: output of workers, under its attempt, in files.

Each stream is a row of segments named by the offset of their first byte; the newest are kept up to
a cap. Writes carry
offsets, so that a repeat does nothing, and what a node had to drop shows as a gap between segments.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Stream = Literal["out", "err"]
SEGMENT_BYTES = 2 << 20
READ_BYTES = 64 << 10
REMEMBERED_TAILS = 10_000
"""Of so many streams the newest segment is remembered; others are looked up on the disk again."""


class _Tail(NamedTuple):
    """The newest segment of a stream."""

    start: int
    """Offset of its first byte."""
    size: int
    """Bytes in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamId:
    """One output stream of one worker."""

    job_id: int
    """The job."""
    task_index: int
    """Index of its task."""
    attempt: int
    """Number of the attempt."""
    rank: int
    """Rank of the worker."""
    stream: Stream
    """Which of the two."""
    step: int = 0
    """Number of the detached step that wrote it; 0 for the worker itself."""


class LogStore:
    """Output streams under a folder. Any thread may call."""

    def __init__(self, folder: Path, cap_bytes: int) -> None:
        """`cap_bytes`: so much of each stream is kept, the newest."""
        self._folder = folder
        self._cap = cap_bytes
        self._tails: dict[StreamId, _Tail] = {}
        # A node repeats a call that took too long, while the first may still be writing.
        self._writing = threading.Lock()

    def _attempt_folder(self, job_id: int, task_index: int, attempt: int, step: int = 0) -> Path:
        job = self._folder / f"{job_id // 1000:06d}" / str(job_id)
        # Beside the attempt's, so that its own folder holds nothing but streams.
        return job / (f"{task_index}.{attempt}.{step}" if step else f"{task_index}.{attempt}")

    def _folder_of(self, which: StreamId) -> Path:
        return self._attempt_folder(which.job_id, which.task_index, which.attempt, which.step)

    def _segments(self, which: StreamId) -> list[tuple[int, Path, int]]:
        """Start, path and size of each segment, in order."""
        folder = self._folder_of(which)
        prefix = f"{which.rank}.{which.stream}."
        found = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(prefix):
                        start = int(entry.name[len(prefix) :])
                        found.append((start, Path(entry.path), entry.stat().st_size))
        except FileNotFoundError:
            return []
        return sorted(found)

    def _tail(self, which: StreamId) -> _Tail | None:
        """The newest segment; None for a stream without output. Writers remember it."""
        known = self._tails.get(which)
        if known is None:
            segments = self._segments(which)
            if segments:
                start, _, size = segments[-1]
                known = _Tail(start, size)
        return known

    def end(self, which: StreamId) -> int:
        """Offset after the last byte that is kept; 0 for a stream without output."""
        tail = self._tail(which)
        return tail.start + tail.size if tail is not None else 0

    def append(self, which: StreamId, offset: int, data: bytes) -> int:
        """Keep bytes from an offset on, passing over those that are there; answers the new end.

        OSError when there is no room for them; those that found room are kept.
        """
        with self._writing:
            try:
                return self._append(which, offset, data)
            except OSError:
                self._tails.pop(which, None)  # a part may have been written: the disk tells
                raise

    def _append(self, which: StreamId, offset: int, data: bytes) -> int:
        tail = self._tail(which)
        end = tail.start + tail.size if tail is not None else 0
        if offset + len(data) <= end:
            return end
        data = data[max(end - offset, 0) :]
        offset = max(offset, end)
        if tail is None or offset != end or tail.size >= SEGMENT_BYTES:
            self._make_room(which, len(data))
            tail = _Tail(offset, 0)
        folder = self._folder_of(which)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / f"{which.rank}.{which.stream}.{tail.start:020d}").open("ab") as file:
            file.write(data)
        if len(self._tails) > REMEMBERED_TAILS:
            self._tails.clear()
        self._tails[which] = _Tail(tail.start, tail.size + len(data))
        return offset + len(data)

    def _make_room(self, which: StreamId, coming: int) -> None:
        """Drop the oldest segments, so that the cap holds after so many bytes more."""
        segments = self._segments(which)
        kept = sum(size for _, _, size in segments) + coming
        for _, path, size in segments:
            if kept <= self._cap:
                break
            path.unlink()
            kept -= size

    def read(self, which: StreamId, offset: int, limit: int = READ_BYTES) -> tuple[int, bytes]:
        """Bytes from an offset on, or from the first kept one after it, and where they begin."""
        for start, path, size in self._segments(which):
            if start + size <= offset:
                continue
            begin = max(offset, start)
            try:
                with path.open("rb") as file:
                    file.seek(begin - start)
                    return begin, file.read(limit)
            except FileNotFoundError:  # dropped by the cap meanwhile
                continue
        return offset, b""

    def streams(
        self, job_id: int, task_index: int, attempt: int, step: int = 0
    ) -> Iterator[StreamId]:
        """Streams of an attempt, or of a detached step of it, that have output."""
        folder = self._attempt_folder(job_id, task_index, attempt, step)
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return
        for rank, stream in sorted({(int(n.split(".")[0]), n.split(".")[1]) for n in names}):
            yield StreamId(
                job_id=job_id,
                task_index=task_index,
                attempt=attempt,
                rank=rank,
                stream="out" if stream == "out" else "err",
                step=step,
            )
