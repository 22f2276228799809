"""Changes in the making: the facts as a command sees them, with what it and its group want to
change on top."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from controlplane.model.account import NOTHING, count_job
from controlplane.model.dependencies import key_of
from controlplane.model.event import Actor, Event

if TYPE_CHECKING:
    from controlplane.model.account import Account, Held, Member
    from controlplane.model.dependencies import Dependency
    from controlplane.model.identity import Admission, JoinToken, Token, User
    from controlplane.model.job import Attempt, Job, JobState, Task
    from controlplane.model.lease import Lease
    from controlplane.model.node import Node
    from controlplane.model.policy import Policy
    from controlplane.model.priority import PriorityClass
    from controlplane.model.progress import Progress
    from controlplane.model.queues import JobQueue
    from controlplane.model.reservation import Reservation
    from controlplane.model.spending import Spending
    from controlplane.model.usage import Usage
    from controlplane.registry.facts import Cluster, Facts

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


class _Readable(Protocol[K, V_co]):
    def get(self, key: K, /) -> V_co | None: ...

    def items(self) -> Iterable[tuple[K, V_co]]: ...


class Overlay(Generic[K, V]):
    """A table with changes on top; None stands for a removed entry."""

    __slots__ = ("_base", "changed")

    def __init__(self, base: _Readable[K, V]) -> None:
        """`base`: the table beneath, which is never changed."""
        self._base = base
        self.changed: dict[K, V | None] = {}

    def get(self, key: K) -> V | None:
        """The entry as it would be after this draft."""
        if key in self.changed:
            return self.changed[key]
        return self._base.get(key)

    def before(self, key: K) -> V | None:
        """The entry as it is without this draft."""
        return self._base.get(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """All entries as they would be after this draft. May be changed meanwhile."""
        changed = dict(self.changed)
        yield from ((key, value) for key, value in list(self._base.items()) if key not in changed)
        yield from ((key, value) for key, value in changed.items() if value is not None)

    def __getitem__(self, key: K) -> V:
        """The entry; KeyError when there is none."""
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: K, value: V | None) -> None:
        """Change an entry, in this draft."""
        self.changed[key] = value


@dataclass(slots=True)
class Removed:
    """What is over and is not kept any longer. None of it is in the facts."""

    jobs: list[int] = field(default_factory=list)
    """Numbers of ended jobs, removed with all their rows and events, but not what they used."""
    usages: list[tuple[int, int, int]] = field(default_factory=list)
    """What attempts of removed jobs used, by key of the attempt."""
    events: list[int] = field(default_factory=list)
    """Numbers of events that belong to no kept job."""

    def __bool__(self) -> bool:
        """Whether anything is removed."""
        return bool(self.jobs or self.usages or self.events)

    def absorb(self, other: Removed) -> None:
        """Take over what another one removes."""
        self.jobs += other.jobs
        self.usages += other.usages
        self.events += other.events


class Draft:
    """What a command reads and changes. It becomes true as a whole, or not at all."""

    def __init__(self, base: Facts | Draft, now_us: int, actor: Actor) -> None:
        """`base`: the facts, or the draft of the group that this command belongs to."""
        self._base = base
        self.now_us = now_us
        self.actor = actor
        self.cluster: Cluster = base.cluster
        self.jobs: Overlay[int, Job] = Overlay(base.jobs)
        self.tasks: Overlay[tuple[int, int], Task] = Overlay(base.tasks)
        self.attempts: Overlay[tuple[int, int, int], Attempt] = Overlay(base.attempts)
        self.leases: Overlay[int, Lease] = Overlay(base.leases)
        self.nodes: Overlay[str, Node] = Overlay(base.nodes)
        self.node_leases: Overlay[str, frozenset[int]] = Overlay(base.node_leases)
        self.generations: Overlay[str, int] = Overlay(base.generations)
        self.users: Overlay[str, User] = Overlay(base.users)
        self.tokens: Overlay[str, Token] = Overlay(base.tokens)
        self.join_tokens: Overlay[str, JoinToken] = Overlay(base.join_tokens)
        self.admissions: Overlay[str, Admission] = Overlay(base.admissions)
        self.priority_classes: Overlay[str, PriorityClass] = Overlay(base.priority_classes)
        self.queues: Overlay[str, JobQueue] = Overlay(base.queues)
        self.reservations: Overlay[str, Reservation] = Overlay(base.reservations)
        self.progress: Overlay[tuple[int, int, int], Progress] = Overlay(base.progress)
        self.accounts: Overlay[str, Account] = Overlay(base.accounts)
        self.members: Overlay[tuple[str, str], Member] = Overlay(base.members)
        self.spendings: Overlay[tuple[str, str], Spending] = Overlay(base.spendings)
        self.spec_texts: dict[int, str] = {}
        """Canonical JSON of new jobs' specs, by number, for who writes it down."""
        self.events: list[Event] = []
        self.usages: list[Usage] = []
        self.removed = Removed()
        self.depending: list[tuple[Dependency, int]] = []
        self._is_group = False
        self._absorbed: list[tuple[Job | None, Job | None]] = []
        self._tally: dict[tuple[str, str], Held] = {}

    @property
    def policy(self) -> Policy:
        """How the site wants its jobs scheduled."""
        return self._base.policy

    def all_accounts(self) -> dict[str, Account]:
        """All accounts, by name."""
        found = self._base.all_accounts()
        for name, account in self.accounts.changed.items():
            if account is None:
                found.pop(name, None)
            else:
                found[name] = account
        return found

    def memberships(self, user: str) -> dict[str, Member]:
        """A user's memberships, by account."""
        found = self._base.memberships(user)
        for (account, name), member in self.members.changed.items():
            if name == user and member is not None:
                found[account] = member
            elif name == user:
                found.pop(account, None)
        return found

    def members_of(self, account: str) -> dict[str, Member]:
        """An account's members, by user."""
        found = self._base.members_of(account)
        for (name, user), member in self.members.changed.items():
            if name == account and member is not None:
                found[user] = member
            elif name == account:
                found.pop(user, None)
        return found

    def spenders(self, account: str) -> list[tuple[str, str]]:
        """Keys of what was used in an account's name."""
        changed = self.spendings.changed
        found = {*self._base.spenders(account), *(key for key in changed if key[0] == account)}
        return sorted(key for key in found if self.spendings.get(key) is not None)

    def held(self, account: str, user: str = "") -> Held:
        """What jobs of an account have at the moment, without those below it; of one user's."""
        for before, after in self._absorbed:
            count_job(self._tally, before, after)
        self._absorbed.clear()
        tally = self._tally
        if not self._is_group:  # one command's: what it has changed is not much
            tally = {}
            for job_id, job in self.jobs.changed.items():
                count_job(tally, self.jobs.before(job_id), job)
        return self._base.held(account, user).plus(tally.get((account, user), NOTHING))

    def live_tasks(self, job_id: int) -> set[int]:
        """Indexes of a job's tasks that were placed and have not ended."""
        found = self._base.live_tasks(job_id)
        for (of, index), task in self.tasks.changed.items():
            if of == job_id and task is not None:
                (found.discard if task.state.final else found.add)(index)
        return found

    def ill(self, job_id: int) -> Mapping[int, JobState]:
        """How tasks of a job that lives ended before this draft that did not succeed, by index."""
        return self._base.ill(job_id)

    def waiters(self, job_id: int, key: int | None) -> list[int]:
        """Jobs that may wait for this of a job: what `key_of` tells."""
        new = [n for each, n in self.depending if (each.job_id, key_of(each)) == (job_id, key)]
        return [*self._base.waiters(job_id, key), *new]

    def waited_for(self, job_id: int) -> set[int | None]:
        """What of a job may be waited for."""
        new = {key_of(each) for each, _ in self.depending if each.job_id == job_id}
        return self._base.waited_for(job_id) | new

    def absorb(self, inner: Draft) -> None:
        """Take over what a command of this group has changed."""
        self.cluster = inner.cluster
        self._is_group = True
        self._absorbed += ((self.jobs.get(key), job) for key, job in inner.jobs.changed.items())
        self.jobs.changed.update(inner.jobs.changed)
        self.tasks.changed.update(inner.tasks.changed)
        self.attempts.changed.update(inner.attempts.changed)
        self.leases.changed.update(inner.leases.changed)
        self.nodes.changed.update(inner.nodes.changed)
        self.node_leases.changed.update(inner.node_leases.changed)
        self.generations.changed.update(inner.generations.changed)
        self.users.changed.update(inner.users.changed)
        self.tokens.changed.update(inner.tokens.changed)
        self.join_tokens.changed.update(inner.join_tokens.changed)
        self.admissions.changed.update(inner.admissions.changed)
        self.priority_classes.changed.update(inner.priority_classes.changed)
        self.queues.changed.update(inner.queues.changed)
        self.reservations.changed.update(inner.reservations.changed)
        self.progress.changed.update(inner.progress.changed)
        self.accounts.changed.update(inner.accounts.changed)
        self.members.changed.update(inner.members.changed)
        self.spendings.changed.update(inner.spendings.changed)
        self.spec_texts.update(inner.spec_texts)
        self.events.extend(inner.events)
        self.usages.extend(inner.usages)
        self.removed.absorb(inner.removed)
        self.depending.extend(inner.depending)

    @property
    def dirty(self) -> bool:
        """Whether anything that is kept has changed."""
        nouns = (self.jobs, self.tasks, self.attempts, self.leases, self.nodes)
        people = (self.users, self.tokens, self.join_tokens, self.admissions)
        books = (self.accounts, self.members, self.spendings)
        site = (self.priority_classes, self.queues, self.reservations)
        tables = (*nouns, *people, *books, *site)
        return bool(self.removed) or any(table.changed for table in tables)

    def emit(self, kind: str, resource: str, changed: Mapping[str, object] | None = None) -> int:
        """Number and keep an event; every change of the facts comes with one. Gives its number."""
        seq = self.cluster.seq + 1
        self.cluster = replace(self.cluster, seq=seq)
        self.events.append(
            Event(
                seq=seq,
                time_us=self.now_us,
                kind=kind,
                actor=self.actor,
                resource=resource,
                changed=changed or {},
            )
        )
        return seq

    def next_job_id(self) -> int:
        """A number for a new job; never given out twice."""
        self.cluster = replace(self.cluster, last_job_id=self.cluster.last_job_id + 1)
        return self.cluster.last_job_id

    def next_lease_id(self) -> int:
        """A number for a new lease, which is also its fencing token; never given out twice."""
        self.cluster = replace(self.cluster, last_lease_id=self.cluster.last_lease_id + 1)
        return self.cluster.last_lease_id

    def turn(self, node_uuid: str) -> None:
        """Say that a node's desired state changes with the event just emitted."""
        self.generations[node_uuid] = self.cluster.seq
