"""The projection in memory: everything that lives, as decisions need it.

Only live things are here: a job leaves when its final state has been committed, and is read from
the store from then on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from controlplane.model.account import NOTHING, count_job, shared
from controlplane.model.dependencies import PAIRS, key_of
from controlplane.model.job import Attempt, AttemptState, Job, JobState, Task
from controlplane.model.moments import format_moment
from controlplane.model.plan import NONE_WAIT, Holds
from controlplane.model.policy import DEFAULT, Policy
from controlplane.model.priority import PreemptionPolicy
from controlplane.model.retry import capped
from controlplane.model.selector import EVERYWHERE
from controlplane.model.spec import Launcher
from controlplane.model.view import (
    Changes,
    NodeView,
    Packing,
    Promise,
    Queue,
    Reserved,
    Shape,
    View,
    Waiting,
    Window,
)
from controlplane.model.words import count
from controlplane.registry.books import Books
from controlplane.registry.pace import Recent
from controlplane.registry.preempting import asked_to_save
from controlplane.registry.running import running_of
from controlplane.registry.which import Which

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from controlplane.model.account import Account, Doing, Held, Member
    from controlplane.model.identity import Admission, JoinToken, Token, User
    from controlplane.model.lease import Lease
    from controlplane.model.node import Node
    from controlplane.model.priority import PriorityClass
    from controlplane.model.progress import Progress
    from controlplane.model.queues import JobQueue
    from controlplane.model.reservation import Reservation
    from controlplane.model.selector import Selector
    from controlplane.model.spec import JobSpec, Resources
    from controlplane.model.specvalues import FabricLevel
    from controlplane.model.spending import Spending
    from controlplane.model.view import Running
    from controlplane.registry.draft import Draft

K = TypeVar("K")
V = TypeVar("V")

PROGRESS_KEPT = 1_000
"""Attempts that have ended and whose progress is remembered: the last of it may come late."""
FIRST = -1
"""In place of a task's index: those of a job that were never placed."""
TASKS_SHOWN = 1_000
"""So many tasks of an array are shown to a decision."""
SHAPES_REMEMBERED = 10_000
"""So many shapes are kept, each once for all jobs that have it."""
USERS_REMEMBERED = 30_000
"""Of so many users and deeds it is remembered which accounts let them."""
FREE_PORTS_SHOWN = 16
"""So many free ports of a node are shown to a decision: so many gangs may begin there at once."""
DEPENDENCIES_TOLD = 3
"""So many of the dependencies that a job waits for are told in a sentence."""
PORTS_OF_LAUNCHER = {
    Launcher.HOROVOD: 1,
    Launcher.TORCHRUN: 1,
    Launcher.MPI: 1,
    Launcher.COMMAND: 0,
    Launcher.SCRIPT: 1,
}
"""Ports that a launcher needs on the gang's first node: rendezvous or master."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The cluster itself: identity and the numbers given out last."""

    uuid: str
    """Identity, made once."""
    secret: str
    """From which secrets of gangs are derived; never leaves the registry."""
    epoch: int
    """Grows with every start of a control plane."""
    seq: int = 0
    """Number of the last event."""
    last_job_id: int = 0
    """Number of the last job."""
    last_lease_id: int = 0
    """Number of the last lease; also its token."""
    jobs_removed_us: int = 0
    """Jobs that ended before this may have been removed; later ones were not."""
    logs_removed_us: int = 0
    """Output of jobs that ended before this may have been removed."""
    usage_removed_us: int = 0
    """What attempts used that ended before this may have been removed."""
    events_removed_seq: int = 0
    """Events up to this number may have been removed; later ones were not."""


@dataclass(slots=True)
class _Fresh:
    """What the scheduler has not looked at yet."""

    whole: bool
    nodes: set[str] = field(default_factory=set)
    jobs: set[int] = field(default_factory=set)
    tasks: set[tuple[int, int]] = field(default_factory=set)


