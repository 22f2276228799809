"""A process that plays many agents, each with a connection and a node of its own:
``python -m benchmarks.herd``.

They speak to a control plane as `nodeagent` does, by parked calls of Synchronize, and say of all
that they are ordered to run that it runs; nothing is started. One line of JSON is printed whenever
all of them have been answered by one epoch and hold as many leases as are wanted.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import grpc

from benchmarks.callers import Door
from controlplane.kit.clock import SystemClock
from controlplane.model.lease import LeasePhase, LeaseStatus, WorkerState, WorkerStatus
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1.agent_service_pb2_grpc import AgentServiceStub
from controlplane.wire.agents import status_message
from controlplane.wire.nodes import facts_message
from nodeagent.session import CALL_DEADLINE_S, FIRST_RETRY_S, LONGEST_RETRY_S
from tests.support.world import facts

CLOCK = SystemClock()


@dataclass(slots=True)
class Agent:
    """One that runs nothing."""

    name: str
    stub: Any
    metadata: tuple[tuple[str, str], ...]
    node_uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    agent_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    calls: int = 0
    epoch: int = 0
    generation: int = 0
    told_facts: bool = False
    held: dict[int, LeaseStatus] = field(default_factory=dict)

    async def run(self) -> None:
        """Talk for ever; rest after a failure as an agent does."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                await self._exchange()
                retry_s = FIRST_RETRY_S
            except grpc.aio.AioRpcError:
                self.generation = 0
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))
                retry_s = min(retry_s * 2, LONGEST_RETRY_S)

    async def _exchange(self) -> None:
        self.calls += 1
        here = facts_message(replace(facts(self.name, cpus=1), port_last=65_000))
        answer: pb.SynchronizeResponse = await self.stub.Synchronize(
            pb.SynchronizeRequest(
                node_uuid=self.node_uuid,
                boot_id="boot",
                agent_id=self.agent_id,
                call_number=self.calls,
                epoch_seen=self.epoch,
                generation_seen=self.generation,
                facts=None if self.told_facts else here,
                facts_digest=hashlib.sha256(here.SerializeToString(deterministic=True)).hexdigest(),
                leases=[status_message(status) for status in self.held.values()],
            ),
            metadata=self.metadata,
            timeout=CALL_DEADLINE_S,
        )
        self.told_facts = not answer.resend_facts
        if answer.superseded or answer.resend_facts:
            return
        self.epoch, self.generation = answer.epoch, answer.generation
        self.held = {
            order.lease_id: self.held.get(order.lease_id) or _running(order)
            for order in answer.leases
        }


def _running(order: Any) -> LeaseStatus:
    worker = WorkerStatus(
        rank=0,
        local_rank=0,
        state=WorkerState.RUNNING,
        pid=order.lease_id,
        started_us=CLOCK.now_us(),
    )
    return LeaseStatus(
        lease_id=order.lease_id, token=order.token, phase=LeasePhase.RUNNING, workers=(worker,)
    )


async def _run(door: Door, count: int, leases: int) -> None:
    channels = [door.channel() for _ in range(count)]
    agents = [
        Agent(f"n{number}", AgentServiceStub(channel), door.metadata)
        for number, channel in enumerate(channels)
    ]
    tasks = [asyncio.create_task(agent.run()) for agent in agents]
    told = 0
    while not any(task.done() for task in tasks):
        epochs = {agent.epoch for agent in agents}
        held = sum(len(agent.held) for agent in agents)
        if len(epochs) == 1 and (epoch := epochs.pop()) > told and held == leases:
            told = epoch
            print(json.dumps({"epoch": epoch, "at": time.monotonic()}), flush=True)
        await asyncio.sleep(0.05)
    await asyncio.gather(*tasks)


def main() -> None:
    """Play, until somebody ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--token_file", required=True)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--leases", type=int, default=1000)
    asked = parser.parse_args()
    door = Door(target=asked.target, token_file=asked.token_file)
    asyncio.run(_run(door, asked.agents, asked.leases))


if __name__ == "__main__":
    main()
