"""Configuration of a daemon: defaults ← TOML file ← environment ← flags, each with its source.

The door to all of it: declare with `setting`, put together with `load`, show with `render` and
explain with `document`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from controlplane.kit.configtext import document, render
from controlplane.kit.settings import Loaded, Setting, setting, settings_of

__all__ = ["ConfigError", "Loaded", "document", "load", "render", "setting", "settings_of"]

T = TypeVar("T")


class ConfigError(ValueError):
    """The configuration has faults. `lines` tells all of them, one each."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Hold the faults, a line each."""
        self.lines: tuple[str, ...] = tuple(lines)
        super().__init__("\n".join(self.lines))


def load(
    cls: type[T],
    *,
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    env_prefix: str,
) -> Loaded[T]:
    """Put the settings together. Raises `ConfigError` with every fault at once.

    Every variable of `environ` that begins with `env_prefix` must name a setting. Flags are by
    field name; None means not given; text is parsed as in the environment.
    """
    settings = {one.name: one for one in settings_of(cls)}
    lines: list[str] = []
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}

    def take(one: Setting, place: str, source: str, raw: object, read: _Reader) -> None:
        try:
            values[one.name] = _checked(one, read(one, raw))
            sources[one.name] = source
        except ValueError:
            lines.append(f"{place}: {_shown(raw)}: must be {one.allowed}")

    for name, raw in (_read_file(file, lines) if file else {}).items():
        if one := settings.get(name):
            take(one, f"{file}: {name}", str(file), raw, _from_toml)
        else:
            lines.append(f"{file}: {name}: {_unknown(name, settings)}")
    by_variable = {env_prefix + name.upper(): one for name, one in settings.items()}
    for variable in sorted(name for name in environ if name.startswith(env_prefix)):
        source = f"environment {variable}"
        if one := by_variable.get(variable):
            take(one, source, source, environ[variable], _from_text)
        else:
            lines.append(f"{source}: {_unknown(variable, by_variable)}")
    for name, raw in flags.items():
        one = settings[name]
        if raw is not None:
            take(one, f"flag {one.flag}", f"flag {one.flag}", raw, _from_flag)
    for one in settings.values():
        if one.name not in values and one.default is dataclasses.MISSING:
            ways = f"{env_prefix}{one.name.upper()} or {one.flag}"
            lines.append(f"{one.name}: is required; set it in the configuration file, {ways}")
    if lines:
        raise ConfigError(lines)
    try:
        value = cls(**values)
    except ValueError as problem:  # what the class itself demands of its fields together
        raise ConfigError(str(problem).splitlines()) from None
    return Loaded(value=value, sources={name: sources.get(name, "default") for name in settings})


_Reader = Callable[[Setting, Any], Any]


def _read_file(file: Path, lines: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as problem:
        lines.append(f"{file}: cannot be read: {problem.strerror}")
    except ValueError as problem:
        lines.append(f"{file}: is no TOML file: {problem}")
    return {}


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"unknown setting; {hint}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:80] + "…"


def _from_toml(one: Setting, raw: Any) -> Any:
    """Check the type of a value that has one. Raises `ValueError`."""
    if one.type is float:
        good = isinstance(raw, int | float) and not isinstance(raw, bool)
        raw = float(raw) if good else raw
    elif one.type is Path:
        good = isinstance(raw, str | Path) and raw != ""
        raw = Path(raw) if good else raw
    elif get_origin(one.type) is tuple:
        good = isinstance(raw, list | tuple) and all(isinstance(item, str) for item in raw)
        raw = tuple(raw) if good else raw
    elif get_origin(one.type) is dict:
        wanted = get_args(one.type)[1]
        good = isinstance(raw, dict) and all(type(item) is wanted for item in raw.values())
    else:
        good = type(raw) is one.type
    if not good:
        raise ValueError
    return raw


def _from_text(one: Setting, text: str) -> Any:
    """Parse text of the environment or of a flag. Raises `ValueError`."""
    if text == "" and one.optional:
        return None
    if one.type in (int, float):
        return one.type(text)
    if one.type is bool:
        words = {"true": True, "yes": True, "on": True, "1": True}
        words |= {"false": False, "no": False, "off": False, "0": False}
        if text.lower() not in words:
            raise ValueError
        return words[text.lower()]
    if get_origin(one.type):
        return _from_parts(one, [part.strip() for part in text.split(",") if part.strip()])
    return _from_toml(one, text)


def _from_parts(one: Setting, parts: list[str]) -> Any:
    if get_origin(one.type) is tuple:
        return tuple(parts)
    pairs = [part.partition("=") for part in parts]
    if not all(equals and name for name, equals, _ in pairs):
        raise ValueError
    wanted = get_args(one.type)[1]
    return {name: wanted(value) for name, _, value in pairs}


def _from_flag(one: Setting, raw: Any) -> Any:
    if isinstance(raw, str):
        return _from_text(one, raw)
    if get_origin(one.type) is dict and isinstance(raw, tuple):
        return _from_parts(one, list(raw))
    return _from_toml(one, raw)


def _checked(one: Setting, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    if isinstance(value, int | float) and not isinstance(value, bool):
        low = one.minimum is not None and value < one.minimum
        if low or (one.maximum is not None and value > one.maximum):
            raise ValueError
    if one.choices and value is not None and value not in one.choices:
        raise ValueError
    return value