@dataclass(slots=True)
class Facts:
    """What is true as of event `cluster.seq`. Changed by `apply` alone."""

    cluster: Cluster
    jobs: dict[int, Job] = field(default_factory=dict)
    tasks: dict[tuple[int, int], Task] = field(default_factory=dict)
    attempts: dict[tuple[int, int, int], Attempt] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    node_leases: dict[str, frozenset[int]] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    join_tokens: dict[str, JoinToken] = field(default_factory=dict)
    admissions: dict[str, Admission] = field(default_factory=dict)
    priority_classes: dict[str, PriorityClass] = field(default_factory=dict)
    queues: dict[str, JobQueue] = field(default_factory=dict)
    reservations: dict[str, Reservation] = field(default_factory=dict)
    waiting: dict[tuple[int, int], Waiting] = field(default_factory=dict)
    reasons: Holds = NONE_WAIT
    reserved: tuple[Reserved, ...] = ()
    recent: Recent = field(default_factory=Recent)
    progress: dict[tuple[int, int, int], Progress] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    members: dict[tuple[str, str], Member] = field(default_factory=dict)
    spendings: dict[tuple[str, str], Spending] = field(default_factory=dict)
    tally: dict[tuple[str, str], Held] = field(default_factory=dict)
    """What jobs have, by account and user, and by account (with an empty user)."""
    policy: Policy = DEFAULT
    """How the site wants its jobs scheduled."""
    _memberships: dict[str, dict[str, Member]] | None = None
    _shared: dict[tuple[str, Doing], frozenset[str]] = field(default_factory=dict)
    _books: Books = field(default_factory=Books)
    _progress_ended: deque[tuple[int, int, int]] = field(default_factory=deque)
    _node_views: dict[str, NodeView] = field(default_factory=dict)
    _windows: tuple[Window, ...] | None = None
    _live_tasks: dict[int, set[int]] = field(default_factory=dict)
    _requeued: dict[int, set[int]] = field(default_factory=dict)
    saving: set[tuple[int, int, int]] = field(default_factory=set)
    _promised: dict[int, int] = field(default_factory=dict)
    _fresh: _Fresh = field(default_factory=lambda: _Fresh(whole=True))
    _ill: dict[int, dict[int, JobState]] = field(default_factory=dict)
    _dependents: dict[int, dict[int | None, dict[int, None]]] = field(default_factory=dict)
    _unmet: dict[Which, None] = field(default_factory=dict)

    def apply(self, draft: Draft) -> None:
        """Make a committed draft true."""
        self.cluster = draft.cluster
        for job_id, job in draft.jobs.changed.items():
            count_job(self.tally, self.jobs.get(job_id), job)
        self._books.note(draft, self.attempts)
        _put(self.accounts, draft.accounts.changed)
        _put(self.members, draft.members.changed)
        _put(self.spendings, draft.spendings.changed)
        if draft.accounts.changed or draft.members.changed:
            self._memberships = None
            self._shared.clear()
        _put(self.jobs, draft.jobs.changed)
        _put(self.tasks, draft.tasks.changed)
        _put(self.attempts, draft.attempts.changed)
        _put(self.leases, draft.leases.changed)
        _put(self.nodes, draft.nodes.changed)
        _put(self.node_leases, draft.node_leases.changed)
        _put(self.generations, draft.generations.changed)
        _put(self.users, draft.users.changed)
        _put(self.tokens, draft.tokens.changed)
        _put(self.join_tokens, draft.join_tokens.changed)
        _put(self.admissions, draft.admissions.changed)
        _put(self.progress, draft.progress.changed)
        _put(self.priority_classes, draft.priority_classes.changed)
        _put(self.queues, draft.queues.changed)
        _put(self.reservations, draft.reservations.changed)
        if draft.nodes.changed or draft.reservations.changed:
            self._windows = None
        for uuid in draft.nodes.changed.keys() | draft.node_leases.changed.keys():
            self._node_views.pop(uuid, None)
        for key, attempt in draft.attempts.changed.items():
            self.note_saving(key, attempt)
            if attempt is not None and attempt.state.final:
                del self.attempts[key]
                self.recent.ended(self.jobs[key[0]], attempt)
        for lease_id, lease in draft.leases.changed.items():
            if lease is not None and lease.removed_us is not None:
                del self.leases[lease_id]
        for task in draft.tasks.changed:
            self.index_task(task)
        for job_id in draft.jobs.changed:
            self.index(job_id)
        if draft.priority_classes.changed:
            for job_id in {job_id for job_id, _ in self.waiting}:
                self._fresh.jobs.add(job_id)
                self.index(job_id)
        if draft.removed.jobs:
            gone = set(draft.removed.jobs)
            self.progress = {k: p for k, p in self.progress.items() if k[0] not in gone}
        self._forget_progress(draft)
        self._note(draft)

    def note_saving(self, key: tuple[int, int, int], attempt: Attempt | None) -> None:
        """Remember an attempt that was asked to save its state, until it is told to end."""
        if (
            attempt is not None
            and attempt.state is AttemptState.RUNNING
            and asked_to_save(attempt) is not None
        ):
            self.saving.add(key)
        else:
            self.saving.discard(key)

    def _note(self, draft: Draft) -> None:
        """Note for the scheduler what has changed since it looked last."""
        fresh = self._fresh
        fresh.nodes |= draft.nodes.changed.keys() | draft.node_leases.changed.keys()
        fresh.jobs |= draft.jobs.changed.keys() | {job_id for job_id, _ in draft.tasks.changed}
        changed = (draft.attempts.changed, draft.progress.changed)
        fresh.tasks |= {key[:2] for keys in changed for key in keys}
        fresh.tasks |= {
            (job_id, index) for job_id in draft.jobs.changed for index in self.live_tasks(job_id)
        }

    def _forget_progress(self, draft: Draft) -> None:
        """Of attempts that have ended, remember that of the last ones only."""
        for key in draft.attempts.changed.keys() | draft.progress.changed.keys():
            if key in self.progress and key not in self.attempts:
                if key in self._progress_ended:
                    continue
                self._progress_ended.append(key)
        while len(self._progress_ended) > PROGRESS_KEPT:
            self.progress.pop(self._progress_ended.popleft(), None)

    def index_task(self, key: tuple[int, int]) -> None:
        """Bring what is derived from a task up to date; forget one that has ended."""
        job_id, index = key
        state = self.tasks[key].state
        _member(self._live_tasks, job_id, index, not state.final)
        _member(self._requeued, job_id, index, state is JobState.PENDING)
        self.waiting.pop(key, None)  # who waits is put back with its job
        if self.tasks[key].never and state is JobState.PENDING:
            self._unmet[Which(job_id, index)] = None
        if state.final:
            self.note_end(job_id, index, state)
            del self.tasks[key]

    def cap_waits(self, now_us: int) -> None:
        """Let no task wait longer than was meant, whatever became of the clock."""
        for key, task in self.tasks.items():
            if task.not_before_us > now_us:
                self.tasks[key] = capped(task, now_us)
                self.index_task(key)
                self.index(key[0])

    def note_end(self, job_id: int, index: int, state: JobState) -> None:
        """Remember how a task of a job that lives ended: that it succeeded goes without saying."""
        self._unmet.pop(Which(job_id, index), None)
        if state is not JobState.SUCCEEDED and job_id in self.jobs:
            self._ill.setdefault(job_id, {})[index] = state

    def index(self, job_id: int) -> None:
        """Bring what is derived from a job up to date; forget a job that has ended."""
        job = self.jobs[job_id]
        if job.promised_us is not None and not job.state.final:
            self._promised[job_id] = job.promised_us
        else:
            self._promised.pop(job_id, None)
        if job.state.final:
            del self.jobs[job_id]
            self._ill.pop(job_id, None)
            self._dependents.pop(job_id, None)
        if job.spec.depends_on:
            self._index_dependencies(job)
        first = (job_id, FIRST)
        if job.unmade and not job.cancelled_by:
            self.waiting[first] = waiting_tasks(job, preempts=self.preempts(job))
        else:
            self.waiting.pop(first, None)
        for index in self._requeued.get(job_id, ()):
            task = self.tasks[job_id, index]
            self.waiting[job_id, index] = waiting_task(job, task, preempts=self.preempts(job))

    def priority_class(self, name: str | None) -> PriorityClass | None:
        """A priority class; without a name the default one."""
        if name:
            return self.priority_classes.get(name)
        for each in list(self.priority_classes.values()):  # a copy: submits ask from other threads
            if each.global_default:
                return each
        return None

    def preempts(self, job: Job) -> bool:
        """Whether a job's class lets it end others; not where the class was deleted."""
        found = self.priority_class(job.priority_class or job.spec.priority_class)
        return found is not None and found.preemption is PreemptionPolicy.LOWER

    def _index_dependencies(self, job: Job) -> None:
        for each in job.spec.depends_on:
            of = self._dependents.get(each.job_id, {})
            if each in job.waits_for and not job.state.final:
                of = self._dependents.setdefault(each.job_id, {})
                of.setdefault(key_of(each), {})[job.job_id] = None
            elif job.job_id in of.get(key_of(each), ()):
                del of[key_of(each)][job.job_id]
                if not of[key_of(each)]:
                    del of[key_of(each)]
                if not of:
                    del self._dependents[each.job_id]
        if job.doomed and not job.state.final and not job.cancelled_by:
            self._unmet[Which(job.job_id)] = None
        else:
            self._unmet.pop(Which(job.job_id), None)

    def ill(self, job_id: int) -> Mapping[int, JobState]:
        """How those tasks of a job that lives ended that did not succeed, by index."""
        return self._ill.get(job_id, {})

    def waiters(self, job_id: int, key: int | None) -> Iterable[int]:
        """Jobs that wait for this of a job: what `key_of` tells."""
        return self._dependents.get(job_id, {}).get(key, ())

    def waited_for(self, job_id: int) -> set[int | None]:
        """What of a job is waited for."""
        return set(self._dependents.get(job_id, ()))

    def unmet(self) -> list[Which]:
        """Jobs and tasks that can never run, since what they wait for can never come."""
        return list(self._unmet)

    def live_tasks(self, job_id: int) -> set[int]:
        """Indexes of a job's tasks that were placed and have not ended."""
        return set(self._live_tasks.get(job_id, ()))

    def count_jobs(self) -> None:
        """Count what jobs have, once all of them are loaded."""
        self.tally = {}
        for job in self.jobs.values():
            count_job(self.tally, None, job)

    def held(self, account: str, user: str = "") -> Held:
        """What jobs of an account have at the moment, without those below it; of one user's."""
        return self.tally.get((account, user), NOTHING)

    def all_accounts(self) -> dict[str, Account]:
        """All accounts, by name."""
        return dict(self.accounts)

    def memberships(self, user: str) -> dict[str, Member]:
        """A user's memberships, by account."""
        if self._memberships is None:
            self._memberships = {}
            for key, member in self.members.items():
                self._memberships.setdefault(key[1], {})[key[0]] = member
        return dict(self._memberships.get(user, {}))

    def members_of(self, account: str) -> dict[str, Member]:
        """An account's members, by user."""
        return {user: member for (name, user), member in self.members.items() if name == account}

    def shared(self, user: str, doing: Doing) -> frozenset[str]:
        """Accounts of which a user may do that to the jobs of others."""
        known = self._shared.get((user, doing))
        if known is None:
            if len(self._shared) >= USERS_REMEMBERED:
                self._shared.clear()
            known = shared(self.accounts, self.memberships(user), doing)
            self._shared[user, doing] = known
        return known

    def spenders(self, account: str) -> list[tuple[str, str]]:
        """Keys of what was used in an account's name."""
        return [key for key in self.spendings if key[0] == account]

    def view(self, now_us: int) -> View:
        """Everything that a scheduling decision may see."""
        return replace(
            self.head(now_us),
            nodes=tuple(self.node_view(uuid) for uuid in self.nodes),
            waiting=tuple(self.waiting.values()),
            running=tuple(self.running((job_id, index)) for job_id, index, _ in self.attempts),
        )

    def head(self, now_us: int) -> View:
        """All of it but nodes, and what waits and runs."""
        accounts, members = self._books.view(self, now_us)
        return View(
            now_us=now_us,
            seq=self.cluster.seq,
            nodes=(),
            waiting=(),
            reserved=self.reserved,
            pace=self.recent.pace(),
            promises=tuple(
                Promise(job_id=job_id, task_index=first.task_index, start_us=start_us)
                for job_id, start_us in self._promised.items()
                if (first := next(iter(self.waiting_of(job_id)), None)) is not None
            ),
            accounts=accounts,
            members=members,
            queues=tuple(map(queue_view, self.queues.values())),
            windows=tuple(window for window in self.windows() if window.end_us > now_us),
        )

    def changes(self, *, whole: bool = False) -> Changes:
        """What has changed of nodes, and of what waits and runs, since this was asked last; all of
        it the first time, and where the `whole` is asked for."""
        fresh, self._fresh = self._fresh, _Fresh(whole=False)
        if whole or fresh.whole:
            fresh.whole = True
            fresh.nodes = set(self.nodes)
            fresh.jobs = {job_id for job_id, _ in self.waiting}
            fresh.tasks = {(job_id, index) for job_id, index, _ in self.attempts}
        return Changes(
            whole=fresh.whole,
            nodes={u: self.node_view(u) if u in self.nodes else None for u in fresh.nodes},
            waiting={job_id: self.waiting_of(job_id) for job_id in fresh.jobs},
            running={key: self.running(key) if self._lives(key) else None for key in fresh.tasks},
        )

    def _lives(self, key: tuple[int, int]) -> bool:
        task = self.tasks.get(key)
        return task is not None and (*key, task.attempts) in self.attempts

    def waiting_of(self, job_id: int) -> tuple[Waiting, ...]:
        """Of one job all tasks that wait, as a decision sees them."""
        keys = [(job_id, index) for index in (FIRST, *self._requeued.get(job_id, ()))]
        return tuple(self.waiting[key] for key in keys if key in self.waiting)

    def running(self, key: tuple[int, int]) -> Running:
        """The attempt of a task that lives, as a decision sees it."""
        job, task = self.jobs[key[0]], self.tasks[key]
        attempt = self.attempts[(*key, task.attempts)]
        leases = [self.leases[i] for i in attempt.lease_ids if i in self.leases]
        told = self.progress.get(attempt.key)
        return running_of(job, attempt, leases, shape_of(job.spec), told)

    def windows(self) -> tuple[Window, ...]:
        """Reservations, with the nodes that they are of by now."""
        if self._windows is None:
            labels = {uuid: dict(node.labels) for uuid, node in self.nodes.items()}
            self._windows = tuple(
                Window(
                    name=each.name,
                    begin_us=each.begin_us,
                    end_us=each.end_us,
                    nodes=frozenset(uuid for uuid in labels if each.holds(uuid, labels[uuid])),
                    accounts=frozenset(each.accounts),
                    users=frozenset(each.users),
                )
                for each in self.reservations.values()
            )
        return self._windows

    def node_view(self, uuid: str) -> NodeView:
        """One node as a decision sees it."""
        known = self._node_views.get(uuid)
        if known is None:
            held = [self.leases[lease_id] for lease_id in self.node_leases.get(uuid, ())]
            known = view_of(self.nodes[uuid], held, self.cluster.last_lease_id)
            self._node_views[uuid] = known
        return known


