"""Steps in a running job, through a real control plane and a real agent on this machine:
``python -m benchmarks.steps``.

Prints how long `exec` of a program takes beside what a bare start of the same program costs, with
a connection that stands, as programs hold one, and by `ccctl`, beside `ccctl version`; and how fast
bytes go through a step, beside a pipe.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from controlplane.v1.step_pb2 import StepStart
from tests.support.cluster import Cluster, cluster

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_MS = 50
"""A step may cost so much beside its program's own time."""
BYTES = 200_000_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100, help="steps of the latency run")
    asked = parser.parse_args()
    table = Table("figure", "value", "beside it")
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as made:
        made.agent("a", cpus=16)
        name = made.submit({"command": ["sleep", "600"]})
        made.running(name)
        bare = timed(lambda: subprocess.run(["true"], check=True, timeout=30), 50)
        took = timed(lambda: run_step(made, name), asked.steps)
        own = statistics.median(took) - statistics.median(bare)
        ratio = own / LIMIT_MS
        table.add_row(
            "a bare start of `true`, median", f"{statistics.median(bare):.1f} ms", "no step"
        )
        table.add_row("exec of `true`, median", f"{statistics.median(took):.1f} ms", "")
        table.add_row(
            "the step's own part, median",
            f"{own:.1f} ms",
            f"{ratio:.2f} × the limit of {LIMIT_MS} ms",
        )
        table.add_row("exec of `true`, 99 of 100", f"{at(took, 0.99):.1f} ms", "")
        plain = timed(lambda: ccctl(made, "version"), 9)
        whole = timed(lambda: ccctl(made, "exec", name, "--", "true"), 9)
        table.add_row(
            "ccctl exec, median",
            f"{statistics.median(whole):.0f} ms",
            f"{statistics.median(whole) / statistics.median(plain):.1f} × `ccctl version`"
            f" ({statistics.median(plain):.0f} ms)",
        )
        through = through_s(made, name)
        pipe = pipe_s()
        table.add_row(
            "bytes out of a step",
            f"{BYTES / through / 1e6:.0f} MB/s",
            f"{pipe / through:.3f} × a pipe ({BYTES / pipe / 1e6:.0f} MB/s)",
        )
    Console(highlight=False).print(table)


def run_step(made: Cluster, name: str) -> None:
    """A step that does nothing, from its order to its end."""
    with made.client.start_step(StepStart(job=name, command=["true"])) as step:
        for output in step:
            if output.HasField("ended"):
                assert output.ended.exit_code == 0
                return
    raise AssertionError("the step has not told its end")


def ccctl(made: Cluster, *words: str) -> None:
    """One run of ccctl, which must do well."""
    command = [*made.as_admin, *words]
    subprocess.run(command, check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)


def through_s(made: Cluster, name: str) -> float:
    """For how long a step that prints so many bytes is read."""
    command = ["head", "-c", str(BYTES), "/dev/zero"]
    began = time.monotonic()
    size = 0
    with made.client.start_step(StepStart(job=name, command=command)) as step:
        for output in step:
            size += len(output.stdout)
            if output.HasField("ended"):
                break
    assert size == BYTES
    return time.monotonic() - began


def pipe_s() -> float:
    """The same without us."""
    began = time.monotonic()
    with subprocess.Popen(
        ["head", "-c", str(BYTES), "/dev/zero"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        while process.stdout.read(1 << 17):
            pass
    return time.monotonic() - began


def timed(once: Callable[[], object], count: int) -> list[float]:
    """Wall time of each call, in milliseconds."""
    times = []
    for _ in range(count):
        began = time.monotonic()
        once()
        times.append((time.monotonic() - began) * 1000)
    return times


def at(times: list[float], part: float) -> float:
    """The time that so much of all calls kept."""
    return sorted(times)[min(int(len(times) * part), len(times) - 1)]


if __name__ == "__main__":
    main()
