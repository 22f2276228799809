"""A supervisor: the small process that holds one lease's workers on its node, and outlives the
agent.

It is a fork of the spawner. It holds the lease's lock from the first to the last, starts the
workers, keeps what they print, enforces time limit and deadline, ends every process of the lease,
and writes each fact down. What it decides stands in ``supervision.core``; this is the loop around
it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import time
import traceback
from typing import TYPE_CHECKING, Any

from controlplane.kit import failpoints
from nodeagent import streams
from nodeagent.plan import StepPlan, WorkerPlan
from nodeagent.supervision import (
    cage,
    core,
    helpers,
    kernel,
    processes,
    record,
    rlimits,
    scribe,
    sockets,
    steps,
    worker,
)
from nodeagent.supervision.core import Do

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STDERR_TAIL_BYTES = 4096
_MAX_SLEEP_US = 1_000_000
_DRAIN_BYTES = 2 << 20
_ORDER_BYTES = 256 << 10
_FEW_WORKERS = 16
_FEW_TOLD = 5
_LOCK_TRIES = 200
_LOCK_PAUSE_S = 0.005


def supervise(folder: str, boot_id: str) -> bool:
    """Be the supervisor of the lease in `folder`, from its first process to its last.

    Does nothing when the lease has a supervisor or has had one. True when this process may
    supervise another lease once its descriptors, signals and cores are as they were.
    """
    try:
        os.chdir(folder)
        os.umask(0o077)
        plan = _take_lock()
        if plan is None or record.was_supervised("."):
            return True
        return _held(folder, plan, boot_id)
    except BaseException:
        with open(os.path.join(folder, "supervisor.log"), "a") as log:
            traceback.print_exc(file=log)
        raise


def _take_lock() -> int | None:
    """The lease's plan, locked until this process ends; None when another supervisor holds it."""
    fd = os.open(record.PLAN, os.O_RDONLY | os.O_CLOEXEC)
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # An agent that only looks holds it for a moment.
            time.sleep(_LOCK_PAUSE_S)
        else:
            return fd
    return None


def _held(folder: str, plan_file: int, boot_id: str) -> bool:
    failpoints.reach("supervisor.holds")
    control = sockets.bind_to(record.CONTROL)
    try:
        plan = StepPlan.from_json(os.read(plan_file, os.fstat(plan_file).st_size))
    except (OSError, *record.DAMAGE) as error:
        recorder = record.Recorder(record.STATUS, 0)
        words = f"{folder}/{record.PLAN} is no plan: {type(error).__name__}: {error}"
        recorder.tell("ended", end="launch_failed", message=words)
        return False
    childless = Supervisor(plan, boot_id, control.detach()).run()
    # Limits cannot be taken back, and what a large gang took of memory is not given back.
    return childless and not plan.limits and len(plan.workers) <= _FEW_WORKERS


class _Worker:
    """A worker that was started, and its two streams."""

    def __init__(self, plan: WorkerPlan, pid: int, pipes: dict[int, streams.StreamWriter]) -> None:
        self.plan = plan
        self.pid = pid
        self.pipes = pipes
        self.writers = tuple(pipes.values())
        self.told_bytes: list[int] | None = None

    def bytes(self) -> list[int]:
        return [writer.end_offset for writer in self.writers]


