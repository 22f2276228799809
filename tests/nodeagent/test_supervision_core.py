"""What a supervisor decides, as a machine of values: each event's state and actions, and what holds
whatever comes in whatever order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.supervision import core
from nodeagent.supervision.core import (
    Deadline,
    Do,
    Event,
    Failed,
    Limit,
    Phase,
    Ready,
    Reaped,
    Rules,
    Signal,
    Started,
    State,
    Stop,
    Tick,
    decide,
    limit_of,
)

NOW = 1_000_000_000
MS = 1_000
GRACE = 10_000 * MS
FAILURE_GRACE = 2_000 * MS
RULES = Rules(time_limit_us=None, grace_us=GRACE, failure_grace_us=FAILURE_GRACE)
LIMITED = replace(RULES, time_limit_us=60_000 * MS)
WARNED = replace(LIMITED, warn_before_us=20_000 * MS)

RUNNING = State(phase=Phase.RUNNING, alive=frozenset({0, 1}))
STOPPING = replace(RUNNING, phase=Phase.STOPPING, end="ordered", message="", kill_us=NOW + GRACE)
SWEEPING = State(phase=Phase.SWEEPING, kill_us=NOW + core.LEFTOVER_GRACE_US)
ENDED = State(phase=Phase.ENDED)

CHILDLESS = Reaped((), childless=True)


def ended(*ranks: int, failed: Iterable[int] = (), childless: bool = False) -> Reaped:
    return Reaped(tuple((rank, rank in failed) for rank in ranks), childless)


# --- preparing ------------------------------------------------------------------------------------


def test_the_workers_start_when_all_is_ready() -> None:
    assert decide(RULES, State(), Ready(), NOW) == (State(), (Do.START,))


def test_started_workers_run_without_a_limit() -> None:
    state, actions = decide(RULES, State(), Started(frozenset({0, 1})), NOW)

    assert (state, actions) == (replace(RUNNING, started_us=NOW), ())
    assert state.wake_us() is None


def test_a_changed_time_limit_counts_from_the_start_of_the_workers_too() -> None:
    rules = replace(RULES, time_limit_us=60_000_000, warn_before_us=10_000_000)
    state, _ = decide(rules, State(), Started(frozenset({0})), NOW)
    assert (state.warn_us, state.limit_us) == (NOW + 50_000_000, NOW + 60_000_000)
    state, actions = decide(rules, state, Limit(30_000_000), NOW + 25_000_000)
    assert actions == (Do.TELL_LIMIT,)
    assert limit_of(rules, state) == 30_000_000
    # Its warning would have been due: it comes at once, and once.
    state, actions = decide(rules, state, Tick(), NOW + 25_000_000)
    assert actions == (Do.WARN,)
    # Of a later end they are warned anew.
    state, _ = decide(rules, state, Limit(100_000_000), NOW + 26_000_000)
    assert (state.warn_us, state.limit_us) == (NOW + 90_000_000, NOW + 100_000_000)
    state, _ = decide(rules, state, Limit(None), NOW + 27_000_000)
    assert (state.warn_us, state.limit_us, state.wake_us()) == (None, None, None)


def test_a_time_limit_that_comes_before_the_workers_holds_for_them() -> None:
    state, actions = decide(RULES, State(), Limit(5_000_000), NOW)
    assert actions == (Do.TELL_LIMIT,)
    state, _ = decide(RULES, state, Started(frozenset({0})), NOW + 7)
    assert state.limit_us == NOW + 7 + 5_000_000


def test_the_time_limit_counts_from_the_start_of_the_workers() -> None:
    state, _ = decide(LIMITED, State(), Started(frozenset({0, 1})), NOW)

    assert state.limit_us == NOW + 60_000 * MS
    assert state.wake_us() == state.limit_us


def test_time_alone_changes_nothing_before_the_start() -> None:
    assert decide(LIMITED, State(), Tick(), NOW) == (State(), ())
    assert State().wake_us() is None


def test_the_end_of_a_helper_is_no_end_of_the_lease() -> None:
    assert decide(RULES, State(), CHILDLESS, NOW) == (State(), ())


def test_a_stop_before_the_start_kills_what_prepares_it() -> None:
    state, actions = decide(RULES, State(), Stop("ordered", "", GRACE), NOW)

    assert actions == (Do.TELL_STOPPING, Do.KILL)
    assert state == State(phase=Phase.STOPPING, end="ordered", kill_us=NOW + GRACE)


def test_nothing_starts_once_stopping_has_begun() -> None:
    for event in (Ready(), Started(frozenset({0, 1}))):
        assert decide(RULES, STOPPING, event, NOW) == (STOPPING, ())


def test_what_cannot_be_prepared_is_a_failed_launch() -> None:
    state, actions = decide(RULES, State(), Failed("no store"), NOW)

    assert actions == (Do.TELL_STOPPING, Do.KILL)
    assert (state.phase, state.end, state.message) == (Phase.STOPPING, "launch_failed", "no store")


def test_workers_started_before_the_launch_failed_get_a_grace() -> None:
    failed = Failed("cannot start rank 2", frozenset({0, 1}))
    state, actions = decide(RULES, State(), failed, NOW)

    assert actions == (Do.TELL_STOPPING, Do.TERM_WORKERS)
    assert state.alive == {0, 1}
    assert state.kill_us == NOW + FAILURE_GRACE


# --- running --------------------------------------------------------------------------------------


def test_a_worker_that_ends_well_leaves_the_others_alone() -> None:
    state, actions = decide(RULES, RUNNING, ended(0), NOW)

    assert (state, actions) == (replace(RUNNING, alive=frozenset({1})), ())


def test_the_lease_ends_naturally_with_its_last_worker() -> None:
    state, actions = decide(RULES, RUNNING, ended(0, 1, childless=True), NOW)

    assert actions == (Do.END,)
    assert (state.phase, state.end, state.message) == (Phase.ENDED, "natural", "")
    assert state.wake_us() is None


def test_a_rank_that_fails_ends_the_others() -> None:
    state, actions = decide(RULES, RUNNING, ended(1, failed={1}), NOW)

    assert actions == (Do.TELL_STOPPING, Do.TERM_WORKERS)
    assert (state.phase, state.end, state.message) == (Phase.STOPPING, "natural", "rank 1 failed")
    assert state.alive == {0}
    assert state.wake_us() == NOW + FAILURE_GRACE


def test_a_rank_that_asks_to_be_started_again_leaves_the_others_their_whole_grace() -> None:
    asks = replace(ended(1, failed={1}), asking=frozenset({1}))

    state, actions = decide(RULES, RUNNING, asks, NOW)

    assert actions == (Do.TELL_STOPPING, Do.TERM_WORKERS)
    assert (state.end, state.message) == ("natural", "rank 1 failed")
    assert state.kill_us == NOW + GRACE


def test_of_several_ends_the_first_failure_is_told() -> None:
    three = replace(RUNNING, alive=frozenset({0, 1, 2, 3}))
    state, _ = decide(RULES, three, ended(0, 2, 1, failed={1, 2}), NOW)

    assert state.message == "rank 2 failed"
    assert state.alive == {3}


def test_the_failure_of_the_last_worker_needs_no_stop() -> None:
    state, actions = decide(RULES, RUNNING, ended(0, 1, failed={0, 1}, childless=True), NOW)

    assert actions == (Do.END,)
    assert state.message == ""


def test_a_service_that_is_lost_is_a_failed_launch() -> None:
    state, actions = decide(RULES, RUNNING, Failed("the store ended"), NOW)

    assert actions == (Do.TELL_STOPPING, Do.TERM_WORKERS)
    assert (state.end, state.alive) == ("launch_failed", RUNNING.alive)


def test_the_time_limit_ends_the_workers_and_not_a_moment_earlier() -> None:
    limited = replace(RUNNING, limit_us=NOW)

    assert decide(LIMITED, limited, Tick(), NOW - 1) == (limited, ())
    state, actions = decide(LIMITED, limited, Tick(), NOW)
    assert actions == (Do.TELL_STOPPING, Do.TERM_WORKERS)
    assert (state.end, state.message) == ("time_limit", "the time limit of 60 s was reached")
    assert state.kill_us == NOW + GRACE


def test_the_time_limit_means_nothing_to_workers_that_are_being_ended() -> None:
    late = replace(STOPPING, limit_us=NOW - 1)

    assert decide(LIMITED, late, Tick(), NOW) == (late, ())
    assert late.wake_us() == late.kill_us


# --- the warning ----------------------------------------------------------------------------------


def test_the_warning_comes_so_long_before_the_limit_and_once() -> None:
    state, _ = decide(WARNED, State(), Started(frozenset({0, 1})), NOW)
    due = NOW + 40_000 * MS

    assert state.wake_us() == state.warn_us == due
    assert decide(WARNED, state, Tick(), due - 1) == (state, ())
    state, actions = decide(WARNED, state, Tick(), due)
    assert actions == (Do.WARN,)
    assert decide(WARNED, state, Tick(), due + 1) == (state, ())
    assert state.wake_us() == state.limit_us == NOW + 60_000 * MS


def test_after_the_warning_the_limit_ends_those_that_still_run() -> None:
    warned = replace(RUNNING, limit_us=NOW)

    state, actions = decide(WARNED, warned, Tick(), NOW)

    assert actions == (Do.TELL_STOPPING, Do.TERM_WORKERS)
    assert (state.end, state.kill_us) == ("time_limit", NOW + GRACE)


def test_a_host_that_slept_through_warning_and_limit_ends_the_workers_unwarned() -> None:
    both = replace(RUNNING, warn_us=NOW - 2, limit_us=NOW - 1)

    state, actions = decide(WARNED, both, Tick(), NOW)

    assert actions == (Do.TELL_STOPPING, Do.TERM_WORKERS)
    assert decide(WARNED, state, Tick(), NOW) == (state, ())


def test_nobody_who_is_being_ended_is_warned() -> None:
    due = replace(STOPPING, warn_us=NOW)

    assert decide(WARNED, due, Tick(), NOW) == (due, ())
    assert due.wake_us() == due.kill_us


# --- signals on order -----------------------------------------------------------------------------


def test_a_signal_is_sent_once_and_a_higher_number_is_another() -> None:
    first, second = Signal(4, 10, frozenset({1})), Signal(5, 10)

    state, actions = decide(RULES, RUNNING, first, NOW)
    assert (state, actions) == (replace(RUNNING, sent=first), (Do.SIGNAL,))
    assert decide(RULES, state, first, NOW + 1) == (state, ())
    assert decide(RULES, state, Signal(3, 12), NOW + 1) == (state, ())
    state, actions = decide(RULES, state, second, NOW + 2)
    assert (state.sent, actions) == (second, (Do.SIGNAL,))


@pytest.mark.parametrize("state", [State(), STOPPING, SWEEPING, ENDED], ids=lambda s: s.phase.name)
def test_a_signal_to_workers_that_do_not_run_is_not_taken_for_sent(state: State) -> None:
    assert decide(RULES, state, Signal(1, 10), NOW) == (state, ())


# --- stopping -------------------------------------------------------------------------------------


def test_a_stop_asks_the_workers_first() -> None:
    state, actions = decide(RULES, RUNNING, Stop("ordered", "why", 5 * MS), NOW)

    assert actions == (Do.TELL_STOPPING, Do.TERM_WORKERS)
    assert state == replace(
        RUNNING, phase=Phase.STOPPING, end="ordered", message="why", kill_us=NOW + 5 * MS
    )


@pytest.mark.parametrize(
    ("grace_us", "kill_us"), [(GRACE - 1, NOW + GRACE - 1), (GRACE + 1, NOW + GRACE), (0, NOW)]
)
def test_a_second_stop_only_brings_the_kill_nearer(grace_us: int, kill_us: int) -> None:
    again = Stop("time_limit", "other words", grace_us)

    assert decide(RULES, STOPPING, again, NOW) == (replace(STOPPING, kill_us=kill_us), ())


def test_later_failures_do_not_change_the_reason() -> None:
    assert decide(RULES, STOPPING, Failed("the store ended"), NOW) == (STOPPING, ())
    state, actions = decide(RULES, STOPPING, ended(1, failed={1}), NOW)
    assert (state, actions) == (replace(STOPPING, alive=frozenset({0})), ())


def test_the_kill_comes_when_the_grace_is_over_and_not_a_moment_earlier() -> None:
    due = NOW + GRACE

    assert decide(RULES, STOPPING, Tick(), due - 1) == (STOPPING, ())
    state, actions = decide(RULES, STOPPING, Tick(), due)
    assert actions == (Do.KILL,)
    assert state.wake_us() == due + core.FIRST_RETRY_US


def test_the_pauses_between_kills_double_up_to_a_second() -> None:
    state, now = STOPPING, NOW + GRACE
    pauses = []
    for _ in range(11):
        state, actions = decide(RULES, state, Tick(), now)
        assert state.kill_us is not None
        first = state.kill_us - now == 1_000_000 and 1000 not in pauses
        assert actions == ((Do.KILL, Do.TELL_STUCK) if first else (Do.KILL,))
        pauses.append((state.kill_us - now) // MS)
        now = state.kill_us

    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]


def test_the_lease_ends_when_the_last_process_is_gone() -> None:
    state, actions = decide(RULES, STOPPING, ended(0, 1, failed={0, 1}, childless=True), NOW)

    assert actions == (Do.END,)
    assert (state.phase, state.end, state.message) == (Phase.ENDED, "ordered", "")
    assert state.wake_us() is None


# --- the fence ------------------------------------------------------------------------------------


def test_a_deadline_that_is_not_written_yet_is_looked_for_again() -> None:
    state, actions = decide(RULES, RUNNING, Deadline(None), NOW)

    assert (state, actions) == (replace(RUNNING, look_us=NOW + core.LOOK_AGAIN_US), ())
    assert decide(RULES, state, Tick(), NOW + core.LOOK_AGAIN_US) == (state, (Do.READ_DEADLINE,))


def test_a_deadline_is_read_again_when_it_has_come() -> None:
    state, actions = decide(RULES, RUNNING, Deadline(NOW + 7), NOW)

    assert (state, actions) == (replace(RUNNING, fence_us=NOW + 7, look_us=NOW + 7), ())
    assert state.wake_us() == NOW + 7
    assert decide(RULES, state, Tick(), NOW + 6) == (state, ())
    assert decide(RULES, state, Tick(), NOW + 7) == (state, (Do.READ_DEADLINE,))


def test_a_deadline_that_was_moved_fences_nobody() -> None:
    read = replace(RUNNING, fence_us=NOW, look_us=NOW)

    state, actions = decide(RULES, read, Deadline(NOW + 9), NOW)

    assert (state, actions) == (replace(RUNNING, fence_us=NOW + 9, look_us=NOW + 9), ())


@pytest.mark.parametrize("again", [NOW, NOW - 1, None])
def test_past_the_deadline_the_workers_are_killed_without_grace(again: int | None) -> None:
    read = replace(RUNNING, fence_us=NOW, look_us=NOW)

    state, actions = decide(RULES, read, Deadline(again), NOW)

    assert actions == (Do.TELL_STOPPING, Do.KILL)
    assert (state.phase, state.end) == (Phase.STOPPING, "fenced")
    assert state.message == "the control plane was silent past the node's lease"
    assert (state.kill_us, state.look_us) == (NOW, None)


def test_a_deadline_that_cannot_be_read_any_more_still_holds() -> None:
    read = replace(RUNNING, fence_us=NOW + 5, look_us=NOW + 5)

    assert decide(RULES, read, Deadline(None), NOW) == (read, ())


def test_nothing_is_started_past_the_deadline() -> None:
    state, actions = decide(RULES, State(), Deadline(NOW), NOW)

    assert actions == (Do.TELL_STOPPING, Do.KILL)
    assert decide(RULES, state, Ready(), NOW) == (state, ())


def test_the_fence_cuts_a_grace_short_and_keeps_the_reason() -> None:
    read = replace(STOPPING, fence_us=NOW, look_us=NOW)

    state, actions = decide(RULES, read, Deadline(NOW), NOW)

    assert actions == (Do.KILL,)
    assert (state.end, state.kill_us) == ("ordered", NOW)


def test_a_deadline_and_a_kill_that_are_due_at_once_both_have_their_turn() -> None:
    both = replace(STOPPING, kill_us=NOW, fence_us=NOW, look_us=NOW)

    state, actions = decide(RULES, both, Tick(), NOW)
    assert actions == (Do.READ_DEADLINE,)
    state, actions = decide(RULES, state, Deadline(NOW + GRACE), NOW)
    assert actions == ()
    assert decide(RULES, state, Tick(), NOW)[1] == (Do.KILL,)


# --- what workers leave behind --------------------------------------------------------------------


def test_what_workers_left_behind_is_asked_to_go_then_killed() -> None:
    state, actions = decide(RULES, RUNNING, ended(0, 1), NOW)

    assert actions == (Do.TERM_LEFT,)
    assert state == SWEEPING
    assert decide(RULES, state, Tick(), NOW + core.LEFTOVER_GRACE_US)[1] == (Do.KILL,)


def test_leftovers_get_no_more_time_than_the_workers_had() -> None:
    soon = replace(STOPPING, kill_us=NOW + 3)

    state, actions = decide(RULES, soon, ended(0, 1), NOW)

    assert actions == (Do.TERM_LEFT,)
    assert (state.phase, state.end, state.kill_us) == (Phase.SWEEPING, "ordered", NOW + 3)


def test_leftovers_are_asked_once() -> None:
    assert decide(RULES, SWEEPING, ended(), NOW) == (SWEEPING, ())


def test_the_lease_ends_when_the_leftovers_are_gone() -> None:
    state, actions = decide(RULES, SWEEPING, CHILDLESS, NOW)

    assert (state.phase, actions) == (Phase.ENDED, (Do.END,))


def test_a_stop_after_the_last_worker_does_not_change_how_it_ended() -> None:
    state, actions = decide(RULES, SWEEPING, Stop("ordered", "late", 1), NOW)

    assert (state, actions) == (replace(SWEEPING, kill_us=NOW + 1), ())


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        Ready(),
        Started(frozenset({0})),
        Failed("late", frozenset({0})),
        ended(0, failed={0}),
        CHILDLESS,
        Stop("ordered", "late", 0),
        Signal(1, 10),
        Deadline(0),
        Deadline(None),
        Tick(),
    ],
    ids=repr,
)
def test_nothing_changes_after_the_end(event: Event) -> None:
    over = replace(ENDED, end="ordered", fence_us=NOW)

    assert decide(LIMITED, over, event, NOW) == (over, ())


# --- whatever comes, in whatever order ------------------------------------------------------------

ranks = st.frozensets(st.integers(0, 3))
moments = st.integers(0, 20_000 * MS)
rules = st.builds(
    Rules,
    time_limit_us=st.none() | moments,
    warn_before_us=st.none() | moments,
    grace_us=moments,
    failure_grace_us=moments,
)


def events(now_us: int) -> st.SearchStrategy[Event]:
    """Any event, deadlines around now among them."""
    around = st.integers(now_us - 5_000 * MS, now_us + 5_000 * MS)
    return st.one_of(
        st.just(Ready()),
        st.builds(Started, ranks),
        st.builds(Failed, st.just("broken"), ranks),
        st.builds(
            Reaped,
            st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=3).map(tuple),
            st.booleans(),
            ranks,
        ),
        st.builds(Signal, st.integers(1, 4), st.just(10), ranks),
        st.builds(Stop, st.just("ordered"), st.sampled_from(["", "why"]), moments),
        st.builds(Deadline, st.none() | around),
        st.just(Tick()),
    )


def check_step(before: State, event: Event, after: State, actions: tuple[Do, ...]) -> None:
    """What holds of every single step."""
    assert after.phase >= before.phase
    if before.phase >= Phase.STOPPING:
        assert (after.end, after.message) == (before.end, before.message)
        assert after.alive <= before.alive
    if after.phase in (Phase.STOPPING, Phase.SWEEPING):
        assert after.kill_us is not None
        assert after.wake_us() is not None
    assert (Do.TELL_STOPPING in actions) == (before.phase < Phase.STOPPING == after.phase)
    assert (Do.END in actions) == (before.phase < Phase.ENDED == after.phase)
    if Do.END in actions:
        assert isinstance(event, Reaped)
        assert event.childless
        assert not after.alive
        assert after.wake_us() is None
    if Do.START in actions:
        assert before.phase is Phase.PREPARING
    if Do.TERM_WORKERS in actions:
        assert after.alive
    if Do.WARN in actions:
        assert before.phase is after.phase is Phase.RUNNING
        assert before.warn_us is not None
        assert after.warn_us is None
    if after.sent != before.sent:
        assert actions == (Do.SIGNAL,)
        assert after.phase is Phase.RUNNING
        assert after.sent == event
        assert before.sent is None or before.sent.number < event.number
    else:
        assert Do.SIGNAL not in actions


def to_the_kill(rules: Rules, state: State, now_us: int) -> int:
    """Sleep as the loop does, with a deadline that is moved on for ever; when the KILL comes."""
    for _ in range(10_000):
        due = state.wake_us()
        assert due is not None
        now_us = max(now_us, due)
        state, actions = decide(rules, state, Tick(), now_us)
        if Do.READ_DEADLINE in actions:
            state, _ = decide(rules, state, Deadline(now_us + 10_000 * MS), now_us)
        if Do.KILL in actions:
            return now_us
    raise AssertionError("the KILL never comes")


@settings(deadline=None)
@given(rules, st.data())
def test_whatever_comes_a_lease_only_moves_on(rules: Rules, data: st.DataObject) -> None:
    state, now, told, stop_by = State(), NOW, 0, None
    warned = 0
    for pause in data.draw(st.lists(st.integers(0, 3_000 * MS), max_size=15)):
        now += pause
        event = data.draw(events(now))
        before, (state, actions) = state, decide(rules, state, event, now)
        check_step(before, event, state, actions)
        told += actions.count(Do.TELL_STOPPING)
        warned += actions.count(Do.WARN)
        if stop_by is None and state.phase > Phase.RUNNING:
            stop_by = now + 20_000 * MS

    assert told <= 1
    assert warned <= (rules.time_limit_us is not None and rules.warn_before_us is not None)
    if state.phase in (Phase.STOPPING, Phase.SWEEPING):
        assert stop_by is not None
        assert to_the_kill(rules, state, now) <= max(stop_by, now + core.LAST_RETRY_US)


# --- a whole life, in a world that answers --------------------------------------------------------


@dataclass(slots=True)
class Process:
    """A worker, or what one left behind, on a clock of the test's own."""

    ends_us: int
    """When it ends by itself."""
    fails: bool
    """How."""
    heeds_us: int | None
    """How long after SIGTERM it ends; None for never."""
    leaves: int
    """Processes that it leaves behind, which heed nothing."""


