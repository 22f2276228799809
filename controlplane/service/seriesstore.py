"""Series of what attempts reported, thinned, in files.

One file for each attempt, of JSON lines: `{"rank": …, "stride": …}` first, then a line for each
whole point. A point is appended when it is whole; at the limit the file is written anew with half
as many. Nothing is lost by a repeat, and the end of a file that a crash tore is passed over. The
open point is kept in memory: a restart forgets what has not made a whole one. A power cut takes the
newest points, of some half a minute, and never those before them: they are for the eye, and not
worth a sync each.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.kit.durable import put_in_place
from controlplane.model.progress import SERIES_LIMIT, Point, Series, halved, merged
from controlplane.service.jobfolders import JobFolders, discard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Key = tuple[int, int, int]
"""Of an attempt: job, task, number."""
REMEMBERED = 5_000
"""Attempts whose ends of series are remembered; of others the file is read again."""


@dataclass(slots=True)
class _End:
    """What must be known of a series to go on with it."""

    rank: int
    stride: int
    count: int
    """Whole points in the file."""
    newest_us: int
    """Moment of the newest point, the open one included."""
    open: Point | None
    held: int


class SeriesStore:
    """Series under a folder. Any thread may call."""

    def __init__(self, folder: Path) -> None:
        """`folder`: made with the first point."""
        self._folders = JobFolders(folder)
        self._ends: OrderedDict[Key, _End] = OrderedDict()
        self._lock = threading.Lock()

    def append(self, key: Key, rank: int, points: Iterable[Point]) -> None:
        """Add points that `rank` reported; those that are there are passed over. A lower rank than
        before begins the series anew, a higher one says nothing. OSError when there is no room."""
        with self._lock:
            try:
                self._append(key, rank, points)
            except OSError:
                self._ends.pop(key, None)  # a part may have been written: the disk tells
                raise

    def read(self, key: Key) -> tuple[int | None, Series]:
        """Whose word a series is, and the series; None and nothing where nobody reported."""
        with self._lock:
            rank, series = self._load(key)
            end = self._ends.get(key)
            if end is None:
                return rank, series
            return end.rank, Series(
                stride=end.stride, points=series.points, open=end.open, held=end.held
            )

    def _append(self, key: Key, rank: int, points: Iterable[Point]) -> None:
        end = self._ends.get(key) or self._look(key)
        if end is None or rank < end.rank:
            end = _End(rank, 1, 0, 0, None, 0)
            self._write(key, rank, Series())
        elif rank > end.rank:
            return
        whole: list[Point] = []
        for point in points:
            if point.time_us <= end.newest_us:
                continue
            end.newest_us = point.time_us
            end.open = point if end.open is None else merged(end.open, point)
            end.held += 1
            if end.held < end.stride:
                continue
            if end.count < SERIES_LIMIT:
                whole.append(end.open)
                end.open, end.held, end.count = None, 0, end.count + 1
            else:  # The open one stays open: as `Series.after` does it, but for the file.
                _, series = self._load(key)
                kept = halved((*series.points, *whole))
                whole = []
                end.stride, end.count = 2 * end.stride, len(kept)
                self._write(key, rank, Series(stride=end.stride, points=kept))
        if whole:
            with self._path(key).open("a") as file:
                file.write("".join(map(_line, whole)))
        self._ends[key] = end
        self._ends.move_to_end(key)
        while len(self._ends) > REMEMBERED:
            self._ends.popitem(last=False)

    def _look(self, key: Key) -> _End | None:
        rank, series = self._load(key)
        if rank is None:
            return None
        # Written anew, so that no torn end is in the way of what comes.
        self._write(key, rank, series)
        newest_us = series.points[-1].time_us if series.points else 0
        return _End(rank, series.stride, len(series.points), newest_us, None, 0)

    def _load(self, key: Key) -> tuple[int | None, Series]:
        try:
            lines = self._path(key).read_bytes().splitlines()
        except FileNotFoundError:
            return None, Series()
        try:
            head = json.loads(lines[0])
            rank, stride = int(head["rank"]), int(head["stride"])
        except (ValueError, KeyError, TypeError, IndexError):
            return None, Series()
        points = []
        for line in lines[1:]:
            try:
                time_us, step, fraction, metrics = json.loads(line)
            except (ValueError, TypeError):
                continue  # torn by a crash or a full disk
            points.append(
                Point(
                    time_us=time_us,
                    step=step,
                    fraction=fraction,
                    metrics=tuple(sorted(metrics.items())),
                )
            )
        return rank, Series(stride=stride, points=tuple(points))

    def _write(self, key: Key, rank: int, series: Series) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f".{path.name}")
        head = json.dumps({"rank": rank, "stride": series.stride}) + "\n"
        fresh.write_text(head + "".join(map(_line, series.points)))
        put_in_place(fresh, path)

    def _path(self, key: Key) -> Path:
        job_id, task_index, attempt = key
        return self._folders.of(job_id) / f"{task_index}.{attempt}.jsonl"

    def numbers(self) -> Iterator[list[int]]:
        """Numbers of jobs that have a series, some at a time."""
        return self._folders.numbers()

    def newest_us(self, job_id: int) -> int:
        """When a job's series changed last, UTC in microseconds; 0 when there is none."""
        return self._folders.newest_us(job_id)

    def remove(self, job_id: int) -> None:
        """Remove a job's series."""
        with self._lock:
            for key in [key for key in self._ends if key[0] == job_id]:
                del self._ends[key]
            gone = self._folders.take(job_id)
        discard(gone)


def _line(point: Point) -> str:
    values = (point.time_us, point.step, point.fraction, dict(point.metrics))
    return json.dumps(values, separators=(",", ":")) + "\n"
