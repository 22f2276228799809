"""Moments as people and files write them, and as we keep them: UTC in microseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from controlplane.model.quantity import parse_duration

_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO: Final = timedelta(microseconds=1)
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_CLOCK = re.compile(r"(\d\d):(\d\d)(?::(\d\d))?", re.ASCII)


def parse_moment(text: str) -> int:
    """A moment of RFC 3339, its zone included; seconds may be left out. ValueError, in words, for
    anything else."""
    if _MOMENT.fullmatch(text):
        try:
            return _micros(datetime.fromisoformat(text.upper()))
        except (ValueError, OverflowError):
            raise ValueError("is no moment that there is") from None
    raise ValueError(
        'must be a moment with its zone, such as "2026-03-01T18:00:00Z" or'
        ' "2026-03-01T18:00:00+01:00"'
    )


def format_moment(us: int) -> str:
    """A moment in UTC, as RFC 3339 writes it: `2026-03-01T18:00:00Z`."""
    return (_START + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def moment_from(text: str, now_us: int) -> int:
    """A moment as people say it here and now: `now+2h`, `18:00` for the next time that the clock
    says so, a date and time of this zone, or one with a zone. ValueError, in words, for anything
    else."""
    try:
        if text == "now":
            return now_us
        if text.startswith("now+"):
            return now_us + parse_duration(text.removeprefix("now+"))
        if found := _CLOCK.fullmatch(text):
            return _next(int(found[1]), int(found[2]), int(found[3] or 0), now_us)
        return _micros(datetime.fromisoformat(text).astimezone())
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            'is no time; write "now+2h", "18:00", "2026-03-01T18:00" or "2026-03-01T18:00:00+01:00"'
        ) from None


def _next(hour: int, minute: int, second: int, now_us: int) -> int:
    """When the clock of this zone says that next."""
    here = (_START + timedelta(microseconds=now_us)).astimezone().replace(tzinfo=None)
    wanted = here.replace(hour=hour, minute=minute, second=second, microsecond=0)
    if wanted <= here:
        wanted += timedelta(days=1)
    return _micros(wanted.astimezone())


def _micros(moment: datetime) -> int:
    return (moment.astimezone(UTC) - _START) // _MICRO
