"""What watchers get, and what they cost who writes: ``python -m benchmarks.watching``.

A real control plane, four clients that submit for some seconds, and so many watchers of all events
in a process of their own. It prints, for each number of watchers, submits answered per second,
their latency, events told per second to all watchers together, and how long after the last submit
the last watcher had seen it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc
from rich.console import Console
from rich.table import Table

from controlplane.client import Client
from controlplane.v1 import job_service_pb2 as pb
from controlplane.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.cluster import Cluster, cluster

CLIENTS = 4
STREAMS_OF_CHANNEL = 100
TICKS = os.sysconf("SC_CLK_TCK")
JOB = {"command": ["true"], "workers": 5000}
"""It waits for ever: each submit is one event, and nothing else happens."""


def main() -> None:
    """Measure and print; with `--watch`, be the process that watches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, nargs="+", default=[0, 1, 0, 100, 0, 1000, 0])
    parser.add_argument("--seconds", type=float, default=10, help="of submits, for each")
    parser.add_argument("--watch", nargs=3, metavar=("SERVER", "TOKEN", "CA"))
    asked = parser.parse_args()
    if asked.watch:
        os.nice(10)  # watchers are on other machines; here they would take the processor away
        server, token, ca = asked.watch
        asyncio.run(watch(server, token, Path(ca).read_bytes(), asked.watchers[0]))
        return
    table = Table(
        "watchers", "submits/s", "submit, median", "99 %", "events told/s", "last seen after",
        "processor of the control plane",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as made:
        for count in asked.watchers:
            table.add_row(str(count), *measured(made, count, asked.seconds))
    Console(highlight=False, width=120).print(table)


def measured(made: Cluster, count: int, seconds: float) -> list[str]:
    """One row."""
    command = [sys.executable, "-m", "benchmarks.watching", "--watchers", str(count)]
    token = made.token_file.read_text().strip()
    watching = subprocess.Popen(
        [*command, "--watch", made.server, token, str(made.ca_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    assert watching.stdin is not None
    assert watching.stdout.readline() == "ready\n"
    took: list[float] = []
    before, began = processor_s(made), time.monotonic()
    threads = [
        threading.Thread(target=submit, args=(made, token, began + seconds, took))
        for _ in range(CLIENTS)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    ended = time.monotonic()
    watching.stdin.write(f"{len(took)}\n")
    watching.stdin.flush()
    told = int(watching.stdout.readline())
    lag = time.monotonic() - ended
    spent = processor_s(made) - before
    watching.stdin.close()
    watching.wait(30)
    whole = ended - began
    return [
        f"{len(took) / whole:.0f}",
        f"{statistics.median(took) * 1000:.1f} ms",
        f"{statistics.quantiles(took, n=100)[98] * 1000:.0f} ms",
        f"{told / (whole + lag):.0f}",
        f"{lag:.2f} s" if count else "",
        f"{spent / (whole + lag):.0%}",
    ]


def submit(made: Cluster, token: str, until: float, took: list[float]) -> None:
    """Submit one job after the other."""
    with Client(made.server, token=token, ca_file=made.ca_file) as client:
        while time.monotonic() < until:
            began = time.monotonic()
            client.submit(JOB)
            took.append(time.monotonic() - began)


def processor_s(made: Cluster) -> float:
    """Processor time of the control plane so far."""
    fields = Path(f"/proc/{made.control.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def watch(server: str, token: str, ca: bytes, count: int) -> None:
    """Watch with so many streams; say so when all of them do, and how much was told when each has
    seen as many events as it hears on standard input."""
    credentials = grpc.ssl_channel_credentials(ca)
    channels = [
        grpc.aio.secure_channel(
            server, credentials, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        for _ in range(-(-count // STREAMS_OF_CHANNEL))
    ]
    metadata = (("authorization", f"Bearer {token}"),)
    told = [0] * count
    news = asyncio.Event()
    ready = [asyncio.Event() for _ in range(count)]

    async def follow(number: int) -> None:
        stub = JobServiceStub(channels[number // STREAMS_OF_CHANNEL])
        async for message in stub.WatchEvents(pb.WatchEventsRequest(), metadata=metadata):
            ready[number].set()
            told[number] += len(message.events)
            news.set()

    follows = [asyncio.create_task(follow(number)) for number in range(count)]
    for each in ready:
        await each.wait()
    print("ready", flush=True)
    line = await asyncio.to_thread(sys.stdin.readline)
    expected = int(line)
    while any(seen < expected for seen in told):
        news.clear()
        await news.wait()
    print(sum(told), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for each in follows:
        each.cancel()
    for channel in channels:
        await channel.close()


if __name__ == "__main__":
    main()
