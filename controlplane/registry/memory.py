"""The store in memory: the same promises but durability, for simulation and quick tests."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from controlplane.model.account import DEFAULT, Account
from controlplane.model.errors import StaleControlPlane, StoreRefused, StoreUnavailable
from controlplane.model.priority import FIRST_CLASSES
from controlplane.model.queues import FIRST_QUEUES
from controlplane.model.usage import summed
from controlplane.registry.facts import Cluster, Facts
from controlplane.registry.store import (
    Answer,
    Ended,
    EventPage,
    JobFilter,
    JobRecord,
    RequestKey,
    Sight,
    Whose,
    whose,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from controlplane.model.account import Member
    from controlplane.model.event import Event
    from controlplane.model.identity import Admission, JoinToken, Token, User
    from controlplane.model.job import Attempt, Job, JobState, Task
    from controlplane.model.lease import Lease
    from controlplane.model.node import Node
    from controlplane.model.progress import Progress
    from controlplane.model.reservation import Reservation
    from controlplane.model.spending import Spending
    from controlplane.model.usage import Key, Usage, UsageFilter, UsageGroup, UsageSum
    from controlplane.registry.draft import Draft, Removed


class _Tables:
    """What a database would hold."""

    def __init__(self, cluster_uuid: str) -> None:
        self.cluster = Cluster(uuid=cluster_uuid, secret="0" * 64, epoch=0)
        self.jobs: dict[int, Job] = {}
        self.tasks: dict[tuple[int, int], Task] = {}
        self.attempts: dict[tuple[int, int, int], Attempt] = {}
        self.leases: dict[int, Lease] = {}
        self.nodes: dict[str, Node] = {}
        self.users: dict[str, User] = {}
        self.tokens: dict[str, Token] = {}
        self.join_tokens: dict[str, JoinToken] = {}
        self.admissions: dict[str, Admission] = {}
        self.priority_classes = {each.name: each for each in FIRST_CLASSES}
        self.queues = {each.name: each for each in FIRST_QUEUES}
        self.reservations: dict[str, Reservation] = {}
        self.usages: dict[tuple[int, int, int], Usage] = {}
        self.progress: dict[tuple[int, int, int], Progress] = {}
        self.accounts = {DEFAULT: Account(name=DEFAULT, open=True)}
        self.members: dict[tuple[str, str], Member] = {}
        self.spendings: dict[tuple[str, str], Spending] = {}
        self.events: list[Event] = []
        self.answers: dict[RequestKey, Answer] = {}


class MemoryStore:
    """A store in memory. Like a database it outlives the registries that are opened over it."""

    def __init__(
        self,
        cluster_uuid: str = "00000000-0000-4000-8000-000000000000",
        *,
        beside: MemoryStore | None = None,
    ) -> None:
        """`cluster_uuid`: identity of a new cluster. `beside`: a store over the same data, as two
        may be connected to one database."""
        self._tables: _Tables = beside._tables if beside is not None else _Tables(cluster_uuid)
        self._epoch = 0

    def open(self) -> Facts:
        """Take the next epoch."""
        self._epoch = self._tables.cluster.epoch + 1
        self._tables.cluster = replace(self._tables.cluster, epoch=self._epoch)
        return self.reload()

    def reload(self) -> Facts:
        """Load what lives."""
        self._look()
        of = self._tables
        facts = Facts(
            cluster=of.cluster,
            nodes=dict(of.nodes),
            users=dict(of.users),
            tokens=dict(of.tokens),
            join_tokens=dict(of.join_tokens),
            admissions=dict(of.admissions),
            accounts=dict(of.accounts),
            members=dict(of.members),
            spendings=dict(of.spendings),
            priority_classes=dict(of.priority_classes),
            queues=dict(of.queues),
            reservations=dict(of.reservations),
        )
        facts.generations = dict.fromkeys(of.nodes, max(of.cluster.seq, 1))
        for job in of.jobs.values():
            if job.state.final:
                continue
            facts.jobs[job.job_id] = job
        for key, task in of.tasks.items():
            if key[0] in facts.jobs and not task.state.final:
                facts.tasks[key] = task
            elif key[0] in facts.jobs:
                facts.note_end(*key, task.state)
        for key in list(facts.tasks):
            facts.index_task(key)
        for job_id in list(facts.jobs):
            facts.index(job_id)
        facts.count_jobs()
        facts.attempts = {k: a for k, a in of.attempts.items() if not a.state.final}
        for which, attempt in facts.attempts.items():
            facts.note_saving(which, attempt)
        facts.progress = {k: p for k, p in of.progress.items() if k in facts.attempts}
        facts.leases = {k: x for k, x in of.leases.items() if x.removed_us is None}
        for lease in facts.leases.values():
            held = facts.node_leases.get(lease.node_uuid, frozenset())
            facts.node_leases[lease.node_uuid] = held | {lease.lease_id}
        return facts

    def _look(self) -> None:
        if self._tables.cluster.epoch != self._epoch:
            raise StaleControlPlane(
                f"another control plane has taken over since epoch {self._epoch}:"
                " this one writes nothing more"
            )

    def commit(self, draft: Draft, answers: Mapping[RequestKey, Answer]) -> None:
        """Take over a draft."""
        self._look()
        of, made_at = self._tables, draft.cluster.seq - len(draft.events)
        if of.cluster.seq != made_at:
            raise StoreUnavailable(
                f"the store is at event {of.cluster.seq}, and this change was made at event"
                f" {made_at}; it is read again"
            )
        if of.answers.keys() & answers.keys():
            raise StoreRefused("a request was answered before")
        of.cluster = draft.cluster
        for table, overlay in (
            (of.jobs, draft.jobs),
            (of.tasks, draft.tasks),
            (of.attempts, draft.attempts),
            (of.leases, draft.leases),
            (of.nodes, draft.nodes),
            (of.users, draft.users),
            (of.tokens, draft.tokens),
            (of.join_tokens, draft.join_tokens),
            (of.admissions, draft.admissions),
            (of.progress, draft.progress),
            (of.accounts, draft.accounts),
            (of.members, draft.members),
            (of.spendings, draft.spendings),
            (of.priority_classes, draft.priority_classes),
            (of.queues, draft.queues),
            (of.reservations, draft.reservations),
        ):
            _put(table, overlay.changed)  # type: ignore[arg-type]  # each pair has its own types
        of.usages.update((usage.key, usage) for usage in draft.usages)
        of.events.extend(draft.events)
        if draft.removed:  # or each commit would go through all that ever was
            self._remove(draft.removed)
        of.answers.update(answers)

    def _remove(self, removed: Removed) -> None:
        of, jobs, events = self._tables, set(removed.jobs), set(removed.events)
        for keyed in (of.tasks, of.attempts, of.progress):
            for key in [key for key in keyed if key[0] in jobs]:
                del keyed[key]  # type: ignore[arg-type]  # each has keys of its own
        of.leases = {i: x for i, x in of.leases.items() if x.job_id not in jobs}
        for number in jobs:
            of.jobs.pop(number, None)
        for key in removed.usages:
            of.usages.pop(key, None)
        if jobs or events:
            of.events = [e for e in of.events if e.seq not in events and e.job_id not in jobs]

    def answers(self, keys: Sequence[RequestKey]) -> Mapping[RequestKey, Answer]:
        """Those that were answered."""
        return {key: self._tables.answers[key] for key in keys if key in self._tables.answers}

    def job(self, job_id: int, index: int | None = None) -> JobRecord | None:
        """One job, or one task of it."""
        job = self._tables.jobs.get(job_id)
        return self._record(job, full=True, index=index) if job is not None else None

    def tasks(
        self, job_id: int, *, states: Collection[JobState], after: int, limit: int
    ) -> JobRecord:
        """A page of a job's tasks."""
        of = self._tables
        found = sorted(
            (
                task
                for key, task in of.tasks.items()
                if key[0] == job_id and key[1] > after and (not states or task.state in states)
            ),
            key=lambda task: task.index,
        )[:limit]
        last = [(job_id, task.index, task.attempts) for task in found]
        attempts = tuple(of.attempts[key] for key in last if key in of.attempts)
        return JobRecord(
            job=of.jobs[job_id],
            tasks=tuple(found),
            attempts=attempts,
            leases={i: of.leases[i] for attempt in attempts for i in attempt.lease_ids},
        )

    def jobs(
        self, which: JobFilter, *, before: int | None, limit: int, full: bool
    ) -> Sequence[JobRecord]:
        """A page of jobs."""
        newest = sorted(self._tables.jobs.values(), key=lambda job: -job.job_id)
        found = [
            job for job in newest if (before is None or job.job_id < before) and matches(which, job)
        ]
        return [self._record(job, full=full) for job in found[:limit]]

    def jobs_of(self, job_ids: Sequence[int]) -> Mapping[int, Job]:
        """Jobs by number."""
        jobs = self._tables.jobs
        return {number: jobs[number] for number in job_ids if number in jobs}

    def owners(self, job_ids: Sequence[int]) -> Mapping[int, Whose]:
        """Whose jobs are."""
        return {
            number: whose(self._tables.jobs[number])
            for number in job_ids
            if number in self._tables.jobs
        }

    def lease(self, lease_id: int) -> Lease | None:
        """One lease."""
        return self._tables.leases.get(lease_id)

    def events(self, resource: str, *, after: int, limit: int) -> Sequence[Event]:
        """A page of events."""
        found = [
            event
            for event in self._tables.events
            if event.seq > after
            and (
                not resource
                or event.resource == resource
                or event.resource.startswith(f"{resource}/")
            )
        ]
        return found[:limit]

    def event_page(self, resource: str, *, after: int, limit: int) -> EventPage:
        """A page of events, and how far they go."""
        c = self._tables.cluster
        events = self.events(resource, after=after, limit=limit)
        return EventPage(events=events, seq=c.seq, removed_seq=c.events_removed_seq)

    def usage_sums(
        self,
        which: UsageFilter,
        by: UsageGroup | None,
        *,
        seq: int,
        after: Key | None,
        limit: int,
    ) -> Mapping[Key, UsageSum]:
        """A page of sums."""
        sums, _ = summed((u for u in self._tables.usages.values() if u.seq <= seq), which, by)
        keys: list[Any] = sorted(key for key in sums if after is None or key > after)  # type: ignore[operator]
        return {key: sums[key] for key in keys[:limit]}

    def usage_met(
        self,
        which: UsageFilter,
        by: UsageGroup | None,
        *,
        seq: int,
        job_ids: Collection[int],
    ) -> frozenset[tuple[Key, int]]:
        """Keys that these jobs count under."""
        mine = (u for u in self._tables.usages.values() if u.seq <= seq and u.job_id in job_ids)
        return summed(mine, which, by)[1]

    def ended(self, before_us: int, *, limit: int) -> Sequence[Ended]:
        """Jobs that ended before this."""
        over = sorted(
            (job.ended_us, job.job_id)
            for job in self._tables.jobs.values()
            if job.state.final and job.ended_us is not None and job.ended_us < before_us
        )
        return [
            Ended(
                job_id=number,
                rows=sum(event.job_id == number for event in self._tables.events)
                + sum(len(a.workers) for a in self._tables.attempts.values() if a.job_id == number),
                last_seq=max((e.seq for e in self._tables.events if e.job_id == number), default=0),
            )
            for _, number in over[:limit]
        ]

    def ends(self, job_ids: Sequence[int]) -> Mapping[int, int | None]:
        """When jobs ended."""
        return {
            number: self._tables.jobs[number].ended_us
            for number in job_ids
            if number in self._tables.jobs
        }

    def unowned_usages(self, before_us: int, *, limit: int) -> Sequence[tuple[int, int, int]]:
        """Usages of removed jobs."""
        over = sorted(
            (usage.until_us, key)
            for key, usage in self._tables.usages.items()
            if usage.until_us < before_us and usage.job_id not in self._tables.jobs
        )
        return [key for _, key in over[:limit]]

    def blobs_used(self, hashes: Sequence[str]) -> frozenset[str]:
        """Blobs that jobs refer to."""
        used = {job.blob_sha256 for job in self._tables.jobs.values()}
        return frozenset(sha256 for sha256 in hashes if sha256 in used)

    def forget_answers(self, before_us: int) -> int:
        """Drop old answers."""
        old = [key for key, answer in self._tables.answers.items() if answer.created_us < before_us]
        for key in old:
            del self._tables.answers[key]
        return len(old)

    def close(self) -> None:
        """Nothing to give back."""

    def _record(self, job: Job, *, full: bool, index: int | None = None) -> JobRecord:
        if not full or (index is None and len(job.tasks) > 1):
            return JobRecord(job=job, tasks=(), attempts=(), leases={})
        task = (job.job_id, job.tasks.at(0) if index is None else index)
        of = self._tables
        return JobRecord(
            job=job,
            tasks=tuple(t for key, t in of.tasks.items() if key == task),
            attempts=tuple(a for key, a in of.attempts.items() if key[:2] == task),
            leases={i: x for i, x in of.leases.items() if (x.job_id, x.task_index) == task},
            usages={key: u for key, u in of.usages.items() if key[:2] == task},
            progress={key: p for key, p in of.progress.items() if key[:2] == task},
        )


def matches(which: JobFilter, job: Job) -> bool:
    """Whether a filter takes a job."""
    return (
        (not which.states or job.state in which.states)
        and (not which.owner or job.owner == which.owner)
        and (not which.account or job.account == which.account)
        and (which.sight is None or _sees(which.sight, job))
        and (not which.name_pattern or _like(which.name_pattern, job.spec.name))
        and (which.created_from_us is None or job.created_us >= which.created_from_us)
        and (which.created_before_us is None or job.created_us < which.created_before_us)
        and set(which.labels) <= set(job.spec.labels)
    )


def _sees(sight: Sight, job: Job) -> bool:
    return job.owner == sight.owner or job.account in sight.accounts


def _like(pattern: str, name: str) -> bool:
    """By `*` and `?` alone: a bracket stands for itself."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def _put(table: dict[object, object], changed: Mapping[object, object]) -> None:
    for key, value in changed.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
