"""What a supervisor decides: ``decide(rules, state, event, now) -> (state, actions)``, pure.

Times are microseconds of CLOCK_BOOTTIME, which no one can set and which counts a suspended host's
sleep too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum, auto

LEFTOVER_GRACE_US = 500_000
"""Between SIGTERM and SIGKILL for processes that outlive all workers, in microseconds."""
FIRST_RETRY_US = 5_000
"""Between the first SIGKILL and a second look for survivors, in microseconds; then doubles."""
LAST_RETRY_US = 1_000_000
"""The longest pause between two looks for survivors, in microseconds."""
LOOK_AGAIN_US = 1_000_000
"""Between two looks for a deadline that has not been written yet, in microseconds."""


class Phase(IntEnum):
    """Where a supervisor stands; it only moves down this list."""

    PREPARING = auto()
    """Something must be there before the workers start."""
    RUNNING = auto()
    """The workers were started."""
    STOPPING = auto()
    """The workers are being ended."""
    SWEEPING = auto()
    """All workers have ended; processes that they left behind are being ended."""
    ENDED = auto()
    """No process is left."""


class Do(Enum):
    """What the loop should do next."""

    START = auto()
    """Start the workers."""
    WARN = auto()
    """The plan's warning signal to the process group of every worker that runs."""
    SIGNAL = auto()
    """`State.sent` to the process groups of the workers that it names and that run."""
    TELL_LIMIT = auto()
    """Write down which time limit is kept from now on."""
    TELL_STOPPING = auto()
    """Write down that the workers are being ended, and why."""
    TERM_WORKERS = auto()
    """SIGTERM to the process group of every worker that runs."""
    TERM_LEFT = auto()
    """SIGTERM to every process that the workers left behind."""
    KILL = auto()
    """SIGKILL to every descendant."""
    TELL_STUCK = auto()
    """Write down what does not end though it was killed."""
    READ_DEADLINE = auto()
    """Read the deadline and tell it by `Deadline`."""
    END = auto()
    """Write down that all is over, and go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the plan says about time."""

    time_limit_us: int | None
    """End the workers so long after their start, in microseconds."""
    warn_before_us: int | None = None
    """Warn them so long before that, in microseconds; None for no warning."""
    grace_us: int
    """Between SIGTERM and SIGKILL, in microseconds."""
    failure_grace_us: int
    """As `grace_us`, for the others when one worker has failed."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything that the workers need is there."""


@dataclass(frozen=True, slots=True)
class Started:
    """All workers were started."""

    ranks: frozenset[int]
    """Which."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The lease cannot be started, or cannot go on, through no fault of its program."""

    message: str
    """Why, in words."""
    ranks: frozenset[int] = frozenset()
    """Workers that were started all the same."""


@dataclass(frozen=True, slots=True)
class Reaped:
    """Children were waited for."""

    ended: tuple[tuple[int, bool], ...]
    """Rank of each worker that ended, and whether it failed."""
    childless: bool
    """Whether no process of the lease is left."""
    asking: frozenset[int] = frozenset()
    """Those of them that failed by asking for another attempt."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody wants the lease to end."""

    end: str
    """Why, as a `LeaseEnd`."""
    message: str
    """Why, in words; may be empty."""
    grace_us: int
    """Between SIGTERM and SIGKILL, in microseconds."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Somebody wants workers to get a signal."""

    number: int
    """Counts up: one that is not higher than the last was sent already."""
    signal: int
    """Which."""
    ranks: frozenset[int] = frozenset()
    """To which workers; empty for all."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Somebody has changed the time limit."""

    us: int | None
    """From the start of the workers, in microseconds; None for none."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The deadline was read."""

    at_us: int | None
    """When the node's lease ends; None when it could not be read."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = Ready | Started | Failed | Reaped | Stop | Signal | Limit | Deadline | Tick


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that a supervisor remembers between two events."""

    phase: Phase = Phase.PREPARING
    """Where it stands."""
    alive: frozenset[int] = frozenset()
    """Ranks of the workers that run."""
    end: str = "natural"
    """Why the lease ends, as a `LeaseEnd`."""
    message: str = ""
    """Why, in words."""
    started_us: int | None = None
    """When the workers were started."""
    limit: Limit | None = None
    """The time limit that was ordered in place of the rules'."""
    limit_us: int | None = None
    """When the time limit is reached."""
    warn_us: int | None = None
    """When to warn the workers of it; None once they were."""
    warned: bool = False
    """Whether they were warned at least once."""
    sent: Signal | None = None
    """The last signal that was ordered and sent."""
    fence_us: int | None = None
    """The deadline as last read."""
    look_us: int | None = None
    """When to read the deadline again."""
    kill_us: int | None = None
    """When to send the next SIGKILL."""
    retry_us: int = FIRST_RETRY_US
    """Pause before the SIGKILL after that."""
    told_stuck: bool = False
    """Whether it was told that something does not end."""

    def wake_us(self) -> int | None:
        """When something is due without any event; None for never."""
        moments = [self.look_us, self.kill_us]
        if self.phase is Phase.RUNNING:
            moments += [self.warn_us, self.limit_us]
        due = [t for t in moments if t is not None]
        return min(due) if due else None


Decision = tuple[State, tuple[Do, ...]]


