"""How full packings get a cluster with shared GPUs, beside the published figures of FGD:
``python -m benchmarks.packing --traces FOLDER``.

Needs `openb_pods_default.csv.gz` and `openb_nodes.csv` of Alibaba's trace of 2023. Tasks come in
random order, none ends, until 130 % of the GPUs were asked for; the mean of ten seeds counts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table

from benchmarks.simulator import read_references
from controlplane.sim.cluster import read_cluster
from controlplane.sim.packing import PACKINGS, fill
from controlplane.sim.trace import read_trace

MARKS = (0.9, 0.95, 1.0, 1.1, 1.2, 1.3)
PUBLISHED = {
    "01-Random": "Random",
    "02-DotProd": "DotProd",
    "03-GpuClustering": "Clustering",
    "04-GpuPacking": "Packing",
    "05-BestFit": "BestFit",
    "06-FGD": "FGD",
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, required=True, help="the folder with the trace")
    parser.add_argument("--seeds", type=int, default=10, help="so many, from 42 on")
    asked = parser.parse_args()
    jobs = read_trace(asked.traces / "openb_pods_default.csv.gz")
    # As in the paper's experiment, on the nodes with GPUs alone.
    nodes = tuple(n for n in read_cluster(asked.traces / "openb_nodes.csv") if n.gpus)
    table = Table("packing", "whose", *(f"at {mark:.0%}" for mark in MARKS), "deviation", "a run")
    references = read_references(asked.traces / "reference_results.csv")
    for key, name in PUBLISHED.items():
        values = [
            next(
                value
                for (_, window, _, policy, metric), found in references.items()
                for _, value in found
                if (policy, metric) == (key, "gpu_alloc_pct") and f"= {mark:.0%}" in window
            )
            for mark in MARKS
        ]
        table.add_row(name, "published", *(f"{value:.2f} %" for value in values), "", "")
    for packing in PACKINGS:
        begin = time.monotonic()
        runs = [
            [filled.allocated * 100 for filled in fill(jobs, nodes, packing, seed, MARKS)]
            for seed in range(42, 42 + asked.seeds)
        ]
        took = (time.monotonic() - begin) / asked.seeds
        last = [run[-1] for run in runs]
        table.add_row(
            *(packing, "ours"),
            *(f"{mean(values):.2f} %" for values in zip(*runs, strict=True)),
            f"{stdev(last):.2f}" if len(last) > 1 else "",
            f"{took:.1f} s",
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
