"""Configuration as text: the effective one with its sources, and a commented example file."""

from __future__ import annotations

import dataclasses
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

from controlplane.kit.settings import Loaded, Setting, settings_of


def render(loaded: Loaded[Any]) -> str:
    """Write the effective settings as TOML, with a comment on each line that names its source."""
    lines = []
    for one in settings_of(type(loaded.value)):
        value, source = getattr(loaded.value, one.name), loaded.sources[one.name]
        line = f"# {one.name} is not set" if value is None else f"{one.name} = {_toml(value)}"
        lines.append(f"{line}  # {_one_line(source)}")
    return "\n".join(lines) + "\n"


def document(cls: type) -> str:
    """Write an example file: for each setting help, what is allowed, and the default, commented."""
    parts = [_comment(inspect.cleandoc(cls.__doc__ or ""))]
    for one in settings_of(cls):
        text = f"{one.help.rstrip('.')}. Allowed: {one.allowed}."
        default = one.default
        if default is dataclasses.MISSING:
            text += " Required."
        elif default is None:
            text += " Default: not set."
        value = _example(one) if default in (None, dataclasses.MISSING) else default
        parts.append(f"{_comment(text)}\n#{one.name} = {_toml(value)}")
    return "\n\n".join(parts) + "\n"


def _example(one: Setting) -> Any:
    if one.example is not None:
        return one.example
    if one.choices:
        return one.choices[0]
    return one.minimum if one.type is int and one.minimum is not None else one.type()


def _comment(text: str) -> str:
    lines = textwrap.wrap(text, width=96) if "\n" not in text else text.splitlines()
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _toml(value: Any) -> str:
    if isinstance(value, str | Path):
        # JSON's escapes are TOML's too, but for DEL, which TOML wants escaped.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{_toml(name)} = {_toml(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return json.dumps(value)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
