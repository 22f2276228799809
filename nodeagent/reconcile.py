"""What to do, given what should be and what is: pure, and the same whenever it is asked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.model.lease import LeasePhase, LeaseStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from controlplane.model.launch import Launch, LeaseOrder, LeaseSignal


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start a lease that this node has never seen."""

    lease_id: int
    """Which lease."""
    token: int
    """Its fencing token."""
    launch: Launch
    """How."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End a lease's workers."""

    lease_id: int
    """Which lease."""
    grace_period_us: int
    """Time between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Have signals sent to a lease's workers."""

    lease_id: int
    """Which lease."""
    signals: tuple[LeaseSignal, ...]
    """All that its supervisor has not reported as sent, by number; it knows repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeLimit:
    """Have a lease's supervisor keep another time limit."""

    lease_id: int
    """Which lease."""
    time_limit_us: int | None
    """From the start of its workers, in microseconds; None for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverStarted:
    """Remember a lease as ended that was to be stopped before this node had seen it."""

    lease_id: int
    """Which lease."""
    token: int
    """Its fencing token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """The control plane knows all about an ended lease: it may go."""

    lease_id: int
    """Which lease."""


Action = Start | Stop | Signal | ChangeLimit | NeverStarted | Forget

ABANDONED_GRACE_US = 5_000_000
"""For a lease that runs here though the control plane names it no more."""


def reconcile(
    orders: Iterable[LeaseOrder], held: Mapping[int, LeaseStatus], stopping: Mapping[int, int]
) -> list[Action]:
    """The actions that lead from what is held to what is ordered.

    `stopping`: leases that were told to stop, with the grace period they were told, so that an
    order is given once.
    Orders under a lower token than is held are stale, and passed over.
    """
    actions: list[Action] = []
    named = set()
    for order in orders:
        named.add(order.lease_id)
        status = held.get(order.lease_id)
        if status is None:
            if order.stop:
                actions.append(NeverStarted(lease_id=order.lease_id, token=order.token))
            elif order.launch is not None:
                actions.append(
                    Start(lease_id=order.lease_id, token=order.token, launch=order.launch)
                )
        elif order.token >= status.token and order.stop and status.phase is not LeasePhase.ENDED:
            told = stopping.get(order.lease_id)
            if told is None or order.grace_period_us < told:
                actions.append(Stop(lease_id=order.lease_id, grace_period_us=order.grace_period_us))
        elif order.token >= status.token and status.phase is LeasePhase.RUNNING:
            unsent = tuple(s for s in order.signals if s.number > status.signals_done)
            if unsent:
                actions.append(Signal(lease_id=order.lease_id, signals=unsent))
            if order.limit is not None and order.limit.us != status.time_limit_us:
                change = ChangeLimit(lease_id=order.lease_id, time_limit_us=order.limit.us)
                actions.append(change)
    for lease_id, status in held.items():
        if lease_id in named:
            continue
        if status.phase is LeasePhase.ENDED:
            actions.append(Forget(lease_id=lease_id))
        elif lease_id not in stopping:
            actions.append(Stop(lease_id=lease_id, grace_period_us=ABANDONED_GRACE_US))
    return actions
