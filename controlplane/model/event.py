"""An event: one thing that happened, numbered, written with the change that it tells of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asked for a change, and from where."""

    principal: str
    """A user, an agent, an operator, or `control-plane` for its own doing."""
    peer: str = ""
    """Address that the request came from; empty for the control plane's own doing."""


CONTROL_PLANE = Actor(principal="control-plane")
"""The control plane itself: its scheduler and its upkeep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened."""

    seq: int
    """Its number; the order of numbers is the order of commits."""
    time_us: int
    """When it was decided, UTC in microseconds."""
    kind: str
    """What happened: `job.submitted`, `attempt.placed` …"""
    version: int = 1
    """Version of what `changed` holds for this kind."""
    actor: Actor
    """Who asked for it."""
    resource: str
    """Resource name of what changed."""
    changed: Mapping[str, object] = field(default_factory=dict)
    """The fields that changed, with their new values; never a whole spec."""

    @property
    def jobs(self) -> range:
        """Numbers of the jobs that it tells of: of several, where they were submitted together."""
        noun, _, rest = self.resource.partition("/")
        first, _, last = rest.partition("/")[0].partition("-")
        if noun != "jobs" or not first.isdecimal() or not (last or first).isdecimal():
            return range(0)
        return range(int(first), int(last or first) + 1)

    @property
    def job_id(self) -> int | None:
        """Number of the job that it belongs to; None for one that belongs to none."""
        noun, _, rest = self.resource.partition("/")
        number = rest.partition("/")[0]
        return int(number) if noun == "jobs" and number.isascii() and number.isdigit() else None
