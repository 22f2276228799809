"""Accounts: who pays for a job, what that may cost, and who of its members may touch whose jobs.

Accounts are a tree. What an account may have at once, it has together with all that are below it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from controlplane.model.view import Quota

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from controlplane.model.job import Job

DEFAULT = "default"
"""The account that is always there, open to everybody until a site closes it."""
ACCOUNT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
"""What an account may be called."""
DEEPEST = 16
"""So many accounts at most are above one another."""
HOUR_US = 3_600_000_000


class Doing(StrEnum):
    """What may be done to a job that is another's."""

    SEE = "see"
    """Look at it, its events and its progress."""
    READ = "read"
    """Read its output and its environment."""
    STOP = "stop"
    """End, hold, release, requeue, signal or change it."""


class MembersMay(StrEnum):
    """What members of an account may do to each other's jobs; each includes those before it."""

    OWN = "own"
    """Nothing: each sees and stops their own alone."""
    SEE = "see"
    """See them, without their output."""
    READ = "read"
    """And read their output."""
    STOP = "stop"
    """And end, hold, release, requeue, signal and change them."""

    def includes(self, doing: Doing) -> bool:
        """Whether it allows that."""
        return _LADDER.index(self) >= _LADDER.index(doing)


_LADDER: tuple[str, ...] = tuple(MembersMay)
COORDINATORS_MAY = frozenset({Doing.SEE, Doing.STOP})
"""What coordinators of an account may do to all its jobs, and to those of accounts below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an account, or a user within it, may have. None: as much as there is."""

    running: int | None = None
    """Tasks that run."""
    queued: int | None = None
    """Tasks that wait: more are refused at submit."""
    gpus: int | None = None
    """GPUs."""
    borrow_gpus: int | None = 0
    """GPUs beyond those, while siblings leave theirs idle; None: all of them."""
    gpu_hours: int | None = None
    """GPU-hours within the window: once they are used up, nothing starts."""
    window_days: int = 30
    """The window: so many days back, today included, by UTC."""

    @property
    def quota(self) -> Quota:
        """What a scheduling decision keeps to."""
        return Quota(running=self.running, gpus=self.gpus, borrow_gpus=self.borrow_gpus)

    @property
    def most_gpus(self) -> int | None:
        """GPUs, borrowed ones included."""
        if self.gpus is None or self.borrow_gpus is None:
            return None
        return self.gpus + self.borrow_gpus

    def changed(self, after: Limits) -> dict[str, object]:
        """What differs, before and after, as events tell it."""
        return {
            f"quota.{each.name}": [getattr(self, each.name), getattr(after, each.name)]
            for each in fields(self)
            if getattr(self, each.name) != getattr(after, each.name)
        }


NO_LIMITS = Limits()
LONGEST_WINDOW_DAYS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A node of the tree."""

    name: str
    """As `ACCOUNT_NAME`; never changes."""
    parent: str = ""
    """The account above it; empty for one at the top."""
    description: str = ""
    """Free words."""
    shares: int = 1
    """Its part among its siblings."""
    limits: Limits = NO_LIMITS
    """What it may have at once, with all below."""
    qos: int = 0
    """What its quality of service adds to a priority, 0 to 1,000,000."""
    open: bool = False
    """Whether everybody may submit to it, its members or not."""
    members_may: MembersMay = MembersMay.OWN
    """What its members may do to each other's jobs."""
    created_us: int = 0
    """When it was made, UTC in microseconds; 0 for what was there from the start."""
    created_by: str = ""
    """Principal who made it."""
    revision: int = 0
    """Number of the last event that changed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """That a user may submit to an account."""

    account: str
    """The account."""
    user: str
    """The user."""
    shares: int = 1
    """The user's part among the account's members."""
    limits: Limits = NO_LIMITS
    """What the user may have at once in the account's name."""
    coordinator: bool = False
    """Whether the user sees and may stop all jobs of the account, and of those below it."""
    default: bool = False
    """Whether it pays for those of the user's jobs that name no account; one at most does."""
    revision: int = 0
    """Number of the last event that changed it."""

    @property
    def key(self) -> tuple[str, str]:
        """Account and user."""
        return self.account, self.user


class Held(NamedTuple):
    """What jobs have at the moment."""

    queued: int = 0
    """Tasks that wait."""
    running: int = 0
    """Tasks of which an attempt lives."""
    gpus: int = 0
    """GPUs of these."""

    def plus(self, other: Held) -> Held:
        """Both together."""
        return Held(self[0] + other[0], self[1] + other[1], self[2] + other[2])

    def minus(self, other: Held) -> Held:
        """What is left without the other's."""
        return Held(self[0] - other[0], self[1] - other[1], self[2] - other[2])


NOTHING = Held()


def held_by(job: Job | None) -> Held:
    """What a job has at the moment."""
    if job is None or job.state.final:
        return NOTHING
    spec, running = job.spec, job.running
    return Held(
        len(job.tasks) - job.ended.ended - running,
        running,
        running * spec.workers * spec.resources.gpus,
    )


def count_job(tally: dict[tuple[str, str], Held], before: Job | None, after: Job | None) -> None:
    """Bring up to date what jobs have at the moment, by account and user, and by account (with an
    empty user). What has nothing has no entry."""
    for job, sign in ((before, -1), (after, 1)):
        held = held_by(job)
        if job is None or held == NOTHING:
            continue
        for key in ((job.account, job.owner), (job.account, "")):
            known = tally.get(key, NOTHING)
            tally[key] = known.plus(held) if sign > 0 else known.minus(held)
            if tally[key] == NOTHING:
                del tally[key]


def upwards(accounts: Mapping[str, Account], name: str) -> Iterator[Account]:
    """An account, and those above it."""
    while (account := accounts.get(name)) is not None:
        yield account
        name = account.parent


def downwards(accounts: Mapping[str, Account], name: str) -> list[str]:
    """An account, and all below it."""
    below: dict[str, list[str]] = {}
    for each in accounts.values():
        below.setdefault(each.parent, []).append(each.name)
    found = [name]
    for above in found:  # it grows as it is walked
        found += below.get(above, ())
    return found


def in_order(accounts: Mapping[str, Account]) -> list[Account]:
    """All accounts, each behind its parent and before those that follow its siblings; by name."""
    below: dict[str, list[Account]] = {}
    for name in sorted(accounts, reverse=True):
        below.setdefault(accounts[name].parent, []).append(accounts[name])
    found, left = [], below.get("", [])
    while left:
        account = left.pop()
        found.append(account)
        left += below.get(account.name, ())
    return found


def shared(
    accounts: Mapping[str, Account], memberships: Mapping[str, Member], doing: Doing
) -> frozenset[str]:
    """Accounts of which a user may do that to all jobs. `memberships`: the user's, by account."""
    found: set[str] = set()
    for account in accounts.values():
        member = account.open or account.name in memberships
        if member and account.members_may.includes(doing):
            found.add(account.name)
    if doing in COORDINATORS_MAY:
        found |= coordinated(accounts, memberships)
    return frozenset(found)


def coordinated(
    accounts: Mapping[str, Account], memberships: Mapping[str, Member]
) -> frozenset[str]:
    """Accounts that a user coordinates, by memberships there or further up."""
    return frozenset(
        below
        for name, membership in memberships.items()
        if membership.coordinator
        for below in downwards(accounts, name)
    )
