"""Priority classes: named integers, as in Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

HIGHEST_VALUE = 1_000_000_000
"""As in Kubernetes, for classes of users."""


class PreemptionPolicy(StrEnum):
    """Whether jobs of a class end others to make room."""

    LOWER = "lower"
    """Those of lower priority, as Kubernetes' `PreemptLowerPriority`."""
    NEVER = "never"
    """None: they wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityClass:
    """A name for an integer. Value and policy never change: make another class instead."""

    name: str
    """Its name."""
    value: int
    """Jobs of the higher one go first."""
    global_default: bool = False
    """Whether jobs that name none have it; one class has this."""
    preemption: PreemptionPolicy = PreemptionPolicy.LOWER
    """Whether its jobs end others to make room."""
    description: str = ""
    """For whom it is, in words."""

    @property
    def resource(self) -> str:
        """Resource name."""
        return f"priorityClasses/{self.name}"


FIRST_CLASSES = (
    PriorityClass(name="low", value=100, description="Whatever can wait"),
    PriorityClass(name="normal", value=1000, global_default=True, description="For most jobs"),
    PriorityClass(name="high", value=10_000, description="What others make room for"),
)
"""What a new centre has."""