def queue_view(queue: JobQueue) -> Queue:
    """A queue as a decision sees it."""
    return Queue(
        name=queue.name,
        selector=queue.selector,
        priority=queue.priority,
        closed=f"the queue {queue.name} is closed: {queue.closed}" if queue.closed else "",
    )


def _put(table: dict[K, V], changed: Mapping[K, V | None]) -> None:
    for key, value in changed.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value


def _member(of: dict[int, set[int]], job_id: int, index: int, there: bool) -> None:
    if there:
        of.setdefault(job_id, set()).add(index)
    elif job_id in of:
        of[job_id].discard(index)
        if not of[job_id]:
            del of[job_id]


def waiting_task(job: Job, task: Task, *, preempts: bool = True) -> Waiting:
    """A task that was placed before, as the scheduler sees it while it waits again."""
    held = f"can never run because {_pair(job, task)}" if task.never else _held(job, paired=True)
    not_before_us = 0 if task.never else task.not_before_us
    return _waiting(job, task.index, preempts=preempts, not_before_us=not_before_us, held=held)


def waiting_tasks(job: Job, *, preempts: bool = True) -> Waiting:
    """A job's tasks that were never placed, as the scheduler sees them."""
    tasks = job.tasks
    if len(tasks) == 1:
        return _waiting(job, tasks.at(0), preempts=preempts, held=_held(job))
    room = tasks.at_once - job.running if tasks.at_once is not None else job.unmade
    first, *others = islice(job.coming(), max(1, min(room, TASKS_SHOWN)))
    limited = _limited(tasks.at_once) if room < job.unmade and tasks.at_once is not None else ""
    coming = tuple(others)
    return _waiting(job, first, preempts=preempts, coming=coming, limited=limited, held=_held(job))


