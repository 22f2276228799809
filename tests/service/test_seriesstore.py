"""Series in files: thinned as the model says, whatever is repeated or restarted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.progress import SERIES_LIMIT, Point, Series
from controlplane.service.seriesstore import SeriesStore

if TYPE_CHECKING:
    from pathlib import Path

KEY = (12, 0, 1)


def points(first: int, last: int) -> list[Point]:
    return [Point(time_us=i, step=i, metrics=(("loss", 1 / i),)) for i in range(first, last + 1)]


def test_the_file_tells_the_same_as_the_model(tmp_path: Path) -> None:
    store, series = SeriesStore(tmp_path), Series()
    told = points(1, 5 * SERIES_LIMIT + 7)
    for i in range(0, len(told), 5):
        store.append(KEY, 0, told[i : i + 5])
        store.append(KEY, 0, told[i : i + 5])  # a repeat
    for point in told:
        series = series.after(point)
    assert store.read(KEY) == (0, series)
    assert store.read((13, 0, 1)) == (None, Series())


def test_a_restart_goes_on_behind_what_is_there_and_a_torn_end_is_passed_over(
    tmp_path: Path,
) -> None:
    SeriesStore(tmp_path).append(KEY, 0, points(1, 3))
    (file,) = tmp_path.rglob("*.jsonl")
    with file.open("ab") as out:
        out.write(b"[4,4,nu")
    store = SeriesStore(tmp_path)
    store.append(KEY, 0, points(2, 5))
    assert [point.step for point in store.read(KEY)[1].all] == [1, 2, 3, 4, 5]


def test_a_lower_rank_begins_it_anew(tmp_path: Path) -> None:
    store = SeriesStore(tmp_path)
    store.append(KEY, 3, points(1, 3))
    store.append(KEY, 0, points(2, 2))
    store.append(KEY, 3, points(5, 6))
    assert store.read(KEY)[0] == 0
    assert [point.step for point in store.read(KEY)[1].all] == [2]
