"""The store in memory: the same promises but durability, for simulation and quick tests."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from controlplane.model.errors import StaleControlPlane
from controlplane.model.usage import summed
from controlplane.registry.facts import Cluster, Facts
from controlplane.registry.store import Answer, Ended, JobFilter, JobRecord, RequestKey

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from controlplane.model.event import Event
    from controlplane.model.identity import Admission, JoinToken, Token, User
    from controlplane.model.job import Attempt, Job, Task
    from controlplane.model.lease import Lease
    from controlplane.model.node import Node
    from controlplane.model.progress import Progress
    from controlplane.model.usage import Key, Usage, UsageFilter, UsageGroup, UsageSum
    from controlplane.registry.draft import Draft, Removed


class MemoryStore:
    """A store in memory. Like a database it outlives the registries that are opened over it."""

    def __init__(self, cluster_uuid: str = "00000000-0000-4000-8000-000000000000") -> None:
        """`cluster_uuid`: identity of the cluster."""
        self._cluster = Cluster(uuid=cluster_uuid, secret="0" * 64, epoch=0)
        self._epoch = 0
        self._jobs: dict[int, Job] = {}
        self._tasks: dict[tuple[int, int], Task] = {}
        self._attempts: dict[tuple[int, int, int], Attempt] = {}
        self._leases: dict[int, Lease] = {}
        self._nodes: dict[str, Node] = {}
        self._users: dict[str, User] = {}
        self._tokens: dict[str, Token] = {}
        self._join_tokens: dict[str, JoinToken] = {}
        self._admissions: dict[str, Admission] = {}
        self._usages: dict[tuple[int, int, int], Usage] = {}
        self._progress: dict[tuple[int, int, int], Progress] = {}
        self._events: list[Event] = []
        self._answers: dict[RequestKey, Answer] = {}

    def open(self) -> Facts:
        """Take the next epoch."""
        self._cluster = replace(self._cluster, epoch=self._cluster.epoch + 1)
        self._epoch = self._cluster.epoch
        return self.reload()

    def reload(self) -> Facts:
        """Load what lives."""
        facts = Facts(
            cluster=self._cluster,
            nodes=dict(self._nodes),
            users=dict(self._users),
            tokens=dict(self._tokens),
            join_tokens=dict(self._join_tokens),
            admissions=dict(self._admissions),
        )
        facts.generations = dict.fromkeys(self._nodes, max(self._cluster.seq, 1))
        live = [job for job in self._jobs.values() if not job.state.final]
        for job in live:
            facts.jobs[job.job_id] = job
            task = self._tasks.get((job.job_id, 0))
            if task is not None:
                facts.tasks[job.job_id, 0] = task
            facts.index(job.job_id)
        facts.attempts = {k: a for k, a in self._attempts.items() if not a.state.final}
        facts.progress = {k: p for k, p in self._progress.items() if k in facts.attempts}
        facts.leases = {k: x for k, x in self._leases.items() if x.removed_us is None}
        for lease in facts.leases.values():
            held = facts.node_leases.get(lease.node_uuid, frozenset())
            facts.node_leases[lease.node_uuid] = held | {lease.lease_id}
        return facts

    def commit(self, draft: Draft, answers: Mapping[RequestKey, Answer]) -> None:
        """Take over a draft."""
        if draft.cluster.epoch != self._cluster.epoch:
            raise StaleControlPlane("another control plane has taken over")
        self._cluster = draft.cluster
        for table, overlay in (
            (self._jobs, draft.jobs),
            (self._tasks, draft.tasks),
            (self._attempts, draft.attempts),
            (self._leases, draft.leases),
            (self._nodes, draft.nodes),
            (self._users, draft.users),
            (self._tokens, draft.tokens),
            (self._join_tokens, draft.join_tokens),
            (self._admissions, draft.admissions),
            (self._progress, draft.progress),
        ):
            _put(table, overlay.changed)  # type: ignore[arg-type]  # each pair has its own types
        self._usages.update((usage.key, usage) for usage in draft.usages)
        self._events.extend(draft.events)
        self._remove(draft.removed)
        self._answers.update(answers)

    def _remove(self, removed: Removed) -> None:
        jobs, events = set(removed.jobs), set(removed.events)
        for keyed in (self._tasks, self._attempts, self._progress):
            for key in [key for key in keyed if key[0] in jobs]:
                del keyed[key]  # type: ignore[arg-type]  # each has keys of its own
        self._leases = {i: x for i, x in self._leases.items() if x.job_id not in jobs}
        for number in jobs:
            self._jobs.pop(number, None)
        for key in removed.usages:
            self._usages.pop(key, None)
        if jobs or events:
            self._events = [e for e in self._events if e.seq not in events and e.job_id not in jobs]

    def answers(self, keys: Sequence[RequestKey]) -> Mapping[RequestKey, Answer]:
        """Those that were answered."""
        return {key: self._answers[key] for key in keys if key in self._answers}

    def job(self, job_id: int) -> JobRecord | None:
        """One job."""
        job = self._jobs.get(job_id)
        return self._record(job, full=True) if job is not None else None

    def jobs(
        self, which: JobFilter, *, before: int | None, limit: int, full: bool
    ) -> Sequence[JobRecord]:
        """A page of jobs."""
        newest = sorted(self._jobs.values(), key=lambda job: -job.job_id)
        found = [
            job for job in newest if (before is None or job.job_id < before) and matches(which, job)
        ]
        return [self._record(job, full=full) for job in found[:limit]]

    def owners(self, job_ids: Sequence[int]) -> Mapping[int, str]:
        """Owners of jobs."""
        return {number: self._jobs[number].owner for number in job_ids if number in self._jobs}

    def lease(self, lease_id: int) -> Lease | None:
        """One lease."""
        return self._leases.get(lease_id)

    def events(self, resource: str, *, after: int, limit: int) -> Sequence[Event]:
        """A page of events."""
        found = [
            event
            for event in self._events
            if event.seq > after
            and (
                not resource
                or event.resource == resource
                or event.resource.startswith(f"{resource}/")
            )
        ]
        return found[:limit]

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
        sums, _ = summed((u for u in self._usages.values() if u.seq <= seq), which, by)
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
        mine = (u for u in self._usages.values() if u.seq <= seq and u.job_id in job_ids)
        return summed(mine, which, by)[1]

    def ended(self, before_us: int, *, limit: int) -> Sequence[Ended]:
        """Jobs that ended before this."""
        over = sorted(
            (job.ended_us, job.job_id)
            for job in self._jobs.values()
            if job.state.final and job.ended_us is not None and job.ended_us < before_us
        )
        return [
            Ended(
                job_id=number,
                rows=sum(event.job_id == number for event in self._events)
                + sum(len(a.workers) for a in self._attempts.values() if a.job_id == number),
            )
            for _, number in over[:limit]
        ]

    def ends(self, job_ids: Sequence[int]) -> Mapping[int, int | None]:
        """When jobs ended."""
        return {number: self._jobs[number].ended_us for number in job_ids if number in self._jobs}

    def unowned_usages(self, before_us: int, *, limit: int) -> Sequence[tuple[int, int, int]]:
        """Usages of removed jobs."""
        over = sorted(
            (usage.until_us, key)
            for key, usage in self._usages.items()
            if usage.until_us < before_us and usage.job_id not in self._jobs
        )
        return [key for _, key in over[:limit]]

    def blobs_used(self, hashes: Sequence[str]) -> frozenset[str]:
        """Blobs that jobs refer to."""
        used = {job.blob_sha256 for job in self._jobs.values()}
        return frozenset(sha256 for sha256 in hashes if sha256 in used)

    def forget_answers(self, before_us: int) -> int:
        """Drop old answers."""
        old = [key for key, answer in self._answers.items() if answer.created_us < before_us]
        for key in old:
            del self._answers[key]
        return len(old)

    def close(self) -> None:
        """Nothing to give back."""

    def _record(self, job: Job, *, full: bool) -> JobRecord:
        if not full:
            return JobRecord(job=job, tasks=(), attempts=(), leases={})
        return JobRecord(
            job=job,
            tasks=tuple(t for t in self._tasks.values() if t.job_id == job.job_id),
            attempts=tuple(a for a in self._attempts.values() if a.job_id == job.job_id),
            leases={k: x for k, x in self._leases.items() if x.job_id == job.job_id},
            usages={k: u for k, u in self._usages.items() if u.job_id == job.job_id},
            progress={k: p for k, p in self._progress.items() if p.job_id == job.job_id},
        )


def matches(which: JobFilter, job: Job) -> bool:
    """Whether a filter takes a job."""
    return (
        (not which.states or job.state in which.states)
        and (not which.owner or job.owner == which.owner)
        and (not which.name_pattern or fnmatchcase(job.spec.name, which.name_pattern))
        and (which.created_from_us is None or job.created_us >= which.created_from_us)
        and (which.created_before_us is None or job.created_us < which.created_before_us)
        and set(which.labels) <= set(job.spec.labels)
    )


def _put(table: dict[object, object], changed: Mapping[object, object]) -> None:
    for key, value in changed.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
