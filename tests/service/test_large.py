"""Specs as large as they may be, by the dozen: no answer grows beyond what a message may have, and
what is too large is refused with the limit."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.client import Client
from controlplane.client.errors import InvalidInput
from controlplane.model.identity import Role
from controlplane.model.lease import LeasePhase, LeaseStatus
from controlplane.service.room import LARGEST_MESSAGE
from controlplane.v1 import agent_service_pb2 as agents_pb
from controlplane.v1 import job_service_pb2 as jobs_pb
from tests.support.centre import Centre, centre

MIB = 1 << 20
WORD = "x" * 100_000
LARGE: dict[str, Any] = {
    "command": ["true", *[WORD] * 10],
    "env": {f"V{number}": WORD for number in range(10)},
}
"""Nearly 2 MiB: there is not much more that a spec may hold."""
JOBS, TASKS = 6, 6


@pytest.fixture
def made(tmp_path: Any) -> Iterator[Centre]:
    with centre(tmp_path) as found:
        yield found


@pytest.fixture
def client(made: Centre) -> Iterator[Client]:
    with Client(made.address, token=made.token("ada", Role.USER), timeout_s=60) as found:
        yield found


def test_a_node_with_many_large_leases_gets_them_all_a_message_at_a_time(made: Centre) -> None:
    node, agent = made.join(str(uuid.uuid4()), "agent", "n"), "agent"
    made.submit("ada", **LARGE, tasks=f"0-{TASKS - 1}")
    made.place()
    known: list[LeaseStatus] = []
    answers, generation = 0, 0
    while len(known) < TASKS:
        request = agents_pb.SynchronizeRequest(
            node_uuid=node, boot_id="boot", agent_id="1", call_number=answers + 1,
            epoch_seen=made.registry.epoch, generation_seen=generation, facts_digest="",
        )  # fmt: skip
        (data,) = made.call(
            "/controlplane.v1.AgentService/Synchronize",
            request.SerializeToString(),
            made.token(agent, Role.AGENT),
        )
        answer = agents_pb.SynchronizeResponse.FromString(data)
        assert len(data) < 4 * MIB
        assert len(answer.leases) == TASKS
        fresh = [each for each in answer.leases if each.HasField("launch")]
        assert fresh
        assert (answer.generation == 0) == (len(known) + len(fresh) < TASKS)
        known += [
            LeaseStatus(lease_id=each.lease_id, token=each.token, phase=LeasePhase.STAGING)
            for each in fresh
        ]
        made.report(node, agent, *known)
        answers, generation = answers + 1, answer.generation
    assert answers > 1
    assert len({each.lease_id for each in known}) == TASKS


def test_many_large_jobs_are_listed_and_watched_a_message_at_a_time(
    made: Centre, client: Client
) -> None:
    numbers = [made.submit("ada", **LARGE) for _ in range(JOBS)]
    names = {f"jobs/{number}" for number in numbers}
    request = jobs_pb.ListJobsRequest(page_size=1000)
    (data,) = made.call(
        "/controlplane.v1.JobService/ListJobs",
        request.SerializeToString(),
        made.token("ada", Role.USER),
    )
    assert len(data) < 4 * MIB
    assert {job.name for job in client.list()} == names
    watch = client.watch_jobs()
    assert {next(watch).name for _ in numbers} == names
    made.do(lambda draft: None, "ada")
    with Client(made.address, token=made.token("ada", Role.USER), timeout_s=60) as other:
        other.hold_jobs(sorted(names))
    assert {next(watch).name for _ in numbers} == names


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("comment", "x" * (4 * MIB), "must have at most 4096 characters, not 4194304"),
        ("command", ["true", "x" * (4 * MIB)], "must have at most 131071 bytes, not 4194304"),
        ("command", ["true", *[WORD] * 42], "must have at most 1048576 bytes in all"),
        ("env", {f"V{n}": WORD for n in range(42)}, "must have at most 1048576 bytes in all"),
    ],
    ids=["a text", "an argument", "a command", "an environment"],
)
def test_a_spec_of_4_mib_is_refused_with_the_limit(
    made: Centre, field: str, value: Any, words: str
) -> None:
    request = jobs_pb.SubmitJobRequest()
    request.spec.update({"command": ["true"], field: value})
    assert request.ByteSize() > 4 * MIB
    with Client(made.address, token=made.token("ada", Role.USER)) as found:
        with pytest.raises(InvalidInput, match=words):  # before it is sent
            found.submit({"command": ["true"], field: value})
        with pytest.raises(InvalidInput, match=words):
            found._connection.call(found._jobs.SubmitJob, request, 60)


def test_what_is_larger_than_a_message_may_be_is_refused_with_the_limit(
    made: Centre, client: Client
) -> None:
    count = LARGEST_MESSAGE // (2 * MIB) + 3
    with pytest.raises(InvalidInput, match=r"a message to the server may have 64 MiB .*submit few"):
        client.submit_many([LARGE] * count)
    assert not list(client.list())
    assert client.submit_many([LARGE] * 3)
