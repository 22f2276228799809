"""The agent's side of the conversation: which answers it obeys."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from controlplane.kit.clock import ManualClock
from controlplane.model.node import NodeFacts
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1.agent_service_pb2_grpc import AgentServiceStub
from nodeagent.identity import Identity
from nodeagent.session import Session

if TYPE_CHECKING:
    from nodeagent.reconcile import Action

LEASE_S = 20
BOOT_US = 1_000_000_000
FACTS = NodeFacts(
    display_name="a",
    address="10.0.0.1",
    kernel="6.1",
    os="Debian",
    agent_version="1",
    cpus=4,
    memory_bytes=1 << 30,
    devices=(),
    port_first=20000,
    port_last=20999,
    labels=(),
    cpu_model="x",
)


class Leases:
    """Holds nothing, and notes what it is told to do."""

    def __init__(self, deadline: Path) -> None:
        self._deadline = deadline
        self.performed: list[Action] = []
        self.deadlines: list[bool] = []
        self.resends = 0

    def statuses(self) -> list[Any]:
        return []

    def steps_ended(self) -> list[Any]:
        return []

    def known(self) -> dict[int, Any]:
        return {}

    def stopping(self) -> dict[int, int]:
        return {}

    def perform(self, action: Action) -> None:
        self.performed.append(action)
        self.deadlines.append(self._deadline.exists())

    def resend(self) -> None:
        self.resends += 1


class Channel:
    """A control plane that orders one lease to stop, so many seconds after it was called."""

    def __init__(self, clock: ManualClock, stop: asyncio.Event, takes_s: list[int]) -> None:
        self._clock, self._stop, self._takes_s = clock, stop, takes_s
        self.generations: list[int] = []

    def unary_unary(self, path: str, **_: Any) -> Any:
        return self._synchronize if path.endswith("/Synchronize") else None

    def stream_unary(self, path: str, **_: Any) -> None: ...

    def stream_stream(self, path: str, **_: Any) -> None: ...

    def unary_stream(self, path: str, **_: Any) -> None: ...

    async def _synchronize(
        self, request: pb.SynchronizeRequest, **_: Any
    ) -> pb.SynchronizeResponse:
        self.generations.append(request.generation_seen)
        if not self._takes_s:
            self._stop.set()
            await asyncio.sleep(60)
        self._clock.advance(self._takes_s.pop(0) * 1_000_000)
        answer = pb.SynchronizeResponse(epoch=1, generation=7)
        answer.leases.add(lease_id=1, token=1, goal=pb.LEASE_GOAL_STOP)
        answer.lease_duration.FromSeconds(LEASE_S)
        return answer


def converse(folder: Path, *takes_s: int) -> tuple[Leases, list[int], Path]:
    """Answers that take so long: what was done, the generations asked with, the deadline's file."""
    clock, deadline = ManualClock(boot_us=BOOT_US), folder / "deadline"
    leases = Leases(deadline)

    async def talk() -> list[int]:
        stop = asyncio.Event()
        channel = Channel(clock, stop, list(takes_s))
        session = Session(
            line=cast(
                "Any", SimpleNamespace(agents=AgentServiceStub(cast("Any", channel)), metadata=())
            ),
            identity=Identity(folder),
            agent_id="x",
            boot_id="b",
            facts=lambda: FACTS,
            leases=leases,  # type: ignore[arg-type]
            clock=clock,
            deadline_file=deadline,
            digest=hashlib.sha256,
            rng=random.Random(1),
        )
        await asyncio.wait_for(session.run(stop), 10)
        return channel.generations

    return leases, asyncio.run(talk()), deadline


def test_an_answer_is_obeyed_and_gives_a_lease_from_when_the_call_was_sent(tmp_path: Path) -> None:
    leases, generations, deadline = converse(tmp_path, LEASE_S - 1)
    assert len(leases.performed) == 1
    assert leases.resends == 1, "a control plane of a new epoch may have forgotten output"
    assert generations == [0, 7]
    assert int(deadline.read_text()) == BOOT_US + LEASE_S * 1_000_000
    assert leases.deadlines == [False], "what is to end must not begin by the new deadline"


def test_an_answer_that_was_under_way_for_longer_than_its_lease_is_not_obeyed(
    tmp_path: Path,
) -> None:
    leases, generations, deadline = converse(tmp_path, LEASE_S)
    assert not leases.performed
    assert generations == [0, 0], "the next call asks for all anew"
    assert not deadline.exists()


def test_the_answer_after_one_that_came_too_late_is_obeyed(tmp_path: Path) -> None:
    leases, generations, _ = converse(tmp_path, 3 * LEASE_S, 1)
    assert len(leases.performed) == 1
    assert generations == [0, 0, 7]


def test_a_deadline_that_cannot_be_written_keeps_no_order_from_being_obeyed(tmp_path: Path) -> None:
    """As on a full disk, where a cancel may be what makes room."""
    (tmp_path / "deadline.new").mkdir()
    leases, generations, deadline = converse(tmp_path, 1)
    assert len(leases.performed) == 1
    assert generations == [0, 7]
    assert not deadline.exists()


def test_an_epoch_that_cannot_be_written_down_is_not_obeyed_and_ends_no_agent(
    tmp_path: Path,
) -> None:
    Identity(tmp_path)
    (tmp_path / "node.json.new").mkdir()
    leases, generations, _ = converse(tmp_path, 1)
    assert not leases.performed
    assert generations == [0, 0]
