"""What the registry asks of a store: to load, to commit, and to find what has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from controlplane.model.event import Event
    from controlplane.model.job import Attempt, Job, JobState, Task
    from controlplane.model.lease import Lease
    from controlplane.model.progress import Progress
    from controlplane.model.usage import Key, Usage, UsageFilter, UsageGroup, UsageSum
    from controlplane.registry.draft import Draft
    from controlplane.registry.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """What makes a repeated request known: who asked, and the id that they chose."""

    principal: str
    """Who asked."""
    request_id: str
    """The id that they chose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer that a request got, kept so that a repeat gets the same."""

    content_hash: str
    """SHA-256 of what was asked, in hex."""
    body: Mapping[str, object]
    """The answer, as JSON values."""
    created_us: int
    """When it was given, UTC in microseconds."""


class Whose(NamedTuple):
    """Whose a job is."""

    owner: str
    """Its owner."""
    account: str
    """The account that pays."""


def whose(job: Job) -> Whose:
    """Whose a job is."""
    return Whose(job.owner, job.account)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Whose jobs somebody may see: their own, and those of some accounts."""

    owner: str
    """Who."""
    accounts: frozenset[str]
    """The accounts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs; empty fields do not filter."""

    states: frozenset[JobState] = frozenset()
    """States, any of them."""
    owner: str = ""
    """Owner, exactly."""
    account: str = ""
    """Account, exactly."""
    sight: Sight | None = None
    """Jobs within somebody's sight alone; None: of everybody."""
    name_pattern: str = ""
    """Display name: a shell-style pattern with `*` and `?`."""
    created_from_us: int | None = None
    """Accepted at or after."""
    created_before_us: int | None = None
    """Accepted before."""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels that a job must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job with everything that became of it."""

    job: Job
    """The job."""
    tasks: tuple[Task, ...]
    """Its tasks that were made so far."""
    attempts: tuple[Attempt, ...]
    """Its attempts, oldest first."""
    leases: Mapping[int, Lease]
    """Their leases, by number."""
    usages: Mapping[tuple[int, int, int], Usage] = field(default_factory=dict)
    """What those of its attempts that have ended used, by key of the attempt."""
    progress: Mapping[tuple[int, int, int], Progress] = field(default_factory=dict)
    """How far those of its attempts are that reported it, by key of the attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A job that has ended, as its removal needs it."""

    job_id: int
    """Its number."""
    rows: int
    """How many workers and events of it are on record: what its removal costs."""
    last_seq: int
    """Number of its last event; 0 where none is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Events as they were kept at one moment."""

    events: Sequence[Event]
    """They, oldest first."""
    seq: int
    """Number of the last event that there was."""
    removed_seq: int
    """Events up to this number may have been removed by then."""

    def upto(self, limit: int) -> int:
        """The number up to which it tells of all that there is, where it was asked for so many."""
        return self.events[-1].seq if len(self.events) >= limit else self.seq


class Store(Protocol):
    """Where the truth lies. One process writes; reads may come from any thread."""

    def open(self) -> Facts:
        """Take the next epoch, durably, and load everything that lives."""

    def reload(self) -> Facts:
        """Load everything that lives under the epoch that was taken: after a commit whose fate is
        unclear."""

    def commit(self, draft: Draft, answers: Mapping[RequestKey, Answer]) -> None:
        """Make a draft durable as a whole, or nothing of it.

        StaleControlPlane when another epoch was taken meanwhile. StoreUnavailable when its fate is
        unclear, or it was not made of what was committed last: `reload` tells the truth.
        StoreRefused when the database will never take it.
        """

    def answers(self, keys: Sequence[RequestKey]) -> Mapping[RequestKey, Answer]:
        """Those of these requests that were answered before."""

    def job(self, job_id: int, index: int | None = None) -> JobRecord | None:
        """One job, live or ended, with all that became of it; of an array, one task. None when
        there is no such job."""

    def tasks(
        self, job_id: int, *, states: Collection[JobState], after: int, limit: int
    ) -> JobRecord:
        """A page of a job's tasks that were placed or ended, by index, after that one, each with
        its last attempt; of these states, or of any where none is named."""

    def jobs(
        self, which: JobFilter, *, before: int | None, limit: int, full: bool
    ) -> Sequence[JobRecord]:
        """Jobs with numbers under `before`, newest first; without attempts unless `full`."""

    def jobs_of(self, job_ids: Sequence[int]) -> Mapping[int, Job]:
        """Those of these jobs that there are, live or ended, by number."""

    def owners(self, job_ids: Sequence[int]) -> Mapping[int, Whose]:
        """Whose those of these jobs are that there are, live or ended, by number."""

    def lease(self, lease_id: int) -> Lease | None:
        """One lease, held or given back."""

    def events(self, resource: str, *, after: int, limit: int) -> Sequence[Event]:
        """Events of a resource and its parts (all when empty), oldest first."""

    def event_page(self, resource: str, *, after: int, limit: int) -> EventPage:
        """As `events`, with how far they go; all of it of one moment."""

    def usage_sums(
        self,
        which: UsageFilter,
        by: UsageGroup | None,
        *,
        seq: int,
        after: Key | None,
        limit: int,
    ) -> Mapping[Key, UsageSum]:
        """What attempts used that had ended by event `seq`: as `summed` says, for the first `limit`
        keys behind `after`, in ascending order of their bytes or numbers."""

    def usage_met(
        self,
        which: UsageFilter,
        by: UsageGroup | None,
        *,
        seq: int,
        job_ids: Collection[int],
    ) -> frozenset[tuple[Key, int]]:
        """(key, job) of each of these jobs that counts in a sum of `usage_sums`."""

    def ended(self, before_us: int, *, limit: int) -> Sequence[Ended]:
        """Jobs that ended before this, those first that ended first."""

    def ends(self, job_ids: Sequence[int]) -> Mapping[int, int | None]:
        """When those of these jobs ended that there are, by number; None for one that lives."""

    def unowned_usages(self, before_us: int, *, limit: int) -> Sequence[tuple[int, int, int]]:
        """Keys of attempts that gave their leases back before this, whose usage is kept and whose
        job is not."""

    def blobs_used(self, hashes: Sequence[str]) -> frozenset[str]:
        """Those of these blobs that are the working directory of a job, live or ended."""

    def forget_answers(self, before_us: int) -> int:
        """Drop answers given before this; how many there were."""

    def close(self) -> None:
        """Give back what it holds."""