def _waiting(
    job: Job,
    index: int,
    *,
    preempts: bool,
    not_before_us: int = 0,
    coming: tuple[int, ...] = (),
    limited: str = "",
    held: str = "",
) -> Waiting:
    spec = job.spec
    begin_us = spec.begin_us if spec.begin_us is not None and spec.begin_us > not_before_us else 0
    return Waiting(
        job_id=job.job_id,
        task_index=index,
        owner=job.owner,
        account=job.account,
        priority=job.priority,
        created_us=job.created_us,
        not_before_us=max(not_before_us, begin_us),
        not_yet=f"waits until {format_moment(begin_us)} (begin)" if begin_us else "",
        preempts=preempts,
        preemptible=spec.preemptible,
        limit_us=job.time_limit_us,
        shape=shape_of(spec),
        coming=coming,
        limited=limited,
        held=held,
    )


def shape_of(spec: JobSpec) -> Shape:
    """What a job's gangs need of nodes; jobs alike share one value."""
    where = ANYWHERE
    if spec.node_selector or spec.exclusive or spec.within or spec.packing is not Packing.PACK:
        where = Where(spec.node_selector, spec.exclusive, spec.packing, spec.within)
    return _shape(
        spec.workers, spec.workers_per_node, spec.resources, spec.launcher, spec.queue, where
    )


