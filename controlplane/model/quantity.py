"""Amounts as people write them ("8GiB", "1h30m", 0.5 cores) and as we keep them (whole integers).

Parsers raise `ValueError` with a message that says what may be written. Formatters give a short
form that parses back to the very same number.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

SECOND_US: Final = 1_000_000
"""One second in microseconds."""

MEMORY_UNITS: Final = {
    "PiB": 2**50, "TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10,
    "PB": 10**15, "TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1,
}  # fmt: skip
"""Bytes in each unit of memory; binary ones first, so that they win where both fit."""

MEMORY_PATTERN: Final = f"^[0-9]{{1,18}}({'|'.join(MEMORY_UNITS)})$"
"""What `parse_memory` takes as text, as a regular expression that JSON Schema shares."""

DURATION_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
"""Seconds in each unit of time, in the order in which they are written."""

DURATION_PATTERN: Final = "^(?=.)" + "".join(f"([0-9]{{1,9}}{u})?" for u in DURATION_UNITS) + "$"
"""What `parse_duration` takes as text, as a regular expression that JSON Schema shares."""

_MEMORY = re.compile(MEMORY_PATTERN[1:-1])
_DURATION = re.compile(DURATION_PATTERN[1:-1])


def whole_number(value: object) -> int | None:
    """Give `value` as an int when it is a whole number, else None.

    Integral floats count, since numbers travel as doubles in protobuf's Struct; booleans do not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    return int(value)


def parse_memory(value: object) -> int:
    """Read a number of bytes, or text with a unit such as "8GiB". Gives bytes, maybe negative."""
    if isinstance(value, str):
        if _MEMORY.fullmatch(value):
            digits = value.rstrip("PTGMKkiB")
            return int(digits) * MEMORY_UNITS[value[len(digits) :]]
    elif (count := whole_number(value)) is not None:
        return count
    raise ValueError('is not an amount of memory; write e.g. "8GiB" or a number of bytes')


def format_memory(count: int) -> str:
    """Write bytes with the unit that leaves the smallest whole number: "8GiB", "4GB"."""
    fitting = [(count // size, unit) for unit, size in MEMORY_UNITS.items() if count % size == 0]
    number, unit = min(fitting, key=lambda pair: pair[0])
    return f"{number}{unit}"


def parse_duration(value: object) -> int:
    """Read a number of seconds, or text such as "1h30m". Gives microseconds, maybe negative."""
    if isinstance(value, str):
        if match := _DURATION.fullmatch(value):
            parts = zip(match.groups(), DURATION_UNITS.values(), strict=True)
            return sum(int(part[:-1]) * size for part, size in parts if part) * SECOND_US
    elif (seconds := whole_number(value)) is not None:
        return seconds * SECOND_US
    raise ValueError('is not a duration; write e.g. "2h", "1h30m", "45s" or a number of seconds')


def format_duration(duration_us: int) -> str:
    """Write a duration of whole seconds, in microseconds, as "1d2h3m4s" without its zero parts."""
    seconds, fraction = divmod(duration_us, SECOND_US)
    if fraction or seconds < 0:
        raise ValueError(f"{duration_us} µs is not a duration of whole seconds")
    text = ""
    for unit, size in DURATION_UNITS.items():
        number, seconds = divmod(seconds, size)
        text += f"{number}{unit}" if number else ""
    return text or "0s"


def parse_cores(value: object) -> int:
    """Read a number of cores with at most three decimals, from 0.001 to 4096. Gives millicores."""
    # The range comes first: it also keeps out NaN, infinities and integers of a million digits.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0.001 <= value <= 4096:
        millicores = Decimal(repr(value)) * 1000
        if millicores == millicores.to_integral_value():
            return int(millicores)
    raise ValueError("must be a number from 0.001 to 4096 with at most 3 decimals")


def format_cores(millicores: int) -> int | float:
    """Give millicores as a JSON number of cores: 2, 0.5."""
    return millicores // 1000 if millicores % 1000 == 0 else millicores / 1000
