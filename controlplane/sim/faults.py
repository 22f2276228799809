"""What can be wrong with the simulator's input."""

from __future__ import annotations


class BadInput(ValueError):
    """A file or an option is wrong; the text names the place, the value and the fix."""


def at(file: object, line: int, column: str, description: str) -> BadInput:
    """The error for one value of a table."""
    return BadInput(f"{file}, line {line}, column {column}: {description}")


def decimal(text: str, unit: int) -> int:
    """Read a number of at least 0, with or without a fraction, as a whole number of small units:
    `unit` of them are one. ValueError says what may be written."""
    try:
        value = float(text)
        whole = round(value * unit)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a number; write e.g. 8 or 0.5") from None
    if not 0 <= whole < 1 << 62:
        raise ValueError(f"{text!r} is out of range; write a number of at least 0")
    return whole
