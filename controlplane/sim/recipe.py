"""Recipes in YAML, read field by field: every fault with the file and the field's path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from controlplane.model.quantity import parse_duration, parse_memory, whole_number
from controlplane.sim.faults import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 1 << 53


class Section:
    """A mapping of a recipe. What nobody asked for is a fault, said by `done`."""

    def __init__(self, file: Path, path: str, fields: dict[str, Any]) -> None:
        """`path`: where in the file it is; empty at the top."""
        self._file, self._path, self._fields = file, path, dict(fields)
        self._known: list[str] = []

    def fault(self, name: str, words: str) -> BadInput:
        """The error for one of its fields."""
        path = f"{self._path}.{name}" if self._path else name
        return BadInput(f"{self._file}: {path}: {words}")

    def has(self, name: str) -> bool:
        """Whether a field is there and was not asked for yet."""
        return name in self._fields

    def _take(self, name: str) -> Any:
        self._known.append(name)
        return self._fields.pop(name, None)

    def _parsed(self, name: str, parse: Callable[[object], int], default: int) -> int:
        value = self._take(name)
        if value is None:
            return default
        try:
            found = parse(value)
        except ValueError as error:
            raise self.fault(name, f"{value!r} {error}") from None
        if found < 0:
            raise self.fault(name, f"{value!r} is negative")
        return found

    def text(self, name: str, default: str) -> str:
        """A word or a number, as text."""
        value = self._take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.fault(name, f"{value!r} is not a text")
        return str(value)

    def whole(self, name: str, default: int, *, least: int = 0, most: int = MANY) -> int:
        """A whole number."""
        value = self._take(name)
        if value is None:
            return default
        found = whole_number(value)
        if found is None or not least <= found <= most:
            span = f"from {least} to {most}" if most != MANY else f"of at least {least}"
            raise self.fault(name, f"{value!r} is not a whole number {span}")
        return found

    def number(self, name: str, default: float | None = None, *, least: float = 0) -> float:
        """A number."""
        value = self._take(name)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.fault(name, "is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
            raise self.fault(name, f"{value!r} is not a number of at least {least:g}")
        return float(value)

    def memory(self, name: str, default: int) -> int:
        """An amount of memory, in bytes."""
        return self._parsed(name, parse_memory, default)

    def duration(self, name: str, default: int | None = None) -> int:
        """A duration, in microseconds; without a default it must be there."""
        if default is None and name not in self._fields:
            raise self.fault(name, 'is missing; write a duration such as "2h", or seconds')
        return self._parsed(name, parse_duration, default or 0)

    def choice(self, name: str, of: tuple[str, ...], default: str) -> str:
        """One of these words."""
        value = self.text(name, default)
        if value not in of:
            raise self.fault(name, f"{value!r} is none of {', '.join(of)}")
        return value

    def section(self, name: str) -> Section:
        """A mapping."""
        value = self._take(name)
        if not isinstance(value, dict):
            words = "is missing" if value is None else f"{value!r} is not a mapping"
            raise self.fault(name, words)
        return self._inner(name, value)

    def sections(self, name: str) -> list[Section]:
        """A list of mappings."""
        value = self._take(name)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            words = "is missing" if value is None else "is not a list of mappings"
            raise self.fault(name, words)
        return [self._inner(f"{name}[{i}]", one) for i, one in enumerate(value)]

    def _inner(self, name: str, value: dict[str, Any]) -> Section:
        path = f"{self._path}.{name}" if self._path else name
        return Section(self._file, path, {str(key): one for key, one in value.items()})

    def texts(self, name: str) -> dict[str, str]:
        """A mapping of names to texts; empty where it is missing."""
        if not self.has(name):
            return {}
        inner = self.section(name)
        return {key: inner.text(key, "") for key in list(inner._fields)}

    def wholes(self, name: str) -> dict[str, int]:
        """A mapping of names to whole numbers of at least 1; empty where it is missing."""
        if not self.has(name):
            return {}
        inner = self.section(name)
        return {key: inner.whole(key, 1, least=1) for key in list(inner._fields)}

    def weights(self, name: str) -> dict[str, float]:
        """A mapping of names to weights above 0, at least one of them; empty where it is
        missing."""
        if not self.has(name):
            return {}
        inner = self.section(name)
        found = {key: inner.number(key) for key in list(inner._fields)}
        if not sum(found.values()) > 0:
            raise self.fault(name, "needs at least one weight above 0")
        return found

    def done(self) -> None:
        """Say that all fields were asked for; BadInput where there are others."""
        for name in self._fields:
            known = ", ".join(dict.fromkeys(self._known))
            raise self.fault(name, f"there is no such field; there are {known}")


def load(path: Path) -> Section:
    """Read a recipe. BadInput where it is none."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not text in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadInput(f"{path}{where}: is not YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{path} is no recipe: a mapping of fields is needed at the top")
    return Section(path, "", {str(key): value for key, value in found.items()})
