"""Every rpc that changes something writes an event, with who asked for it and from where."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from controlplane.model.identity import Role
from controlplane.registry import jobs, nodes
from controlplane.service.permissions import PERMISSIONS, Reach, short
from controlplane.v1 import blob_service_pb2 as blobs_pb
from controlplane.v1 import fleet_service_pb2 as fleet_pb
from controlplane.v1 import job_service_pb2 as jobs_pb
from tests.service.test_permissions import job, me, node_of, requests, token
from tests.support.centre import METHODS, Centre, centre

if TYPE_CHECKING:
    from google.protobuf.message import Message

READS = frozenset(
    {
        *(
            "JobService/GetJob",
            "JobService/ListJobs",
            "JobService/ListTasks",
            "JobService/WatchJob",
        ),
        *("JobService/WatchJobs", "JobService/ListEvents", "JobService/WatchEvents"),
        *("JobService/ReadLogs", "JobService/GetMetrics", "UsageService/GetUsage"),
        *("ScheduleService/ExplainJob", "ScheduleService/DumpView"),
        *("FleetService/ListNodes", "FleetService/GetNode", "FleetService/GetServerInfo"),
        *("BlobService/GetBlob", "BlobService/DownloadBlob", "IdentityService/ListUsers"),
        *("IdentityService/ListTokens", "IdentityService/ListJoinTokens"),
        *("AccountService/GetAccount", "AccountService/ListAccounts"),
        *("AccountService/ListMembers", "AccountService/ListShares"),
        *("QueueService/GetPriorityClass", "QueueService/ListPriorityClasses"),
        *("QueueService/GetQueue", "QueueService/ListQueues"),
        *("QueueService/GetReservation", "QueueService/ListReservations"),
    }
)
"""They change nothing."""
HANDS_OVER = frozenset({"AgentService/ShipLogs", "AgentService/ShipProgress"})
"""Output and progress of jobs, which are no events."""
NEEDS_WORKERS = frozenset(
    {
        *("JobService/RequeueJobs", "JobService/SignalJob", "StepService/Exec"),
        *("AgentService/ServeStep", "AgentService/RenewCertificate"),
    }
)
"""They need workers that run, or a certificate: the end-to-end tests look at their events."""
KINDS = {
    "JobService/SubmitJob": "job.submitted",
    "JobService/SubmitJobs": "jobs.submitted",
    "JobService/CancelJobs": "job.cancelled",
    "JobService/HoldJobs": "job.held",
    "JobService/ReleaseJobs": "job.released",
    "JobService/UpdateJob": "job.changed",
    "FleetService/DrainNode": "node.drained",
    "FleetService/UndrainNode": "node.undrained",
    "FleetService/ReleaseNode": "node.released",
    "FleetService/RevokeNode": "node.revoked",
    "FleetService/LabelNode": "node.labelled",
    "QueueService/CreatePriorityClass": "priority_class.created",
    "QueueService/DeletePriorityClass": "priority_class.deleted",
    "QueueService/CreateQueue": "queue.created",
    "QueueService/UpdateQueue": "queue.changed",
    "QueueService/DeleteQueue": "queue.deleted",
    "QueueService/CreateReservation": "reservation.created",
    "QueueService/DeleteReservation": "reservation.deleted",
    "IdentityService/CreateUser": "user.created",
    "IdentityService/UpdateUser": "user.changed",
    "IdentityService/CreateToken": "token.created",
    "IdentityService/RevokeToken": "token.revoked",
    "IdentityService/CreateJoinToken": "join_token.created",
    "IdentityService/RevokeJoinToken": "join_token.revoked",
    "IdentityService/JoinNode": "node.admitted",
    "AccountService/CreateAccount": "account.created",
    "AccountService/UpdateAccount": "account.changed",
    "AccountService/DeleteAccount": "account.deleted",
    "AccountService/SetMember": "account.member_changed",
    "AccountService/RemoveMember": "account.member_removed",
    "BlobService/UploadBlob": "blob.uploaded",
    "AgentService/Synchronize": "node.changed",
}
"""What each of the others writes."""
BEFORE_AND_AFTER = {
    "job.held": ("held_by", ["", "the-admin"]),
    "job.released": ("held_by", ["the-admin", ""]),
    "job.cancelled": ("cancelled_by", ["", "the-admin"]),
    "job.changed": ("priority_class", ["", "normal"]),
    "node.drained": ("reason", [None, "fans"]),
    "node.undrained": ("reason", ["for the test", None]),
    "node.labelled": ("labels", [{}, {"rack": "r1"}]),
    "queue.changed": ("priority", [0, 5]),
    "node.released": ("enrolled_by", ["the-admin", ""]),
    "node.revoked": ("generation", [1, 2]),
    "node.admitted": ("generation", [None, 1]),
    "user.changed": ("role", ["user", "viewer"]),
    "account.changed": ("shares", [1, 7]),
    "account.member_changed": ("shares", [1, 7]),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    with centre(tmp_path_factory.mktemp("centre")) as found:
        yield found


def held_job(made: Centre) -> Message:
    name = job(made, me(Role.ADMIN))
    number = int(name.removeprefix("jobs/"))
    made.do(lambda draft: jobs.hold(draft, [number]), me(Role.ADMIN))
    return jobs_pb.ReleaseJobsRequest(names=[name])


def drained_node(made: Centre) -> Message:
    node_uuid = node_of(made, me(Role.ADMIN))
    made.do(lambda draft: nodes.drain(draft, node_uuid, "for the test"), "test")
    return fleet_pb.UndrainNodeRequest(name=node_uuid)


def new_blob(_: Centre) -> Message:
    data = uuid.uuid4().bytes
    return blobs_pb.UploadBlobRequest(sha256=hashlib.sha256(data).hexdigest(), data=data)


PREPARED: dict[str, Callable[[Centre], Message]] = {
    "JobService/ReleaseJobs": held_job,
    "FleetService/UndrainNode": drained_node,
    "BlobService/UploadBlob": new_blob,
}


def test_every_rpc_is_one_of_these() -> None:
    groups = (READS, HANDS_OVER, NEEDS_WORKERS, frozenset(KINDS))
    assert sorted(name for group in groups for name in group) == sorted(map(short, METHODS))


@pytest.mark.parametrize("rpc", [rpc for rpc in METHODS if short(rpc) in KINDS], ids=short)
def test_a_change_writes_down_who_and_from_where(made: Centre, rpc: str) -> None:
    row, name = PERMISSIONS[rpc], short(rpc)
    role = next(r for r in (Role.ADMIN, Role.AGENT, Role.JOINER) if row[r] is not Reach.NONE)
    prepare = PREPARED.get(name)
    request = prepare(made) if prepare else requests(made, me(role), role)[name]()
    secret = token(made, role)
    before = made.registry.seq
    made.call(rpc, request.SerializeToString(), secret)
    written = [e for e in made.events() if e.seq > before and e.kind == KINDS[name]]
    assert written
    for event in written:
        assert event.actor.principal
        assert event.actor.principal != "control-plane"
        assert event.actor.peer.startswith("unix:")
        if event.kind in BEFORE_AND_AFTER:
            field, pair = BEFORE_AND_AFTER[event.kind]
            assert event.changed[field] == pair
    assert not any(secret in str(event) for event in made.events())


def test_a_blob_that_is_ones_own_already_is_no_event(made: Centre) -> None:
    rpc = "/controlplane.v1.BlobService/UploadBlob"
    data = new_blob(made).SerializeToString()
    for _ in range(2):
        made.call(rpc, data, token(made, Role.ADMIN))
    sha256 = blobs_pb.UploadBlobRequest.FromString(data).sha256
    assert len(made.events(f"blobs/{sha256}")) == 1
    wrong = blobs_pb.UploadBlobRequest(sha256="ab" * 32, data=b"x").SerializeToString()
    assert made.code(rpc, wrong, token(made, Role.ADMIN)).name == "INVALID_ARGUMENT"
    assert made.events(f"blobs/{'ab' * 32}") == []
