"""Trivial jobs through a real control plane and two real agents on this machine: ``make bench``.

Prints jobs submitted, run and finished per second, processor time per job in all our processes
(control plane, agents, spawners, supervisors and workers), latencies on an idle system, resident
memory and the start-up time of ccctl; beside them, from the same run, what a bare fork and exec of
the same program costs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from controlplane.v1 import job_pb2
from controlplane.v1.job_service_pb2 import JobFilter
from nodeagent.supervision import processes
from tests.support.cluster import BIN, Cluster, cluster, until

LOOK_S = 0.1
TICKS = os.sysconf("SC_CLK_TCK")
JOB = {"command": ["true"], "resources": {"cpus": 1, "memory": "64MiB"}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="jobs of the throughput run")
    parser.add_argument("--latency", type=int, default=30, help="jobs of the latency run")
    parser.add_argument("--database-url", help="an empty database of the registry; else SQLite")
    asked = parser.parse_args()
    serve = {"database-url": asked.database_url} if asked.database_url else {}
    table = Table("figure", "value", "beside it")
    # As the shipped units run an agent: its control files on a tmpfs.
    runtime = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory(dir=runtime) as control,
        cluster(Path(folder), serve=serve) as made,
    ):
        for name in ("a", "b"):
            made.agent(name, cpus=16, **{"runtime-dir": f"{control}/{name}"})
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
    before = spent_s(made)
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        names = list(pool.map(lambda _: made.submit(JOB), range(count)))
    submitted = time.monotonic() - began

    def ended() -> bool:
        return next(iter(made.client.list(LIVE, page_size=1)), None) is None

    # Seldom, since each look is work for the control plane that no job has asked for.
    while not ended():
        time.sleep(LOOK_S)
    took = time.monotonic() - began
    spent = {who: (after - before[who]) / count * 1000 for who, after in spent_s(made).items()}
    assert len(set(names)) == count
    yield "submitted per second", f"{count / submitted:.0f}", f"{count} jobs, 16 callers"
    yield "run and finished per second", f"{count / took:.0f}", "expected: ≥ 100"
    shares = ", ".join(f"{who} {ms:.1f}" for who, ms in spent.items())
    whole, bare = sum(spent.values()), bare_cpu_ms()
    yield "processor time per job", f"{whole:.1f} ms", f"expected: ≤ 12; {shares}"
    yield (
        "the same, beside a bare fork",
        f"{whole / bare:.1f} ×",
        f"of a Python process: {bare:.2f} ms",
    )


LIVE = JobFilter(states=[job_pb2.JOB_STATE_PENDING, job_pb2.JOB_STATE_ACTIVE])


def spent_s(made: Cluster) -> dict[str, float]:
    """Processor time that each part has spent so far, in seconds.

    A spawner waits for its supervisors, and they for their workers: so it answers for all that have
    ended, and the supervisors that live for their own.
    """
    agents = [agent.pid for agent in made.agents.values()]
    spawners = [pid for agent in agents for pid in processes.children(agent)]
    supervisors = [pid for spawner in spawners for pid in processes.children(spawner)]
    return {
        "control plane": cpu_s(made.control.pid),
        "agents": sum(map(cpu_s, agents)),
        "supervisors and workers": sum(map(cpu_s, spawners + supervisors)),
    }


def cpu_s(pid: int) -> float:
    """Processor time of a process and of the children it has waited for, in seconds."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


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


def bare_cpu_ms() -> float:
    """Processor time of forking a Python process that then runs the same program, in milliseconds.

    It tells how fast this machine is just now, at what a job costs most: processes.
    """
    code = (
        "import os, sys\n"
        "for _ in range(300):\n"
        "    pid = os.fork()\n"
        "    if not pid: os.execv(sys.argv[1], ['true'])\n"
        "    os.waitpid(pid, 0)\n"
        "print(sum(os.times()[:4]) / 300 * 1000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, shutil.which("true") or "/bin/true"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return float(done.stdout)


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
