from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model import quantity


@pytest.mark.parametrize(
    ("written", "count"),
    [("8GiB", 2**33), ("512MiB", 2**29), ("4GB", 4 * 10**9), ("1kB", 1000), ("7B", 7), (9.0, 9)],
)
def test_memory_is_read_in_bytes(written: object, count: int) -> None:
    assert quantity.parse_memory(written) == count


@pytest.mark.parametrize(
    "written", ["8GBB", "8", "8 GiB", "8gib", "", "GiB", "-1GiB", "1.5GiB", "٣GiB", True, 1.5, None]
)
def test_what_is_no_memory_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="is not an amount of memory"):
        quantity.parse_memory(written)


@given(st.integers(1, 2**50))
def test_memory_keeps_every_byte(count: int) -> None:
    assert quantity.parse_memory(quantity.format_memory(count)) == count


@pytest.mark.parametrize(
    ("count", "written"),
    [(2**33, "8GiB"), (4 * 10**9, "4GB"), (1536 * 2**20, "1536MiB"), (5, "5B")],
)
def test_memory_is_written_as_people_would(count: int, written: str) -> None:
    assert quantity.format_memory(count) == written


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2h", 7200),
        ("90m", 5400),
        ("1h30m", 5400),
        ("45s", 45),
        ("1d", 86400),
        (30, 30),
        (30.0, 30),
    ],
)
def test_durations_are_read_in_microseconds(written: object, seconds: int) -> None:
    assert quantity.parse_duration(written) == seconds * 1_000_000


@pytest.mark.parametrize("written", ["", "2", "1m1h", "-2h", "1.5h", "h", "2h ", "2H", False, 0.5])
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        quantity.parse_duration(written)


@given(st.integers(0, 10**9))
def test_durations_keep_every_second(seconds: int) -> None:
    text = quantity.format_duration(seconds * 1_000_000)
    assert quantity.parse_duration(text) == seconds * 1_000_000


def test_a_duration_of_less_than_a_second_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="not a duration of whole seconds"):
        quantity.format_duration(1)


@given(st.integers(1, 4_096_000))
def test_cores_keep_every_thousandth(millicores: int) -> None:
    assert quantity.parse_cores(quantity.format_cores(millicores)) == millicores
    assert quantity.parse_cores(millicores / 1000) == millicores
