"""A thousand jobs that report progress at once, to a real control plane:
``python -m benchmarks.reports``.

The jobs are real for the control plane and run nowhere: this program plays the agent of their one
node, reports all of them as running, and hands over a point of progress for each every 2 s, as an
agent does, by the same calls of ShipProgress. Somebody submits meanwhile. Prints what the control
plane takes for a report, its processor time, and what a submit waits beside it and without.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console
from rich.table import Table

from benchmarks.throughput import cpu_s
from controlplane.kit.clock import SystemClock
from controlplane.model.lease import LeasePhase, LeaseStatus, WorkerState, WorkerStatus
from controlplane.model.progress import LeaseProgress, Point
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1.agent_service_pb2_grpc import AgentServiceStub
from controlplane.wire.agents import status_message
from controlplane.wire.nodes import facts_message
from controlplane.wire.progress import lease_progress_message
from nodeagent.progress import MOST_LEASES, PERIOD_US
from tests.support.cluster import Cluster, cluster
from tests.support.world import facts

JOB = {"command": ["true"], "resources": {"cpus": 1, "memory": "64MiB"}}
NEVER = {"command": ["true"], "resources": {"cpus": 4096}}
"""Only waits: nothing is placed for it."""
PAUSE_S = 0.05
"""Between two submits."""
PERIOD_S = PERIOD_US / 1_000_000
CLOCK = SystemClock()


@dataclass(slots=True)
class Agent:
    """One that runs nothing."""

    stub: Any
    metadata: tuple[tuple[str, str], ...]
    node_uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    agent_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    calls: int = 0
    held: dict[int, LeaseStatus] = field(default_factory=dict)

    def synchronize(self) -> None:
        """Report all that it was ordered to run as running."""
        self.calls += 1
        here = facts_message(replace(facts("a", cpus=2048, memory_gib=4096), port_last=65_000))
        answer: pb.SynchronizeResponse = self.stub.Synchronize(
            pb.SynchronizeRequest(
                node_uuid=self.node_uuid,
                boot_id="boot",
                agent_id=self.agent_id,
                call_number=self.calls,
                facts=here,
                facts_digest=hashlib.sha256(here.SerializeToString(deterministic=True)).hexdigest(),
                leases=[status_message(status) for status in self.held.values()],
            ),
            metadata=self.metadata,
            timeout=60,
        )
        for order in answer.leases:
            if order.lease_id not in self.held:
                self.held[order.lease_id] = LeaseStatus(
                    lease_id=order.lease_id,
                    token=order.token,
                    phase=LeasePhase.RUNNING,
                    workers=(
                        WorkerStatus(
                            rank=0,
                            local_rank=0,
                            state=WorkerState.RUNNING,
                            pid=order.lease_id,
                            started_us=CLOCK.now_us(),
                        ),
                    ),
                )

    def report(self, step: int) -> None:
        """A point of each lease, in calls as large as an agent's."""
        now_us = CLOCK.now_us()
        told = [
            lease_progress_message(
                LeaseProgress(
                    lease_id=status.lease_id,
                    token=status.token,
                    rank=0,
                    points=(
                        Point(
                            time_us=now_us,
                            step=step,
                            fraction=min(step / 10_000, 1.0),
                            metrics=(("loss", 1 / step), ("throughput", 100.0)),
                        ),
                    ),
                )
            )
            for status in self.held.values()
        ]
        for at in range(0, len(told), MOST_LEASES):
            request = pb.ShipProgressRequest(
                node_uuid=self.node_uuid, leases=told[at : at + MOST_LEASES]
            )
            answer = self.stub.ShipProgress(request, metadata=self.metadata, timeout=60)
            assert all(answer.known)


def running(made: Cluster, channel: grpc.Channel, count: int) -> Agent:
    """An agent that reports so many jobs as running."""
    token = (made.folder / "controlplane" / "agent.token").read_text().strip()
    agent = Agent(AgentServiceStub(channel), (("authorization", f"Bearer {token}"),))
    for _ in range(count):
        made.submit(JOB)
    until_s = time.monotonic() + 60
    while len(agent.held) < count:
        assert time.monotonic() < until_s, f"{len(agent.held)} jobs were placed"
        agent.synchronize()
    agent.synchronize()
    return agent


def idle(made: Cluster, agent: Agent, rounds: int) -> tuple[list[float], float]:
    """What submits wait where nobody reports, and the control plane's processor time meanwhile."""
    spent = cpu_s(made.control.pid)
    with submits(made) as waited:
        for _ in range(rounds):
            began = time.monotonic()
            agent.synchronize()
            time.sleep(max(0.0, PERIOD_S - (time.monotonic() - began)))
    return waited, cpu_s(made.control.pid) - spent


@contextmanager
def submits(made: Cluster) -> Iterator[list[float]]:
    """Have somebody submit meanwhile; for how long each submit was waited, in milliseconds."""
    waited: list[float] = []
    over = threading.Event()

    def work() -> None:
        while not over.wait(PAUSE_S):
            began = time.monotonic()
            made.submit(NEVER)
            waited.append((time.monotonic() - began) * 1000)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield waited
    finally:
        over.set()
        thread.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="jobs that report")
    parser.add_argument("--rounds", type=int, default=15, help="reports of each")
    asked = parser.parse_args()
    table = Table("figure", "value", "beside it")
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(Path(folder), serve={"plaintext": ""}) as made,
        grpc.insecure_channel(made.server) as channel,
    ):
        agent = running(made, channel, asked.jobs)
        quiet, idle_cpu = idle(made, agent, asked.rounds)
        spent, took = cpu_s(made.control.pid), []
        with submits(made) as waited:
            for number in range(1, asked.rounds + 1):
                began = time.monotonic()
                agent.report(number)
                took.append(time.monotonic() - began)
                agent.synchronize()
                time.sleep(max(0.0, PERIOD_S - (time.monotonic() - began)))
        spent = cpu_s(made.control.pid) - spent
    rate = asked.jobs / PERIOD_S
    own = (spent - idle_cpu) / (asked.rounds * asked.jobs) * 1e6
    table.add_row(
        f"{asked.jobs} reports at once, median",
        f"{statistics.median(took) * 1000:.0f} ms",
        f"{max(took) * 1000:.0f} ms at most",
    )
    table.add_row(
        "… of it for each report", f"{statistics.median(took) / asked.jobs * 1e6:.0f} µs", ""
    )
    table.add_row(
        "processor time of the control plane, each report",
        f"{own:.0f} µs",
        f"{own * rate / 1e4:.0f} % of a core at {rate:.0f} reports/s",
    )
    table.add_row("a submit without them, median", f"{statistics.median(quiet):.1f} ms", "")
    table.add_row(
        "a submit beside them, median",
        f"{statistics.median(waited):.1f} ms",
        f"{statistics.median(waited) / statistics.median(quiet):.2f} × without",
    )
    table.add_row(
        "… the longest of all",
        f"{max(waited):.0f} ms",
        f"{max(quiet):.0f} ms without; {len(waited)} and {len(quiet)} submits",
    )
    Console(highlight=False, width=120).print(table)


if __name__ == "__main__":
    main()
