"""What is said to who wants a step that cannot be; and the joint of its two streams."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from controlplane.model.errors import Overloaded
from controlplane.model.identity import Role
from controlplane.model.job import AttemptState
from controlplane.registry import jobs, steptoken
from controlplane.registry import steps as commands
from controlplane.registry.steps import Placed
from controlplane.registry.which import Which
from controlplane.service import steps
from controlplane.service.steprelay import MOST_OF_JOB, Relay, Relays
from controlplane.v1 import agent_service_pb2 as agents_pb
from controlplane.v1 import step_pb2
from controlplane.v1 import step_service_pb2 as pb
from controlplane.wire.nodes import facts_message
from tests.cli.golden import check
from tests.support.centre import METHODS, Centre, centre
from tests.support.supervised import until

if TYPE_CHECKING:
    from controlplane.model.event import Event

EXEC = "/controlplane.v1.StepService/Exec"
SERVE = "/controlplane.v1.AgentService/ServeStep"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    with centre(tmp_path_factory.mktemp("centre")) as found:
        yield found


def running(made: Centre, **document: Any) -> int:
    """A job of ada's that runs on a node that nobody speaks for; its number."""
    made.join(str(uuid.uuid4()), "agent", "gpu-0")
    number = made.submit("ada", **document)
    made.place()
    attempt = made.registry.job(number).attempts[0]

    def run(draft: Any) -> None:
        draft.attempts[attempt.key] = replace(attempt, state=AttemptState.RUNNING)
        draft.emit("test", f"jobs/{number}")

    made.do(run, "test")
    return number


def said(made: Centre, data: bytes | list[bytes], who: str = "ada") -> str:
    with pytest.raises(grpc.RpcError) as error:
        made.call(EXEC, data, made.token(who, Role.USER))
    return f"{error.value.code().name}: {error.value.details()}"


def test_every_step_that_cannot_be(made: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "CLAIM_S", 0.05)
    waits = made.submit("ada", resources={"cpus": 4000})
    over = made.submit("ada")
    made.do(lambda draft: jobs.cancel(draft, [Which(over)]), "ada")
    runs = running(made)
    size = step_pb2.WindowSize
    lines: dict[str, step_pb2.StepStart] = {
        "a job that has ended": step_pb2.StepStart(job=f"jobs/{over}", command=["id"]),
        "a job that waits": step_pb2.StepStart(job=f"jobs/{waits}", command=["id"]),
        "a job that is not there": step_pb2.StepStart(job="jobs/4000", command=["id"]),
        "no job's name": step_pb2.StepStart(job="four", command=["id"]),
        "a rank that is not there": step_pb2.StepStart(job=f"jobs/{runs}", rank=1, command=["id"]),
        "a negative rank": step_pb2.StepStart(job=f"jobs/{runs}", rank=-1, command=["id"]),
        "a node that is none of its": step_pb2.StepStart(job=f"jobs/{runs}", node="gpu-9"),
        "a rank and a node": step_pb2.StepStart(job=f"jobs/{runs}", rank=0, node="gpu-0"),
        "a node whose agent is gone": step_pb2.StepStart(job=f"jobs/{runs}", command=["id"]),
        "a terminal of 0 × 0": step_pb2.StepStart(
            job=f"jobs/{runs}", terminal=step_pb2.Terminal(size=size(rows=0, columns=0))
        ),
        "a terminal without a size": step_pb2.StepStart(
            job=f"jobs/{runs}", terminal=step_pb2.Terminal()
        ),
        "a terminal that is too large": step_pb2.StepStart(
            job=f"jobs/{runs}", terminal=step_pb2.Terminal(size=size(rows=24, columns=10_001))
        ),
        "a detached terminal": step_pb2.StepStart(
            job=f"jobs/{runs}",
            command=["id"],
            detach=True,
            terminal=step_pb2.Terminal(size=size(rows=24, columns=80)),
        ),
        "a detached shell": step_pb2.StepStart(job=f"jobs/{runs}", detach=True),
        "an empty program": step_pb2.StepStart(job=f"jobs/{runs}", command=["", "x"]),
        "a NUL": step_pb2.StepStart(job=f"jobs/{runs}", command=["echo", "a\0b"]),
        "wrong variables": step_pb2.StepStart(
            job=f"jobs/{runs}", command=["id"], env={"CC_RANK": "9"}
        ),
        "a variable with an equals sign": step_pb2.StepStart(
            job=f"jobs/{runs}", command=["id"], env={"A=B": "9"}
        ),
        "a command that is too long": step_pb2.StepStart(
            job=f"jobs/{runs}", command=["sh", "-c", "x" * 40_000]
        ),
    }
    pages = []
    for name, start in lines.items():
        words = said(made, pb.ExecRequest(start=start).SerializeToString())
        for number, word in ((waits, "WAITS"), (over, "OVER"), (runs, "RUNS")):
            words = re.sub(rf"(jobs/|watch ){number}\b", rf"\1{word}", words)
        pages.append(f"# {name}\n{words}\n")
    pages.append(f"# nothing\n{said(made, [])}\n")
    late = pb.ExecRequest(input=step_pb2.StepInput(data=b"x")).SerializeToString()
    pages.append(f"# input before the start\n{said(made, late)}\n")
    alice = pb.ExecRequest(start=step_pb2.StepStart(job=f"jobs/{runs}", command=["id"]))
    words = said(made, alice.SerializeToString(), "bob").replace(f"jobs/{runs}", "jobs/RUNS")
    pages.append(f"# another's job\n{words}\n")
    check("steps.txt", "\n".join(pages), room=".")


