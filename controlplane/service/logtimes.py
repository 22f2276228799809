"""When output was printed: a file of moments beside each segment of the log store.

A record tells that the bytes from its offset on, up to the next record's, were found by their agent
at its moment or less than `GRAIN_US` later. There is one for about each second of output, so that
a segment of 2 MiB has few. The file goes with its segment. What it says is only ever used to leave
output out: where it is torn, missing or nonsense, the moment of the bytes is unknown, and they are
shown.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

SUFFIX = ".times"
"""Of such a file's name, after its segment's."""
GRAIN_US = 1_000_000
"""Bytes that were found within so long after a record's moment share it."""
_RECORD = struct.Struct("<qq")
RECORD_BYTES = _RECORD.size


class Mark(NamedTuple):
    """From where on output is of a moment."""

    time_us: int
    """By the node's clock: UTC, microseconds since 1970."""
    offset: int
    """Of the first byte, from the start of its stream."""


class Span(NamedTuple):
    """Some bytes of a stream with the same moment."""

    begin: int
    """Offset of the first."""
    end: int
    """Offset after the last."""
    time_us: int | None
    """The moment; None when it is not known."""


def is_due(time_us: int, last_us: int | None) -> bool:
    """Whether output of a moment needs a record after the last one. A clock may be set back."""
    return last_us is None or abs(time_us - last_us) >= GRAIN_US


def write(path: Path, mark: Mark) -> None:
    """Add a record; over the end of the file, where that is torn. OSError when there is no room."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        whole = os.fstat(fd).st_size // RECORD_BYTES * RECORD_BYTES
        os.pwrite(fd, _RECORD.pack(*mark), whole)
    finally:
        os.close(fd)


def read(path: Path, start: int, end: int) -> tuple[Span, ...]:
    """Spans of the segment with the bytes from `start` to `end`."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    return spans(data, start, end)


def spans(data: bytes, start: int, end: int) -> tuple[Span, ...]:
    """As `read`, from what the file holds."""
    whole = len(data) // RECORD_BYTES * RECORD_BYTES
    marks = [Mark(*fields) for fields in _RECORD.iter_unpack(data[:whole])]
    offsets = [start, *(mark.offset for mark in marks)]
    if offsets != sorted(offsets) or any(mark.time_us <= 0 for mark in marks):
        marks = []
    # The last one may have been written before its bytes, which then did not come.
    edges = [min(offset, end) for offset in (start, *(mark.offset for mark in marks), end)]
    times = [None, *(mark.time_us for mark in marks)]
    found = (Span(*each) for each in zip(edges, edges[1:], times, strict=False))
    return tuple(span for span in found if span.begin < span.end)


def window(
    all_spans: Sequence[Span], since_us: int | None, until_us: int | None
) -> tuple[int, int] | None:
    """Between which offsets everything lies that may have been printed at or after one moment and
    before another; None: there is nothing.

    Bytes of unknown moment were printed after those before them, and before those behind.
    """
    after = _known(all_spans)
    before = _known(reversed(all_spans))[::-1]
    wanted = [
        span
        for span, low_us, high_us in zip(all_spans, after, before, strict=True)
        if (since_us is None or high_us is None or high_us + GRAIN_US > since_us)
        and (until_us is None or low_us is None or low_us < until_us)
    ]
    return (wanted[0].begin, wanted[-1].end) if wanted else None


def _known(row: Iterable[Span]) -> list[int | None]:
    """For each span its moment, or the last one in the row that is known."""
    found: list[int | None] = []
    for span in row:
        last = found[-1] if found else None
        found.append(last if span.time_us is None else span.time_us)
    return found