processes = st.builds(
    Process,
    ends_us=st.integers(0, 100_000 * MS),
    fails=st.booleans(),
    heeds_us=st.none() | st.integers(0, 15_000 * MS),
    leaves=st.integers(0, 2),
)
stops = st.lists(st.tuples(st.integers(0, 50_000 * MS), st.integers(0, 20_000 * MS)), max_size=3)


class World:
    """Does what is decided and tells what follows; time jumps to what is next."""

    def __init__(
        self, rules: Rules, workers: list[Process], stops: list[tuple[int, int]], fence: int | None
    ) -> None:
        self.rules, self.workers = rules, dict(enumerate(workers))
        self.orders = sorted(stops)
        self.fence = fence
        self.state, self.now, self.left, self.ended = State(), 0, 0, 0
        self.started = False
        self.done: list[tuple[int, Do]] = []

    def happens(self, event: Event) -> None:
        before = self.state
        self.state, actions = decide(self.rules, before, event, self.now)
        check_step(before, event, self.state, actions)
        for action in actions:
            self.done.append((self.now, action))
            self.perform(action)
        if Do.KILL in actions or Do.TERM_LEFT in actions:
            self.reap()

    def perform(self, action: Do) -> None:
        match action:
            case Do.START:
                self.started = True
                self.happens(Started(frozenset(self.workers)))
            case Do.TERM_WORKERS:
                for worker in self.workers.values():
                    if worker.heeds_us is not None and self.now + worker.heeds_us < worker.ends_us:
                        worker.ends_us, worker.fails = self.now + worker.heeds_us, True
            case Do.KILL:
                self.left = 0
                for worker in self.workers.values():
                    worker.ends_us, worker.leaves, worker.fails = self.now, 0, True
            case Do.READ_DEADLINE:
                self.happens(Deadline(self.fence))
            case Do.END:
                assert not self.left
                assert not (self.started and self.workers)

    def reap(self) -> None:
        gone = {r: w for r, w in self.workers.items() if self.started and w.ends_us <= self.now}
        for rank, worker in gone.items():
            self.left += worker.leaves
            del self.workers[rank]
        childless = not self.left and not (self.started and self.workers)
        self.happens(Reaped(tuple((r, w.fails) for r, w in gone.items()), childless))

    def live(self) -> None:
        if self.fence is not None:
            self.perform(Do.READ_DEADLINE)
        self.happens(Ready())
        while self.state.phase is not Phase.ENDED:
            due = [order[0] for order in self.orders[:1]]
            due += [worker.ends_us for worker in self.workers.values()]
            if (wake := self.state.wake_us()) is not None:
                due.append(wake)
            self.now = max(self.now, min(due))
            while self.orders and self.orders[0][0] <= self.now:
                self.happens(Stop("ordered", "", self.orders.pop(0)[1]))
            self.reap()
            self.happens(Tick())


