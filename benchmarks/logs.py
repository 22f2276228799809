"""Output of workers on its way to the centre, on this machine: ``python -m benchmarks.logs``.

Prints how long a line takes until a reader of the centre has it, and a job from its submit to the
report that it runs: on a quiet cluster, while another rank on the same agent prints 100 MB/s, and
while one prints as fast as it can. Then how much of the floods comes as far as the centre; and how
fast output goes from a worker to its node's disk, beside `cat` through a pipe to a file there.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.throughput import cpu_s
from nodeagent.supervision import processes
from tests.support.cluster import Cluster, cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOODS = {"beside 100 MB/s": 100_000_000, "beside no limit": 10**12}
"""Bytes per second that another rank prints."""
LOOK_S = 0.02
BYTES = 1_000_000_000
SMALL = {"resources": {"cpus": 1, "memory": "64MiB"}}
LINES = """
import sys, time
for _ in range(int(sys.argv[1])):
    print(time.time(), flush=True)
    time.sleep(0.1)
"""
FLOOD = """
import os, sys, time
rate, part, sent = int(sys.argv[1]), b"x" * 99_999 + b"\\n", 0
began = time.monotonic()
while True:
    sent += os.write(1, part)
    time.sleep(max(0, began + sent / rate - time.monotonic()))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100, help="lines whose way is timed")
    parser.add_argument("--jobs", type=int, default=30, help="jobs whose start is timed")
    asked = parser.parse_args()
    table = Table("figure", "quiet", *(word for name in FLOODS for word in (name, "ratio")))
    amounts = Table("figure", "value", "beside it")
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as made:
        made.agent("a", cpus=16)
        quiet = delays(made, asked.lines, asked.jobs)
        rows = {name: [name, f"{ms:.0f} ms"] for name, ms in quiet.items()}
        for words, rate in FLOODS.items():
            flood = made.submit({"command": [sys.executable, "-c", FLOOD, str(rate)], **SMALL})
            made.running(flood)
            with watched(made, flood) as seen:
                busy = delays(made, asked.lines, asked.jobs)
            made.client.cancel([flood])
            made.ended(flood)
            for name, ms in busy.items():
                rows[name] += [f"{ms:.0f} ms", f"{ms / quiet[name]:.1f} ×"]
            for row in seen.rows(words):
                amounts.add_row(*row)
        for cells in rows.values():
            table.add_row(*cells)
        for row in unbound(made):
            amounts.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    console.print(amounts)


def delays(made: Cluster, lines: int, jobs: int) -> dict[str, float]:
    """How long lines and starts of jobs take now, in milliseconds."""
    ways, starts = [], []
    name = made.submit({"command": [sys.executable, "-c", LINES, str(lines)], **SMALL})
    begun = b""
    for piece in made.client.logs(name, follow=True):
        now = time.time()
        *whole, begun = (begun + piece.data).split(b"\n")
        ways += [(now - float(line)) * 1000 for line in whole]
    assert len(ways) == lines, f"{len(ways)} of {lines} lines came"
    for _ in range(jobs):
        began = time.monotonic()
        name = made.submit({"command": ["true"], **SMALL})
        for job in made.client.watch(name):
            if job.attempts and job.attempts[-1].HasField("running_time"):
                starts.append((time.monotonic() - began) * 1000)
                break
        made.ended(name)
    return {
        "a line until it is read from the centre, median": statistics.median(ways),
        "… the slowest": max(ways),
        "submit until the start is seen, median": statistics.median(starts),
        "… the slowest of them": max(starts),
    }


class Seen:
    """How much of a job's output was written at the centre, and what that cost."""

    def __init__(self, made: Cluster, name: str) -> None:
        """`name`: the job."""
        self._made = made
        self._logs = made.folder / "controlplane" / "logs"
        self._job = name.removeprefix("jobs/")
        self._sizes: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def begin(self) -> None:
        """Look at the segments from now on: before the cap drops them."""
        self._cpu, self._began = self._spent_s(), time.monotonic()
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self.took_s = time.monotonic() - self._began
        self.cpu_s = {who: spent - self._cpu[who] for who, spent in self._spent_s().items()}
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(LOOK_S):
            for path in self._logs.glob(f"*/{self._job}/0.1/0.out.{'[0-9]' * 20}"):
                with contextlib.suppress(FileNotFoundError):
                    start = int(path.name.rpartition(".")[2])
                    self._sizes[start] = path.stat().st_size

    def _spent_s(self) -> dict[str, float]:
        (agent,) = self._made.agents.values()
        spawners = processes.children(agent.pid)
        supervisors = [pid for spawner in spawners for pid in processes.children(spawner)]
        return {
            "supervisors": sum(map(cpu_s, supervisors)),
            "agent": cpu_s(agent.pid),
            "control plane": cpu_s(self._made.control.pid),
        }

    def rows(self, words: str) -> Iterator[tuple[str, str, str]]:
        """For the table."""
        came = sum(self._sizes.values())
        whole = max(start + size for start, size in self._sizes.items()) - min(self._sizes)
        yield (
            f"{words}: written at the centre",
            f"{came / self.took_s / 1e6:.0f} MB/s",
            f"{came / whole:.3f} × what was printed ({whole / self.took_s / 1e6:.0f} MB/s)",
        )
        shares = ", ".join(f"{who} {spent / self.took_s:.2f}" for who, spent in self.cpu_s.items())
        yield (
            f"{words}: processor time",
            f"{sum(self.cpu_s.values()) / self.took_s:.2f} cores",
            shares,
        )


@contextlib.contextmanager
def watched(made: Cluster, name: str) -> Iterator[Seen]:
    """What comes of a job's output while something else is done."""
    seen = Seen(made, name)
    seen.begin()
    try:
        yield seen
    finally:
        seen.end()


def unbound(made: Cluster) -> Iterator[tuple[str, str, str]]:
    """A worker that prints as fast as it can, beside the same without us."""
    command = ["head", "-c", str(BYTES), "/dev/zero"]
    last = made.ended(made.submit({"command": command, **SMALL})).attempts[-1]
    us = last.end_time.ToMicroseconds() - last.running_time.ToMicroseconds()
    assert last.workers[0].stdout_bytes == BYTES
    began = time.monotonic()
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as head,
        (made.folder / "beside").open("wb") as out,
    ):
        subprocess.run(["cat"], stdin=head.stdout, stdout=out, check=True, timeout=600)
    plain_us = (time.monotonic() - began) * 1e6
    yield (
        "a worker's output to its node's disk",
        f"{BYTES / us:.0f} MB/s",
        f"{plain_us / us:.2f} × `cat` through a pipe to a file ({BYTES / plain_us:.0f} MB/s)",
    )


if __name__ == "__main__":
    main()
