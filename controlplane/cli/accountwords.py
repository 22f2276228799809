"""What happened to accounts and their members, in sentences, as `eventwords` has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controlplane.cli.eventwords import Told


def created(told: Told) -> str:
    """`account.created`."""
    return told.by("made the account", _listed(told, before=False))


def changed(told: Told) -> str:
    """`account.changed`."""
    return told.by("changed the account", _listed(told))


def deleted(told: Told) -> str:
    """`account.deleted`."""
    members = told.get("members", [])
    more = f"; its members were {', '.join(members)}" if members else ""
    return told.by("removed the account", more)


def member_added(told: Told) -> str:
    """`account.member_added`."""
    return told.by("made them a member", _listed(told, before=False))


def member_changed(told: Told) -> str:
    """`account.member_changed`."""
    return told.by("changed the membership", _listed(told))


def member_removed(told: Told) -> str:
    """`account.member_removed`."""
    return told.by("took them out of the account")


def _listed(told: Told, *, before: bool = True) -> str:
    words = []
    for name in told.changed:
        old, new = told.pair(name)
        noun = name.removeprefix("quota.").replace("_", " ")
        was = f" from {_value(name, old)}" if before else ""
        to = "to " if before else ""
        words.append(f"{noun}{was} {to}{_value(name, new)}")
    return f": {', '.join(words)}" if words else ""


def _value(name: str, value: Any) -> str:
    if value is None:
        return "all that is idle" if name == "quota.borrow_gpus" else "unlimited"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value != "" else "none"