class Where(NamedTuple):
    """What a job asks for of the nodes themselves."""

    selector: Selector | None
    exclusive: bool
    packing: Packing
    within: FabricLevel | None


ANYWHERE = Where(None, False, Packing.PACK, None)


@lru_cache(SHAPES_REMEMBERED)
def _shape(
    workers: int,
    each: int | None,
    resources: Resources,
    launcher: Launcher,
    queue: str,
    where: Where,
) -> Shape:
    return Shape(
        workers=workers,
        workers_per_node=each,
        resources=resources,
        ports=PORTS_OF_LAUNCHER[launcher],
        queue=queue,
        selector=where.selector or EVERYWHERE,
        gpu_memory_bytes=resources.gpu_memory_bytes or 0,
        exclusive=where.exclusive,
        packing=where.packing,
        within=where.within.label if where.within is not None else "",
    )


def _held(job: Job, *, paired: bool = False) -> str:
    """Why nothing of a job may start. `paired`: of a task whose pair has succeeded."""
    if job.held_by:
        return f"held by {job.held_by}; `ccctl release {job.job_id}` lets it go on"
    if job.doomed:
        return f"can never run because {job.doomed}"
    if words := still_waits_for(job, paired=paired):
        return words
    at_once = job.tasks.at_once
    return _limited(at_once) if at_once is not None and job.running >= at_once else ""


