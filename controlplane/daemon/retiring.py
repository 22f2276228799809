"""The duties that let go of what is kept no longer: turns that rest between, until nothing is left
to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.engine import retention, sweep
from controlplane.kit.loop import Duty

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.kit.clock import Clock
    from controlplane.registry.registry import Registry
    from controlplane.service.context import House

REST_S = 0.5
"""Between two turns: a backlog must leave room for everything else."""


def duties(registry: Registry, house: House, clock: Clock) -> tuple[Duty, ...]:
    """The duties; none where everything is kept for ever."""
    if not registry.keep.shortest_us:
        return ()
    files = sweep.Files(logs=house.logs, series=house.series, blobs=house.blobs)
    reached = retention.Reached()
    steps: Iterator[bool] | None = None

    def turn() -> None:
        if retention.turn(registry, (files.logs, files.series), reached, clock.now_us()):
            retiring.wake()

    def step() -> None:
        nonlocal steps
        steps = steps or sweep.steps(registry, files, clock.now_us())
        if next(steps, False):
            sweeping.wake()
        else:
            steps = None

    period_s = retention.period_s(registry.keep)
    retiring = Duty(name="retention", run=turn, period_s=period_s, gap_s=REST_S)
    sweeping = Duty(name="sweep", run=step, period_s=period_s, gap_s=REST_S)
    return retiring, sweeping