def test_who_starts_what_is_written_down_without_arguments(
    made: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CLAIM_S", 0.05)
    number = running(made)
    start = step_pb2.StepStart(
        job=f"jobs/{number}", command=["mysql", "--password=s3cret"], env={"KEY": "s3cret"}
    )
    said(made, pb.ExecRequest(start=start).SerializeToString())

    def told() -> list[Event]:
        return [e for e in made.events(f"jobs/{number}") if e.kind.startswith("step.")]

    until(lambda: len(told()) == 2, "the end to be written down")
    events = told()
    assert [(e.kind, e.actor.principal) for e in events] == [
        ("step.started", "ada"),
        ("step.ended", "control-plane"),
    ]
    assert events[0].changed["program"] == "mysql"
    assert events[1].changed["step"] == events[0].seq
    assert "s3cret" not in str(events)


def relay_of(made: Centre, number: int) -> Relay:
    record = made.registry.job(number)
    lease = next(iter(record.leases.values()))
    placed = Placed(number=5, attempt="a", rank=0, lease=lease, node_display_name="gpu-0")
    return Relay(placed, agents_pb.StepOrder(step=5))


def test_a_step_is_claimed_once_and_with_its_leases_token_alone(made: Centre) -> None:
    async def look() -> None:
        relay, relays = relay_of(made, running(made)), Relays()
        relays.want(relay)
        node, token = relay.node_uuid, relay.placed.lease.token
        (call,) = relays.calls(node, frozenset())
        assert (call.step, call.token) == (5, token)
        assert relays.calls(node, frozenset({5})) == []
        assert relays.calls("another", frozenset()) == []
        assert relays.claim(node, 5, token - 1) is None
        assert relays.claim("another", 5, token) is None
        assert not relay.claimed.is_set()
        assert relays.claim(node, 5, token) is relay
        assert relay.claimed.is_set()
        assert relays.claim(node, 5, token) is None
        assert relays.lives(5)
        relays.over(relay)
        assert not relays.lives(5)

    asyncio.run(look())


def test_a_job_has_so_many_steps_at_once_and_no_more(made: Centre) -> None:
    async def look() -> None:
        relay, relays = relay_of(made, running(made)), Relays()
        lease = relay.placed.lease
        for number in range(MOST_OF_JOB):
            relays.check_room(lease, "gpu-0")
            placed = replace(relay.placed, number=number)
            relays.want(Relay(placed, relay.order))
        with pytest.raises(Overloaded, match="has 32 steps; wait until one of them has ended"):
            relays.check_room(lease, "gpu-0")
        relays.check_room(replace(lease, job_id=9999), "gpu-0")

    asyncio.run(look())


def test_another_agent_cannot_claim_a_step(made: Centre) -> None:
    node = made.join(str(uuid.uuid4()), "agent")
    claim = agents_pb.ServeStepRequest(claim=agents_pb.StepClaim(node_uuid=node, step=5))
    code = made.code(SERVE, claim.SerializeToString(), made.token("other-agent", Role.AGENT))
    assert code is grpc.StatusCode.PERMISSION_DENIED


def token_of(made: Centre, number: int) -> str:
    attempt = made.registry.job(number).attempts[0]
    return steptoken.make(made.registry._facts.cluster.secret, attempt)


def test_a_scripts_token_starts_steps_in_its_own_job_and_nothing_else(
    made: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CLAIM_S", 0.05)
    number, other = running(made, launcher="script"), running(made)
    token = token_of(made, number)
    for rpc in METHODS:
        if rpc != EXEC:
            code = made.code(rpc, b"", token)
            assert code is grpc.StatusCode.PERMISSION_DENIED, rpc

    def asked(job: int, with_token: str) -> grpc.StatusCode:
        start = step_pb2.StepStart(job=f"jobs/{job}", command=["id"])
        return made.code(EXEC, pb.ExecRequest(start=start).SerializeToString(), with_token)

    assert asked(number, token) is grpc.StatusCode.FAILED_PRECONDITION  # no agent comes for it
    assert asked(other, token) is grpc.StatusCode.PERMISSION_DENIED
    for forged in (
        token[:-1] + ("0" if token[-1] != "0" else "1"),
        token.replace(f"{number}_", f"{other}_", 1),
        "ccs_",
        "ccs_1_2_3",
        "ccs_x_0_1_y",
        f"ccs_{'9' * 40}_0_1_0",
    ):
        assert asked(number, forged) is grpc.StatusCode.UNAUTHENTICATED, forged
    attempt = made.registry.job(number).attempts[0]

    def end(draft: Any) -> None:
        draft.attempts[attempt.key] = replace(attempt, state=AttemptState.SUCCEEDED)
        draft.emit("test", f"jobs/{number}")

    made.do(end, "test")
    assert asked(number, token) is grpc.StatusCode.UNAUTHENTICATED


SYNCHRONIZE = "/controlplane.v1.AgentService/Synchronize"


def test_the_end_of_a_detached_step_is_written_down_once_however_often_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a node whose steps this process has not started, as after its own restart."""
    monkeypatch.setattr(commands, "EVENTS", 2)
    with centre(tmp_path) as made:
        number = running(made)
        lease = next(iter(made.registry.job(number).leases.values()))
        agent = made.registry.node(lease.node_uuid)
        assert agent is not None
        wanted = commands.Wanted(
            job=Which(number), rank=None, node="", program="a", terminal=False, detach=True
        )
        first, second = (
            made.do(lambda draft: commands.place(draft, wanted, lambda *_: None), "ada").number
            for _ in range(2)
        )
        calls = 0

        def tell(*ends: agents_pb.StepEnd) -> list[int]:
            nonlocal calls
            calls += 1
            request = agents_pb.SynchronizeRequest(
                node_uuid=lease.node_uuid,
                boot_id="boot",
                agent_id="it",
                call_number=calls,
                facts=facts_message(agent.facts),
                steps_ended=ends,
                leases=[
                    agents_pb.LeaseStatus(
                        lease_id=lease.lease_id,
                        token=lease.token,
                        phase=agents_pb.LEASE_PHASE_RUNNING,
                    )
                ],
            )
            (answer,) = made.call(
                SYNCHRONIZE, request.SerializeToString(), made.token("agent", Role.AGENT)
            )
            return list(agents_pb.SynchronizeResponse.FromString(answer).steps_heard)

        def end(step: int, token: int = lease.token, **how: Any) -> agents_pb.StepEnd:
            ended = step_pb2.StepEnded(**how)
            return agents_pb.StepEnd(step=step, lease_id=lease.lease_id, token=token, ended=ended)

        def told() -> list[dict[str, object]]:
            events = made.events(f"jobs/{number}")
            return [dict(e.changed) for e in events if e.kind == "step.ended"]

        assert tell(end(second, exit_code=3)) == [second]
        assert tell(end(second, exit_code=3), end(first, signal=9, message="killed")) == [
            second,
            first,
        ]
        assert tell(end(first, signal=9)) == [first]
        expected = [
            {"step": second, "exit_code": 3},
            {"step": first, "signal": 9, "message": "killed"},
        ]
        assert told() == expected
        # Neither a step that never was nor one under another token is written down or told again.
        never = [first - 1, first + 10_000]
        assert tell(*(end(step, exit_code=0) for step in never)) == never
        assert tell(end(second, token=lease.token + 1, exit_code=0)) == [second]
        assert told() == expected
        assert tell() == []
