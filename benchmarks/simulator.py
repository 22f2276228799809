"""The simulator beside published figures: ``python -m benchmarks.simulator --traces FOLDER``.

Runs each policy on the traces of the literature that are in the folder, and prints the ratio of
ours to each reference of `reference_results.csv`, and how long it took. The centre's own policy is
on the same traces, without a reference: nobody has published it.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from controlplane.sim.cluster import uniform
from controlplane.sim.simulate import POLICIES, read_jobs, simulate
from controlplane.sim.trace import Window

DAY_S = 86_400
METRICS = {
    "avg_jct_s": "avg_jct_s",
    "p99_jct_s": "p99_jct_s",
    "avg_first_wait_s": "avg_wait_s",
    "makespan_s": "makespan_s",
}
"""Names of figures in the references, and ours."""


class Case(NamedTuple):
    """A trace on a cluster."""

    name: str
    """How it is told."""
    file: str
    """The trace."""
    window: Window
    """The part of it that is taken."""
    nodes: int
    """Nodes of 8 GPUs."""
    reference: tuple[str, str]
    """How the references' columns `trace` and `window` begin."""


CASES = (
    Case("Muri trace 3", "muri_trace3.csv.gz", Window(), 8, ("trace3", "")),
    Case(
        "Philly, two weeks",
        "philly_first60days.csv.gz",
        # 2017-10-09 to 10-22, where 0 is 2017-09-04 10:30:41.
        Window(from_us=2_986_159_000_000, to_us=(2_986_159 + 14 * DAY_S) * 1_000_000),
        80,
        ("philly_jobs.csv.gz VC all", "2017-10-09"),
    ),
)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, required=True, help="the folder with the traces")
    parser.add_argument("--policies", default=",".join(POLICIES), help="which, by commas")
    parser.add_argument("--limit-factor", type=float, help="time limits, as of `ccctl simulate`")
    asked = parser.parse_args()
    references = read_references(asked.traces / "reference_results.csv")
    table = Table("trace", "policy", "figure", "ours", "reference", "of whom", "ratio", "took")
    for case in CASES:
        # The references know no classes of priority.
        jobs = [
            replace(job, priority=None)
            for job in read_jobs(
                asked.traces / case.file, replace(case.window, limit_factor=asked.limit_factor)
            )
        ]
        for policy in asked.policies.split(","):
            begin = time.monotonic()
            result = simulate(jobs, uniform(case.nodes, 8), policy, begin_us=case.window.from_us)
            took = f"{time.monotonic() - begin:.1f} s"
            told = result.document()
            rows = [
                (theirs, ours, whose, value)
                for (trace, window, cluster, name, theirs), found in references.items()
                if (ours := METRICS.get(theirs))
                and trace.startswith(case.reference[0])
                and window.startswith(case.reference[1])
                and cluster.startswith(f"{case.nodes} ")
                and name.split(" ")[0].lower() == policy
                for whose, value in found
            ]
            for theirs, ours, whose, value in rows or [("avg_jct_s", "avg_jct_s", "", 0.0)]:
                figure = float(str(told[ours]))
                table.add_row(
                    *(case.name, policy, theirs, f"{figure:,.3f}"),
                    *((f"{value:,.3f}", whose, f"{figure / value:.6f}") if value else ("", "", "")),
                    took,
                )
                took = ""
    Console(width=140).print(table)


Reference = tuple[str, str, str, str, str]


def read_references(path: Path) -> dict[Reference, list[tuple[str, float]]]:
    """(trace, window, cluster, policy, metric) → who measured it, and what."""
    found: dict[Reference, list[tuple[str, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["trace"], row["window"], row["cluster"], row["policy"], row["metric"])
            # The third is the file's own check of the same semantics.
            whose = {"rerun-variant": "rerun, no overhead", "ours": "another simulator"}.get(
                row["kind"], row["kind"]
            )
            found.setdefault(key, []).append((whose, float(row["value"])))
    return found


if __name__ == "__main__":
    main()