class Supervisor:
    """The loop: waits for what happens, tells it to `core.decide`, does what that says."""

    def __init__(self, plan: StepPlan, boot_id: str, control: int) -> None:
        """For one plan, in the lease's folder, with orders coming in on the socket `control`."""
        self._plan = plan
        self._boot_id = boot_id
        self._rules = core.Rules(
            time_limit_us=None if plan.time_limit_ms is None else plan.time_limit_ms * 1000,
            warn_before_us=plan.warn_before_ms * 1000 if plan.warn_signal else None,
            grace_us=plan.grace_ms * 1000,
            failure_grace_us=plan.failure_grace_ms * 1000,
        )
        self._cage = cage.Cage(plan.cage) if plan.cage is not None else None
        self._state = core.State()
        self._record = record.Recorder(record.STATUS, plan.lease_id, plan.notify_socket)
        self._workers: dict[int, _Worker] = {}
        self._helpers: dict[int, helpers.Helper] = {}
        self._done_helpers: set[int] = set()
        own_folder = plan.workers[0].env.get("CC_JOB_DIR", "") if plan.workers else ""
        self._scribe = scribe.Scribe(
            own_folder,
            plan.identity,
            kernel.boot_us,
            self._listen,
            self._unlisten,
            lambda words: self._record.tell("output_fault", message=words),
        )
        self._faults = -1
        self._poll = select.poll()
        self._on: dict[int, Callable[[], None]] = {}
        self._steps = steps.Steps(plan, self._record, self._listen, self._unlisten, self._place_of)
        self._control = control
        self._listen(control, self._read_orders)
        self._prepare: list[Callable[[], helpers.Helper]] = []
        if (store := plan.rendezvous) is not None:
            self._prepare.append(lambda: helpers.serve_rendezvous(store))
        if (address := plan.wait_for) is not None:
            self._prepare.append(lambda: helpers.wait_for(*address, plan.wait_ms))

    def run(self) -> bool:
        """From the first fact to the last; whether every child has gone."""
        kernel.become_subreaper()
        self._listen_to_signals()
        me = processes.look(os.getpid())
        self._record.tell(
            "supervising", pid=os.getpid(), ticks=me.ticks if me else 0, boot=self._boot_id
        )
        failpoints.reach("supervisor.shown")
        if self._plan.deadline_file:
            self._perform(Do.READ_DEADLINE)
        self._go_on_preparing()
        while self._state.phase is not core.Phase.ENDED or not self._record.flush():
            self._wait()
        self._record.close()
        return not self._scribe.left

    def _wait(self) -> None:
        """One turn: sleep until something happens or is due, and see to it."""
        written = self._record.flush()
        for fd, _ in self._poll.poll(self._sleep_ms(written)):
            if fd in self._on:  # One handler may have closed another's.
                self._on[fd]()
        self._happens(core.Tick())
        if self._scribe.tick():
            self._reap()

    def _sleep_ms(self, written: bool) -> int | None:
        due = (self._state.wake_us(), self._scribe.wake_us())
        wake_us = min((t for t in due if t is not None), default=None)
        if wake_us is None:
            return None if written else 1000
        # Sleep is measured on a clock that stops with the host, deadlines on one that does not:
        # look now and then.
        return max(0, min(wake_us - kernel.boot_us(), _MAX_SLEEP_US) + 999) // 1000

    def _happens(self, event: core.Event) -> None:
        self._state, actions = core.decide(self._rules, self._state, event, kernel.boot_us())
        for action in actions:
            self._perform(action)
        if Do.KILL in actions or Do.TERM_LEFT in actions:
            self._reap()

    def _perform(self, action: Do) -> None:
        match action:
            case Do.START:
                if self._may_start():
                    self._start_workers()
            case Do.WARN:
                self._signal(self._plan.warn_signal)
                self._record.tell("warned", signal=self._plan.warn_signal)
            case Do.SIGNAL:
                sent = self._state.sent
                assert sent is not None
                ranks = self._signal(sent.signal, sent.ranks)
                self._record.tell(
                    "signalled", number=sent.number, signal=sent.signal, ranks=sorted(ranks)
                )
            case Do.TELL_LIMIT:
                limit_us = core.limit_of(self._rules, self._state)
                limit_ms = None if limit_us is None else limit_us // 1000
                self._record.tell("limited", time_limit_ms=limit_ms)
            case Do.TELL_STOPPING:
                self._record.tell("stopping", end=self._state.end, message=self._state.message)
            case Do.TERM_WORKERS:
                running = [self._workers[rank].pid for rank in self._state.alive]
                processes.signal_groups(running, signal.SIGTERM)
            case Do.TERM_LEFT:
                processes.signal_all(self._all_of_it(), signal.SIGTERM)
            case Do.KILL:
                processes.signal_all(self._all_of_it(), signal.SIGKILL)
                if self._cage is not None:
                    self._cage.kill()
            case Do.TELL_STUCK:
                self._tell_stuck()
            case Do.READ_DEADLINE:
                self._happens(core.Deadline(_read_deadline(self._plan.deadline_file)))
            case Do.END:
                self._end()

    def _tell_stuck(self) -> None:
        left = [*self._all_of_it(), *(self._cage.members() if self._cage is not None else [])]
        found = [process for pid in dict.fromkeys(left) if (process := processes.look(pid))]
        if words := ", ".join(f"{p.pid} ({p.name}, state {p.state})" for p in found[:_FEW_TOLD]):
            more = f" and {len(found) - _FEW_TOLD} more" if len(found) > _FEW_TOLD else ""
            words = f"these do not end, though they were killed: {words}{more}"
            self._record.tell("stuck", message=words)

    def _all_of_it(self) -> list[int]:
        """Every process of the lease, but for the one that writes down what they have said."""
        return [pid for pid in processes.descendants(os.getpid()) if pid != self._scribe.pid]

    def _signal(self, number: int, only: frozenset[int] = frozenset()) -> list[int]:
        """Send a signal to workers that run, all or some; their ranks."""
        ranks = [rank for rank in self._state.alive if not only or rank in only]
        hear = [self._workers[r] for r in ranks if self._workers[r].plan.hears_signals]
        processes.signal_groups([of.pid for of in hear], number)
        return ranks

    # Before the workers

    def _go_on_preparing(self) -> None:
        if not self._prepare:
            self._happens(core.Ready())
            return
        try:
            helper = self._prepare.pop(0)()
        except OSError as error:
            self._happens(core.Failed(f"cannot start a process: {error.strerror}"))
            return
        self._helpers[helper.pid] = helper
        self._listen(helper.pipe, lambda: self._hear(helper))

    def _hear(self, helper: helpers.Helper) -> None:
        said = os.read(helper.pipe, 4096)
        if said == helpers.READY:
            self._go_on_preparing()
            return
        self._unlisten(helper.pipe)
        if said:
            self._happens(core.Failed(said.decode(errors="replace")))
        elif helper.serves:
            self._happens(core.Failed(f"{helper.name} ended"))
        elif self._state.phase is core.Phase.PREPARING:  # It was killed before it could say why.
            self._happens(core.Failed(f"the wait for {helper.name} ended"))

    # Workers

    def _may_start(self) -> bool:
        """Whether the lease still holds: its agent may have been held up on the way here.

        The deadline is read first: an agent leaves word that the start is forbidden before it tells
        of a deadline that came with the order to end.
        """
        if self._plan.deadline_file:
            self._perform(Do.READ_DEADLINE)
        if os.path.exists(record.FORBIDDEN):
            self._happens(core.Stop("ordered", "", 0))
        return self._state.phase is core.Phase.PREPARING

    def _start_workers(self) -> None:
        self._faults, faults = os.pipe()
        os.set_blocking(self._faults, False)
        words = "cannot start a worker"
        try:
            if self._cage is not None:
                words = "cannot make its control groups"
                self._cage.make([plan.rank for plan in self._plan.workers])
            words = "cannot start a worker"
            rlimits.set_limits(self._plan.limits)
            for plan in self._plan.workers:
                words = f"cannot start rank {plan.rank}"
                self._start(plan, faults)
        except OSError as error:
            words += f": {error.strerror or error}"
            self._happens(core.Failed(words, frozenset(self._workers)))
        else:
            failpoints.reach("supervisor.workers_started")
            self._happens(core.Started(frozenset(self._workers)))
        finally:
            os.close(faults)

    def _start(self, plan: WorkerPlan, faults: int) -> None:
        pipes: dict[int, streams.StreamWriter] = {}
        ends: list[int] = []
        try:
            for stream in streams.STREAMS:
                out, into = os.pipe()
                ends.append(into)
                os.set_blocking(out, False)
                pipes[out] = streams.StreamWriter(
                    self._plan.output_dir,
                    plan.rank,
                    stream,
                    segment_bytes=self._plan.log_segment_bytes,
                    cap_bytes=self._plan.log_cap_bytes,
                    follower=self._scribe.follow(plan.output if stream == "out" else plan.error),
                )
            with self._entered(plan) as groups:
                pid = worker.start(
                    plan, self._plan.identity, ends[0], ends[1], faults, groups=groups
                )
        except OSError:
            for out in pipes:
                os.close(out)
            raise
        finally:
            for into in ends:
                os.close(into)
        failpoints.reach("supervisor.worker_started")
        started = self._workers[plan.rank] = _Worker(plan, pid, pipes)
        process = processes.look(pid)
        self._record.tell("started", rank=plan.rank, pid=pid, ticks=process.ticks if process else 0)
        for out in pipes:
            self._listen(out, lambda out=out: self._pump(started, out))  # type: ignore[misc]

    def _place_of(self, rank: int) -> tuple[str, ...]:
        """The control groups of a step's process beside a rank: those of the rank's worker."""
        each = self._plan.ranks_per_worker
        of = next(w for w in self._plan.workers if w.rank <= rank < w.rank + each)
        return self._place(of)

    @contextlib.contextmanager
    def _entered(self, plan: WorkerPlan) -> Iterator[tuple[str, ...]]:
        """Be where a worker belongs, if it then needs no fork; the groups that it must enter."""
        if self._cage is None or plan.hostname or not self._cage.is_roomy():
            yield self._place(plan)
        else:
            with self._cage.entered(plan.rank):
                yield ()

    def _place(self, plan: WorkerPlan) -> tuple[str, ...]:
        """The control groups of this worker's process."""
        return () if self._cage is None else self._cage.places(plan.rank)

    def _pump(self, of: _Worker, pipe: int, budget: int = 1 << 20) -> None:
        if not of.pipes[pipe].pump(pipe, budget):
            self._hang_up(of, pipe)

    def _hang_up(self, of: _Worker, pipe: int) -> None:
        self._unlisten(pipe)
        of.pipes.pop(pipe).close()

    def _reap(self) -> None:
        """Wait for every child that has ended, and tell."""
        ended: list[tuple[int, bool]] = []
        asking = set()
        childless = False
        by_pid = {self._workers[rank].pid: self._workers[rank] for rank in self._state.alive}
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                childless = True
                break
            if pid == 0:
                if len(ended) == len(by_pid) and self._release_helpers():
                    continue
                break
            if pid in self._helpers:  # reaped: its number may be another process's from now on
                self._done_helpers.add(pid)
            if pid == self._scribe.pid:
                self._scribe.reaped(status)
            elif pid in by_pid:
                code = os.waitstatus_to_exitcode(status)
                ended.append((by_pid[pid].plan.rank, status != 0))
                if code in self._plan.requeue_exit_codes:
                    asking.add(by_pid[pid].plan.rank)
                failpoints.reach("supervisor.exit_seen")
                self._tell_exit(by_pid[pid], code, used.ru_maxrss * 1024)
            else:
                self._steps.reaped(pid, os.waitstatus_to_exitcode(status), self._why_over())
        if ended and (words := self._read_faults()):
            self._happens(core.Failed(words))
        if childless or (len(ended) == len(by_pid) and self._only_the_scribe_is_left()):
            self._drain()
            childless = self._scribe.finish()
        self._happens(core.Reaped(tuple(ended), childless, frozenset(asking)))

    def _only_the_scribe_is_left(self) -> bool:
        return self._scribe.pid > 0 and processes.children(os.getpid()) == [self._scribe.pid]

    def _release_helpers(self) -> bool:
        """End what only served the workers; whether there was anything, and it has gone."""
        if self._state.phase is core.Phase.PREPARING or not self._helpers:
            return False
        for helper in self._helpers.values():
            if helper.pid not in self._done_helpers:
                os.kill(helper.pid, signal.SIGKILL)
                os.waitpid(helper.pid, 0)
            self._unlisten(helper.pipe)
        self._helpers.clear()
        return True

    def _tell_exit(self, of: _Worker, code: int, peak_memory_bytes: int) -> None:
        for pipe in list(of.pipes):
            self._pump(of, pipe, _DRAIN_BYTES)
        how = {"exit_code": code} if code >= 0 else {"signal": -code}
        of.told_bytes = of.bytes()
        out, err = of.told_bytes
        tail = {}
        if code != 0 and err:
            rank = of.plan.rank
            tail = {
                "stderr_tail": streams.tail(self._plan.output_dir, rank, "err", _STDERR_TAIL_BYTES)
            }
        dry = None if self._cage is None else self._cage.out_of_memory(of.plan.rank)
        self._record.tell(
            "exited",
            rank=of.plan.rank,
            **how,
            **(
                {"oom_limit_bytes": dry.limit_bytes, "oom_peak_bytes": dry.peak_bytes}
                if dry
                else {}
            ),
            stdout_bytes=out,
            stderr_bytes=err,
            peak_memory_bytes=peak_memory_bytes,
            **tail,
        )
        failpoints.reach("supervisor.exit_written")

    def _read_faults(self) -> str:
        try:
            return os.read(self._faults, 4096).decode(errors="replace").strip()
        except BlockingIOError:
            return ""

    def _drain(self) -> None:
        """Take in the last words of what has ended."""
        for of in self._workers.values():
            for pipe in list(of.pipes):
                self._pump(of, pipe, _DRAIN_BYTES)

    def _end(self) -> None:
        self._drain()
        grown: dict[int, list[int]] = {}
        for rank, of in self._workers.items():
            if of.told_bytes != of.bytes():
                grown[rank] = of.bytes()
        if self._cage is not None:
            self._cage.remove()
        failpoints.reach("supervisor.ends")
        more = {"bytes": grown} if grown else {}
        self._record.tell("ended", end=self._state.end, message=self._state.message, **more)
        failpoints.reach("supervisor.ended")
        os.unlink(record.CONTROL)

    # Orders and signals

    def _listen_to_signals(self) -> None:
        self._wake, wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._listen(self._wake, self._on_signals)

    def _on_signals(self) -> None:
        numbers = os.read(self._wake, 4096)
        if signal.SIGTERM in numbers:
            words = "the supervisor was told to end by SIGTERM"
            self._happens(core.Stop("ordered", words, self._rules.grace_us))
        self._reap()

    def _read_orders(self) -> None:
        fds: list[int] = []
        try:
            data, fds = sockets.receive(self._control, _ORDER_BYTES)
            raw = json.loads(data)
            order = steps.read_order(raw) if raw["do"] == "step" else _order(raw)
        except (*record.DAMAGE, BlockingIOError):
            order = None  # The folder is the agent's alone; what it did not mean is no order.
        if isinstance(order, steps.Order) and fds:
            self._steps.start(order, fds, self._why_no_step())
            return
        for fd in fds:
            os.close(fd)
        if isinstance(order, core.Stop):
            failpoints.reach("supervisor.stop_heard")
        if order is not None and not isinstance(order, steps.Order):
            self._happens(order)

    def _why_no_step(self) -> str:
        """Why no step can be started now; empty when one can."""
        if self._state.phase is core.Phase.RUNNING:
            return ""
        if self._state.phase is core.Phase.PREPARING:
            return "the job's workers on this node do not run yet"
        return self._why_over()

    def _why_over(self) -> str:
        """Why the steps are being ended; empty while they are not."""
        if self._state.phase <= core.Phase.RUNNING:
            return ""
        why = self._state.message or {
            "natural": "its workers have ended",
            "ordered": "it was told to",
        }.get(self._state.end, self._state.end)
        return f"the job ends on this node, and its steps with it: {why}"

    # Descriptors

    def _listen(self, fd: int, handler: Callable[[], None]) -> None:
        self._on[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def _unlisten(self, fd: int) -> None:
        if self._on.pop(fd, None) is not None:
            self._poll.unregister(fd)
            os.close(fd)


def _order(raw: dict[str, Any]) -> core.Stop | core.Signal | core.Limit:
    """An order of the agent's. KeyError, TypeError or ValueError for what is none."""
    match raw["do"]:
        case "stop":
            words = str(raw.get("words", ""))
            return core.Stop(str(raw["why"]), words, int(raw["grace_ms"]) * 1000)
        case "limit":
            limit_ms = raw["time_limit_ms"]
            return core.Limit(None if limit_ms is None else int(limit_ms) * 1000)
        case "signal":
            number = signal.Signals(raw["signal"])
            return core.Signal(int(raw["number"]), number, frozenset(map(int, raw["ranks"])))
        case other:
            raise ValueError(f"no order: {other!r}")


def _read_deadline(path: str) -> int | None:
    try:
        with open(path) as file:
            text = file.read()
    except (OSError, ValueError):
        return None
    # A number that is cut short is a number, too: only its line end says that it is whole.
    return int(text) if text.endswith("\n") and text[:-1].isdecimal() else None
