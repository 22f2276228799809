"""Accounts and their members on the wire, both ways."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from controlplane.model import view
from controlplane.model.account import (
    LONGEST_WINDOW_DAYS,
    NO_LIMITS,
    Account,
    Held,
    Limits,
    Member,
    MembersMay,
)
from controlplane.model.errors import FieldFault, InvalidRequest
from controlplane.v1 import account_pb2 as pb
from controlplane.wire.basics import EnumWire, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from controlplane.model.fairtree import Standing

MEMBERS_MAY = EnumWire(MembersMay, pb.MembersMay, "MEMBERS_MAY")
MOST_SHARES = 1_000_000
LONGEST_DESCRIPTION = 500
_QUOTA = ("running", "queued", "gpus", "borrow_gpus", "gpu_hours", "window_days")
_OF_MEMBERS = tuple(name for name in _QUOTA if name != "borrow_gpus")
"""A member borrows as its account does."""
_LARGEST = 1_000_000_000


def account_message(account: Account, held: Held) -> pb.Account:
    """An account, and what its jobs and those below have."""
    return pb.Account(
        name=f"accounts/{account.name}",
        parent=f"accounts/{account.parent}" if account.parent else "",
        description=account.description,
        shares=account.shares,
        quota=limits_message(account.limits),
        qos=account.qos,
        open=account.open,
        members_may=MEMBERS_MAY.out(account.members_may),
        create_time=timestamp(account.created_us) if account.created_us else None,
        created_by=account.created_by,
        etag=str(account.revision),
        use=_use(held),
    )


def member_message(member: Member, held: Held) -> pb.Member:
    """A membership, and what the user's jobs have in the account's name."""
    return pb.Member(
        name=f"accounts/{member.account}/members/{member.user}",
        user=f"users/{member.user}",
        shares=member.shares,
        quota=limits_message(member.limits),
        coordinator=member.coordinator,
        default_account=member.default,
        use=_use(held),
    )


def _use(held: Held) -> pb.AccountUse:
    return pb.AccountUse(queued=held.queued, running=held.running, gpus=held.gpus)


def limits_message(limits: Limits) -> pb.Limits:
    """A quota."""
    message = pb.Limits(
        borrow_gpus=-1 if limits.borrow_gpus is None else limits.borrow_gpus,
        window_days=limits.window_days,
    )
    for name in ("running", "queued", "gpus", "gpu_hours"):
        if (value := getattr(limits, name)) is not None:
            setattr(message, name, value)
    return message


def share_message(
    of: view.Account | view.Member, standing: Standing, depth: int, factor: int | None
) -> pb.Share:
    """Where an account, or a user of one, stands in the tree."""
    message = pb.Share(
        depth=depth,
        shares=of.shares,
        norm_shares=standing.shares,
        usage_us=of.usage,
        effective_usage=standing.usage,
    )
    if isinstance(of, view.Member):
        message.account, message.user = f"accounts/{of.account}", f"users/{of.user}"
    else:
        message.account = f"accounts/{of.name}"
    if standing.level is not None:
        message.level = standing.level
    if factor is not None:
        message.factor = factor
    return message


def account_changes(message: pb.Account, paths: Iterable[str], before: Limits) -> dict[str, object]:
    """Values of an account's fields that a mask names. InvalidRequest, with each fault."""
    readers: dict[str, Callable[[], object]] = {
        "parent": lambda: message.parent.removeprefix("accounts/"),
        "description": lambda: _text(message.description),
        "shares": lambda: _number(message.shares, MOST_SHARES),
        "qos": lambda: _number(message.qos, 1_000_000),
        "open": lambda: message.open,
        "members_may": lambda: (
            MEMBERS_MAY.into(message.members_may) if message.members_may else MembersMay.OWN
        ),
    }
    return _changes("account", readers, _QUOTA, message.quota, paths, before)


def member_changes(message: pb.Member, paths: Iterable[str], before: Limits) -> dict[str, object]:
    """Values of a membership's fields that a mask names. InvalidRequest, with each fault."""
    readers: dict[str, Callable[[], object]] = {
        "shares": lambda: _number(message.shares, MOST_SHARES),
        "coordinator": lambda: message.coordinator,
        "default_account": lambda: message.default_account,
    }
    found = _changes("member", readers, _OF_MEMBERS, message.quota, paths, before)
    if "default_account" in found:
        found["default"] = found.pop("default_account")
    return found


def _changes(
    noun: str,
    readers: Mapping[str, Callable[[], object]],
    bounds: tuple[str, ...],
    quota: pb.Limits,
    paths: Iterable[str],
    before: Limits,
) -> dict[str, object]:
    found: dict[str, object] = {}
    limits, faults = before, []
    for path in paths:
        name = path.removeprefix("quota.")
        try:
            if path == "quota":
                limits = _with(NO_LIMITS, quota, *bounds)
            elif path.startswith("quota.") and name in bounds:
                limits = _with(limits, quota, name)
            elif path in readers:
                found[path] = readers[path]()
            else:
                known = ", ".join([*readers, "quota", *(f"quota.{each}" for each in bounds)])
                words = f'"{path[:80]}": is no field that can be changed; there are: {known}'
                faults.append(FieldFault(field="update_mask", description=words))
        except ValueError as error:
            faults.append(FieldFault(field=f"{noun}.{path}", description=str(error)))
    if faults:
        raise InvalidRequest(*faults)
    if limits != before:
        found["limits"] = limits
    return found


def _with(limits: Limits, quota: pb.Limits, *names: str) -> Limits:
    changes: dict[str, Any] = {name: _limit(quota, name) for name in names}
    return replace(limits, **changes)


def _limit(quota: pb.Limits, name: str) -> int | None:
    """One limit. ValueError, in words, for one that is out of range."""
    if name == "window_days":
        days = quota.window_days or NO_LIMITS.window_days
        if not 1 <= days <= LONGEST_WINDOW_DAYS:
            raise ValueError(f"{days}: must be 1 to {LONGEST_WINDOW_DAYS} days")
        return days
    if name == "borrow_gpus":
        return None if quota.borrow_gpus == -1 else _number(quota.borrow_gpus, _LARGEST)
    return _number(getattr(quota, name), _LARGEST) if quota.HasField(name) else None  # type: ignore[arg-type]


def _number(value: int, most: int) -> int:
    if not 0 <= value <= most:
        raise ValueError(f"{value}: must be 0 to {most:,}")
    return value


def _text(text: str) -> str:
    if len(text) > LONGEST_DESCRIPTION:
        raise ValueError(f"has {len(text)} characters; at most {LONGEST_DESCRIPTION} are allowed")
    return text
