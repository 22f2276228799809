"""Reservations: nodes kept for somebody for a time, or for nobody while they are mended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.model.selector import EVERYWHERE, Selector

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Nodes that are kept free for a time. Whoever it is for needs no field to use them."""

    name: str
    """Its name."""
    begin_us: int
    """When it begins, UTC in microseconds."""
    end_us: int
    """When it ends; it is forgotten then."""
    node_uuids: tuple[str, ...] = ()
    """Its nodes, sorted."""
    selector: Selector = EVERYWHERE
    """Instead of those: its nodes by their labels, whichever have them at the time."""
    accounts: tuple[str, ...] = ()
    """Accounts that it is for, sorted. With `users` empty, too: maintenance, for nobody."""
    users: tuple[str, ...] = ()
    """Users that it is for, sorted."""
    description: str = ""
    """What it is for, in words."""

    @property
    def resource(self) -> str:
        """Resource name."""
        return f"reservations/{self.name}"

    @property
    def maintenance(self) -> bool:
        """Whether nobody may use the nodes meanwhile."""
        return not self.accounts and not self.users

    def holds(self, node_uuid: str, labels: Mapping[str, str]) -> bool:
        """Whether a node is one of its."""
        if self.node_uuids:
            return node_uuid in self.node_uuids
        return bool(self.selector) and self.selector.allows(labels)

    def takes(self, owner: str, account: str) -> bool:
        """Whether somebody's jobs may use its nodes meanwhile."""
        return owner in self.users or account in self.accounts

    def touches(self, begin_us: int, end_us: int | None) -> bool:
        """Whether a time overlaps with it; `end_us`: None for one without an end."""
        return begin_us < self.end_us and (end_us is None or self.begin_us < end_us)
