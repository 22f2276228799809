"""Joins the two streams of a step: that of its user, and that of the agent that serves it.

Both are calls that others opened. What one side sends waits in a short queue for the other to take
it: no step fills the memory here, however much it prints and however slowly it is read.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from controlplane.model.errors import Overloaded
from controlplane.v1 import agent_service_pb2 as agents_pb
from controlplane.v1 import step_pb2

if TYPE_CHECKING:
    from controlplane.model.lease import Lease
    from controlplane.registry.steps import Placed

PIECES = 4
"""So many messages of one direction wait at most."""
MOST_OF_JOB = 32
"""So many steps of a job may live at once."""
MOST_OF_NODE = 128
"""So many of all jobs on a node."""
REMEMBERED = 10_000
"""Detached steps that run, as far as is known. Of older ones the events tell."""


@dataclass(slots=True)
class Relay:
    """One step that is wanted or served. Lives in the event loop."""

    placed: Placed
    """Where it runs."""
    order: agents_pb.StepOrder
    """What its agent is told."""
    down: asyncio.Queue[step_pb2.StepInput] = field(default_factory=lambda: asyncio.Queue(PIECES))
    """On the way to the step."""
    up: asyncio.Queue[step_pb2.StepOutput] = field(default_factory=lambda: asyncio.Queue(PIECES))
    """On the way to the user."""
    claimed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its agent has come."""
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its user has gone."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its agent has gone."""
    started: bool = False
    """Whether its agent has told its start."""
    ended: step_pb2.StepEnded | None = None
    """How it ended, once its agent has told."""

    @property
    def node_uuid(self) -> str:
        """The node that it runs on."""
        return self.placed.lease.node_uuid


class Relays:
    """All steps that are wanted or served."""

    def __init__(self) -> None:
        """Begin with none."""
        self._wanted: dict[str, dict[int, Relay]] = {}
        self._living: dict[int, Relay] = {}
        self.detached: dict[int, None] = {}
        """Detached steps that were started from here and whose end is not written down."""
        self.ending = asyncio.Lock()
        """One end of a detached step is written down at a time, so that none is twice."""

    def check_room(self, lease: Lease, node: str) -> None:
        """Overloaded when a job or a node has as many steps as it may have: each takes descriptors
        of the agent, which everybody's jobs there need."""
        leases = [relay.placed.lease for relay in self._living.values()]
        if sum(each.job_id == lease.job_id for each in leases) >= MOST_OF_JOB:
            words = f"jobs/{lease.job_id} has {MOST_OF_JOB} steps; wait until one of them has ended"
            raise Overloaded(words)
        if sum(each.node_uuid == lease.node_uuid for each in leases) >= MOST_OF_NODE:
            raise Overloaded(f"{node} has {MOST_OF_NODE} steps; wait until one of them has ended")

    def want(self, relay: Relay) -> None:
        """Have the agent of its node called for a step."""
        self._wanted.setdefault(relay.node_uuid, {})[relay.placed.number] = relay
        self._living[relay.placed.number] = relay

    def calls(self, node_uuid: str, known: frozenset[int]) -> list[agents_pb.StepCall]:
        """The steps that a node's agent should come for, less those that it knows of."""
        return [
            agents_pb.StepCall(
                step=number,
                lease_id=relay.placed.lease.lease_id,
                token=relay.placed.lease.token,
            )
            for number, relay in self._wanted.get(node_uuid, {}).items()
            if number not in known
        ]

    def claim(self, node_uuid: str, number: int, token: int) -> Relay | None:
        """The step that an agent has come for; None when it is not wanted (any more)."""
        relay = self._wanted.get(node_uuid, {}).get(number)
        if relay is None or relay.placed.lease.token != token:
            return None
        self.withdraw(relay)
        relay.claimed.set()
        return relay

    def withdraw(self, relay: Relay) -> None:
        """No longer want a step."""
        wanted = self._wanted.get(relay.node_uuid, {})
        wanted.pop(relay.placed.number, None)
        if not wanted:
            self._wanted.pop(relay.node_uuid, None)

    def over(self, relay: Relay) -> None:
        """A step is served no longer."""
        self.withdraw(relay)
        self._living.pop(relay.placed.number, None)

    def goes_on(self, number: int) -> None:
        """A detached step was started: it runs until its node tells its end."""
        self.detached[number] = None
        if len(self.detached) > REMEMBERED:
            del self.detached[next(iter(self.detached))]

    def lives(self, number: int) -> bool:
        """Whether a step is wanted or served, or goes on alone."""
        return number in self._living or number in self.detached
