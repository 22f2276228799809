"""Limits of workers (`ulimit`), set on their supervisor before it starts them."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

UNLIMITED = "unlimited"
KINDS = {
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "stack": resource.RLIMIT_STACK,
}
"""Limits that a site may set: as in setrlimit(2), in small letters and without RLIMIT_."""


def set_limits(limits: Iterable[tuple[str, int]]) -> None:
    """Set names and values, soft and hard, for this process and its children.

    `resource.RLIM_INFINITY` is unlimited. PermissionError names the one that this process may not
    give.
    """
    for name, value in limits:
        try:
            resource.setrlimit(KINDS[name], (value, value))
        except (ValueError, OSError):
            _, hard = resource.getrlimit(KINDS[name])
            raise PermissionError(
                f"limits.{name}: {in_words(value)} is more than this agent may give, which is"
                f" {in_words(hard)}; raise Limit{name.upper()}= in its unit, or lower it"
            ) from None


def in_words(value: int) -> str:
    """A limit as people write it."""
    return UNLIMITED if value == resource.RLIM_INFINITY else str(value)
