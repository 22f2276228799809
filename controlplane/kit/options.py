"""Flags of a daemon's command, one for each of its settings, by click."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, get_origin

import click

from controlplane.kit.settings import Setting, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

_METAVARS: dict[object, str] = {
    str: "TEXT",
    int: "N",
    float: "N",
    dict: "NAME=VALUE",
    tuple: "TEXT",
}


def settings_options(cls: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a click command a flag for each setting of `cls`, and its function the argument `flags`.

    `flags` holds, by field name, only those that were given: what `config.load` takes. They are
    text still, so that `load` finds and tells the faults of all sources together.
    """
    settings = settings_of(cls)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_flags(*args: Any, **kwargs: Any) -> Any:
            given = {one.name: kwargs.pop(one.name) for one in settings}
            flags = {name: value for name, value in given.items() if value not in (None, ())}
            return function(*args, flags=flags, **kwargs)

        command: Callable[..., Any] = with_flags
        for one in reversed(settings):
            command = _option(one)(command)
        return command

    return decorate


def _option(one: Setting) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    if one.type is bool:
        name = one.flag.removeprefix("--")
        return click.option(f"--{name}/--no-{name}", one.name, default=None, help=_help(one))
    shape = get_origin(one.type)
    metavar = "|".join(one.choices) or _METAVARS.get(shape or one.type, "PATH")
    return click.option(
        one.flag,
        one.name,
        multiple=shape is not None,
        default=None,
        metavar=metavar,
        help=_help(one),
    )


def _help(one: Setting) -> str:
    notes = [f"unit: {one.unit}"] if one.unit else []
    if get_origin(one.type):
        notes.append("may be repeated")
    notes.append(
        f"default: {_default(one)}" if one.default is not dataclasses.MISSING else "required"
    )
    return f"{one.help}  [{'; '.join(notes)}]"


def _default(one: Setting) -> str:
    if one.default in (None, "", (), {}):
        return "none"
    if isinstance(one.default, bool):
        return "on" if one.default else "off"
    if get_origin(one.type) is tuple:
        return ", ".join(one.default)
    if get_origin(one.type) is dict:
        return ", ".join(f"{name}={value}" for name, value in one.default.items())
    return str(one.default)
