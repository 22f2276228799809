"""From orders and what is held to actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model.launch import LeaseOrder, LeaseSignal
from controlplane.model.lease import LeasePhase, LeaseStatus
from nodeagent.reconcile import (
    ABANDONED_GRACE_US,
    Action,
    Forget,
    NeverStarted,
    Signal,
    Start,
    Stop,
    reconcile,
)
from tests.support import launches
from tests.support.examples import examples

LAUNCH = launches.launch("command", launches.members([1]))
ALIVE = [phase for phase in LeasePhase if phase is not LeasePhase.ENDED]


def run_order(lease_id: int = 1, token: int = 5, *, launched: bool = True) -> LeaseOrder:
    return LeaseOrder(
        lease_id=lease_id, token=token, stop=False, launch=LAUNCH if launched else None
    )


def stop_order(lease_id: int = 1, token: int = 5, grace_us: int = 9) -> LeaseOrder:
    return LeaseOrder(lease_id=lease_id, token=token, stop=True, grace_period_us=grace_us)


def holding(
    phase: LeasePhase = LeasePhase.RUNNING, lease_id: int = 1, token: int = 5
) -> dict[int, LeaseStatus]:
    return {lease_id: LeaseStatus(lease_id=lease_id, token=token, phase=phase)}


STOP = Stop(lease_id=1, grace_period_us=9)
ABANDONED = Stop(lease_id=1, grace_period_us=ABANDONED_GRACE_US)
OVER = holding(LeasePhase.ENDED)


@pytest.mark.parametrize(
    ("orders", "held", "stopping", "actions"),
    [
        pytest.param([], {}, {}, [], id="nothing is ordered and nothing held"),
        pytest.param(
            [run_order()],
            {},
            {},
            [Start(lease_id=1, token=5, launch=LAUNCH)],
            id="a new lease is started",
        ),
        pytest.param([run_order()], holding(), {}, [], id="a lease that runs goes on"),
        pytest.param([run_order()], OVER, {}, [], id="a lease that has ended is not run again"),
        pytest.param(
            [run_order(launched=False)], holding(), {}, [], id="a lease that was reported goes on"
        ),
        pytest.param(
            [run_order(launched=False)], {}, {}, [], id="what was lost here is not started anew"
        ),
        pytest.param(
            [stop_order()],
            {},
            {},
            [NeverStarted(lease_id=1, token=5)],
            id="a lease that was never seen is never started",
        ),
        pytest.param([stop_order()], holding(), {}, [STOP], id="a lease that runs is stopped"),
        pytest.param([stop_order()], holding(), {1: 9}, [], id="a stop is told once"),
        pytest.param([stop_order()], holding(), {1: 8}, [], id="a longer grace comes too late"),
        pytest.param([stop_order()], holding(), {1: 10}, [STOP], id="a shorter grace is told"),
        pytest.param([stop_order()], OVER, {}, [], id="what has ended needs no stop"),
        pytest.param(
            [stop_order(token=4)], holding(), {}, [], id="a stop under a lower token is stale"
        ),
        pytest.param(
            [stop_order(token=6)], holding(), {}, [STOP], id="a stop under a higher token counts"
        ),
        pytest.param(
            [run_order(token=4)], holding(), {}, [], id="a start under a lower token is stale"
        ),
        pytest.param([], holding(), {}, [ABANDONED], id="a lease that nobody names is stopped"),
        pytest.param([], holding(), {1: 1 << 40}, [], id="an abandoned lease is stopped once"),
        pytest.param([], OVER, {}, [Forget(lease_id=1)], id="what has ended is forgotten"),
        pytest.param([], OVER, {1: 9}, [Forget(lease_id=1)], id="and so is what was stopped"),
        pytest.param(
            [stop_order(token=4)],
            OVER,
            {},
            [],
            id="a stale order still names its lease, so that it is not forgotten",
        ),
        pytest.param(
            [run_order(2), stop_order(3)],
            holding(),
            {},
            [
                Start(lease_id=2, token=5, launch=LAUNCH),
                NeverStarted(lease_id=3, token=5),
                ABANDONED,
            ],
            id="each lease by itself, in the order of the orders",
        ),
    ],
)
def test_what_follows(
    orders: list[LeaseOrder],
    held: dict[int, LeaseStatus],
    stopping: dict[int, int],
    actions: list[Action],
) -> None:
    assert reconcile(orders, held, stopping) == actions


def signals(*numbers: int) -> tuple[LeaseSignal, ...]:
    return tuple(LeaseSignal(number=number, signal="USR1") for number in numbers)


@pytest.mark.parametrize(
    ("done", "token", "phase", "unsent"),
    [
        pytest.param(0, 5, LeasePhase.RUNNING, (2, 4), id="all that are ordered are sent"),
        pytest.param(2, 5, LeasePhase.RUNNING, (4,), id="what was sent is not sent again"),
        pytest.param(4, 5, LeasePhase.RUNNING, (), id="there is nothing left to send"),
        pytest.param(0, 6, LeasePhase.RUNNING, (), id="an order under a lower token is stale"),
        pytest.param(0, 5, LeasePhase.STOPPING, (), id="what is being ended gets none"),
        pytest.param(0, 5, LeasePhase.STARTING, (), id="nor what does not run yet"),
    ],
)
def test_signals_are_for_what_runs_and_has_not_sent_them(
    done: int, token: int, phase: LeasePhase, unsent: tuple[int, ...]
) -> None:
    order = replace(run_order(), signals=signals(2, 4))
    held = {i: replace(s, signals_done=done) for i, s in holding(phase, token=token).items()}

    wanted = [Signal(lease_id=1, signals=signals(*unsent))] if unsent else []
    assert reconcile([order], held, {}) == wanted


@pytest.mark.parametrize("phase", ALIVE)
def test_a_lease_can_be_stopped_at_every_time_of_its_life(phase: LeasePhase) -> None:
    assert reconcile([stop_order()], holding(phase), {}) == [STOP]
    assert reconcile([], holding(phase), {}) == [ABANDONED]


# --- whatever is ordered and held -----------------------------------------------------------------

ids = st.integers(1, 6)
tokens = st.integers(1, 3)
graces = st.integers(0, 3)


@st.composite
def all_orders(draw: st.DrawFn) -> list[LeaseOrder]:
    """At most one order for each lease, as the control plane gives them."""
    return [
        draw(
            st.builds(
                LeaseOrder,
                lease_id=st.just(lease_id),
                token=tokens,
                stop=st.booleans(),
                grace_period_us=graces,
                launch=st.none() | st.just(LAUNCH),
                signals=st.sampled_from([(), signals(1), signals(1, 2)]),
            )
        )
        for lease_id in draw(st.lists(ids, unique=True))
    ]


all_held = st.dictionaries(ids, st.tuples(tokens, st.sampled_from(LeasePhase))).map(
    lambda held: {
        lease_id: LeaseStatus(lease_id=lease_id, token=token, phase=phase)
        for lease_id, (token, phase) in held.items()
    }
)
all_stopping = st.dictionaries(ids, graces)


def perform(
    actions: list[Action], held: Mapping[int, LeaseStatus], stopping: Mapping[int, int]
) -> tuple[dict[int, LeaseStatus], dict[int, int]]:
    """What is held, and what was told to stop, after the actions."""
    now_held, now_stopping = dict(held), dict(stopping)
    for action in actions:
        match action:
            case Start(lease_id=lease_id, token=token):
                assert lease_id not in now_held
                now_held |= holding(LeasePhase.STAGING, lease_id, token)
            case NeverStarted(lease_id=lease_id, token=token):
                assert lease_id not in now_held
                now_held |= holding(LeasePhase.ENDED, lease_id, token)
            case Stop(lease_id=lease_id, grace_period_us=grace):
                assert now_held[lease_id].phase is not LeasePhase.ENDED
                now_stopping[lease_id] = grace
            case Signal(lease_id=lease_id, signals=sent):
                assert now_held[lease_id].phase is LeasePhase.RUNNING
                now_held[lease_id] = replace(now_held[lease_id], signals_done=sent[-1].number)
            case Forget(lease_id=lease_id):
                assert now_held.pop(lease_id).phase is LeasePhase.ENDED
                now_stopping.pop(lease_id, None)
    return now_held, now_stopping


@settings(deadline=None, max_examples=examples(60))
@given(all_orders(), all_held, all_stopping)
def test_what_was_done_is_not_done_again(
    orders: list[LeaseOrder], held: dict[int, LeaseStatus], stopping: dict[int, int]
) -> None:
    actions = reconcile(orders, held, stopping)

    assert len({action.lease_id for action in actions}) == len(actions)
    assert reconcile(orders, *perform(actions, held, stopping)) == []


@settings(deadline=None, max_examples=examples(60))
@given(all_orders(), all_held, all_stopping)
def test_nothing_that_was_ordered_to_stop_is_left_running(
    orders: list[LeaseOrder], held: dict[int, LeaseStatus], stopping: dict[int, int]
) -> None:
    now_held, told = perform(reconcile(orders, held, stopping), held, stopping)

    meant = {order.lease_id: order for order in orders}
    for lease_id, status in now_held.items():
        order = meant.get(lease_id)
        if status.phase is LeasePhase.ENDED:
            assert order is not None  # or it would be forgotten
        elif order is None:
            assert lease_id in told
        elif order.stop and order.token >= status.token:
            assert told[lease_id] <= order.grace_period_us
    for order in orders:
        if order.stop:
            assert order.lease_id in now_held
        elif order.launch is not None:
            assert now_held[order.lease_id].phase is not LeasePhase.ENDED or order.lease_id in held


@settings(deadline=None, max_examples=examples(60))
@given(all_orders(), all_held, all_stopping)
def test_stale_orders_are_passed_over(
    orders: list[LeaseOrder], held: dict[int, LeaseStatus], stopping: dict[int, int]
) -> None:
    """They differ from current orders that ask for nothing in no way."""
    stale = {
        order.lease_id
        for order in orders
        if order.lease_id in held and order.token < held[order.lease_id].token
    }
    idle = [
        replace(o, stop=False, launch=None, signals=()) if o.lease_id in stale else o
        for o in orders
    ]

    actions = reconcile(orders, held, stopping)

    assert actions == reconcile(idle, held, stopping)
    assert not stale & {action.lease_id for action in actions}
