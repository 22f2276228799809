"""Moments as people and files write them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.client.shipping import with_moment
from controlplane.model.moments import format_moment, moment_from, parse_moment

NOON_US = 1_772_366_400_000_000
"""2026-03-01T12:00:00Z, a day in winter."""
HOUR_US = 3_600_000_000


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_what_is_written_is_read_again(us: int) -> None:
    assert parse_moment(format_moment(us)) == us


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("2026-03-01T12:00Z", NOON_US),
        ("2026-03-01t12:00:00z", NOON_US),
        ("2026-03-01 13:00:00+01:00", NOON_US),
        ("2026-03-01T12:00:00.25Z", NOON_US + 250_000),
    ],
)
def test_a_moment_has_its_zone(text: str, us: int) -> None:
    assert parse_moment(text) == us


@pytest.mark.parametrize("text", ["", "2026-03-01", "2026-03-01T12:00", "12:00Z", "now", "\u0662"])
def test_what_has_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a moment with its zone"):
        parse_moment(text)


@pytest.mark.parametrize(
    ("said", "us"),
    [
        ("now", NOON_US),
        ("now+2h", NOON_US + 2 * HOUR_US),
        ("13:00", NOON_US + 24 * HOUR_US),
        ("18:00", NOON_US + 5 * HOUR_US),
        ("18:00:30", NOON_US + 5 * HOUR_US + 30_000_000),
        ("2026-03-02T13:00", NOON_US + 24 * HOUR_US),
        ("2026-07-01T13:00", 1_782_903_600_000_000),
        ("2026-03-01T12:00:00Z", NOON_US),
    ],
)
def test_people_say_it_by_their_own_clock(said: str, us: int) -> None:
    assert moment_from(said, NOON_US) == us


@pytest.mark.parametrize("said", ["", "now-2h", "now+", "25:00", "tomorrow", "nowhere", "9" * 400])
def test_what_is_no_time_is_told(said: str) -> None:
    with pytest.raises(ValueError, match="is no time; write"):
        moment_from(said, NOON_US)


def test_the_client_writes_the_moment_that_is_meant_and_leaves_the_rest() -> None:
    assert with_moment({"begin": "now+2h"}, NOON_US) == {"begin": "2026-03-01T14:00:00Z"}
    for begin in ("2026-03-01T18:00:00+01:00", "soon", 7, None):
        assert with_moment({"begin": begin}, NOON_US) == {"begin": begin}
    assert with_moment({"command": ["x"]}, NOON_US) == {"command": ["x"]}
