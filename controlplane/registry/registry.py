"""The registry: one writer over a store, and reads from what it has committed."""

from __future__ import annotations

import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from controlplane.kit import failpoints
from controlplane.model.account import coordinated, in_order
from controlplane.model.errors import (
    ControlPlaneError,
    NotFound,
    Overloaded,
    RequestIdReused,
    StaleControlPlane,
    StoreRefused,
    StoreUnavailable,
)
from controlplane.model.keep import Keep, days, moment
from controlplane.model.policy import DEFAULT, Policy
from controlplane.registry import steptoken
from controlplane.registry.accounts import held_below
from controlplane.registry.desired import orders_for
from controlplane.registry.draft import Draft
from controlplane.registry.store import Answer, JobRecord, RequestKey, Store, Whose, whose
from controlplane.registry.usage import Living, living
from controlplane.registry.which import Which

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from controlplane.model.account import Account, Doing, Held, Member
    from controlplane.model.event import Actor
    from controlplane.model.identity import Admission, JoinToken, Token, User
    from controlplane.model.job import Job
    from controlplane.model.launch import LeaseOrder
    from controlplane.model.lease import Lease
    from controlplane.model.node import Node
    from controlplane.model.plan import Plan
    from controlplane.model.priority import PriorityClass
    from controlplane.model.queues import JobQueue
    from controlplane.model.reservation import Reservation
    from controlplane.model.view import Changes, View, Window
    from controlplane.registry.facts import Facts

log = logging.getLogger(__name__)
T = TypeVar("T")

GROUP_LIMIT = 2_000
"""At most so many commands share a transaction."""
LINGER_S = 0.01
"""So long a group waits for those that were in the last one."""
QUEUE_LIMIT = 20_000
"""At most so many commands wait for the writer; more are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """Makes a command exactly-once under a request id that its caller chose."""

    key: RequestKey
    """Who asked, under which id."""
    content_hash: str
    """SHA-256 of what was asked: the same id with another content is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDesire:
    """What a node should do."""

    generation: int
    """Changes with every change of it."""
    orders: tuple[LeaseOrder, ...]
    """One for each lease that it should know of."""


@dataclass(slots=True)
class _Item(Generic[T]):
    command: Callable[[Draft], T]
    actor: Actor
    once: Once | None
    future: Future[T]


