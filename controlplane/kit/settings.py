"""How a daemon declares its settings: a frozen dataclass whose fields are made by `setting`.

The annotations are read at run time, so what they name must be imported at run time too. No setting
holds a secret: only paths of files that do.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")

_WORDS: dict[object, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    tuple[str, ...]: "a list of strings",
    dict[str, str]: "a table of strings",
    dict[str, int]: "a table of integers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting, as its dataclass declares it."""

    name: str
    """Name of the field, and key in the file."""
    type: Any
    """One of the types that settings may have, without `| None`."""
    optional: bool
    """Whether None is a value, which means "not set"."""
    default: Any
    """Default; `dataclasses.MISSING` when the setting must be given."""
    help: str
    """What it does."""
    unit: str = ""
    """Unit of a number: s, ms, bytes …"""
    minimum: float | None = None
    """Least number, itself included."""
    maximum: float | None = None
    """Greatest number, itself included."""
    choices: tuple[str, ...] = ()
    """The only strings allowed; empty for any."""
    example: Any = None
    """A value for the documentation where the default is none."""

    @property
    def flag(self) -> str:
        """The flag on the command line: `--listen-port`."""
        return "--" + self.name.replace("_", "-")

    @property
    def allowed(self) -> str:
        """What may be written, in words: `an integer from 1 to 60, in s`."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = _WORDS[self.type]
        if self.minimum is not None and self.maximum is not None:
            words += f" from {self.minimum} to {self.maximum}"
        elif self.minimum is not None:
            words += f" of at least {self.minimum}"
        elif self.maximum is not None:
            words += f" of at most {self.maximum}"
        return f"{words}, in {self.unit}" if self.unit else words


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded(Generic[T]):
    """Effective settings."""

    value: T
    """The settings."""
    sources: Mapping[str, str]
    """Where each came from: `default`, `/path/file.toml`, `environment NAME`, `flag --name`."""


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Iterable[str] = (),
    example: Any = None,
) -> Any:
    """Declare a field of a settings class. Without a default it must be given."""
    metadata = {
        "help": help,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": tuple(choices),
        "example": example,
    }
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def settings_of(cls: type) -> tuple[Setting, ...]:
    """Give the settings of a settings class, in order.

    Raises `TypeError` for a type that no setting may have.
    """
    hints = get_type_hints(cls)
    found = []
    for one in dataclasses.fields(cls):
        hint, optional = hints[one.name], False
        if get_origin(hint) in (Union, UnionType):
            inner = [arg for arg in get_args(hint) if arg is not NoneType]
            hint, optional = inner[0] if len(inner) == 1 else hint, True
        if hint not in _WORDS:
            raise TypeError(f"{cls.__name__}.{one.name}: no setting can be a {hint}")
        factory = one.default_factory
        default = one.default if factory is dataclasses.MISSING else factory()
        found.append(
            Setting(name=one.name, type=hint, optional=optional, default=default, **one.metadata)
        )
    return tuple(found)
