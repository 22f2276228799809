"""Classic policies over a trace, on a cluster that is nothing but counts of GPUs.

All that happens at one moment happens before the decision at that moment. A job that is placed anew
on other nodes goes on without a pause; one that is preempted waits, and is charged when it starts
again.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from controlplane.scheduling import classic
from controlplane.scheduling.classic import SERVICE_LEVELS_US, Classic, Lines, level_of
from controlplane.scheduling.firstfit import Racks
from controlplane.sim.meter import JobRun, Meter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.scheduling.firstfit import Spot
    from controlplane.sim.trace import TraceJob

NEVER: Final = 1 << 62


class _Live:
    """A job that waits or runs."""

    __slots__ = ("again", "gpus", "left_us", "run", "since_us", "spot", "until_us")

    def __init__(self, run: JobRun) -> None:
        self.run = run
        self.gpus = run.job.gpus
        self.left_us = run.job.duration_us  # while it waits
        self.until_us = self.since_us = 0  # while it runs
        self.again = 0  # how often it started: an end foreseen before a preemption is none
        self.spot: Spot = ()


def simulate(
    jobs: Sequence[TraceJob],
    sizes: Sequence[int],
    policy: Classic,
    meter: Meter,
    *,
    preemption_cost_us: int = 0,
) -> list[JobRun]:
    """Run jobs, in the order in which they came, on nodes with so many GPUs each.

    `preemption_cost_us`: how much longer a job runs for each time that it was preempted.
    """
    sim = _Simulation(sizes, policy, meter, preemption_cost_us)
    runs = [JobRun(job=job) for job in jobs]
    for run in runs:
        if Racks(sizes).take(run.job.gpus) is None:
            run.never = f"it needs {run.job.gpus} GPUs, and the nodes are too small or too few"
    coming = [(number, run) for number, run in enumerate(runs) if not run.never]
    coming.reverse()
    while coming or sim.events:
        now_us = min(
            coming[-1][1].job.submit_us if coming else NEVER,
            sim.events[0][0] if sim.events else NEVER,
        )
        meter.advance(now_us)
        sim.happen(now_us)
        while coming and coming[-1][1].job.submit_us == now_us:
            sim.come(*coming.pop())
        sim.decide(now_us)
    return runs


class _Simulation:
    def __init__(
        self, sizes: Sequence[int], policy: Classic, meter: Meter, preemption_cost_us: int
    ) -> None:
        self._policy, self._meter, self._cost_us = policy, meter, preemption_cost_us
        self._racks = Racks(sizes)
        self._lines = Lines()
        self._live: dict[int, _Live] = {}
        self._running: dict[int, _Live] = {}
        self.events: list[tuple[int, int, int]] = []
        """(moment, job, how often it had started): it ends then, or changes its level."""

    def come(self, number: int, run: JobRun) -> None:
        live = self._live[number] = _Live(run)
        self._meter.came(run.job.account, live.gpus)
        self._wait(number, live)

    def _wait(self, number: int, live: _Live) -> None:
        length_us = live.run.job.duration_us
        key = self._policy.key(
            gpus=live.gpus,
            length_us=length_us,
            left_us=live.left_us,
            served_us=length_us - live.left_us,
        )
        self._lines.add(live.gpus, (key, number))

    def happen(self, now_us: int) -> None:
        """Let end what ends now."""
        events, meter = self.events, self._meter
        while events and events[0][0] == now_us:
            _, number, again = heappop(events)
            live = self._running.get(number)
            if live is None or live.again != again or live.until_us > now_us:
                continue
            del self._running[number], self._live[number]
            live.run.ended_us = now_us
            meter.finished(live.run.job.account, live.gpus)
            if not self._policy.preempts:
                self._racks.give(live.spot)

    def decide(self, now_us: int) -> None:
        if self._policy.preempts:
            self._rank(now_us)
        else:
            for number, _, spot in classic.start(
                self._lines, self._racks, strict=self._policy.strict
            ):
                self._live[number].spot = spot
                self._start(number, now_us)
        self._meter.settle(self._racks.stranded)

    def _rank(self, now_us: int) -> None:
        self._racks.clear()
        turn = classic.rank(self._keys(now_us), self._lines, self._racks)
        for number, _ in turn.stopped:
            live = self._running.pop(number)
            live.left_us = live.until_us - now_us + self._cost_us
            live.run.preemptions += 1
            self._meter.stopped(live.run.job.account, live.gpus)
            self._meter.lost_us += self._cost_us * live.gpus
            self._wait(number, live)
        for number, _ in turn.started:
            self._start(number, now_us)

    def _keys(self, now_us: int) -> list[tuple[int, int, int]]:
        """Key, number and GPUs of what runs."""
        items = self._running.items()
        if self._policy is Classic.SRTF:
            return [(live.until_us - now_us, number, live.gpus) for number, live in items]
        if self._policy is Classic.SRSF:
            return [
                ((live.until_us - now_us) * live.gpus, number, live.gpus) for number, live in items
            ]
        return [
            (level_of(self._served(live, now_us) * live.gpus), number, live.gpus)
            for number, live in items
        ]

    def _served(self, live: _Live, now_us: int) -> int:
        return max(0, live.run.job.duration_us - (live.until_us - now_us))

    def _start(self, number: int, now_us: int) -> None:
        live = self._live[number]
        live.again += 1
        live.since_us, live.until_us = now_us, now_us + live.left_us
        if live.run.started_us is None:
            live.run.started_us = now_us
        self._running[number] = live
        self._meter.started(live.run.job.account, live.gpus)
        heappush(self.events, (live.until_us, number, live.again))
        if self._policy is Classic.LAS and live.gpus:
            served_us = self._served(live, now_us) * live.gpus
            for level_us in SERVICE_LEVELS_US[level_of(served_us) :]:
                at_us = now_us - (served_us - level_us) // live.gpus
                if at_us >= live.until_us:
                    break
                heappush(self.events, (at_us, number, live.again))
