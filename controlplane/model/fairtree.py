"""Slurm's fair tree: who is furthest below their share, level by level of the account tree.

https://slurm.schedmd.com/fair_tree.html: among siblings (the accounts and users right below one
account) each has a *level*: its part of their shares over its part of their usage. The tree is
walked depth first, higher levels first, and users are ranked in the order in which they are met. So
an account that is better off than its sibling has all of its users behind all of the sibling's.
Siblings that tie share a rank, and accounts that tie have those below them compared as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from controlplane.model.view import Account, Member

MILLION = 1_000_000
_BITS = 64
"""Levels are compared as whole multiples of 2⁻⁶⁴, so that they are the same on every machine."""
UNUSED = 1 << 256
"""The level of who has shares and has used nothing: above all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an account or a user stands among its siblings."""

    shares: int
    """Its part of the shares, in millionths."""
    usage: int
    """Its part of what siblings used, in millionths."""
    level: int | None
    """Shares over usage, in millionths: below 1,000,000 had more than its part. None: has used
    nothing."""


class _Sibling(NamedTuple):
    """An account or a user, beside its siblings."""

    account: str
    user: str
    """Empty: it is the account itself."""
    shares: int
    usage: int


class _Child(NamedTuple):
    """An account or a user, as it is compared with its siblings."""

    level: int
    account: str
    user: str
    """Empty: it is the account itself."""


def fair_tree(accounts: Iterable[Account], members: Iterable[Member]) -> dict[tuple[str, str], int]:
    """The fair-share factor of each (account, user), in millionths: its rank over the number of
    users. A member of the account "" stands beside the accounts at the top; one of an account that
    is not there is left out."""
    below = _children(accounts, members)
    groups = list(_ranked(below.get("", ()), below))
    total = rank = sum(map(len, groups))
    factors = {}
    for group in groups:
        for child in group:
            factors[child.account, child.user] = rank * MILLION // total
        rank -= len(group)
    return factors


def standings(
    accounts: Iterable[Account], members: Iterable[Member]
) -> dict[tuple[str, str], Standing]:
    """Where each account (with an empty user) and each (account, user) stands."""
    found = {}
    for siblings in _siblings(accounts, members).values():
        shares, usage = _totals(siblings)
        for account, user, own, used in siblings:
            found[account, user] = Standing(
                shares=_millionths(own, shares),
                usage=_millionths(used, usage),
                level=_millionths(own * usage, used * shares) if used or not own else None,
            )
    return found


def _millionths(part: int, whole: int) -> int:
    """Rounded to the nearest; none of nothing."""
    return (2 * part * MILLION + whole) // (2 * whole) if whole else 0


def _siblings(accounts: Iterable[Account], members: Iterable[Member]) -> dict[str, list[_Sibling]]:
    found: dict[str, list[_Sibling]] = {}
    for account in accounts:
        sibling = _Sibling(account.name, "", account.shares, account.usage)
        found.setdefault(account.parent, []).append(sibling)
    for member in members:
        sibling = _Sibling(member.account, member.user, member.shares, member.usage)
        found.setdefault(member.account, []).append(sibling)
    return found


def _totals(siblings: list[_Sibling]) -> tuple[int, int]:
    return sum(each.shares for each in siblings), sum(each.usage for each in siblings)


def _level(own: int, used: int, shares: int, usage: int) -> int:
    """(own / shares) / (used / usage), as a multiple of 2⁻⁶⁴, rounded down."""
    if not own:
        return 0
    return (own * usage << _BITS) // (used * shares) if used else UNUSED


def _children(accounts: Iterable[Account], members: Iterable[Member]) -> dict[str, list[_Child]]:
    below = {}
    for parent, siblings in _siblings(accounts, members).items():
        shares, usage = _totals(siblings)
        below[parent] = [
            _Child(_level(own, used, shares, usage), account, user)
            for account, user, own, used in siblings
        ]
    return below


_by_level = attrgetter("level")


def _ranked(
    siblings: Iterable[_Child], below: Mapping[str, list[_Child]]
) -> Iterator[list[_Child]]:
    """Groups of users that share a rank, the highest first."""
    ordered = sorted(siblings, key=_by_level, reverse=True)
    for _, tied in groupby(ordered, key=_by_level):
        users: list[_Child] = []
        merged: list[_Child] = []
        for child in tied:
            if child.user:
                users.append(child)
            else:
                merged += below.get(child.account, ())
        deeper = _ranked(merged, below) if merged else iter(())
        if users:
            # They share their rank with the first of an account that they tie with.
            yield users + next(deeper, [])
        yield from deeper