@settings(deadline=None)
@given(
    rules,
    st.lists(processes, min_size=1, max_size=4),
    stops,
    st.none() | st.integers(-1, 50_000 * MS),
)
def test_every_life_ends_in_time_with_nothing_left(
    rules: Rules, workers: list[Process], stops: list[tuple[int, int]], fence: int | None
) -> None:
    last_natural = max(worker.ends_us for worker in workers)
    world = World(rules, workers, stops, fence)

    world.live()

    assert [do for _, do in world.done].count(Do.END) == 1
    bounds = [last_natural, *(at + grace for at, grace in stops)]
    if fence is not None:
        bounds.append(max(0, fence))
    warnings = [at for at, do in world.done if do is Do.WARN]
    asked = [at for at, do in world.done if do in (Do.TERM_WORKERS, Do.KILL)]
    if warnings:
        assert rules.time_limit_us is not None
        assert rules.warn_before_us is not None
        assert warnings == [max(0, rules.time_limit_us - rules.warn_before_us)]
        assert all(at >= warnings[0] for at in asked)  # the warning comes before everything else
    if rules.time_limit_us is not None:
        # A limit that is reached while they are being ended already gives nobody less time.
        graces = [rules.grace_us, rules.failure_grace_us, *(grace for _, grace in stops)]
        bounds.append(rules.time_limit_us + max(graces))
    assert world.now <= min(bounds) + core.LEFTOVER_GRACE_US
    if fence is not None and fence <= 0:
        assert not world.started
