"""Which nodes a selector means, by their labels: the grammar and the meaning of Kubernetes.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from controlplane.model.specfaults import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}"
_SET = re.compile(rf"^({_KEY})\s+(in|notin)\s+\(([^()]*)\)$")
_EQUAL = re.compile(rf"^({_KEY})\s*(==|=|!=)\s*({_NAME})?$")
_THERE = re.compile(rf"^(!?)\s*({_KEY})$")
_VALUE = re.compile(rf"^({_NAME})?$")


class Operator(StrEnum):
    """How a label is compared."""

    IN = "in"
    """The label is there, with one of the values."""
    NOT_IN = "notin"
    """The label is not there, or with another value."""
    EXISTS = "exists"
    """The label is there, with whatever value."""
    MISSING = "missing"
    """The label is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What one label must be."""

    key: str
    """The label's key."""
    operator: Operator
    """How it is compared."""
    values: tuple[str, ...] = ()
    """With what, sorted; empty for `exists` and `missing`."""

    def __str__(self) -> str:
        """In the grammar's words."""
        if self.operator is Operator.EXISTS:
            return self.key
        if self.operator is Operator.MISSING:
            return f"!{self.key}"
        if len(self.values) == 1:
            sign = "=" if self.operator is Operator.IN else "!="
            return f"{self.key}{sign}{self.values[0]}"
        return f"{self.key} {self.operator} ({','.join(self.values)})"

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels meets it."""
        there = self.key in labels
        if self.operator is Operator.EXISTS:
            return there
        if self.operator is Operator.MISSING:
            return not there
        found = there and labels[self.key] in self.values
        return found if self.operator is Operator.IN else not found


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A set of nodes: those that meet every requirement; all nodes where there is none."""

    requirements: tuple[Requirement, ...] = ()
    """In their order."""

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def __str__(self) -> str:
        """As `parse_selector` reads it; equal selectors give equal text."""
        return ",".join(map(str, self.requirements))

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels is among them."""
        return all(requirement.allows(labels) for requirement in self.requirements)


EVERYWHERE = Selector()
"""Every node."""


def is_label(key: str, value: str) -> bool:
    """Whether this is a label that a node can have."""
    return bool(re.fullmatch(_KEY, key) and _VALUE.fullmatch(value))


def parse_selector(text: str) -> Selector:
    """Read `tier=prod,rack in (a, b),!old`. ValueError, in words, for anything else."""
    parts = [part.strip() for part in re.split(r",(?![^()]*\))", text)] if text.strip() else []
    return Selector(requirements=tuple(_requirement(part) for part in parts))


def _requirement(part: str) -> Requirement:
    if found := _SET.match(part):
        key, word, listed = found.groups()
        values = tuple(sorted({value.strip() for value in listed.split(",")}))
        if all(map(_VALUE.match, values)):
            return Requirement(key=key, operator=Operator(word), values=values)
    elif found := _EQUAL.match(part):
        key, sign, value = found.groups()
        operator = Operator.NOT_IN if sign == "!=" else Operator.IN
        return Requirement(key=key, operator=operator, values=(value or "",))
    elif found := _THERE.match(part):
        absent, key = found.groups()
        return Requirement(key=key, operator=Operator.MISSING if absent else Operator.EXISTS)
    raise ValueError(
        f"{shown(part)}: must be like tier=prod, tier!=prod, rack in (a,b), rack notin (a,b), fast"
        " or !fast, with commas between"
    )
