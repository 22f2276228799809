"""What a scheduling decision sees of accounts and their members.

A decision is made many times a second, and there may be ten thousand members: what has not changed
is kept from one look to the next. What is kept is what a new one would make.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.model.account import HOUR_US, NO_LIMITS, downwards, in_order
from controlplane.model.policy import DAY_US
from controlplane.model.spending import first_day, minute, weight
from controlplane.model.usage import UNKNOWN_MODEL
from controlplane.model.view import Account, Member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.model.account import Limits
    from controlplane.model.job import Attempt, Job
    from controlplane.registry.draft import Draft
    from controlplane.registry.facts import Facts

Key = tuple[str, str]
"""Account and user."""
AttemptKey = tuple[int, int, int]
Told = tuple[tuple[Account, ...], tuple[Member, ...]]


@dataclass(frozen=True, slots=True)
class _Living:
    """An attempt that lives."""

    per_mille: int
    """Its devices, each weighted by its model, in thousandths."""
    gpus: int
    """Its devices."""
    from_us: int
    """Since when it holds them."""


class Books:
    """Accounts and members as decisions see them, kept up to date."""

    def __init__(self) -> None:
        """Nothing is kept yet."""
        self._at_us = -1
        """The minute of what is kept; -1: nothing is."""
        self._policy: object = None
        self._living: dict[Key, dict[AttemptKey, _Living]] = {}
        self._dirty: set[Key] = set()
        self._keys: list[Key] = []
        """Of all members, in order."""
        self._members: dict[Key, Member] = {}
        self._own: dict[str, int] = {}
        """Usage by account, without those below it."""
        self._windows: dict[str, dict[int, int]] = {}
        """GPU time of an account, without those below it, by length of the window: as far as
        somebody asked."""
        self._told: Told = ((), ())

    def note(self, draft: Draft, attempts: Mapping[AttemptKey, Attempt]) -> None:
        """Say what is about to change. `attempts`: those that lived before."""
        if draft.accounts.changed or draft.members.changed:
            self._at_us = -1
        if self._at_us < 0:
            return
        self._dirty.update(draft.spendings.changed)
        for job_id, job in draft.jobs.changed.items():
            before = draft.jobs.before(job_id)
            for each in (before, job):
                if each is not None and (each.state.final or _key(each) not in self._members):
                    self._dirty.add(_key(each))
            if before is not None and job is not None and before.account != job.account:
                self._dirty.add(_key(before))
        for key, attempt in draft.attempts.changed.items():
            if key in attempts and (attempt is None or attempt.state.final):
                of = _key(draft.jobs[key[0]])
                self._living.get(of, {}).pop(key, None)
                self._dirty.add(of)

    def view(self, facts: Facts, now_us: int) -> Told:
        """All accounts, parents before children, and all members, as of the last whole minute."""
        at_us = minute(now_us)
        if at_us != self._at_us or facts.policy is not self._policy:
            self._begin(facts, at_us)
        elif not self._dirty:
            return self._told
        for key in self._dirty:
            self._look(facts, key)
        self._dirty.clear()
        members = tuple([self._members[key] for key in self._keys])
        self._told = (self._accounts(facts), members)
        return self._told

    def _begin(self, facts: Facts, at_us: int) -> None:
        self._at_us, self._policy = at_us, facts.policy
        self._keys, self._members, self._own, self._windows = [], {}, {}, {}
        living: dict[Key, dict[AttemptKey, _Living]] = {}
        self._living = living
        models: dict[str, dict[str, str]] = {}
        for key, attempt in facts.attempts.items():
            names = []
            for lease_id in attempt.lease_ids:
                lease = facts.leases[lease_id]
                if lease.device_ids and lease.node_uuid not in models:
                    devices = facts.nodes[lease.node_uuid].facts.devices
                    models[lease.node_uuid] = {d.device_id: d.model for d in devices}
                names += [
                    models[lease.node_uuid].get(device, UNKNOWN_MODEL)
                    for device in lease.device_ids
                ]
            if names:
                rate = sum(weight(name, facts.policy.gpu_weights) for name in names)
                alive = _Living(rate, len(names), facts.leases[attempt.lease_ids[0]].added_us)
                living.setdefault(_key(facts.jobs[key[0]]), {})[key] = alive
        everybody = {key for key in facts.tally if key[1]}
        self._dirty = everybody | facts.members.keys() | facts.spendings.keys()
        self._keys = sorted(self._dirty)
        self._members = dict.fromkeys(self._keys, _NOBODY)

    def _look(self, facts: Facts, key: Key) -> None:
        """Bring one member up to date."""
        account, user = key
        self._windows.pop(account, None)
        before = self._members.get(key)
        own = self._own.get(account, 0) - (before.usage if before is not None else 0)
        known, spending = facts.members.get(key), facts.spendings.get(key)
        if known is None and spending is None and key not in facts.tally:
            self._own[account] = own
            if before is not None:
                del self._members[key]
                del self._keys[bisect_left(self._keys, key)]
            return
        usage = sum(
            alive.per_mille * max(self._at_us - alive.from_us, 0) // 1000
            for alive in self._living.get(key, {}).values()
        )
        if spending is not None:
            usage += spending.at(self._at_us, facts.policy.half_life_us)
        self._own[account] = own + usage
        limits, spent = known.limits if known is not None else NO_LIMITS, ""
        if limits.gpu_hours is not None:
            used = self._window(facts, key, limits.window_days)
            spent = _spent(f"{user} in {account}", limits, used)
        if before is None:
            insort(self._keys, key)
        self._members[key] = Member(
            account=account,
            user=user,
            shares=known.shares if known is not None else 1,
            usage=usage,
            quota=limits.quota,
            spent=spent,
        )

    def _accounts(self, facts: Facts) -> tuple[Account, ...]:
        ordered = in_order(facts.accounts)
        usage = {each.name: self._own.get(each.name, 0) for each in ordered}
        for each in reversed(ordered):
            if each.parent:
                usage[each.parent] += usage[each.name]
        found = []
        for each in ordered:
            spent = ""
            if each.limits.gpu_hours is not None:
                days = each.limits.window_days
                below = downwards(facts.accounts, each.name)
                used = sum(self._window_of_account(facts, name, days) for name in below)
                spent = _spent(each.name, each.limits, used)
            found.append(
                Account(
                    name=each.name,
                    parent=each.parent,
                    shares=each.shares,
                    usage=usage[each.name],
                    quota=each.limits.quota,
                    spent=spent,
                    qos=each.qos,
                )
            )
        return tuple(found)

    def _window_of_account(self, facts: Facts, account: str, days: int) -> int:
        """GPU time of an account within a window, without those below it."""
        known = self._windows.setdefault(account, {})
        if days not in known:
            at = bisect_left(self._keys, (account, ""))
            total = 0
            while at < len(self._keys) and self._keys[at][0] == account:
                total += self._window(facts, self._keys[at], days)
                at += 1
            known[days] = total
        return known[days]

    def _window(self, facts: Facts, key: Key, days: int) -> int:
        """GPU time of a member within a window."""
        first = first_day(self._at_us, days)
        spending = facts.spendings.get(key)
        return (spending.since(first) if spending is not None else 0) + sum(
            alive.gpus * max(self._at_us - max(alive.from_us, first * DAY_US), 0)
            for alive in self._living.get(key, {}).values()
        )


def _spent(who: str, limits: Limits, used_us: int) -> str:
    """Why no more GPU-hours are left, in words; empty where some are."""
    if limits.gpu_hours is None or used_us < limits.gpu_hours * HOUR_US:
        return ""
    return (
        f"{who} has used its {limits.gpu_hours} GPU-hours within {limits.window_days} days"
        f" ({used_us // HOUR_US} by now); they count no longer as days go by, or an operator"
        " raises them"
    )


_NOBODY = Member(account="", user="")


def _key(job: Job) -> Key:
    return job.account, job.owner
