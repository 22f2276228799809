"""Trivial jobs through a real control plane and two real agents on this machine: ``make bench``.

Prints jobs submitted, run and finished per second, processor time per job in all processes together
(daemon, agents, spawners, supervisors and workers), latencies on an idle system, resident memory
and the start-up time of ccctl; beside them, from the same run, what a bare fork and exec of the
same program costs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from controlplane.v1 import job_pb2
from controlplane.v1.job_service_pb2 import JobFilter
from tests.support.cluster import BIN, Cluster, cluster, until

TICKS = os.sysconf("SC_CLK_TCK")
JOB = {"command": ["true"], "resources": {"cpus": 1, "memory": "64MiB"}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="jobs of the throughput run")
    parser.add_argument("--latency", type=int, default=30, help="jobs of the latency run")
    asked = parser.parse_args()
    table = Table("figure", "value", "beside it")
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as made:
        made.agent("a", cpus=16)
        made.agent("b", cpus=16)
        until_idle(made)
        for row in latency(made, asked.latency):
            table.add_row(*row)
        for row in throughput(made, asked.jobs):
            table.add_row(*row)
        for daemon in (made.control, *made.agents.values()):
            table.add_row(f"resident memory of {daemon.name}", f"{rss_mib(daemon.pid):.0f} MiB", "")
    table.add_row("ccctl version", f"{startup_ms():.0f} ms", "expected: under 250 ms")
    Console(highlight=False).print(table)


def latency(made: Cluster, count: int) -> Iterator[tuple[str, str, str]]:
    """From the submit's arrival to running, and from the submit call to the seen end."""
    to_running, to_done = [], []
    for _ in range(count):
        began = time.monotonic()
        name = made.submit(JOB)
        for job in made.client.watch(name):
            if job.HasField("exit_code"):
                break
        to_done.append((time.monotonic() - began) * 1000)
        running = job.attempts[-1].running_time.ToMicroseconds()
        to_running.append((running - job.create_time.ToMicroseconds()) / 1000)
    exec_ms = bare_exec_ms()
    yield "submit to running, median", f"{statistics.median(to_running):.1f} ms", "expected: ≤ 100"
    yield (
        "submit to seen end, median",
        f"{statistics.median(to_done):.1f} ms",
        f"{statistics.median(to_done) / exec_ms:.0f} × a bare fork and exec ({exec_ms:.1f} ms)",
    )


def throughput(made: Cluster, count: int) -> Iterator[tuple[str, str, str]]:
    """All jobs at once, from the first submit to the last end."""
    before, own = cpu_s(), sum(os.times()[:2])
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        names = list(pool.map(lambda _: made.submit(JOB), range(count)))
    submitted = time.monotonic() - began

    def ended() -> bool:
        return next(iter(made.client.list(LIVE, page_size=1)), None) is None

    until(ended, f"{count} jobs to end", 600)
    took = time.monotonic() - began
    own = sum(os.times()[:2]) - own
    spent = cpu_s() - before - own
    assert len(set(names)) == count
    yield "submitted per second", f"{count / submitted:.0f}", f"{count} jobs, 16 callers"
    yield "run and finished per second", f"{count / took:.0f}", "expected: ≥ 100"
    yield "processor time per job", f"{spent / count * 1000:.1f} ms", "all but the benchmark; ≤ 12"


LIVE = JobFilter(states=[job_pb2.JOB_STATE_PENDING, job_pb2.JOB_STATE_ACTIVE])


def cpu_s() -> float:
    """Processor time that this machine has spent on anything, in seconds."""
    with open("/proc/stat") as file:
        fields = [int(word) for word in file.readline().split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq = fields[:7]
    return (user + nice + system + irq + softirq) / TICKS


def until_idle(made: Cluster) -> None:
    """Let start-up noise settle: both nodes are idle and were heard."""
    until(lambda: len(list(made.client.nodes())) == 2, "two nodes")
    time.sleep(1)


def rss_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def startup_ms() -> float:
    """Median wall time of `ccctl version`, in milliseconds."""
    times = []
    for _ in range(9):
        began = time.monotonic()
        subprocess.run([BIN / "ccctl", "version"], capture_output=True, check=True, timeout=30)
        times.append((time.monotonic() - began) * 1000)
    return statistics.median(times)


def bare_exec_ms() -> float:
    """Median wall time of starting and waiting for the same program without us."""
    times = []
    for _ in range(30):
        began = time.monotonic()
        subprocess.run(["true"], check=True, timeout=30)
        times.append((time.monotonic() - began) * 1000)
    return statistics.median(times)


if __name__ == "__main__":
    main()
