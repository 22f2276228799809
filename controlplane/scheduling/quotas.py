"""Who has as much as may be had: quotas of accounts and of users within them, and what is borrowed.

An account may go beyond its GPUs by as much as it may borrow, while its siblings leave theirs idle:
as a cohort's queues do in Kueue (https://kueue.sigs.k8s.io/docs/concepts/cluster_queue/#cohort).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from controlplane.model.words import count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.model.view import Account, Member, Quota, Running


class Quotas:
    """What each account and member has now. Changed by `take` alone."""

    def __init__(
        self, accounts: Iterable[Account], members: Iterable[Member], running: Iterable[Running]
    ) -> None:
        """`running`: what runs now, and counts from the start."""
        self._accounts = {account.name: account for account in accounts}
        self._members = {(m.account, m.user): m for m in members}
        self._siblings: defaultdict[str, list[Account]] = defaultdict(list)
        for account in self._accounts.values():
            self._siblings[account.parent].append(account)
        self._tasks: defaultdict[str, int] = defaultdict(int)
        self._gpus: defaultdict[str, int] = defaultdict(int)
        self._member_tasks: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._member_gpus: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._wanted: defaultdict[str, int] = defaultdict(int)
        self._chains: dict[str, list[Account]] = {}
        bound = [m for m in self._members.values() if m.spent or _limits(m.quota)]
        self.accounts = {name for name in self._accounts if self._bound(name)}
        self.accounts |= {m.account for m in bound}
        """Accounts that a quota binds: their own, one above them, or a member's."""
        self.users = {m.user for m in bound}
        """Users whom a quota of their own binds."""
        for task in running if self.accounts else ():
            shape = task.shape
            self.take(task.account, task.owner, shape.workers * shape.resources.gpus)

    def _bound(self, name: str) -> bool:
        return any(account.spent or _limits(account.quota) for account in self._chain(name))

    def _chain(self, name: str) -> list[Account]:
        """An account and all above it."""
        if name in self._chains:
            return self._chains[name]
        chain: list[Account] = []
        account = self._accounts.get(name)
        while account is not None and len(chain) <= len(self._accounts):
            chain.append(account)
            account = self._accounts.get(account.parent)
        self._chains[name] = chain
        return chain

    def take(self, account: str, user: str, gpus: int) -> None:
        """Count a task that runs."""
        if not self.accounts:
            return
        for above in self._chain(account):
            self._tasks[above.name] += 1
            self._gpus[above.name] += gpus
        self._member_tasks[account, user] += 1
        self._member_gpus[account, user] += gpus

    def want(self, account: str, gpus: int) -> None:
        """Count what waits in an account's name: what siblings want of their own is not lent."""
        for above in self._chain(account):
            self._wanted[above.name] += gpus

    def objection(
        self, account: str, user: str, gpus: int, *, preemptible: bool = False
    ) -> str | None:
        """Why a task with so many GPUs may not start; None when it may. One that is `preemptible`
        borrows all that is idle."""
        member = self._members.get((account, user))
        if member is not None:
            if member.spent:
                return member.spent
            quota, name = member.quota, f"{user} in account {account}"
            tasks, held = self._member_tasks[account, user], self._member_gpus[account, user]
            if quota.running is not None and tasks >= quota.running:
                return _words(name, tasks, quota.running, "running task")
            if quota.gpus is not None and held + gpus > quota.gpus:
                return _words(name, held, quota.gpus, "GPU", gpus)
        for above in self._chain(account):
            if above.spent:
                return above.spent
            quota, name = above.quota, f"account {above.name}"
            if quota.running is not None and self._tasks[above.name] >= quota.running:
                return _words(name, self._tasks[above.name], quota.running, "running task")
            if quota.gpus is None or self._gpus[above.name] + gpus <= quota.gpus:
                continue
            if (refusal := self._borrow(above, gpus, without_end=preemptible)) is not None:
                return refusal
        return None

    def _borrow(self, account: Account, gpus: int, *, without_end: bool) -> str | None:
        quota, held = account.quota, self._gpus[account.name]
        own = quota.gpus or 0
        name = f"account {account.name}"
        bounded = quota.borrow_gpus is not None and not without_end
        if bounded and held + gpus > own + (quota.borrow_gpus or 0):
            if not quota.borrow_gpus:
                return _words(name, held, own, "GPU", gpus)
            return (
                f"waits for quota: {name} has {held} of {count(own, 'GPU')} of its own and"
                f" {quota.borrow_gpus} to borrow, and this needs {gpus}"
            )
        siblings = self._siblings[account.parent]
        if any(sibling.quota.gpus is None for sibling in siblings):
            return None
        pool = sum(sibling.quota.gpus or 0 for sibling in siblings)
        used = sum(self._gpus[sibling.name] for sibling in siblings)
        used += sum(self._due(sibling) for sibling in siblings if sibling is not account)
        if used + gpus <= pool:
            return None
        return (
            f"waits for quota: {name} has its {count(own, 'GPU')}, and its siblings leave"
            f" {max(pool - used, 0)} idle, where this needs {gpus}"
        )

    def _due(self, account: Account) -> int:
        """What an account waits for of its own."""
        left = max((account.quota.gpus or 0) - self._gpus[account.name], 0)
        return min(max(self._wanted[account.name], 0), left)

    def borrows(self, account: str) -> bool:
        """Whether an account, or one above it, has more than its own."""
        return bool(self.accounts) and any(
            above.quota.gpus is not None and self._gpus[above.name] > above.quota.gpus
            for above in self._chain(account)
        )

    def owns(self, account: str, gpus: int) -> bool:
        """Whether so many GPUs more are an account's own: it has a quota, and they are within it
        and within those above."""
        chain = self._chain(account)
        return any(above.quota.gpus is not None for above in chain) and all(
            above.quota.gpus is None or self._gpus[above.name] + gpus <= above.quota.gpus
            for above in chain
        )


def _limits(quota: Quota) -> bool:
    return quota.running is not None or quota.gpus is not None


def _words(name: str, held: int, limit: int, noun: str, wanted: int = 0) -> str:
    needs = f", and this needs {wanted}" if wanted else ""
    return f"waits for quota: {name} has {held} of {count(limit, noun)}{needs}"
