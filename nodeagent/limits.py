"""What a site sets as limits of workers, and whether this agent may give them."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from controlplane.model.quantity import parse_memory
from nodeagent.supervision.rlimits import KINDS, UNLIMITED, set_limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BYTES = frozenset({"core", "data", "fsize", "memlock", "stack"})


def parse_limits(asked: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """Names and values, `resource.RLIM_INFINITY` for unlimited. ValueError names what is wrong."""
    return tuple((name, _value(name, text)) for name, text in sorted(asked.items()))


def _value(name: str, text: str) -> int:
    if name not in KINDS:
        raise ValueError(f"limits.{name}: unknown; known are {', '.join(KINDS)}")
    if text == UNLIMITED:
        return resource.RLIM_INFINITY
    if text.isdecimal():
        return int(text)
    if name not in _BYTES:
        raise ValueError(f'limits.{name}: {text!r}: must be a whole number or "{UNLIMITED}"')
    try:
        return parse_memory(text)
    except ValueError:
        words = f'limits.{name}: {text!r}: must be a size such as "8MiB" or "{UNLIMITED}"'
        raise ValueError(words) from None


def why_not(limits: Iterable[tuple[str, int]]) -> str | None:
    """What keeps this process from giving these limits to others; None when nothing does."""
    for name, value in limits:
        before = resource.getrlimit(KINDS[name])
        if not _above(value, before[1]):
            continue
        try:
            set_limits(((name, value),))
        except PermissionError as error:
            return str(error)
        resource.setrlimit(KINDS[name], before)
    return None


def _above(value: int, hard: int) -> bool:
    if hard == resource.RLIM_INFINITY:
        return False
    return value == resource.RLIM_INFINITY or value > hard