def still_waits_for(job: Job, *, paired: bool = False) -> str:
    """What a job, or of one with pairs a task whose pair has succeeded, waits for of others, in
    words; empty where that has all come."""
    if not job.waits_for:
        return ""
    left = [each for each in job.waits_for if not (paired and key_of(each) == PAIRS)]
    told = " and ".join(each.words() for each in left[:DEPENDENCIES_TOLD])
    more = len(left) - DEPENDENCIES_TOLD
    return f"waits for {told}{f' and {more} more' if more > 0 else ''}" if left else ""


def _pair(job: Job, task: Task) -> str:
    (pairs,) = (each for each in job.spec.depends_on if key_of(each) == PAIRS)
    return f"{pairs.whom}/tasks/{task.index} did not succeed, and {pairs} wants it to"


def _limited(at_once: int) -> str:
    return f"waits for others of its array: {count(at_once, 'task')} may run at once"


def view_of(node: Node, held: list[Lease], hint: int) -> NodeView:
    """A node with what is free of it. `hint` turns the order of ports, so that none is used again
    at once."""
    facts = node.facts
    devices = {device for lease in held for device in lease.device_ids}
    cores = {core for lease in held for core in lease.cpu_ids}
    ports = {port for lease in held for port in lease.ports}
    span = max(facts.port_last - facts.port_first + 1, 0)
    turned = (facts.port_first + (hint + i) % span for i in range(span))
    return NodeView(
        uuid=node.uuid,
        display_name=facts.display_name,
        takes_work=node.takes_work,
        cpus=facts.cpus,
        memory_bytes=facts.memory_bytes,
        devices=facts.devices,
        free_millicores=facts.cpus * 1000 - sum(lease.cpu_millicores for lease in held),
        free_memory_bytes=facts.memory_bytes - sum(lease.memory_bytes for lease in held),
        free_devices=tuple(d for d in facts.devices if not d.fault and d.device_id not in devices),
        free_cpu_ids=tuple(core for core in range(facts.cpus) if core not in cores),
        free_ports=tuple(islice((p for p in turned if p not in ports), FREE_PORTS_SHOWN)),
        only_owner=facts.only_owner,
        labels=node.labels,
    )
