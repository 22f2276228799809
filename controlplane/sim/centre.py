"""The real scheduler over a trace: its cycle, its policy and its commits, on the real registry in
memory. Only nodes and time are simulated.

At each moment agents report and jobs come; then a cycle decides, as in a daemon that is woken by
both. What it starts runs at once; what it stops holds its devices until the checkpoint is written.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from heapq import heappop, heappush
from math import gcd
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from controlplane.engine.schedule import Scheduler
from controlplane.kit.clock import ManualClock
from controlplane.model.account import ACCOUNT_NAME, DEFAULT, Account
from controlplane.model.event import Actor
from controlplane.model.job import Attempt, AttemptState, JobState
from controlplane.model.spec import parse_spec
from controlplane.model.specvalues import Resources
from controlplane.registry import accounts, jobs
from controlplane.registry.memory import MemoryStore
from controlplane.registry.registry import Once, Registry
from controlplane.registry.which import Which
from controlplane.sim.agents import AGENT, Agents
from controlplane.sim.checks import Broken, Checks
from controlplane.sim.meter import JobRun, Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from controlplane.model.lease import Lease
    from controlplane.model.spec import JobSpec
    from controlplane.registry.draft import Draft
    from controlplane.sim.cluster import SimNode
    from controlplane.sim.trace import TraceJob

T = TypeVar("T")
Key = tuple[int, int, int]

BEGIN_US: Final = 1_000_000_000_000_000
"""The trace's beginning, on the simulated clock: the moments of a trace begin at 0."""
PRIORITY: Final = 1000
"""Value of the priority class of a job that has none of its own, as in the real centre."""
NEVER_WORDS: Final = "can never run because "
"""So begins the scheduler's reason for a job that the cluster is too small for."""
OPERATOR: Final = Actor(principal="operator", peer="simulation")
BROKEN_PROMISE: Final = "job.promise_broken"
"""Kind of the event that tells of one."""
MOST_ROUNDS: Final = 1000
"""So many decisions at one moment at most."""
TEMPLATE: Final = parse_spec({"command": ["true"], "launcher": "command"})


class PreemptionCost(NamedTuple):
    """What a preemption costs the job that is ended."""

    checkpoint_us: int = 0
    """So long it writes its checkpoint, and holds its devices."""
    restart_us: int = 0
    """So long it reads it again when it goes on."""

    @property
    def total_us(self) -> int:
        """Both."""
        return self.checkpoint_us + self.restart_us


class _Inline(Registry):
    """A registry that writes in its caller's thread, at once."""

    def submit(
        self, command: Callable[[Draft], T], actor: Actor, once: Once | None = None
    ) -> Future[T]:
        future = super().submit(command, actor, once)
        self.run_once()
        return future


class _Live:
    """An attempt that lives, and what it will have done of its job."""

    __slots__ = ("begins_us", "leases", "stops_us")

    def __init__(self, leases: tuple[Lease, ...], begins_us: int) -> None:
        self.leases = leases
        self.begins_us = begins_us  # its work; before that it restores its checkpoint
        self.stops_us: int | None = None  # its work, once it is asked to end


