"""The centre's log store: output of workers, under its attempt, in files.

Each stream is a row of segments named by the offset of their first byte; the newest are kept up to
a cap. Writes carry offsets, so that a repeat does nothing, and what a node had to drop shows as a
gap between segments. Beside each segment lie the moments of its bytes, which count under the cap.

A power cut may take what was written to a stream's newest segment and was not settled. Its node
keeps a copy until it has had the stream settled, and hands it over anew when the control plane is
back. Moments are not worth a sync: what has none is shown.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from controlplane.kit.durable import sync
from controlplane.service import logtimes
from controlplane.service.jobfolders import JobFolders, discard
from controlplane.service.logsegments import (
    Segment,
    Stream,
    list_segments,
    read,
    segment_path,
    times_path,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

SEGMENT_BYTES = 2 << 20
REMEMBERED_TAILS = 10_000
"""Of so many streams the newest segment is remembered; others are looked up on the disk again."""


class _Tail(NamedTuple):
    """The newest segment of a stream."""

    start: int
    """Offset of its first byte."""
    size: int
    """Bytes in it."""
    times_size: int = 0
    """Bytes of its moments."""
    marked_us: int | None = None
    """The last moment that was written down; None when nothing is known of it."""

    @property
    def end(self) -> int:
        """Offset after its last byte."""
        return self.start + self.size


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
        self._folders = JobFolders(folder)
        self._cap = cap_bytes
        self._tails: dict[StreamId, _Tail] = {}
        self._listed: set[Path] = set()
        """Folders whose streams are all among the tails: a gang's is not listed for each rank."""
        # A node repeats a call that took too long, while the first may still be writing.
        self._writing = threading.Lock()

    def _folder_of(self, which: StreamId) -> Path:
        job = self._folders.of(which.job_id)
        # A step's lies beside the attempt's, so that its own folder holds nothing but streams.
        step = f".{which.step}" if which.step else ""
        return job / f"{which.task_index}.{which.attempt}{step}"

    def _segments(self, which: StreamId) -> Sequence[Segment]:
        """The segments of a stream, in order."""
        found = list_segments(self._folder_of(which), f"{which.rank}.{which.stream}.")
        return found.get((which.rank, which.stream), ())

    def end(self, which: StreamId) -> int:
        """Offset after the last byte that is kept; 0 for a stream without output."""
        if (tail := self._tails.get(which)) is not None:
            return tail.end
        segments = self._segments(which)
        return segments[-1].end if segments else 0

    def _tail(self, which: StreamId) -> _Tail | None:
        """The newest segment; None for a stream without output."""
        folder = self._folder_of(which)
        if which not in self._tails and folder not in self._listed:
            if len(self._tails) > REMEMBERED_TAILS:
                self._tails.clear()
                self._listed.clear()
            for each, segments in self._streams(folder, which).items():
                last = segments[-1]
                self._tails.setdefault(each, _Tail(last.start, last.size, last.times_size))
            self._listed.add(folder)
        return self._tails.get(which)

    def append(self, which: StreamId, offset: int, data: bytes, time_us: int) -> int:
        """Keep bytes from an offset on, passing over those that are there; answers the new end.

        `time_us`: when they were found. OSError when there is no room for them; those that found
        room are kept.
        """
        with self._writing:
            before = self._tail(which)
            try:
                end = self._append(which, offset, data, time_us)
            except OSError:
                # A part may have been written: the disk tells.
                self._tails.pop(which, None)
                self._listed.discard(self._folder_of(which))
                raise
            begun = self._tail(which)
        if before is not None and begun is not None and begun.start != before.start:
            self._sync(which, before)  # else a power cut could leave the later without the earlier
        return end

    def settle(self, streams: Iterable[StreamId]) -> None:
        """Keep all of some streams durably. OSError when that cannot be done."""
        folders = set()
        for which in streams:
            with self._writing:
                tail = self._tail(which)
            if tail is not None:
                self._sync(which, tail)
                folders.add(self._folder_of(which))
        # The names of segments, of attempts and of jobs.
        for folder in {up for each in folders for up in (each, *each.parents[:3])}:
            with contextlib.suppress(FileNotFoundError):  # removed with its job meanwhile
                sync(folder)

    def _sync(self, which: StreamId, tail: _Tail) -> None:
        path = segment_path(self._folder_of(which), which.rank, which.stream, tail.start)
        with contextlib.suppress(FileNotFoundError):  # dropped by the cap meanwhile
            sync(path)

    def _append(self, which: StreamId, offset: int, data: bytes, time_us: int) -> int:
        tail = self._tail(which)
        end = tail.end if tail is not None else 0
        if not data or offset + len(data) <= end:
            return end
        data = data[max(end - offset, 0) :]
        offset = max(offset, end)
        folder = self._folder_of(which)
        if tail is None or offset != end or tail.size + tail.times_size >= SEGMENT_BYTES:
            if tail is not None:
                self._make_room(which, len(data))
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            tail = _Tail(offset, 0)
        path = segment_path(folder, which.rank, which.stream, tail.start)
        if logtimes.is_due(time_us, tail.marked_us):
            tail = self._mark(path, tail, time_us)
        with path.open("ab") as file:
            file.write(data)
        self._tails[which] = tail._replace(size=tail.size + len(data))
        return offset + len(data)

    def _mark(self, segment: Path, tail: _Tail, time_us: int) -> _Tail:
        """Write down that what comes now is of a moment."""
        # Without room output goes on without: the next bytes try again.
        with contextlib.suppress(OSError):
            logtimes.write(times_path(segment), logtimes.Mark(time_us, tail.end))
            size = tail.times_size + logtimes.RECORD_BYTES
            return tail._replace(times_size=size, marked_us=time_us)
        return tail

    def _make_room(self, which: StreamId, coming: int) -> None:
        """Drop the oldest segments, so that the cap holds after so many bytes more."""
        segments = self._segments(which)
        kept = sum(each.size + each.times_size for each in segments) + coming
        for each in segments:
            if kept <= self._cap:
                break
            # In this order: moments without their bytes would never be found again.
            each.times.unlink(missing_ok=True)
            each.path.unlink()
            kept -= each.size + each.times_size

    def read(self, which: StreamId, offset: int) -> tuple[int, bytes]:
        """Bytes from an offset on, or from the first kept one after it, and where they begin."""
        return read(self._segments(which), offset)

    def streams(
        self, job_id: int, task_index: int, attempt: int, step: int = 0
    ) -> dict[StreamId, list[Segment]]:
        """Segments of each stream of an attempt, or of a detached step of it, that has output."""
        which = StreamId(
            job_id=job_id, task_index=task_index, attempt=attempt, rank=0, stream="out", step=step
        )
        return self._streams(self._folder_of(which), which)

    def _streams(self, folder: Path, like: StreamId) -> dict[StreamId, list[Segment]]:
        return {
            replace(like, rank=rank, stream=stream): segments
            for (rank, stream), segments in sorted(list_segments(folder).items())
        }

    def numbers(self) -> Iterator[list[int]]:
        """Numbers of jobs that have output, some at a time."""
        return self._folders.numbers()

    def newest_us(self, job_id: int) -> int:
        """When a job's output changed last, UTC in microseconds; 0 when there is none."""
        return self._folders.newest_us(job_id)

    def remove(self, job_id: int) -> None:
        """Remove a job's output. What is written later begins at its own offset."""
        folder = self._folders.of(job_id)
        with self._writing:
            for which in [which for which in self._tails if which.job_id == job_id]:
                del self._tails[which]
            self._listed = {each for each in self._listed if each.parent != folder}
            gone = self._folders.take(job_id)
        discard(gone)
