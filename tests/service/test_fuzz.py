"""Odd requests of every kind, by each role: always a status that tells whose fault it is, never a
traceback in the log, never a call without an end."""

from __future__ import annotations

import logging
import random
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.client.decode import from_rpc
from controlplane.model.identity import Role
from controlplane.v1 import agent_service_pb2 as agents_pb
from controlplane.v1 import fleet_service_pb2 as fleet_pb
from controlplane.v1 import job_pb2, lease_pb2, node_pb2
from controlplane.v1 import job_service_pb2 as jobs_pb
from tests.support.centre import METHODS, Centre, centre
from tests.support.examples import examples
from tests.support.odd import WORDS, bad_text, deep_struct, messages, rubbish

if TYPE_CHECKING:
    from google.protobuf.message import Message

FOREVER = ("/controlplane.v1.JobService/WatchJob", "/controlplane.v1.JobService/ReadLogs")
"""Rpcs that may be told to go on until a job ends, which none does here."""
HONEST = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.OUT_OF_RANGE,
}
"""What an odd request may be answered with."""


class Complaints(logging.Handler):
    """Keeps what should never stand in a log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    try:
        with centre(tmp_path_factory.mktemp("centre")) as found:
            for owner in (*(f"the-{role}" for role in Role), "other"):
                found.submit(owner)
                found.join(str(uuid.uuid4()), owner)
            found.place()
            yield found
    finally:
        logging.getLogger().removeHandler(complaints)
    assert complaints.told == []


def ask(made: Centre, rpc: str, data: bytes, role: Role) -> grpc.StatusCode:
    """Call an rpc; its status, which must be an honest one."""
    token = made.token(f"the-{role}", role)
    forever = rpc in FOREVER
    code = made.code(rpc, data, token, 0.1 if forever else 10)
    if forever and code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return grpc.StatusCode.OK
    assert code in HONEST, (rpc, role, code, data[:200])
    return code


@pytest.mark.parametrize("role", list(Role))
def test_bytes_at_random_are_refused_in_words_whoever_sends_them(made: Centre, role: Role) -> None:
    rng = random.Random(7)
    codes: Counter[grpc.StatusCode] = Counter()
    for rpc, method in METHODS.items():
        for data in (*rubbish(rng, 30), *bad_text(method.input_type)):
            codes[ask(made, rpc, data, role)] += 1
    assert codes.total() >= 500
    assert codes[grpc.StatusCode.INVALID_ARGUMENT] > 20


@pytest.mark.parametrize("role", [Role.USER, Role.ADMIN])
def test_a_text_that_is_no_utf8_is_told_as_such(made: Centre, role: Role) -> None:
    rpc = "/controlplane.v1.JobService/GetJob"
    with pytest.raises(grpc.RpcError) as error:
        made.call(rpc, b"\x0a\x02\xff\xfe", made.token(f"the-{role}", role))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "request: the bytes are no message of this rpc's type" in str(error.value.details())


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("levels", [1, 10, 30, 49, 50, 98, 99, 100, 101, 5000])
def test_a_spec_nested_deeply_is_refused(made: Centre, levels: int, lists: bool) -> None:
    rpc = "/controlplane.v1.JobService/SubmitJob"
    data = deep_struct(levels, lists=lists)
    assert ask(made, rpc, data, Role.USER) is grpc.StatusCode.INVALID_ARGUMENT


TEXT_FIELDS = [
    (rpc, field.name)
    for rpc, method in METHODS.items()
    for field in method.input_type.fields
    if field.type == field.TYPE_STRING and not field.is_repeated
]


@pytest.mark.parametrize(("rpc", "name"), TEXT_FIELDS)
def test_every_text_field_bears_every_odd_word(made: Centre, rpc: str, name: str) -> None:
    request = METHODS[rpc].input_type._concrete_class()
    for word in (*WORDS, "y" * 1_000_000):
        setattr(request, name, word)
        for role in Role:
            ask(made, rpc, request.SerializeToString(), role)


EXTREMES: list[tuple[str, Message]] = [
    ("JobService/ListJobs", jobs_pb.ListJobsRequest(page_size=2**31 - 1)),
    ("JobService/ListJobs", jobs_pb.ListJobsRequest(page_size=-(2**31))),
    ("JobService/ListJobs", jobs_pb.ListJobsRequest(page_token="9" * 18)),
    ("JobService/WatchEvents", jobs_pb.WatchEventsRequest(token="x")),
    ("JobService/WatchEvents", jobs_pb.WatchEventsRequest(kinds=["a"] * 101)),
    ("JobService/WatchEvents", jobs_pb.WatchEventsRequest(since_time=Timestamp(seconds=2**62))),
    ("JobService/WatchJobs", jobs_pb.WatchJobsRequest(token="x")),
    (
        "JobService/WatchJobs",
        jobs_pb.WatchJobsRequest(filter=jobs_pb.JobFilter(states=[job_pb2.JobState.ValueType(77)])),
    ),
    ("JobService/ListEvents", jobs_pb.ListEventsRequest(since_time=Timestamp(seconds=2**62))),
    ("JobService/ListEvents", jobs_pb.ListEventsRequest(page_size=-1, resource="jobs/1")),
    ("JobService/ListEvents", jobs_pb.ListEventsRequest(after_seq=-(2**63), resource="jobs/1")),
    ("JobService/CancelJobs", jobs_pb.CancelJobsRequest(names=["jobs/1"] * 100_000)),
    ("JobService/CancelJobs", jobs_pb.CancelJobsRequest(names=["jobs/1"] * 10_000)),
    (
        "JobService/CancelJobs",
        jobs_pb.CancelJobsRequest(names=[f"jobs/{n}" for n in range(10**9, 10**9 + 10_000)]),
    ),
    (
        "JobService/ListJobs",
        jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(labels={str(n): "" for n in range(9999)})),
    ),
    (
        "JobService/ListJobs",
        jobs_pb.ListJobsRequest(
            filter=jobs_pb.JobFilter(states=job_pb2.JobState.values() * 10_000)
        ),
    ),
    ("FleetService/ListNodes", fleet_pb.ListNodesRequest(page_size=2**31 - 1)),
    ("FleetService/ListNodes", fleet_pb.ListNodesRequest(page_size=-1)),
    (
        "AgentService/Synchronize",
        agents_pb.SynchronizeRequest(
            node_uuid=str(uuid.UUID(int=5)),
            boot_id="b",
            facts=node_pb2.NodeFacts(
                display_name="n", cpus=2**31 - 1, port_first=1, port_last=65535
            ),
        ),
    ),
    (
        "AgentService/Synchronize",
        agents_pb.SynchronizeRequest(
            node_uuid=str(uuid.UUID(int=6)),
            boot_id="b",
            facts=node_pb2.NodeFacts(
                display_name="n" * 256,
                memory_bytes=2**62,
                port_first=-1,
                port_last=2**31 - 1,
                devices=[node_pb2.Device(device_id="d" * 65, kind=node_pb2.DEVICE_KIND_GPU)] * 5000,
            ),
        ),
    ),
]


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(("rpc", "request_"), EXTREMES, ids=lambda each: str(each)[:40])
def test_extreme_numbers_and_sizes_are_borne(
    made: Centre, rpc: str, request_: Message, role: Role
) -> None:
    ask(made, f"/controlplane.v1.{rpc}", request_.SerializeToString(), role)


@pytest.mark.parametrize("rpc", METHODS)
@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data(), role=st.sampled_from(list(Role)))
def test_messages_with_odd_values_are_borne(
    made: Centre, rpc: str, data: st.DataObject, role: Role
) -> None:
    request = data.draw(messages(METHODS[rpc].input_type))
    ask(made, rpc, request.SerializeToString(), role)


def test_a_node_may_have_reports_of_any_kind_on_the_leases_that_it_holds(made: Centre) -> None:
    """The odd report that reaches furthest: right node, lease and token, and all else strange."""
    rng = random.Random(11)
    node = next(n for n, held in made.registry.nodes() if held and n.enrolled_by != "")
    lease = next(
        lease
        for lease_id in range(1, 100)
        if (lease := made.registry.lease(lease_id)) and lease.node_uuid == node.uuid
    )
    token = made.token(node.enrolled_by, Role.AGENT)
    huge = (0, 1, -1, 2**31 - 1, -(2**31))
    longs = (*huge, 2**63 - 1, -(2**63), 253_402_300_800)
    kinds = (0, 1, 2, 3, 4, 5, 77)
    for number in range(200):
        worker = agents_pb.WorkerStatus(
            rank=rng.choice((lease.first_rank, *huge)),
            local_rank=rng.choice(huge),
            state=lease_pb2.WorkerState.ValueType(rng.choice((1, 2, 3, 4, 99))),
            pid=rng.choice(huge),
            exit_code=rng.choice(huge),
            signal=rng.choice(huge),
            stderr_tail=rng.choice(WORDS),
            stdout_bytes=rng.choice(longs),
            stderr_bytes=rng.choice(longs),
        )
        worker.start_time.seconds = rng.choice(longs)
        worker.end_time.seconds = rng.choice(longs)
        worker.end_time.nanos = rng.choice(huge)
        status = agents_pb.LeaseStatus(
            lease_id=lease.lease_id,
            token=lease.token,
            phase=agents_pb.LeasePhase.ValueType(rng.choice(kinds)),
            end=agents_pb.LeaseEnd.ValueType(rng.choice(kinds)),
            message=rng.choice(WORDS),
            workers=[worker] * rng.choice((0, 1, 3)),
        )
        request = agents_pb.SynchronizeRequest(
            node_uuid=node.uuid,
            boot_id=rng.choice(("boot", "other")),
            agent_id=f"a-{number}",
            call_number=rng.choice(longs),
            generation_seen=rng.choice(longs),
            leases=[status] * rng.choice((1, 1, 2)),
        )
        rpc = "/controlplane.v1.AgentService/Synchronize"
        code = made.code(rpc, request.SerializeToString(), token)
        assert code in HONEST, (number, code)


def test_a_spec_with_thousands_of_faults_is_told_with_those_that_fit(made: Centre) -> None:
    request = jobs_pb.SubmitJobRequest()
    request.spec.update({f"ünknown{n}": n for n in range(5000)})
    token = made.token("the-user", Role.USER)
    with pytest.raises(grpc.RpcError) as error:
        made.call("/controlplane.v1.JobService/SubmitJob", request.SerializeToString(), token)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    fault = from_rpc(error.value, "here")
    assert len(fault.faults) > 5
    assert re.fullmatch(r"and \d+ more faults", fault.faults[-1].description)
