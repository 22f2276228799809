"""The kinds of values that the fields of a job.json hold.

Each kind knows four things about its values: how to read them from JSON, noting every fault; how to
write them back in canonical form; their JSON Schema; and how the reference names them. A parsed
value is never None, so that None can say "refused".
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from controlplane.model import quantity
from controlplane.model.specfaults import Faults, nearest, shown

if TYPE_CHECKING:
    from enum import StrEnum

    from controlplane.model.specshapes import Table

Read = Callable[[object, str, Faults], Any]
"""Gives the parsed value, or notes at the path why not and gives None."""

ARGUMENTS_LIMIT: Final = 2**20
"""Most bytes of a command, and of an environment: the kernel passes about 2 MiB to a program."""

CONTROL: Final = r"\u0000-\u001f\u007f-\u009f"
"""Control characters, as part of a regular expression for Python and for JSON Schema."""

_CONTROL = re.compile(f"[{CONTROL}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a field may hold."""

    words: str
    """The type and its limits, for the reference."""
    schema: Mapping[str, object]
    """JSON Schema of the values that `read` takes, or of slightly more."""
    read: Read
    """From JSON to the parsed value."""
    write: Callable[[Any], object] = field(default=lambda value: value)
    """From the parsed value to its canonical JSON form."""
    load: Callable[[Any], Any] | None = None
    """From that form back, of which nothing can be wrong; None: as `read` does."""
    takes_text: bool = False
    """Whether the value is always text, so that `--set comment=5` means "5"."""
    entries: Kind | None = None
    """In a map with free keys: the kind of its values."""
    tables: tuple[Table, ...] = ()
    """The objects that it may hold, each with its known fields."""


def read_text(value: object, path: str, faults: Faults) -> str | None:
    """Give a string that can be stored and passed to a program, or note why not and give None."""
    if not isinstance(value, str):
        faults.add(path, value, "must be a string")
    elif complaint := unusable(value):
        faults.add(path, value, complaint)
    else:
        return value
    return None


def unusable(text: str) -> str | None:
    """Say why a string can be neither stored nor passed to a program, or None."""
    if "\0" in text:
        return "must not contain a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "must be valid Unicode; it contains a lone surrogate"
    return None


def text(*, minimum: int = 0, maximum: int, controls: bool = False) -> Kind:
    """Text of some length in characters, with or without control characters (line ends, tabs)."""
    limits = f"{minimum} to {maximum}" if minimum else f"at most {maximum}"

    def read(value: object, path: str, faults: Faults) -> str | None:
        found = read_text(value, path, faults)
        if found is None:
            return None
        if not minimum <= len(found) <= maximum:
            faults.add(path, value, f"must have {limits} characters, not {len(found)}")
            return None
        if not controls and _CONTROL.search(found):
            faults.add(path, value, "must not contain control characters")
            return None
        return found

    schema: dict[str, object] = {"type": "string", "maxLength": maximum}
    if minimum:
        schema["minLength"] = minimum
    if not controls:
        schema["pattern"] = f"^[^{CONTROL}]*$"
    return Kind(
        words=f"string, {limits} characters", schema=schema, read=read, load=str, takes_text=True
    )


def matching(pattern: str, *, words: str, complaint: str) -> Kind:
    """Short text that matches a regular expression (written with ^ and $) as a whole."""
    compiled = re.compile(pattern[1:-1])

    def read(value: object, path: str, faults: Faults) -> str | None:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            faults.add(path, value, complaint)
            return None
        return sys.intern(value)  # thousands of queued jobs name the same few queues and accounts

    return Kind(
        words=words,
        schema={"type": "string", "pattern": pattern},
        read=read,
        load=sys.intern,
        takes_text=True,
    )