class Centre:
    """A simulated centre."""

    def __init__(
        self,
        cluster: Sequence[SimNode],
        meter: Meter,
        *,
        cost: PreemptionCost | None = None,
        check: bool = False,
    ) -> None:
        """`cost`: of each preemption. `check`: look at the invariants after every moment."""
        self._meter, self._cost = meter, cost or PreemptionCost()
        self._widest = max((node.gpus for node in cluster), default=0)
        self._clock = ManualClock(now_us=BEGIN_US)
        self._registry = _Inline(MemoryStore(), self._clock.now_us)
        self._agents = Agents(cluster)
        self._scheduler = Scheduler(self._registry)
        self._checks = Checks(self._registry, self._scheduler) if check else None
        self._events: list[tuple[int, int, Key | None]] = []
        self._order = self._rounds = self._stands_us = 0
        self._runs: dict[int, JobRun] = {}
        self._accounts: dict[str, str | None] = {"": None}
        self._left_us: dict[int, int] = {}
        self._live: dict[Key, _Live] = {}
        self._changed: dict[Key, Attempt] = {}
        self._used = dict.fromkeys(self._agents.nodes, 0)
        self._stranded = 0
        self.broken_promises = 0
        """Jobs that started later than they were promised."""
        self._registry.listen(self._hear)
        self._registry.submit(self._agents.join, AGENT).result()

    def run(self, trace: Sequence[TraceJob]) -> list[JobRun]:
        """Run the jobs of a trace, in the order in which they came, until none is left."""
        runs = [JobRun(job=job) for job in trace]
        self._open_accounts(trace)
        coming = runs[::-1]
        while coming or self._events:
            moments = [coming[-1].job.submit_us] if coming else []
            moments += [self._events[0][0]] if self._events else []
            now_us = min(moments)
            self._clock.advance(now_us - self._now_us)
            self._meter.advance(now_us)
            self._happen()
            came = []
            while coming and coming[-1].job.submit_us <= now_us:
                came.append(self._come(coming.pop()))
            self._decide(came)
            self._look_round(now_us)
        for number, run in self._runs.items():
            if run.ended_us is None and not run.never:
                run.never = self._registry.reason(self._registry.job(number).job)
        return runs

    def _open_accounts(self, trace: Iterable[TraceJob]) -> None:
        """Make the trace's accounts, with equal shares and open to everybody. One whose name no
        account may have gets a number for it."""
        for number, name in enumerate(sorted({job.account for job in trace} - {"", DEFAULT})):
            known = name if ACCOUNT_NAME.fullmatch(name) else f"account-{number}"
            made = partial(accounts.create, wanted=Account(name=known, open=True))
            self._do(made, OPERATOR)
            self._accounts[name] = known
        self._accounts[DEFAULT] = DEFAULT

    def _look_round(self, now_us: int) -> None:
        """Notice a scheduler that goes round in circles: time would stand for ever."""
        self._rounds = self._rounds + 1 if now_us == self._stands_us else 0
        self._stands_us = now_us
        if self._rounds > MOST_ROUNDS and self._scheduler.decided is not None:
            raise Broken(
                f"the scheduler goes round in circles at {now_us / 1e6:g} s: after {MOST_ROUNDS}"
                f" decisions it still ends {self._scheduler.decided.preempts}"
            )

    @property
    def _now_us(self) -> int:
        return self._clock.now_us() - BEGIN_US

    def _push(self, at_us: int, key: Key | None) -> None:
        self._order += 1
        heappush(self._events, (at_us, self._order, key))

    def _hear(self, draft: Draft) -> None:
        for key, attempt in draft.attempts.changed.items():
            if attempt is not None:
                self._changed[key] = attempt
        for task in draft.tasks.changed.values():
            if task is not None and task.state is JobState.PENDING:
                # A task that backs off is looked at again when that is over.
                self._push(max(task.not_before_us - BEGIN_US, self._now_us), None)
        for lease in draft.leases.changed.values():
            if lease is not None and lease.removed_us is not None:
                self._use(lease.node_uuid, -len(lease.device_ids))
        self.broken_promises += sum(event.kind == BROKEN_PROMISE for event in draft.events)
        if self._checks is not None:
            self._checks.hear(draft)

    def _use(self, node_uuid: str, devices: int) -> None:
        size, used = self._agents.nodes[node_uuid].gpus, self._used[node_uuid]
        self._stranded -= size - used if used else 0
        used = self._used[node_uuid] = used + devices
        self._stranded += size - used if used else 0

    # --- what happens --------------------------------------------------------------------------

    def _happen(self) -> None:
        """Let end what ends now."""
        ended: list[tuple[Key, _Live]] = []
        while self._events and self._events[0][0] <= self._now_us:
            _, _, key = heappop(self._events)
            live = self._live.get(key) if key is not None else None
            if key is None or live is None or self._ends_us(key, live) > self._now_us:
                continue
            del self._live[key]
            self._agents.end(live.leases, self._clock.now_us(), ordered=live.stops_us is not None)
            ended.append((key, live))
        if not ended:
            return
        self._report(lease for _, live in ended for lease in live.leases)
        for key, live in ended:
            self._agents.forget(live.leases)
            self._note_end(key, live)

    def _ends_us(self, key: Key, live: _Live) -> int:
        if live.stops_us is not None:
            return live.stops_us + self._cost.checkpoint_us
        return live.begins_us + self._left_us[key[0]]

    def _note_end(self, key: Key, live: _Live) -> None:
        run = self._runs[key[0]]
        if live.stops_us is None:
            run.ended_us = self._now_us
            self._meter.finished(run.job.account, run.job.gpus)
            return
        run.preemptions += 1
        self._left_us[key[0]] -= max(0, live.stops_us - live.begins_us)
        self._meter.lost_us += self._cost.total_us * run.job.gpus
        self._meter.stopped(run.job.account, run.job.gpus)

    def _come(self, run: JobRun) -> int:
        priority = run.job.priority if run.job.priority is not None else PRIORITY
        wanted = jobs.Wanted(spec=self._spec(run.job), spec_sha256="0" * 64, priority=priority)
        actor = Actor(principal=run.job.account or "user", peer="simulation")
        future = self._registry.submit(lambda draft: jobs.submit(draft, [wanted]), actor)
        (number,) = future.result()
        self._runs[number] = run
        self._left_us[number] = run.job.duration_us
        self._meter.came(run.job.account, run.job.gpus)
        return number

    def _spec(self, job: TraceJob) -> JobSpec:
        """Whole GPUs, of one node where one can hold them all; else in equal parts that fill
        nodes."""
        each = job.gpus if job.gpus <= self._widest else gcd(job.gpus, self._widest)
        workers = job.gpus // each if each else 1
        limit_us = job.limit_us
        return replace(
            TEMPLATE,
            name=job.name,
            workers=workers,
            resources=Resources(
                gpus=each,
                # What a trace does not tell of, its jobs do not ask for: a thousandth of a core.
                cpu_millicores=max(1, (job.cpu_milli or 0) // workers),
                memory_bytes=(job.memory_bytes or 0) // workers,
                gpu_model=job.gpu_models[0] if len(job.gpu_models) == 1 else None,
            ),
            account=self._accounts[job.account],
            # That it ran for so long is true, whatever its limit was.
            time_limit_us=max(limit_us, job.duration_us) if limit_us is not None else None,
        )

    # --- what is done --------------------------------------------------------------------------

    def _decide(self, came: Iterable[int]) -> None:
        if self._checks is not None:
            self._checks.before_cycle(self._clock.now_us())
        self._scheduler.cycle(self._clock.now_us())
        self._obey()
        for number in came:
            self._give_up(number)
        self._meter.settle(self._stranded)
        if self._checks is not None:
            self._checks.after_cycle(self._clock.now_us())

    def _obey(self) -> None:
        """Start and stop what the cycle has decided."""
        begun: list[Lease] = []
        changed, self._changed = self._changed, {}
        for key, attempt in changed.items():
            live = self._live.get(key)
            if attempt.state is AttemptState.STAGING and live is None:
                begun += self._begin(key, attempt)
            elif attempt.state is AttemptState.STOPPING and live is not None:
                live.stops_us = self._now_us
                self._push(self._ends_us(key, live), key)
        if begun:
            self._agents.begin(begun, self._clock.now_us())
            self._report(begun)
            self._changed.clear()  # that they run now

    def _begin(self, key: Key, attempt: Attempt) -> Sequence[Lease]:
        found = [self._registry.lease(i) for i in attempt.lease_ids]
        leases = tuple(lease for lease in found if lease is not None)
        run = self._runs[key[0]]
        restart_us = self._cost.restart_us if attempt.number > 1 else 0
        live = self._live[key] = _Live(leases, self._now_us + restart_us)
        if run.started_us is None:
            run.started_us = self._now_us
        self._meter.started(run.job.account, run.job.gpus)
        for lease in leases:
            self._use(lease.node_uuid, len(lease.device_ids))
        self._push(self._ends_us(key, live), key)
        return leases

    def _report(self, leases: Iterable[Lease]) -> None:
        touched = {lease.node_uuid for lease in leases}
        self._registry.submit(lambda draft: self._agents.report(draft, touched), AGENT).result()

    def _give_up(self, number: int) -> None:
        """Cancel a job that can never run, as its owner would."""
        record = self._registry.live_job(number)
        why = self._registry.reason(record.job) if record is not None else ""
        if why.startswith(NEVER_WORDS):
            run = self._runs[number]
            run.never = why.removeprefix(NEVER_WORDS)
            actor = Actor(principal=run.job.account or "user", peer="simulation")
            self._do(lambda draft: jobs.cancel(draft, [Which(number)]), actor)
            self._meter.withdrawn(run.job.account, run.job.gpus)

    def _do(self, command: Callable[[Draft], Any], actor: Actor) -> None:
        self._registry.submit(command, actor).result()