class Registry:
    """The truth, behind one writer.

    `submit` commands from any thread; they are answered after the commit. Reads tell what was
    committed.
    """

    def __init__(
        self,
        store: Store,
        now_us: Callable[[], int],
        keep: Keep | None = None,
        policy: Policy = DEFAULT,
    ) -> None:
        """`now_us`: the present, UTC in microseconds. `keep`: for how long what is over is kept;
        by default for ever. `policy`: how usage decays and what it weighs."""
        self.keep = keep or Keep()
        self._store = store
        self._now_us = now_us
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Item[Any] | None] = queue.SimpleQueue()
        self._listeners: list[Callable[[Draft], None]] = []
        self._facts: Facts = store.open()
        self._facts.policy = policy
        self._facts.cap_waits(now_us())
        self._unclear: Draft | None = None
        self._away = False
        self._writer: threading.Thread | None = None
        self._closed = False

    # --- writing -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the writer."""
        self._writer = threading.Thread(target=self._write, name="registry-writer")
        self._writer.start()

    def close(self) -> None:
        """Answer what waits, then stop the writer and close the store."""
        self._closed = True
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join()
        self._store.close()

    def listen(self, listener: Callable[[Draft], None]) -> None:
        """Have `listener` called with each committed group, by the writer's thread; it must be
        quick."""
        self._listeners.append(listener)

    def submit(
        self, command: Callable[[Draft], T], actor: Actor, once: Once | None = None
    ) -> Future[T]:
        """Queue a command. With `once` its result must be JSON values, and a repeat gets the first
        result."""
        future: Future[T] = Future()
        if self._closed:
            future.set_exception(StoreUnavailable("the control plane is shutting down"))
        elif self._queue.qsize() > QUEUE_LIMIT:
            future.set_exception(
                Overloaded(f"{QUEUE_LIMIT} changes wait to be written; try again in a second")
            )
        else:
            self._queue.put(_Item(command, actor, once, future))
        return future

    def _write(self) -> None:
        running, before = True, 0
        while running:
            group, running = self._gather(before)
            before = max(len(group), before // 2)
            group = _wanted(group)
            if group:
                try:
                    self._run(group)
                    self._say("")
                except StoreUnavailable as error:
                    self._say(str(error))
                    _fail(group, error)
                except StaleControlPlane as error:
                    log.critical("%s", error)
                    self._closed = True
                    _fail(group, error)
                except ControlPlaneError as error:
                    _fail(group, error)
                except Exception as error:
                    log.exception("the writer failed")
                    _fail(group, ControlPlaneError(f"internal error: {type(error).__name__}"))

    def _gather(self, before: int) -> tuple[list[_Item[Any]], bool]:
        """What waits, once there is something, and whether more will come.

        Callers that were answered together come back together: one commit for all of them is worth
        a moment's wait. `before`: so many commands the last groups had; of one there is no wait.
        """
        item = self._queue.get()
        deadline = time.monotonic() + LINGER_S
        while 1 + self._queue.qsize() < before and time.monotonic() < deadline:
            time.sleep(LINGER_S / 5)
        group: list[_Item[Any]] = []
        while item is not None:
            group.append(item)
            if len(group) >= GROUP_LIMIT or self._queue.empty():
                break
            item = self._queue.get()
        return group, item is not None

    def _say(self, away: str) -> None:
        """Log once that the database does not answer, and once that it does again."""
        if away and not self._away:
            log.error("%s", away)
        if self._away and not away:
            log.warning("the database answers again")
        self._away = bool(away)

    def run_once(self) -> None:
        """Write what waits, in the caller's thread: for simulation, where there is no writer
        thread."""
        group: list[_Item[Any]] = []
        while not self._queue.empty():
            item = self._queue.get()
            if item is not None:
                group.append(item)
        group = _wanted(group)
        if group:
            self._run(group)

    def _run(self, group: list[_Item[Any]], *, look: bool = False) -> None:
        """Decide and commit a group. Hardly any request is a repeat: the store is searched for the
        answers that they got first (`look`) only once it refuses a group, or a command fails."""
        self._settle()
        known = self._known(group) if look else {}
        answers: dict[RequestKey, Answer] = {}
        draft = Draft(self._facts, self._now_us(), group[0].actor)
        results: list[tuple[_Item[Any], Any, Exception | None]] = []
        for item in group:
            try:
                results.append((item, self._decide(item, draft, known, answers), None))
            except ControlPlaneError as error:
                results.append((item, None, error))
            except Exception as error:
                log.exception("a command failed")
                results.append(
                    (item, None, ControlPlaneError(f"internal error: {type(error).__name__}"))
                )
        if not look and any(fault and item.once for item, _, fault in results):
            self._run(group, look=True)
            return
        if draft.dirty and not draft.events:
            raise AssertionError("a change without an event")
        if draft.events or answers or draft.progress.changed:
            try:
                self._commit(draft, answers)
            except StoreRefused:
                if answers and not look:
                    self._run(group, look=True)
                elif len(group) == 1:
                    raise
                else:
                    self._run_alone(group)
                return
        for item, value, fault in results:
            if fault is not None:
                item.future.set_exception(fault)
            else:
                item.future.set_result(value)

    def _run_alone(self, group: list[_Item[Any]]) -> None:
        """One after another, where the database refuses the group for one of them."""
        for item in group:
            try:
                self._run([item], look=True)
            except ControlPlaneError as error:
                log.error("%s", error)
                _fail([item], error)

    def _known(self, group: list[_Item[Any]]) -> Mapping[RequestKey, Answer]:
        keys = [item.once.key for item in group if item.once is not None]
        return self._store.answers(keys) if keys else {}

    def _decide(
        self,
        item: _Item[Any],
        draft: Draft,
        known: Mapping[RequestKey, Answer],
        answers: dict[RequestKey, Answer],
    ) -> Any:
        once = item.once
        if once is not None:
            first = known.get(once.key) or answers.get(once.key)
            if first is not None and first.content_hash != once.content_hash:
                raise RequestIdReused(
                    f"request_id {once.key.request_id!r} was used for another request;"
                    " use a new id for each new request"
                )
            if first is not None:
                return first.body
        inner = Draft(draft, draft.now_us, item.actor)
        value = item.command(inner)
        draft.absorb(inner)
        if once is not None:
            answers[once.key] = Answer(
                content_hash=once.content_hash, body=value, created_us=draft.now_us
            )
        return value

    def _commit(self, draft: Draft, answers: Mapping[RequestKey, Answer]) -> None:
        _reach(draft, "before_commit")
        try:
            self._store.commit(draft, answers)
        except StoreUnavailable:
            self._unclear = draft
            if not self._settle():
                raise
            return
        _reach(draft, "after_commit")
        with self._lock:
            self._facts.apply(draft)
        self._tell(draft)

    def _settle(self) -> bool:
        """After a commit whose fate is unclear, read what is true before anything is built on it.

        Whether that commit has come through after all. StoreUnavailable while nobody can know.
        """
        draft = self._unclear
        if draft is None:
            return False
        fresh = self._store.reload()
        self._unclear = None
        # Nobody else writes under our epoch.
        through = bool(draft.events) and fresh.cluster.seq == draft.cluster.seq
        words = "had been written" if through else "had not been written, and was refused"
        log.warning("a commit was cut off: it %s", words)
        with self._lock:
            fresh.reasons, fresh.reserved = self._facts.reasons, self._facts.reserved
            fresh.recent = self._facts.recent
            fresh.policy = self._facts.policy
            self._facts = fresh
        if through:
            self._tell(draft)
        return through

    def _tell(self, draft: Draft) -> None:
        for listener in self._listeners:
            listener(draft)

    # --- reading -------------------------------------------------------------------------------

    @property
    def cluster_uuid(self) -> str:
        """Identity of the cluster."""
        return self._facts.cluster.uuid

    @property
    def epoch(self) -> int:
        """The epoch of this control plane."""
        return self._facts.cluster.epoch

    @property
    def seq(self) -> int:
        """Number of the last event that was committed."""
        return self._facts.cluster.seq

    @property
    def events_removed_seq(self) -> int:
        """Events up to this number may have been removed; 0: none was."""
        return self._facts.cluster.events_removed_seq

    def view(self, now_us: int) -> View:
        """Everything that a scheduling decision may see."""
        with self._lock:
            return self._facts.view(now_us)

    def trial(self, command: Callable[[Draft], T], actor: Actor) -> T:
        """What a command would answer now. Nothing of it becomes true."""
        with self._lock:
            return command(Draft(self._facts, self._now_us(), actor))

    def accounts(self) -> list[Account]:
        """All accounts, parents before those below them."""
        with self._lock:
            return in_order(self._facts.accounts)

    def account(self, name: str) -> Account | None:
        """One account."""
        return self._facts.accounts.get(name)

    def members(self, account: str) -> list[Member]:
        """An account's members, by name."""
        with self._lock:
            found = self._facts.members_of(account)
        return [found[user] for user in sorted(found)]

    def memberships(self, user: str) -> dict[str, Member]:
        """A user's memberships, by account."""
        with self._lock:
            return self._facts.memberships(user)

    def held(self, account: str, user: str = "") -> Held:
        """What jobs of an account and of those below it have now; of one user's of it alone."""
        with self._lock:
            if user:
                return self._facts.held(account, user)
            return held_below(self._facts, account)

    def shared(self, user: str, doing: Doing) -> frozenset[str]:
        """Accounts of which a user may do that to the jobs of others."""
        with self._lock:
            return self._facts.shared(user, doing)

    def coordinated(self, user: str) -> frozenset[str]:
        """Accounts that a user coordinates."""
        with self._lock:
            return coordinated(self._facts.accounts, self._facts.memberships(user))

    def look(self, now_us: int, *, whole: bool) -> tuple[View, Changes]:
        """For the one scheduler, which keeps what it saw: a view without nodes, and without what
        waits and runs; and what has changed of those since it looked last, or the `whole` of
        them."""
        with self._lock:
            return self._facts.head(now_us), self._facts.changes(whole=whole)

    def saving(self) -> list[tuple[int, int, int]]:
        """Attempts that were asked to save their state, since they are to make room, and have not
        been told to end."""
        with self._lock:
            return list(self._facts.saving)

    def hold(self, decided: Plan) -> None:
        """Keep why tasks wait, and where some are meant to start. Not written down: the next cycle
        says it again."""
        with self._lock:
            self._facts.reasons, self._facts.reserved = decided.holds, decided.reserved

    def reason(self, job: Job) -> str:
        """Why a job waits or ended, or what it does, in words."""
        if job.state.final:
            return job.reason
        with self._lock:
            waits = self._facts.reasons.reason(job.job_id)
        if job.state == "pending":
            return waits or job.reason or "waits for the scheduler's next cycle"
        return waits or job.reason if job.unmade else job.reason

    def nodes(self) -> list[tuple[Node, tuple[LeaseSummary, ...]]]:
        """All nodes, each with what holds it."""
        with self._lock:
            return [(node, self._held(node.uuid)) for node in self._facts.nodes.values()]

    def node_names(self) -> dict[str, str]:
        """Display names of nodes, by UUID."""
        with self._lock:
            return {uuid: node.facts.display_name for uuid, node in self._facts.nodes.items()}

    def node(self, uuid: str) -> Node | None:
        """One node."""
        return self._facts.nodes.get(uuid)

    def _held(self, uuid: str) -> tuple[LeaseSummary, ...]:
        return tuple(
            LeaseSummary(
                attempt=f"jobs/{lease.job_id}/tasks/{lease.task_index}/attempts/{lease.attempt}",
                whose=whose(self._facts.jobs[lease.job_id]),
                cpu_millicores=lease.cpu_millicores,
                memory_bytes=lease.memory_bytes,
                device_ids=lease.device_ids,
            )
            for lease in (self._facts.leases[i] for i in self._facts.node_leases.get(uuid, ()))
        )

    def users(self) -> list[User]:
        """All users, by name."""
        with self._lock:
            return sorted(self._facts.users.values(), key=lambda user: user.name)

    def user(self, name: str) -> User | None:
        """One user."""
        return self._facts.users.get(name)

    def tokens(self) -> list[Token]:
        """All users' tokens, newest first."""
        with self._lock:
            return sorted(self._facts.tokens.values(), key=_newest)

    def token(self, sha256: str) -> Token | None:
        """The token with a secret of this hash."""
        return self._facts.tokens.get(sha256)

    def join_tokens(self) -> list[JoinToken]:
        """All join tokens, newest first."""
        with self._lock:
            return sorted(self._facts.join_tokens.values(), key=_newest)

    def join_token(self, sha256: str) -> JoinToken | None:
        """The join token with a secret of this hash."""
        return self._facts.join_tokens.get(sha256)

    def admission(self, node_uuid: str) -> Admission | None:
        """That a host has joined as this node; None when none has."""
        return self._facts.admissions.get(node_uuid)

    def desire(self, node_uuid: str) -> NodeDesire:
        """What a node should do now."""
        with self._lock:
            return NodeDesire(
                generation=self.generation(node_uuid), orders=orders_for(self._facts, node_uuid)
            )

    def generation(self, node_uuid: str) -> int:
        """The generation of a node's desired state; at least 1."""
        return self._facts.generations.get(node_uuid, 1)

    def lease(self, lease_id: int) -> Lease | None:
        """One lease, held or given back. May read the store."""
        return self._facts.leases.get(lease_id) or self._store.lease(lease_id)

    def knows_progress(self, key: tuple[int, int, int]) -> bool:
        """Whether memory has all that an attempt reported; else the store has it."""
        return key in self._facts.progress or key in self._facts.attempts

    def live_job(self, job_id: int, index: int | None = None) -> JobRecord | None:
        """A job that has not ended, or one task of it, from memory; None when it has, or when its
        past is in the store. Of a whole array it tells no task."""
        with self._lock:
            job = self._facts.jobs.get(job_id)
            if job is None:
                return None
            if len(job.tasks) > 1 and index is None:
                return JobRecord(job=job, tasks=(), attempts=(), leases={})
            wanted = job.tasks.at(0) if index is None else index
            task = self._facts.tasks.get((job_id, wanted))
            if task is None and (position := job.tasks.position(wanted)) is not None:
                waits = position >= job.begun and wanted not in job.skipped
                return JobRecord(job=job, tasks=(), attempts=(), leases={}) if waits else None
            if task is None:
                return None
            attempt = self._facts.attempts.get((job_id, wanted, task.attempts))
            if attempt is None or task.attempts > 1:
                return None
            leases = {i: self._facts.leases[i] for i in attempt.lease_ids}
            told = self._facts.progress.get(attempt.key)
            progress = {attempt.key: told} if told is not None else {}
            return JobRecord(
                job=job, tasks=(task,), attempts=(attempt,), leases=leases, progress=progress
            )

    def job(self, job_id: int, index: int | None = None) -> JobRecord:
        """One job with all that became of it, live or ended; of an array, one task. NotFound when
        there is none. May read the store."""
        record = self.live_job(job_id, index) or self._store.job(job_id, index)
        if record is None:
            raise self.missing(job_id)
        if index is not None and record.job.tasks.position(index) is None:
            words = f"the job has no such task; its tasks are {record.job.tasks}"
            raise NotFound(f"{Which(job_id, index)}: {words}")
        return record

    def missing(self, job_id: int) -> NotFound:
        """The error for a job that the store does not have: it was removed, or never was."""
        cluster = self._facts.cluster
        if not (1 <= job_id <= cluster.last_job_id and cluster.jobs_removed_us):
            return NotFound(f"jobs/{job_id}: there is no such job")
        if self.keep.jobs_us:
            words = f"ended jobs are kept for {days(self.keep.jobs_us)}"
        else:
            words = f"not all that ended before {moment(cluster.jobs_removed_us)} was kept"
        return NotFound(f"jobs/{job_id} was removed: {words} (keep_jobs_days of the control plane)")

    def output_gone(self, job: Job) -> NotFound | None:
        """The error for a job whose output was removed before itself; None for one that has its
        output."""
        if job.ended_us is None or job.ended_us >= self._facts.cluster.logs_removed_us:
            return None
        kept = f" {days(self.keep.logs_us)}" if self.keep.logs_us else " some time"
        return NotFound(
            f"the output of {job.name} was removed: it is kept for{kept} after a job's end"
            " (keep_logs_days of the control plane)"
        )

    @property
    def usage_removed_us(self) -> int:
        """What attempts used that ended before this may have been removed; 0: none was."""
        return self._facts.cluster.usage_removed_us

    @property
    def last_job_id(self) -> int:
        """Number of the last job."""
        return self._facts.cluster.last_job_id

    def living(self) -> Living:
        """The attempts that live, as of the last commit."""
        with self._lock:
            return living(self._facts)

    def live_owners(self, job_ids: Iterable[int]) -> dict[int, Whose]:
        """Whose those of these jobs are that have not ended, by number. `Store.owners` knows the
        others'."""
        with self._lock:
            jobs = self._facts.jobs
            return {number: whose(jobs[number]) for number in job_ids if number in jobs}

    def live_jobs(self, job_ids: Iterable[int]) -> dict[int, Job]:
        """Those of these jobs that have not ended, by number."""
        with self._lock:
            jobs = self._facts.jobs
            return {number: jobs[number] for number in job_ids if number in jobs}

    def priority_class(self, name: str | None) -> PriorityClass | None:
        """A priority class; without a name the default one."""
        return self._facts.priority_class(name)

    def priority_classes(self) -> list[PriorityClass]:
        """All priority classes, the highest first."""
        with self._lock:
            every = self._facts.priority_classes.values()
            return sorted(every, key=lambda each: (-each.value, each.name))

    def queue(self, name: str) -> JobQueue | None:
        """A queue."""
        return self._facts.queues.get(name)

    def queues(self) -> list[JobQueue]:
        """All queues, by name."""
        with self._lock:
            return sorted(self._facts.queues.values(), key=lambda each: each.name)

    def reservations(self) -> list[tuple[Reservation, Window]]:
        """All reservations that are not over, by their beginning, with the nodes that they have."""
        with self._lock:
            windows = {window.name: window for window in self._facts.windows()}
            every = self._facts.reservations.values()
            ordered = sorted(every, key=lambda each: (each.begin_us, each.name))
            return [(each, windows[each.name]) for each in ordered]

    def unmet(self) -> list[Which]:
        """Jobs and tasks that can never run, since what they wait for can never come."""
        with self._lock:
            return self._facts.unmet()

    def step_bearer(self, token: str) -> tuple[int, str] | None:
        """The job whose script a token was made for, and its owner; None for any other text."""
        with self._lock:
            job_id = steptoken.job_of(self._facts, token)
            return None if job_id is None else (job_id, self._facts.jobs[job_id].owner)

    def leases_blob(self, principal: str, sha256: str) -> bool:
        """Whether a node that an agent's principal enrolled holds a lease of a job with a working
        directory of this content."""
        with self._lock:
            facts = self._facts
            return any(
                facts.jobs[facts.leases[lease_id].job_id].blob_sha256 == sha256
                for node in facts.nodes.values()
                if node.enrolled_by == principal
                for lease_id in facts.node_leases.get(node.uuid, ())
            )

    @property
    def store(self) -> Store:
        """The store, for reads of what has ended."""
        return self._store


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSummary:
    """What holds a part of a node."""

    attempt: str
    """Resource name of the attempt."""
    whose: Whose
    """Whose its job is."""
    cpu_millicores: int
    """Processor time held."""
    memory_bytes: int
    """Memory held."""
    device_ids: tuple[str, ...]
    """Devices held."""


def _newest(token: Token | JoinToken) -> tuple[int, str]:
    return -token.created_us, token.sha256


def _reach(draft: Draft, when: str) -> None:
    """Be at the failpoints of what is committed."""
    if failpoints.armed() is not None:
        for event in draft.events:
            failpoints.reach(f"{event.kind}.{when}")


def _wanted(group: list[_Item[Any]]) -> list[_Item[Any]]:
    """Those whose callers still wait. From here on a caller can't withdraw."""
    return [item for item in group if item.future.set_running_or_notify_cancel()]


def _fail(group: list[_Item[Any]], error: Exception) -> None:
    for item in group:
        if not item.future.done():
            item.future.set_exception(error)