def choice(options: type[StrEnum]) -> Kind:
    """One of a few words."""
    names = sorted(options)
    allowed = "must be one of " + ", ".join(map(shown, names))

    def read(value: object, path: str, faults: Faults) -> StrEnum | None:
        if isinstance(value, str) and value in names:
            return options(value)
        near = nearest(value, names)
        faults.add(path, value, allowed + (f"; did you mean {shown(near)}?" if near else ""))
        return None

    return Kind(
        words="one of " + ", ".join(f"`{name}`" for name in names),
        schema={"enum": [str(name) for name in names]},
        read=read,
        write=str,
        load={str(name): name for name in options}.__getitem__,
        takes_text=True,
    )


def flag() -> Kind:
    """Yes or no."""

    def read(value: object, path: str, faults: Faults) -> bool | None:
        if not isinstance(value, bool):
            faults.add(path, value, "must be true or false, without quotation marks")
            return None
        return value

    return Kind(words="`true` or `false`", schema={"type": "boolean"}, read=read)


def integer(minimum: int, maximum: int) -> Kind:
    """A whole number; 2.0 is one, since numbers may travel as doubles."""
    one = minimum == maximum
    allowed = f"must be {minimum}" if one else f"must be a whole number from {minimum} to {maximum}"

    def read(value: object, path: str, faults: Faults) -> int | None:
        number = quantity.whole_number(value)
        if number is None or not minimum <= number <= maximum:
            faults.add(path, value, allowed)
            return None
        return number

    return Kind(
        words=f"`{minimum}`" if one else f"integer, {minimum} to {maximum}",
        schema={"type": "integer", "minimum": minimum, "maximum": maximum},
        read=read,
        load=int,
    )


def amount(
    *,
    parse: Callable[[object], int],
    write: Callable[[int], object],
    minimum: int,
    maximum: int,
    limits: str,
    words: str,
    schema: Mapping[str, object],
) -> Kind:
    """An amount that people write with a unit; `limits` tells minimum and maximum in words."""

    def read(value: object, path: str, faults: Faults) -> int | None:
        try:
            parsed = parse(value)
        except ValueError as problem:
            faults.add(path, value, str(problem))
            return None
        if not minimum <= parsed <= maximum:
            faults.add(path, value, f"must be {limits}")
            return None
        return parsed

    return Kind(words=words, schema=schema, read=read, write=write)


def cores() -> Kind:
    """Cores, in thousandths once parsed."""
    return amount(
        parse=quantity.parse_cores,
        write=quantity.format_cores,
        minimum=1,
        maximum=4_096_000,
        limits="from 0.001 to 4096",
        words="number, 0.001 to 4096, at most 3 decimals",
        schema={"type": "number", "minimum": 0.001, "maximum": 4096},
    )


def memory() -> Kind:
    """Memory, in bytes once parsed."""
    most = quantity.MEMORY_UNITS["PiB"]
    return amount(
        parse=quantity.parse_memory,
        write=quantity.format_memory,
        minimum=1,
        maximum=most,
        limits="from 1 byte to 1 PiB",
        words='size such as `"8GiB"`, or integer bytes; 1 byte to 1 PiB',
        schema=_either(quantity.MEMORY_PATTERN, 1, most),
    )


def duration(minimum: int, maximum: int) -> Kind:
    """A duration between two limits in seconds; in microseconds once parsed."""
    least, most = (quantity.format_duration(n * quantity.SECOND_US) for n in (minimum, maximum))
    return amount(
        parse=quantity.parse_duration,
        write=quantity.format_duration,
        minimum=minimum * quantity.SECOND_US,
        maximum=maximum * quantity.SECOND_US,
        limits=f"from {least} to {most}",
        words=f'duration such as `"1h30m"`, or integer seconds; {least} to {most}',
        schema=_either(quantity.DURATION_PATTERN, minimum, maximum),
    )


def _either(pattern: str, minimum: int, maximum: int) -> dict[str, object]:
    number = {"type": "integer", "minimum": minimum, "maximum": maximum}
    return {"anyOf": [{"type": "string", "pattern": pattern}, number]}
