"""How the tasks of an array are written, counted and found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.tasks import LAST_INDEX, MOST_TASKS, ONE, TaskSet, parse_tasks


def indexes(made: TaskSet) -> list[int]:
    return [made.at(position) for position in range(len(made))]


@pytest.mark.parametrize(
    ("text", "expected", "at_once", "written"),
    [
        ("0-3", [0, 1, 2, 3], None, "0-3"),
        ("7", [7], None, "7"),
        ("9,1-3,5", [1, 2, 3, 5, 9], None, "1-3,5,9"),
        ("0-10:4%2", [0, 4, 8], 2, "0-8:4%2"),
        ("3-3:9%1", [3], 1, "3%1"),
        ("007-09", [7, 8, 9], None, "7-9"),
    ],
)
def test_arrays_are_written_as_for_slurm(
    text: str, expected: list[int], at_once: int | None, written: str
) -> None:
    made = parse_tasks(text)
    assert indexes(made) == expected
    assert made.at_once == at_once
    assert str(made) == written
    assert parse_tasks(written) == made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists indexes and ranges"),
        ("0-9%", "after the % stands"),
        ("0-9%0", "after the % stands"),
        ("9-0", "9-0 names nothing"),
        ("0-9:0", "0-9:0 names nothing"),
        ("0-9,5", "5 lies within another of its ranges"),
        ("-1", "lists indexes and ranges"),
        ("1 - 2", "lists indexes and ranges"),
        ("٣", "lists indexes and ranges"),
        (f"0-{MOST_TASKS}", f"has {MOST_TASKS + 1} tasks; at most {MOST_TASKS}"),
        (f"{LAST_INDEX + 1}", "the highest index is"),
    ],
)
def test_what_is_no_array_is_told(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_tasks(text)


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=4
    )
)
def test_each_index_has_its_position(parts: list[tuple[int, int, int]]) -> None:
    text = ",".join(f"{first}-{first + more}:{step}" for first, more, step in parts)
    try:
        made = parse_tasks(text)
    except ValueError:
        return
    found = indexes(made)
    assert found == sorted(set(found))
    for index in range(100):
        position = made.position(index)
        assert (position is not None) == (index in found)
        if position is not None:
            assert made.at(position) == index


def test_a_plain_job_has_one_task() -> None:
    assert indexes(ONE) == [0]
