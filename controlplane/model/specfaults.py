"""Faults of a job.json: where they are, what was written there and what may be."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

MOST_FAULTS: Final = 100
"""So many faults are told in full. More help nobody, and looking for near names costs time."""

_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_-]{0,63}")
_MOST_CHARACTERS = 60
_MOST_ITEMS = 3
_MOST_DEPTH = 2


@dataclass(frozen=True, slots=True)
class SpecFault:
    """One fault. As text it is one line: path, value if there is one, message."""

    path: str
    """Where: `resources.memory`, `command[2]`; empty for the document itself."""
    value_repr: str
    """What was written there, shortened; empty when it is missing or the field is unknown."""
    message: str
    """What is wrong and what is allowed."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.path, self.value_repr, self.message) if part)


class InvalidSpec(ValueError):
    """A job.json has faults. `faults` holds all of them; as text they are one per line."""

    def __init__(self, faults: Iterable[SpecFault]) -> None:
        """Hold the faults, in their order."""
        self.faults: tuple[SpecFault, ...] = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))

    def __reduce__(self) -> tuple[type[InvalidSpec], tuple[tuple[SpecFault, ...]]]:
        return InvalidSpec, (self.faults,)


class Faults:
    """Collects the faults of one document, in the order in which they are found."""

    def __init__(self) -> None:
        """Begin with none."""
        self._found: list[SpecFault] = []
        self._more = 0

    @property
    def count(self) -> int:
        """Number of faults so far, those that are not told included."""
        return len(self._found) + self._more

    def add(self, path: str, value: object, message: str) -> None:
        """Note a fault of a value."""
        self._add(path, message, value)

    def add_hidden(self, path: str, value: object, message: str) -> None:
        """Note a fault of a value that may hold a secret: its text is not repeated."""
        self._add(path, message, value if value is None or isinstance(value, int | float) else ...)

    def note(self, path: str, message: str) -> None:
        """Note a fault that no value belongs to: something is missing, or has a bad name."""
        if not self._full():
            self._found.append(SpecFault(path, "", message))

    def unknown(self, path: str, key: object, known: Iterable[str]) -> None:
        """Note a field that nobody knows, with the nearest that somebody does."""
        if self._full():
            return
        names = list(known)
        near = nearest(key, names)
        hint = f"did you mean {shown(near)}?" if near else f"known here: {', '.join(names)}"
        self._found.append(SpecFault(join(path, key), "", f"unknown field; {hint}"))

    def raise_if_any(self) -> None:
        """Raise `InvalidSpec` when anything was found."""
        if self._more:
            self._found.append(SpecFault("", "", f"and {self._more} more faults"))
        if self._found:
            raise InvalidSpec(self._found)

    def _add(self, path: str, message: str, value: object) -> None:
        if not self._full():
            self._found.append(SpecFault(path, shown(value), message))

    def _full(self) -> bool:
        full = len(self._found) >= MOST_FAULTS
        self._more += full
        return full


def nearest(key: object, known: Iterable[str]) -> str | None:
    """Give the known name that is most like `key`, or None when none is."""
    if not isinstance(key, str) or len(key) > 64:
        return None
    return next(iter(difflib.get_close_matches(key.lower(), list(known), n=1)), None)


def join(path: str, key: object) -> str:
    """Give the path of an object's field or, for an integer, of a list's item."""
    if isinstance(key, str) and _PLAIN_KEY.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{shown(key)}]"


def shown(value: object, depth: int = 0) -> str:
    """Write any value as JSON would, on one line, shortened, and safe for a terminal."""
    if value is ...:
        return "(not shown)"
    if isinstance(value, str):
        text = value if len(value) <= _MOST_CHARACTERS else value[:_MOST_CHARACTERS] + "…"
        return "".join(map(_printable, json.dumps(text, ensure_ascii=False)))
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        if value.bit_length() > 256:
            return f"a number of about {value.bit_length() * 3 // 10} digits"
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e16 else json.dumps(value)
    if isinstance(value, Mapping):
        pairs = (f"{shown(k, depth + 1)}: {shown(v, depth + 1)}" for k, v in value.items())
        return _few("{", pairs, len(value), "}", depth)
    if isinstance(value, list | tuple):
        return _few("[", (shown(v, depth + 1) for v in value), len(value), "]", depth)
    return f"a Python {type(value).__name__}"


def _few(start: str, parts: Iterable[str], count: int, end: str, depth: int) -> str:
    if depth >= _MOST_DEPTH and count:
        return f"{start}…{end}"
    few = list(islice(parts, _MOST_ITEMS)) + (["…"] if count > _MOST_ITEMS else [])
    return start + ", ".join(few) + end


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