def decide(rules: Rules, state: State, event: Event, now_us: int) -> Decision:
    """What follows from `event`. Events that come too late to matter change nothing."""
    if state.phase is Phase.ENDED:
        return state, ()
    match event:
        case Tick():
            return _tick(rules, state, now_us)
        case Reaped():
            return _reaped(rules, state, event, now_us)
        case Ready() if state.phase is Phase.PREPARING:
            return state, (Do.START,)
        case Started(ranks) if state.phase is Phase.PREPARING:
            return _started(rules, state, ranks, now_us), ()
        case Failed(message, ranks) if state.phase < Phase.STOPPING:
            state = replace(state, alive=state.alive | ranks)
            return _stop(state, "launch_failed", message, now_us + rules.failure_grace_us)
        case Stop(end, message, grace_us):
            return _stop(state, end, message, now_us + grace_us)
        case Signal(number) if state.phase is Phase.RUNNING:
            if state.sent is not None and number <= state.sent.number:
                return state, ()
            return replace(state, sent=event), (Do.SIGNAL,)
        case Limit() if state.phase <= Phase.RUNNING:
            state = replace(state, limit=event)
            if state.started_us is not None:
                state = _with_limit(rules, state, now_us)
            return state, (Do.TELL_LIMIT,)
        case Deadline(at_us):
            return _deadline(state, at_us, now_us)
        case _:
            return state, ()


def _started(rules: Rules, state: State, ranks: frozenset[int], now_us: int) -> State:
    state = replace(state, phase=Phase.RUNNING, alive=ranks, started_us=now_us)
    return _with_limit(rules, state, now_us)


def limit_of(rules: Rules, state: State) -> int | None:
    """The time limit that is kept, in microseconds from the start of the workers."""
    return rules.time_limit_us if state.limit is None else state.limit.us


def _with_limit(rules: Rules, state: State, now_us: int) -> State:
    """The state once its time limit is known. Who was warned of an earlier moment is warned again
    of a later one."""
    assert state.started_us is not None
    limit = limit_of(rules, state)
    at = None if limit is None else state.started_us + limit
    warn = None
    if at is not None and rules.warn_before_us is not None:
        warn = at - rules.warn_before_us
        if warn <= now_us and state.warned:
            warn = None
    return replace(state, limit_us=at, warn_us=warn)


def _tick(rules: Rules, state: State, now_us: int) -> Decision:
    if state.look_us is not None and state.look_us <= now_us:
        return state, (Do.READ_DEADLINE,)
    if state.kill_us is not None and state.kill_us <= now_us:
        pause = state.retry_us
        state = replace(state, kill_us=now_us + pause, retry_us=min(2 * pause, LAST_RETRY_US))
        if pause < LAST_RETRY_US or state.told_stuck:
            return state, (Do.KILL,)
        # It was killed again and again for more than a second.
        return replace(state, told_stuck=True), (Do.KILL, Do.TELL_STUCK)
    if state.phase is Phase.RUNNING and state.limit_us is not None and state.limit_us <= now_us:
        limit_us = limit_of(rules, state) or 0
        words = f"the time limit of {limit_us / 1e6:g} s was reached"
        return _stop(state, "time_limit", words, now_us + rules.grace_us)
    # After the limit, so that a host that slept through both does not warn and end at once.
    if state.phase is Phase.RUNNING and state.warn_us is not None and state.warn_us <= now_us:
        return replace(state, warn_us=None, warned=True), (Do.WARN,)
    return state, ()


def _stop(state: State, end: str, message: str, kill_us: int) -> Decision:
    """Begin to end the workers; when that has begun already, only bring SIGKILL nearer."""
    if state.phase >= Phase.STOPPING:
        sooner = kill_us if state.kill_us is None else min(state.kill_us, kill_us)
        return replace(state, kill_us=sooner), ()
    stopping = replace(state, phase=Phase.STOPPING, end=end, message=message, kill_us=kill_us)
    how = Do.TERM_WORKERS if state.alive else Do.KILL
    return stopping, (Do.TELL_STOPPING, how)


def _deadline(state: State, at_us: int | None, now_us: int) -> Decision:
    if at_us is None and state.fence_us is None:
        return replace(state, look_us=now_us + LOOK_AGAIN_US), ()
    fence = state.fence_us if at_us is None else at_us
    assert fence is not None
    if fence > now_us:
        return replace(state, fence_us=fence, look_us=fence), ()
    words = "the control plane was silent past the node's lease"
    fenced, actions = _stop(replace(state, look_us=None), "fenced", words, now_us)
    return fenced, (*(a for a in actions if a is Do.TELL_STOPPING), Do.KILL)


def _reaped(rules: Rules, state: State, event: Reaped, now_us: int) -> Decision:
    state = replace(state, alive=state.alive - {rank for rank, _ in event.ended})
    if state.phase is Phase.PREPARING:
        return state, ()
    if state.alive:
        failed = [rank for rank, bad in event.ended if bad]
        if failed and state.phase is Phase.RUNNING:
            words = f"rank {failed[0]} failed"
            asks = failed[0] in event.asking  # the others may still save what it has saved
            grace_us = rules.grace_us if asks else rules.failure_grace_us
            return _stop(state, "natural", words, now_us + grace_us)
        return state, ()
    if event.childless:
        return replace(state, phase=Phase.ENDED, kill_us=None, look_us=None), (Do.END,)
    if state.phase is Phase.SWEEPING:
        return state, ()
    kill_us = now_us + LEFTOVER_GRACE_US
    if state.kill_us is not None:
        kill_us = min(kill_us, state.kill_us)
    return replace(state, phase=Phase.SWEEPING, kill_us=kill_us), (Do.TERM_LEFT,)
