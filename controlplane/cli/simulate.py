"""`ccctl simulate`: a trace of jobs under a policy, on a cluster that nobody has to own."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from controlplane.cli.app import App, Command, pass_app
from controlplane.cli.arguments import byte_size
from controlplane.cli.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from controlplane.sim.cluster import Cluster

POLICIES: Final = ("fifo", "fifo-skip", "sjf", "srtf", "srsf", "las", "default")
"""Words of their own, because the simulator takes longer to import."""
FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


def seconds(value: str) -> int:
    """Read a moment or a length in a trace, in seconds or with units; give microseconds."""
    from controlplane.model.quantity import parse_duration

    try:
        return parse_duration(f"{value}s" if value.isdecimal() else value)
    except ValueError as problem:
        raise click.BadParameter(f"{value!r} {problem}.") from None


def cost(value: str) -> tuple[int, int]:
    """Read what a preemption costs: CHECKPOINT,RESTART; give microseconds."""
    parts = [seconds(part) for part in value.split(",")]
    if len(parts) != 2:
        raise click.BadParameter(
            f"{value!r} is not two durations; write CHECKPOINT,RESTART such as 30s,1m."
        )
    return parts[0], parts[1]


@click.command(
    "simulate",
    cls=Command,
    examples="""
    ccctl simulate --trace jobs.csv --nodes 8 --gpus-per-node 8 --policy srtf
    ccctl simulate --trace jobs.csv.gz --cluster centre.yaml --report week.html
    ccctl simulate --trace jobs.csv --from 35d --to 49d --nodes 80 --gpus-per-node 8 -o json
    ccctl simulate --trace recipe.yaml --seed 7 --nodes 8 --gpus-per-node 8 --check
    """,
)
@click.option(
    "--trace", type=FILE, metavar="FILE", required=True,
    help="The jobs: CSV, packed by gzip or not, or a recipe in YAML that makes them up.",
)  # fmt: skip
@click.option(
    "--policy", type=click.Choice(POLICIES), default="default", metavar="NAME",
    help="`default`, the centre's own; or a yardstick: `fifo`, `fifo-skip`, `sjf`, `srtf`, `srsf`, "
    "`las`.",
)  # fmt: skip
@click.option(
    "--cluster", type=FILE, metavar="FILE",
    help="The nodes: a recipe in YAML, or CSV with a line for each node.",
)  # fmt: skip
@click.option(
    "--nodes", type=click.IntRange(1, 200_000), metavar="N",
    help="So many nodes alike, in place of --cluster.",
)  # fmt: skip
@click.option(
    "--gpus-per-node", type=click.IntRange(0, 1000), metavar="N", help="GPUs of each of them."
)
@click.option(
    "--cpus-per-node", type=click.IntRange(1, 4096), metavar="N",
    help="Cores of each of them; 16 for each GPU by default.",
)  # fmt: skip
@click.option(
    "--memory-per-node", type=byte_size, metavar="SIZE",
    help="Memory of each of them; 256GiB for each GPU by default.",
)  # fmt: skip
@click.option("--gpu-model", default="GPU", metavar="NAME", help="Model of their GPUs.")
@click.option(
    "--from", "from_us", type=seconds, metavar="TIME",
    help="Only jobs that came from this moment of the trace on: seconds, or 3d12h.",
)  # fmt: skip
@click.option(
    "--to", "to_us", type=seconds, metavar="TIME", help="Only jobs that came before this moment."
)
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Only so many jobs, the first of them."
)
@click.option(
    "--seed", type=click.IntRange(0), metavar="N", help="For a recipe, in place of its own seed."
)
@click.option(
    "--limit-factor", type=click.FloatRange(1, 1e6), metavar="FACTOR",
    help="Give jobs without a time limit one: so many times their length. Backfill goes by it.",
)  # fmt: skip
@click.option(
    "--preemption-cost", type=cost, default="0s,0s", metavar="CHECKPOINT,RESTART",
    help="How long a job that makes room writes its checkpoint, and reads it later: 30s,1m.",
)  # fmt: skip
@click.option(
    "--check", is_flag=True,
    help="Look at the invariants of scheduler and registry after every event (`default` only).",
)  # fmt: skip
@click.option(
    "--report", type=click.Path(dir_okay=False, writable=True, path_type=Path), metavar="FILE",
    help="Write a page with plots, in HTML.",
)  # fmt: skip
@pass_app
def simulate(app: App, /, trace: Path, policy: str, report: Path | None, **asked: Any) -> None:
    """Tell how jobs would fare: a trace under a policy, on a virtual clock.

    `default` runs the centre's own policy, registry and commits; the others are yardsticks that
    know how long each job will run, and see nothing but GPUs. docs/simulator.md tells the columns
    of a trace, the recipes, and every figure. No control plane is asked.
    """
    from controlplane.cli.simtables import draw
    from controlplane.sim import simulate as sim
    from controlplane.sim.centre import PreemptionCost
    from controlplane.sim.faults import BadInput
    from controlplane.sim.trace import Window

    if asked["check"] and policy != "default":
        raise Failure(f"--check: the invariants are the centre's own, and {policy} has none.")
    try:
        if report is not None:
            from controlplane.sim import report as pages

            pages.plotter()  # that it is there should show now, not after an hour
        window = Window(
            from_us=asked["from_us"],
            to_us=asked["to_us"],
            limit=asked["limit"],
            limit_factor=asked["limit_factor"],
        )
        jobs = sim.read_jobs(trace, window, asked["seed"])
        cluster = _cluster(asked)
        with _progress(len(jobs)) as tell:
            result = sim.simulate(
                jobs,
                cluster,
                policy,
                trace=trace.name,
                begin_us=asked["from_us"],
                cost=PreemptionCost(*asked["preemption_cost"]),
                check=asked["check"],
                tell=tell,
            )
        if report is not None:
            pages.write(result, report)
    except BadInput as error:
        raise Failure(f"{error}.") from None
    if result.shared_jobs:
        app.note(
            f"{result.shared_jobs} jobs ask for a part of a GPU; each had a whole one to itself."
        )
    for name, why in result.summary.never[:3]:
        app.note(f"{name} can never run: {why}.")
    if len(result.summary.never) > 3:
        app.note(f"{len(result.summary.never)} jobs can never run; they are in no figure.")
    app.emit(result.document, lambda console: draw(console, result))


def _cluster(asked: dict[str, Any]) -> Cluster:
    from controlplane.sim.cluster import read_cluster, uniform

    path, nodes, gpus = asked["cluster"], asked["nodes"], asked["gpus_per_node"]
    if path is not None and (nodes is not None or gpus is not None):
        raise Failure("--cluster names the nodes; leave --nodes and --gpus-per-node out.")
    if path is not None:
        return read_cluster(path)
    if nodes is None or gpus is None:
        raise Failure("name the cluster: --nodes and --gpus-per-node, or --cluster FILE.")
    return uniform(
        nodes,
        gpus,
        cpus=asked["cpus_per_node"],
        memory_bytes=asked["memory_per_node"],
        gpu_model=asked["gpu_model"],
    )


@contextmanager
def _progress(jobs: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on a terminal's stderr; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("jobs ended", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=jobs)
        yield lambda ended: bar.update(task, completed=ended)
