"""What was used in an account's name, for fair share and for windows: pure, and in integers alone,
so that it is the same on every machine and after every restart.

Usage counts half after a half-life. What an attempt used is added when it ends; of what lives its
time so far counts. Figures are as of whole minutes: between two of them a decision sees them change
only by what has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from math import isqrt
from typing import TYPE_CHECKING

from controlplane.model.account import LONGEST_WINDOW_DAYS
from controlplane.model.policy import DAY_US

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.model.usage import Usage

EVERY_US = 60_000_000
"""Figures are as of multiples of this."""
MOST = (1 << 63) - 1
"""What a database keeps."""
_BITS = 64
_BYTES = 4
"""So many bytes of a fraction of a half-life count: steps of 0.14 ms in a week."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What one user has used in one account's name."""

    account: str
    """The account."""
    user: str
    """The user."""
    usage_us: int = 0
    """Microseconds of GPUs, each weighted by its model, decayed."""
    as_of_us: int = 0
    """When it was that much: a multiple of `EVERY_US`."""
    days: tuple[tuple[int, int], ...] = ()
    """Days since 1970, by UTC, and the microseconds of GPUs that were used on each, unweighted, in
    order; of the last `LONGEST_WINDOW_DAYS`."""

    @property
    def key(self) -> tuple[str, str]:
        """Account and user."""
        return self.account, self.user

    def at(self, now_us: int, half_life_us: int) -> int:
        """What is left of the usage by now."""
        return decayed(self.usage_us, minute(now_us) - self.as_of_us, half_life_us)

    def since(self, day: int) -> int:
        """Microseconds of GPUs on that day and later."""
        return sum(gpu_us for each, gpu_us in self.days if each >= day)


def charged(
    spending: Spending,
    usage: Usage,
    *,
    half_life_us: int,
    weights: tuple[tuple[str, int], ...],
    now_us: int,
) -> Spending:
    """The spending, once an attempt that has ended is added."""
    per_mille = sum(count * weight(model, weights) for model, count in usage.devices)
    gpus = sum(count for _, count in usage.devices)
    # A clock that was set back makes nobody pay twice.
    as_of_us = max(minute(now_us), spending.as_of_us)
    before = decayed(spending.usage_us, as_of_us - spending.as_of_us, half_life_us)
    days = dict(spending.days)
    for day, us in _by_day(usage.from_us, usage.until_us):
        if gpus and us:
            days[day] = days.get(day, 0) + gpus * us
    oldest = as_of_us // DAY_US - LONGEST_WINDOW_DAYS
    return Spending(
        account=spending.account,
        user=spending.user,
        usage_us=min(before + per_mille * usage.held_us // 1000, MOST),
        as_of_us=as_of_us,
        days=tuple(sorted(each for each in days.items() if each[0] > oldest)),
    )


def weight(model: str, weights: Iterable[tuple[str, int]]) -> int:
    """What a second of a device counts for, in thousandths: by the longest entry that is a part of
    its model's name, as for `gpu_model` of job.json."""
    name = model.casefold()
    fits = [(len(words), words, each) for words, each in weights if words.casefold() in name]
    return max(fits)[2] if fits else 1000


def minute(now_us: int) -> int:
    """The moment as of which figures are told."""
    return now_us - now_us % EVERY_US


def first_day(now_us: int, window_days: int) -> int:
    """The first day of a window, as days since 1970."""
    return now_us // DAY_US - window_days + 1


def _by_day(from_us: int, until_us: int) -> Iterable[tuple[int, int]]:
    """How much of a span lies on each day."""
    first = max(from_us // DAY_US, until_us // DAY_US - LONGEST_WINDOW_DAYS)
    for day in range(first, until_us // DAY_US + 1):
        yield day, min(until_us, (day + 1) * DAY_US) - max(from_us, day * DAY_US)


def decayed(value: int, age_us: int, half_life_us: int) -> int:
    """What is left of a value after a time: half after each half-life, rounded down."""
    if age_us <= 0 or not value:
        return value
    return value * _left(age_us, half_life_us) >> _BITS


@lru_cache(100_000)
def _left(age_us: int, half_life_us: int) -> int:
    """What is left of one after a time, in units of 2⁻⁶⁴."""
    halves, rest = divmod(age_us, half_life_us)
    fraction = (rest << 8 * _BYTES) // half_life_us
    left = 1 << _BITS
    for powers in _powers():
        left = left * powers[fraction & 255] >> _BITS
        fraction >>= 8
    return left >> min(halves, _BITS)


@cache
def _powers() -> tuple[tuple[int, ...], ...]:
    """For each byte of a fraction, the lowest first, 2 to the power of minus its part, in units of
    2⁻⁶⁴."""
    double, one = 2 * _BITS, 1 << 2 * _BITS
    roots, root = [], one >> 1
    for _ in range(8 * _BYTES):  # 2^-1/2, 2^-1/4, …: the weights of the fraction's bits
        root = isqrt(root << double)
        roots.append(root)
    tables = []
    for byte in reversed(range(_BYTES)):
        bits = roots[8 * byte : 8 * byte + 8]
        table = []
        for number in range(256):
            power = one
            for place, root in enumerate(bits):
                if number >> (7 - place) & 1:
                    power = power * root >> double
            table.append(power >> _BITS)
        tables.append(tuple(table))
    return tuple(tables)
