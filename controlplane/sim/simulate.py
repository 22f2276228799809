"""One simulation, from what was asked for to its figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controlplane.scheduling.classic import Classic
from controlplane.sim import classic
from controlplane.sim.centre import Centre, PreemptionCost
from controlplane.sim.faults import BadInput
from controlplane.sim.meter import Meter
from controlplane.sim.recipe import load
from controlplane.sim.summary import Summary, document, summarise
from controlplane.sim.synthetic import synthetic
from controlplane.sim.trace import MILLI, TraceJob, Window, read_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from controlplane.sim.cluster import Cluster
    from controlplane.sim.meter import JobRun, Point

DEFAULT: Final = "default"
"""The real scheduler's own policy, over the real registry."""
POLICIES: Final = (*(policy.value for policy in Classic), DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a simulation has shown."""

    policy: str
    """The policy."""
    trace: str
    """Name of the trace."""
    nodes: int
    """Nodes of the cluster."""
    gpus: int
    """Its GPUs."""
    begin_us: int
    """When it began, in the trace's time."""
    summary: Summary
    """The figures."""
    runs: Sequence[JobRun]
    """What became of each job."""
    points: Sequence[Point]
    """The cluster over time."""
    shared_jobs: int
    """Jobs that ask for a part of a GPU, and had a whole one."""
    broken_promises: int | None
    """Jobs that started later than they were promised; None where nothing is promised."""

    def document(self) -> Mapping[str, object]:
        """All of it as JSON values."""
        about = {"policy": self.policy, "trace": self.trace, "nodes": self.nodes, "gpus": self.gpus}
        more = {"shared_jobs": self.shared_jobs, "broken_promises": self.broken_promises}
        return {**about, **document(self.summary), **more}


def read_jobs(path: Path, window: Window, seed: int | None = None) -> list[TraceJob]:
    """The jobs of a trace: a table (`.csv`, `.csv.gz`), or a recipe in YAML that makes one up.

    BadInput where there is none.
    """
    if path.suffix in (".yaml", ".yml"):
        jobs = synthetic(load(path), seed)
    elif seed is not None:
        raise BadInput(
            f"--seed {seed}: {path} is no recipe in YAML, and nothing in it is by chance"
        )
    else:
        jobs = read_trace(path)
    taken = window.of(jobs)
    if not taken:
        first_s, last_s = jobs[0].submit_us / 1e6, jobs[-1].submit_us / 1e6
        raise BadInput(
            f"no job of {path} came within --from and --to: the first came at {first_s:g} s and"
            f" the last at {last_s:g} s"
        )
    return taken


def simulate(
    jobs: Sequence[TraceJob],
    cluster: Cluster,
    policy: str,
    *,
    trace: str = "",
    begin_us: int | None = None,
    cost: PreemptionCost | None = None,
    check: bool = False,
    tell: Callable[[int], None] | None = None,
) -> Result:
    """Run jobs, in the order in which they came, under a policy.

    `begin_us`: from when on it counts; by default from the first job on. `cost`: of each
    preemption. `check`: look at the scheduler's invariants after every moment. `tell`: called with
    the number of jobs that have ended, now and then.
    """
    gpus = sum(node.gpus for node in cluster)
    begin_us = jobs[0].submit_us if begin_us is None else begin_us
    cost = cost or PreemptionCost()
    meter = Meter(gpus, tell)
    meter.begin(begin_us)
    broken = None
    if policy == DEFAULT:
        centre = Centre(cluster, meter, cost=cost, check=check)
        runs = centre.run(jobs)
        broken = centre.broken_promises
    else:
        sizes = [node.gpus for node in cluster]
        runs = classic.simulate(
            jobs, sizes, Classic(policy), meter, preemption_cost_us=cost.total_us
        )
    return Result(
        policy=policy,
        trace=trace,
        nodes=len(cluster),
        gpus=gpus,
        begin_us=begin_us,
        summary=summarise(runs, meter, begin_us=begin_us),
        runs=runs,
        points=meter.points,
        shared_jobs=sum(bool(job.gpu_milli % MILLI) for job in jobs),
        broken_promises=broken,
    )
