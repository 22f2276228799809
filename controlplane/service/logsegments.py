"""Segments of the log store on the disk: which there are, and bytes out of them.

`<rank>.<out|err>.<offset of the first byte, 20 digits>` in the folder of an attempt; beside it the
moments of its bytes (`logtimes`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from controlplane.service import logtimes

if TYPE_CHECKING:
    from collections.abc import Sequence

Stream = Literal["out", "err"]
READ_BYTES = 64 << 10
LINE_BYTES = 64 << 10
"""The beginning or end of a line is looked for so far."""


class Segment(NamedTuple):
    """A file of a stream."""

    start: int
    """Offset of its first byte."""
    size: int
    """Bytes in it."""
    times_size: int
    """Bytes of the file with its moments."""
    path: Path
    """Where it lies."""

    @property
    def end(self) -> int:
        """Offset after its last byte."""
        return self.start + self.size

    @property
    def times(self) -> Path:
        """Where its moments lie."""
        return times_path(self.path)


def segment_path(folder: Path, rank: int, stream: Stream, start: int) -> Path:
    """Where a segment lies."""
    return folder / f"{rank}.{stream}.{start:020d}"


def times_path(segment: Path) -> Path:
    """Where a segment's moments lie."""
    return segment.with_name(segment.name + logtimes.SUFFIX)


def list_segments(folder: Path, only: str = "") -> dict[tuple[int, Stream], list[Segment]]:
    """The segments of each stream in a folder, in order. `only`: how their names begin."""
    sizes: dict[str, int] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(only):
                    sizes[entry.name] = _size(entry)
    except FileNotFoundError:
        return {}
    found: dict[tuple[int, Stream], list[Segment]] = {}
    for name in sorted(name for name in sizes if not name.endswith(logtimes.SUFFIX)):
        rank, stream, start = name.split(".")
        segment = Segment(
            start=int(start),
            size=sizes[name],
            times_size=sizes.get(name + logtimes.SUFFIX, 0),
            path=folder / name,
        )
        found.setdefault((int(rank), "out" if stream == "out" else "err"), []).append(segment)
    return found


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # dropped by the cap meanwhile
        return 0


def read(segments: Sequence[Segment], offset: int, limit: int = READ_BYTES) -> tuple[int, bytes]:
    """Bytes from an offset on, or from the first kept one after it, and where they begin."""
    for segment in segments:
        if segment.end <= offset:
            continue
        begin = max(offset, segment.start)
        try:
            with segment.path.open("rb") as file:
                file.seek(begin - segment.start)
                if data := file.read(limit):
                    return begin, data
        except FileNotFoundError:  # dropped by the cap meanwhile
            continue
    return offset, b""


def window(
    segments: Sequence[Segment], since_us: int | None, until_us: int | None
) -> tuple[int, int] | None:
    """Between which offsets lies what was printed at or after one moment and before another, in
    whole lines; None: there is nothing."""
    spans = [span for each in segments for span in logtimes.read(each.times, each.start, each.end)]
    found = logtimes.window(spans, since_us, until_us)
    if found is None:
        return None
    begin, end = found
    return _line_start(segments, begin), _line_end(segments, end)


def _line_start(segments: Sequence[Segment], offset: int) -> int:
    """Where the line begins of which the byte at an offset is a part."""
    at, before = max(offset - LINE_BYTES, 0), b""
    first = at
    while at < offset:
        begin, data = read(segments, at, offset - at)
        if not data or begin >= offset:
            return offset  # the line's beginning is gone
        if begin > at:
            first, before = begin, b""
        before += data
        at = begin + len(data)
    newline = before.rfind(b"\n")
    if newline < 0:
        # Whole from its start, or from what is kept of it; or too long to be looked for.
        return offset if first > 0 and offset - first >= LINE_BYTES else first
    return first + newline + 1


def _line_end(segments: Sequence[Segment], offset: int) -> int:
    """Where the line ends of which the byte before an offset is a part."""
    if read(segments, offset - 1, 1) == (offset - 1, b"\n"):
        return offset
    at = offset
    while at < offset + LINE_BYTES:
        begin, data = read(segments, at)
        if begin > at or not data:
            return at
        newline = data.find(b"\n")
        if newline >= 0:
            return at + newline + 1
        at += len(data)
    return offset
