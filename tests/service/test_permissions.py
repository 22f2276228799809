"""Every rpc of the real server, called by each role on its own and on others' objects."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct
from grpc_channelz.v1 import channelz_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]

from controlplane.kit.credential import hash_of
from controlplane.kit.pki import make_request, new_key
from controlplane.model.account import Account
from controlplane.model.errors import NotAllowed
from controlplane.model.identity import Role
from controlplane.model.priority import PriorityClass
from controlplane.model.queues import JobQueue
from controlplane.model.reservation import Reservation
from controlplane.registry import accounts, identity, jobs, nodes, site
from controlplane.registry.which import Which
from controlplane.service.auth import Principal
from controlplane.service.permissions import (
    COLUMNS,
    GET_BLOB,
    PERMISSIONS,
    PUBLIC,
    Reach,
    authorise,
    may,
    short,
)
from controlplane.v1 import account_pb2, job_pb2, node_pb2, step_pb2
from controlplane.v1 import account_service_pb2 as accounts_pb
from controlplane.v1 import agent_service_pb2 as agents_pb
from controlplane.v1 import blob_service_pb2 as blobs_pb
from controlplane.v1 import fleet_service_pb2 as fleet_pb
from controlplane.v1 import identity_service_pb2 as identity_pb
from controlplane.v1 import job_service_pb2 as jobs_pb
from controlplane.v1 import queue_service_pb2 as queues_pb
from controlplane.v1 import schedule_service_pb2 as schedule_pb
from controlplane.v1 import step_service_pb2 as steps_pb
from controlplane.v1 import usage_service_pb2 as usage_pb
from controlplane.wire.basics import document
from controlplane.wire.nodes import facts_message
from tests.cli.golden import check
from tests.support.centre import METHODS, SERVICES, Centre, centre
from tests.support.world import facts

if TYPE_CHECKING:
    from google.protobuf.message import Message

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
OTHER = "other"
"""Who owns what is foreign."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    with centre(tmp_path_factory.mktemp("centre")) as found:
        yield found


def me(role: Role) -> str:
    return f"the-{role}"


def token(made: Centre, role: Role) -> str:
    return made.token(me(role), role)


def job(made: Centre, owner: str) -> str:
    return f"jobs/{made.submit(owner)}"


def spec(**document: Any) -> Struct:
    message = Struct()
    message.update({"command": ["true"], **document})
    return message


def node_of(made: Centre, owner: str) -> str:
    return made.join(str(uuid.uuid4()), owner)


def blob_of(made: Centre, owner: str, role: Role) -> str:
    """A blob that is somebody's: of people who uploaded it, of agents by a job on their node."""
    data = uuid.uuid4().bytes
    if role is not Role.AGENT:
        return made.upload(owner, data)
    sha256 = made.upload("a-user", data)
    node_of(made, owner)
    drained = [n for n, _ in made.registry.nodes() if n.enrolled_by != owner]
    for each in drained:
        made.do(lambda draft, each=each: _drain(draft, each.uuid), "test")
    made.submit("a-user", working_dir={"sha256": sha256, "size": len(data)})
    made.place()
    assert made.registry.leases_blob(owner, sha256)
    for each in drained:
        made.do(lambda draft, each=each: _undrain(draft, each.uuid), "test")
    return sha256


def _drain(draft: Any, node_uuid: str) -> None:
    nodes.drain(draft, node_uuid, "for the test")


def _undrain(draft: Any, node_uuid: str) -> None:
    nodes.undrain(draft, node_uuid)


def synchronize(node_uuid: str) -> Message:
    return agents_pb.SynchronizeRequest(
        node_uuid=node_uuid,
        boot_id="boot",
        agent_id=uuid.uuid4().hex,
        call_number=1,
        facts=facts_message(facts("some-node")),
    )


def requests(made: Centre, owner: str, role: Role) -> dict[str, Callable[[], Message]]:
    """What each rpc is asked, of an object of this owner's."""
    return {
        "JobService/SubmitJob": lambda: jobs_pb.SubmitJobRequest(
            spec=spec(working_dir={"sha256": blob_of(made, owner, Role.USER), "size": 16})
        ),
        "JobService/SubmitJobs": lambda: jobs_pb.SubmitJobsRequest(
            specs=[
                spec(),
                spec(working_dir={"sha256": blob_of(made, owner, Role.USER), "size": 16}),
            ]
        ),
        "JobService/HoldJobs": lambda: jobs_pb.HoldJobsRequest(
            names=[job(made, me(role)), job(made, owner)]
        ),
        "JobService/ReleaseJobs": lambda: jobs_pb.ReleaseJobsRequest(names=[job(made, owner)]),
        "JobService/RequeueJobs": lambda: jobs_pb.RequeueJobsRequest(names=[job(made, owner)]),
        "JobService/UpdateJob": lambda: jobs_pb.UpdateJobRequest(
            name=job(made, owner), priority_class="normal"
        ),
        "JobService/ListTasks": lambda: jobs_pb.ListTasksRequest(name=job(made, owner)),
        "JobService/GetJob": lambda: jobs_pb.GetJobRequest(name=job(made, owner)),
        "JobService/ListJobs": lambda: jobs_pb.ListJobsRequest(
            filter=jobs_pb.JobFilter(owner=owner)
        ),
        "JobService/CancelJobs": lambda: jobs_pb.CancelJobsRequest(
            names=[job(made, me(role)), job(made, owner)]
        ),
        "JobService/SignalJob": lambda: jobs_pb.SignalJobRequest(
            name=job(made, owner), signal="USR1"
        ),
        "JobService/WatchJob": lambda: jobs_pb.WatchJobRequest(name=ended(made, owner)),
        "JobService/WatchJobs": lambda: jobs_pb.WatchJobsRequest(
            filter=jobs_pb.JobFilter(owner=owner)
        ),
        "JobService/WatchEvents": lambda: jobs_pb.WatchEventsRequest(resource=job(made, owner)),
        "JobService/ListEvents": lambda: jobs_pb.ListEventsRequest(resource=job(made, owner)),
        "JobService/ReadLogs": lambda: jobs_pb.ReadLogsRequest(name=job(made, owner)),
        "JobService/GetMetrics": lambda: jobs_pb.GetMetricsRequest(name=job(made, owner)),
        "ScheduleService/ExplainJob": lambda: schedule_pb.ExplainJobRequest(name=job(made, owner)),
        "ScheduleService/DumpView": schedule_pb.DumpViewRequest,
        "UsageService/GetUsage": lambda: usage_pb.GetUsageRequest(owner=owner),
        "AccountService/CreateAccount": lambda: accounts_pb.CreateAccountRequest(
            account_id=f"a{uuid.uuid4().hex}"
        ),
        "AccountService/GetAccount": lambda: accounts_pb.GetAccountRequest(
            name=account_of(made, owner)
        ),
        "AccountService/ListAccounts": accounts_pb.ListAccountsRequest,
        "AccountService/UpdateAccount": lambda: accounts_pb.UpdateAccountRequest(
            account=account_pb2.Account(name=account_of(made, owner), shares=7),
            update_mask=FieldMask(paths=["shares"]),
        ),
        "AccountService/DeleteAccount": lambda: accounts_pb.DeleteAccountRequest(
            name=account_of(made, owner)
        ),
        "AccountService/SetMember": lambda: accounts_pb.SetMemberRequest(
            member=account_pb2.Member(
                name=f"{account_of(made, owner)}/members/{user_of(made, owner)[6:]}", shares=7
            ),
            update_mask=FieldMask(paths=["shares"]),
        ),
        "AccountService/RemoveMember": lambda: accounts_pb.RemoveMemberRequest(
            name=f"{account_of(made, owner)}/members/{owner}"
        ),
        "AccountService/ListMembers": lambda: accounts_pb.ListMembersRequest(
            account=account_of(made, owner)
        ),
        "AccountService/ListShares": lambda: accounts_pb.ListSharesRequest(
            account=account_of(made, owner)
        ),
        "FleetService/ListNodes": fleet_pb.ListNodesRequest,
        "FleetService/GetNode": lambda: fleet_pb.GetNodeRequest(name=node_of(made, owner)),
        "FleetService/DrainNode": lambda: fleet_pb.DrainNodeRequest(
            name=node_of(made, owner), reason="fans"
        ),
        "FleetService/UndrainNode": lambda: fleet_pb.UndrainNodeRequest(name=node_of(made, owner)),
        "FleetService/LabelNode": lambda: fleet_pb.LabelNodeRequest(
            name=node_of(made, owner), labels={"rack": "r1"}
        ),
        "QueueService/CreatePriorityClass": lambda: queues_pb.CreatePriorityClassRequest(
            priority_class_id=new_name()
        ),
        "QueueService/GetPriorityClass": lambda: queues_pb.GetPriorityClassRequest(name="normal"),
        "QueueService/ListPriorityClasses": queues_pb.ListPriorityClassesRequest,
        "QueueService/DeletePriorityClass": lambda: queues_pb.DeletePriorityClassRequest(
            name=class_of(made)
        ),
        "QueueService/CreateQueue": lambda: queues_pb.CreateQueueRequest(queue_id=new_name()),
        "QueueService/GetQueue": lambda: queues_pb.GetQueueRequest(name="queues/default"),
        "QueueService/ListQueues": queues_pb.ListQueuesRequest,
        "QueueService/UpdateQueue": lambda: queues_pb.UpdateQueueRequest(
            queue=queues_pb.Queue(name=queue_of(made), priority=5),
            update_mask={"paths": ["priority"]},  # type: ignore[arg-type]  # protobuf takes it
        ),
        "QueueService/DeleteQueue": lambda: queues_pb.DeleteQueueRequest(name=queue_of(made)),
        "QueueService/CreateReservation": lambda: reservation_on(node_of(made, owner)),
        "QueueService/GetReservation": lambda: queues_pb.GetReservationRequest(
            name=reservation_of(made)
        ),
        "QueueService/ListReservations": queues_pb.ListReservationsRequest,
        "QueueService/DeleteReservation": lambda: queues_pb.DeleteReservationRequest(
            name=reservation_of(made)
        ),
        "FleetService/ReleaseNode": lambda: fleet_pb.ReleaseNodeRequest(name=node_of(made, owner)),
        "FleetService/RevokeNode": lambda: fleet_pb.RevokeNodeRequest(name=joined_node(made)),
        "FleetService/GetServerInfo": fleet_pb.GetServerInfoRequest,
        "IdentityService/CreateUser": lambda: identity_pb.CreateUserRequest(
            user_id=uuid.uuid4().hex, role="user"
        ),
        "IdentityService/ListUsers": identity_pb.ListUsersRequest,
        "IdentityService/UpdateUser": lambda: identity_pb.UpdateUserRequest(
            name=user_of(made, owner), role="viewer"
        ),
        "IdentityService/CreateToken": lambda: identity_pb.CreateTokenRequest(
            user=user_of(made, owner), sha256=hash_of(uuid.uuid4().hex)
        ),
        "IdentityService/ListTokens": lambda: identity_pb.ListTokensRequest(
            user=user_of(made, owner)
        ),
        "IdentityService/RevokeToken": lambda: identity_pb.RevokeTokenRequest(
            name=token_of(made, owner)
        ),
        "IdentityService/CreateJoinToken": lambda: identity_pb.CreateJoinTokenRequest(
            sha256=hash_of(uuid.uuid4().hex), lifetime=Duration(seconds=60)
        ),
        "IdentityService/ListJoinTokens": identity_pb.ListJoinTokensRequest,
        "IdentityService/RevokeJoinToken": lambda: identity_pb.RevokeJoinTokenRequest(
            name=join_token(made)
        ),
        "IdentityService/JoinNode": lambda: identity_pb.JoinNodeRequest(
            node_uuid=str(uuid.uuid4()), certificate_request=make_request(new_key(), "a host")
        ),
        "AgentService/RenewCertificate": lambda: agents_pb.RenewCertificateRequest(
            certificate_request=make_request(new_key(), "a host")
        ),
        "BlobService/GetBlob": lambda: blobs_pb.GetBlobRequest(sha256=blob_of(made, owner, role)),
        "BlobService/UploadBlob": lambda: blobs_pb.UploadBlobRequest(
            sha256=made.upload(owner, b"x"), data=b"x"
        ),
        "BlobService/DownloadBlob": lambda: blobs_pb.DownloadBlobRequest(
            sha256=blob_of(made, owner, role)
        ),
        "AgentService/Synchronize": lambda: synchronize(node_of(made, owner)),
        "AgentService/ShipLogs": lambda: agents_pb.ShipLogsRequest(node_uuid=node_of(made, owner)),
        "AgentService/ServeStep": lambda: agents_pb.ServeStepRequest(
            claim=agents_pb.StepClaim(node_uuid=node_of(made, owner), step=7)
        ),
        "AgentService/ShipProgress": lambda: agents_pb.ShipProgressRequest(
            node_uuid=node_of(made, owner)
        ),
        "StepService/Exec": lambda: steps_pb.ExecRequest(
            start=step_pb2.StepStart(job=job(made, owner), command=["id"])
        ),
    }


def account_of(made: Centre, user: str) -> str:
    """An account of which somebody is a member."""
    name = f"a{uuid.uuid4().hex}"
    made.do(lambda draft: accounts.create(draft, Account(name=name)), "an-operator")
    made.do(lambda draft: accounts.set_member(draft, name, user, {}), "an-operator")
    return f"accounts/{name}"


def new_name() -> str:
    return f"a{uuid.uuid4().hex[:12]}"


def class_of(made: Centre) -> str:
    value = PriorityClass(name=new_name(), value=5)
    made.do(lambda draft: site.create_class(draft, value), "an-admin")
    return value.resource


def queue_of(made: Centre) -> str:
    value = JobQueue(name=new_name())
    made.do(lambda draft: site.create_queue(draft, value), "an-admin")
    return value.resource


def reservation_on(node_uuid: str) -> Message:
    request = queues_pb.CreateReservationRequest(reservation_id=new_name())
    request.reservation.nodes.append(f"nodes/{node_uuid}")
    request.reservation.users.append("ada")
    request.reservation.end_time.seconds = 2**32
    request.reservation.begin_time.seconds = 2**32 - 1
    return request


def reservation_of(made: Centre) -> str:
    value = Reservation(
        name=new_name(),
        begin_us=2**52,
        end_us=2**52 + 1,
        node_uuids=(node_of(made, "somebody"),),
        users=("ada",),
    )
    made.do(lambda draft: site.create_reservation(draft, value), "an-admin")
    return value.resource


def joined_node(made: Centre) -> str:
    sha256, node_uuid = hash_of(uuid.uuid4().hex), str(uuid.uuid4())
    made.do(lambda draft: identity.create_join_token(draft, sha256, 60_000_000, ""), "an-admin")
    made.do(lambda draft: identity.join(draft, sha256, node_uuid, "a key"), "a-host")
    return f"nodes/{node_uuid}"


def user_of(made: Centre, name: str) -> str:
    if made.registry.user(name) is None:
        made.do(lambda draft: identity.create_user(draft, name, Role.USER), "an-admin")
    return f"users/{name}"


def token_of(made: Centre, name: str) -> str:
    user_of(made, name)
    sha256 = hash_of(uuid.uuid4().hex)
    made.do(lambda draft: identity.create_token(draft, name, sha256, "", None), "an-admin")
    return f"tokens/{sha256[:12]}"


def join_token(made: Centre) -> str:
    sha256 = hash_of(uuid.uuid4().hex)
    made.do(lambda draft: identity.create_join_token(draft, sha256, 60_000_000, ""), "an-admin")
    return f"joinTokens/{sha256[:12]}"


def ended(made: Centre, owner: str) -> str:
    number = made.submit(owner)
    made.do(lambda draft: jobs.cancel(draft, [Which(number)]), owner)
    return f"jobs/{number}"


WORDS = {
    grpc.StatusCode.OK: "allowed",
    grpc.StatusCode.PERMISSION_DENIED: "denied",
    grpc.StatusCode.NOT_FOUND: "not found",
    grpc.StatusCode.INVALID_ARGUMENT: "no such blob",
    grpc.StatusCode.FAILED_PRECONDITION: "allowed",
}


SUBMITS = ("JobService/SubmitJob", "JobService/SubmitJobs")


def outcome(made: Centre, rpc: str, role: Role, owner: str) -> str:
    request = requests(made, owner, role)[short(rpc)]()
    code = made.code(rpc, request.SerializeToString(), token(made, role))
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        assert short(rpc) in SUBMITS
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        # The job waits, and has no workers yet; nobody waits; the agent has no certificate.
        waits = ("JobService/SignalJob", "JobService/RequeueJobs", "StepService/Exec")
        others = ("AgentService/ServeStep", "AgentService/RenewCertificate")
        assert short(rpc) in (*waits, *others)
    return WORDS[code]


def expected(rpc: str, role: Role, owner: str) -> bool:
    """What the table says. A submit names a blob of the owner; an upload is the caller's own, and a
    list of accounts is of what one may see."""
    principal = Principal(name=me(role), role=role)
    if short(rpc) in ("BlobService/UploadBlob", "AccountService/ListAccounts"):
        owner = principal.name
    if short(rpc) in SUBMITS:
        return may(principal, rpc, principal.name) and may(principal, GET_BLOB, owner)
    return may(principal, rpc, owner)


@pytest.mark.timeout(120)
def test_every_rpc_by_each_role_on_its_own_and_on_others_objects(made: Centre) -> None:
    lines = [f"{'rpc':<28}{'of':<9}" + "".join(f"{role:<14}" for role in COLUMNS)]
    for rpc in METHODS:
        for of in ("own", "foreign"):
            cells = []
            for role in COLUMNS:
                owner = me(role) if of == "own" else OTHER
                told = outcome(made, rpc, role, owner)
                cells.append(told)
                assert (told == "allowed") == expected(rpc, role, owner), (rpc, role, of)
            line = f"{short(rpc):<28}{of:<9}" + "".join(f"{cell:<14}" for cell in cells)
            lines.append(line.rstrip())
    check("permissions.txt", "\n".join(line.rstrip() for line in lines) + "\n", room=".")


def test_every_rpc_of_every_service_has_a_row_with_every_role() -> None:
    served = {
        f"/{service.full_name}/{method.name}"
        for pb in (*SERVICES, channelz_pb2, health_pb2, reflection_pb2)
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert served - PERMISSIONS.keys() - PUBLIC == {"/grpc.health.v1.Health/List"}
    assert PERMISSIONS.keys() <= served
    assert not PUBLIC & PERMISSIONS.keys()
    for rpc, row in PERMISSIONS.items():
        assert list(row) == list(Role), rpc


def as_page(table: dict[str, dict[Role, Reach]]) -> str:
    words = {Reach.NONE: "–", Reach.OWN: "own", Reach.ALL: "all"}
    lines = ["| rpc | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [
        f"| `{short(rpc)}` | " + " | ".join(words[row[role]] for role in COLUMNS) + " |"
        for rpc, row in table.items()
        if rpc in METHODS
    ]
    others = {rpc: row for rpc, row in table.items() if rpc not in METHODS}
    assert {short(rpc).split("/")[0] for rpc in others} == {"ServerReflection", "Channelz"}
    lines += [
        "| `ServerReflection/…` | " + " | ".join("all" for _ in COLUMNS) + " |",
        "| `Channelz/…` | – | – | – | all | – |",
    ]
    return "\n".join(lines)


def test_the_page_on_security_shows_the_table() -> None:
    page = PAGE.read_text()
    begin = page.index("\n", page.index("<!-- permissions:")) + 1
    end = page.index("<!-- end of permissions -->")
    fresh = f"{page[:begin]}\n{as_page(PERMISSIONS)}\n\n{page[end:]}"
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(fresh)
    assert PAGE.read_text() == fresh


@pytest.mark.parametrize("role", list(Role))
def test_what_is_not_in_the_table_is_denied_to_everybody(role: Role) -> None:
    principal = Principal(name="somebody", role=role)
    with pytest.raises(NotAllowed, match=f"has the role {role}, which may not call Nothing/Do$"):
        authorise(principal, "/controlplane.v1.Nothing/Do")
    assert not may(principal, "/controlplane.v1.Nothing/Do", "somebody")
    assert not may(principal, "/controlplane.v1.JobService/SubmitJob", None)


@pytest.mark.parametrize("rpc", METHODS)
def test_nobody_without_a_token_gets_anywhere(made: Centre, rpc: str) -> None:
    assert made.code(rpc, b"", None) is grpc.StatusCode.UNAUTHENTICATED
    assert made.code(rpc, b"", "cc_guess") is grpc.StatusCode.UNAUTHENTICATED


def refused(made: Centre, role: Role, rpc: str, request: Message) -> str:
    with pytest.raises(grpc.RpcError) as error:
        made.call(rpc, request.SerializeToString(), token(made, role))
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    return str(error.value.details())


def test_a_denial_names_the_role_and_who_may(made: Centre) -> None:
    drain = fleet_pb.DrainNodeRequest(name="nodes/a", reason="x")
    assert refused(made, Role.USER, "/controlplane.v1.FleetService/DrainNode", drain) == (
        "the-user has the role user, which may not call FleetService/DrainNode;"
        " operator and admin may"
    )
    foreign = job(made, OTHER)
    get = jobs_pb.GetJobRequest(name=foreign)
    assert refused(made, Role.USER, "/controlplane.v1.JobService/GetJob", get) == (
        f"{foreign}: not the-user's own, and the role user may call JobService/GetJob for its own"
        " alone; viewer, operator and admin may for all"
    )


def test_a_cancel_by_names_ends_all_or_none_and_lists_every_refused_one(made: Centre) -> None:
    mine, first, second = job(made, me(Role.USER)), job(made, OTHER), job(made, OTHER)
    request = jobs_pb.CancelJobsRequest(names=[first, mine, second])
    rpc = "/controlplane.v1.JobService/CancelJobs"
    assert refused(made, Role.USER, rpc, request).startswith(f"{first}, {second}: not the-user's")
    assert made.registry.job(int(mine.removeprefix("jobs/"))).job.cancelled_by == ""


def test_a_cancel_by_filter_and_a_list_take_ones_own_alone(made: Centre) -> None:
    mine, foreign = job(made, me(Role.USER)), job(made, OTHER)
    pending = jobs_pb.JobFilter(states=[job_pb2.JOB_STATE_PENDING])
    asked = jobs_pb.ListJobsRequest(filter=pending, page_size=1000).SerializeToString()
    rpc = "/controlplane.v1.JobService/ListJobs"
    listed = jobs_pb.ListJobsResponse.FromString(made.call(rpc, asked, token(made, Role.USER))[0])
    assert mine in [each.name for each in listed.jobs]
    assert {each.owner for each in listed.jobs} == {me(Role.USER)}
    seen = jobs_pb.ListJobsResponse.FromString(made.call(rpc, asked, token(made, Role.VIEWER))[0])
    assert {mine, foreign} <= {each.name for each in seen.jobs}
    answer = jobs_pb.CancelJobsResponse.FromString(
        made.call(
            "/controlplane.v1.JobService/CancelJobs",
            jobs_pb.CancelJobsRequest(filter=pending).SerializeToString(),
            token(made, Role.USER),
        )[0]
    )
    assert mine in answer.cancelled
    assert foreign not in answer.cancelled


def test_events_of_all_are_for_those_who_see_all_jobs(made: Centre) -> None:
    rpc = "/controlplane.v1.JobService/ListEvents"
    foreign = job(made, OTHER)
    for resource in ("", "jobs", "jobs/", "nodes", "principals", "jobs/x", f"{foreign}/tasks/0"):
        request = jobs_pb.ListEventsRequest(resource=resource)
        assert refused(made, Role.USER, rpc, request)
        assert made.code(rpc, request.SerializeToString(), token(made, Role.VIEWER)) is (
            grpc.StatusCode.OK
        )


def env_of(raw: bytes) -> dict[str, object]:
    env = document(job_pb2.Job.FromString(raw).spec)["env"]
    assert isinstance(env, dict)
    return env


def test_who_may_not_read_logs_sees_neither_environment_nor_stderr(made: Centre) -> None:
    number = made.submit(OTHER, env={"API_KEY": "s3cret"})
    request = jobs_pb.GetJobRequest(name=f"jobs/{number}").SerializeToString()
    for role, expected in ((Role.VIEWER, "(concealed)"), (Role.OPERATOR, "(concealed)")):
        raw = made.call("/controlplane.v1.JobService/GetJob", request, token(made, role))[0]
        assert b"s3cret" not in raw
        assert env_of(raw)["API_KEY"] == expected
    raw = made.call("/controlplane.v1.JobService/GetJob", request, token(made, Role.ADMIN))[0]
    assert env_of(raw)["API_KEY"] == "s3cret"


def test_what_is_marked_as_secret_is_shown_to_nobody(made: Centre) -> None:
    owner = me(Role.USER)
    number = made.submit(owner, env={"KEY": "s3cret", "A": "1"}, secret_env=["KEY"])
    get = jobs_pb.GetJobRequest(name=f"jobs/{number}").SerializeToString()
    check_only = jobs_pb.SubmitJobRequest(
        spec=spec(env={"KEY": "s3cret"}, secret_env=["KEY"]), validate_only=True
    ).SerializeToString()
    for role in (Role.USER, Role.ADMIN):
        raw = made.call("/controlplane.v1.JobService/GetJob", get, token(made, role))[0]
        assert env_of(raw) == {"KEY": "(secret)", "A": "1"}
        valid = made.call("/controlplane.v1.JobService/SubmitJob", check_only, token(made, role))[0]
        assert b"s3cret" not in valid


def test_a_user_sees_how_full_a_node_is_and_not_whose_jobs_fill_it(made: Centre) -> None:
    node_uuid = node_of(made, "some-agent")
    made.submit(OTHER, resources={"cpus": 1})
    made.place()
    rpc = "/controlplane.v1.FleetService/ListNodes"
    ask = fleet_pb.ListNodesRequest(page_size=1000).SerializeToString()
    told = {
        role: fleet_pb.ListNodesResponse.FromString(made.call(rpc, ask, token(made, role))[0]).nodes
        for role in (Role.USER, Role.VIEWER)
    }
    assert any(node.leased_millicores for node in told[Role.USER])
    assert any(node.attempts for node in told[Role.VIEWER])
    names = [attempt for node in told[Role.USER] for attempt in node.attempts]
    owners = {made.registry.job(int(name.split("/")[1])).job.owner for name in names}
    assert owners <= {me(Role.USER)}
    assert node_pb2.NODE_STATE_READY in {node.state for node in told[Role.USER]}
    assert node_uuid in {node.name.removeprefix("nodes/") for node in told[Role.USER]}


def test_a_submit_that_names_anothers_blob_is_told_that_there_is_none(made: Centre) -> None:
    sha256 = made.upload(OTHER, b"a secret data set")
    request = jobs_pb.SubmitJobRequest(spec=spec(working_dir={"sha256": sha256, "size": 17}))
    rpc = "/controlplane.v1.JobService/SubmitJob"
    absent = jobs_pb.SubmitJobRequest(spec=spec(working_dir={"sha256": "0" * 64, "size": 17}))
    words = []
    for each in (request, absent):
        with pytest.raises(grpc.RpcError) as error:
            made.call(rpc, each.SerializeToString(), token(made, Role.USER))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        words.append(str(error.value.details()).replace(sha256, "SHA").replace("0" * 64, "SHA"))
    assert words[0] == words[1]


def test_another_agent_speaks_for_a_node_only_after_an_admin_released_it(made: Centre) -> None:
    node_uuid = node_of(made, "old-agent")
    rpc = "/controlplane.v1.AgentService/Synchronize"
    words = refused(made, Role.AGENT, rpc, synchronize(node_uuid))
    assert words.startswith(
        f"nodes/{node_uuid} was enrolled by old-agent, and the-agent may not speak for it; an admin"
        " lets another in with `ccctl node release"
    )
    release = fleet_pb.ReleaseNodeRequest(
        name=f"nodes/{node_uuid}", request_id="r"
    ).SerializeToString()
    made.call("/controlplane.v1.FleetService/ReleaseNode", release, token(made, Role.ADMIN))
    made.call("/controlplane.v1.FleetService/ReleaseNode", release, token(made, Role.ADMIN))
    ship = agents_pb.ShipLogsRequest(node_uuid=node_uuid).SerializeToString()
    shipping = "/controlplane.v1.AgentService/ShipLogs"
    assert made.code(shipping, ship, token(made, Role.AGENT)) is grpc.StatusCode.FAILED_PRECONDITION
    made.call(rpc, synchronize(node_uuid).SerializeToString(), token(made, Role.AGENT))
    assert made.code(shipping, ship, token(made, Role.AGENT)) is grpc.StatusCode.OK
    old = made.token("old-agent", Role.AGENT)
    assert made.code(shipping, ship, old) is grpc.StatusCode.PERMISSION_DENIED
    kinds = [(e.kind, e.changed.get("enrolled_by")) for e in made.events(f"nodes/{node_uuid}")]
    assert kinds == [
        ("node.joined", "old-agent"),
        ("node.released", ["old-agent", ""]),
        ("node.changed", ["", "the-agent"]),
    ]


def test_an_agent_that_is_already_known_enrols_its_node_again_after_a_release(
    made: Centre,
) -> None:
    """Its report has not changed since, and still must be written down."""
    node_uuid = str(uuid.uuid4())
    rpc, agent = "/controlplane.v1.AgentService/Synchronize", token(made, Role.AGENT)
    made.call(rpc, synchronize(node_uuid).SerializeToString(), agent)
    release = fleet_pb.ReleaseNodeRequest(name=f"nodes/{node_uuid}").SerializeToString()
    made.call("/controlplane.v1.FleetService/ReleaseNode", release, token(made, Role.ADMIN))
    made.call(rpc, synchronize(node_uuid).SerializeToString(), agent)
    node = made.registry.node(node_uuid)
    assert node is not None
    assert node.enrolled_by == me(Role.AGENT)


def test_an_agent_ships_output_of_leases_of_the_node_that_it_speaks_for_alone(made: Centre) -> None:
    made.join(str(uuid.uuid4()), "one-agent")
    made.submit(OTHER)
    made.place()
    lease = next(
        made.registry.lease(lease_id)
        for lease_id in range(1, 10_000)
        if made.registry.lease(lease_id) is not None
    )
    assert lease is not None
    mine = node_of(made, me(Role.AGENT))
    chunk = agents_pb.LogChunk(
        lease_id=lease.lease_id,
        token=lease.token,
        rank=lease.first_rank,
        stream=jobs_pb.LOG_STREAM_STDOUT,
        data=b"forged",
    )
    request = agents_pb.ShipLogsRequest(node_uuid=mine, chunks=[chunk])
    answer = agents_pb.ShipLogsResponse.FromString(
        made.call(
            "/controlplane.v1.AgentService/ShipLogs",
            request.SerializeToString(),
            token(made, Role.AGENT),
        )[0]
    )
    assert list(answer.next_offsets) == [-1]


def test_a_cancel_of_very_many_foreign_jobs_still_says_who_may(made: Centre) -> None:
    names = [job(made, OTHER) for _ in range(150)]
    request = jobs_pb.CancelJobsRequest(names=names)
    words = refused(made, Role.USER, "/controlplane.v1.JobService/CancelJobs", request)
    assert f"{names[99]} and 50 more: not the-user's own" in words
    assert words.endswith("operator and admin may for all")


def test_a_token_counts_for_its_own_role_where_one_name_has_several(made: Centre) -> None:
    rpc = "/controlplane.v1.FleetService/DrainNode"
    node = node_of(made, OTHER)
    drain = fleet_pb.DrainNodeRequest(name=f"nodes/{node}", reason="x").SerializeToString()
    as_user, as_operator = made.token("both", Role.USER), made.token("both", Role.OPERATOR)
    assert made.code(rpc, drain, as_user) is grpc.StatusCode.PERMISSION_DENIED
    assert made.code(rpc, drain, as_operator) is grpc.StatusCode.OK


def test_an_upload_that_turns_into_rubbish_is_refused_and_keeps_nothing(made: Centre) -> None:
    data = b"the whole of it"
    sha256 = hashlib.sha256(data).hexdigest()
    first = blobs_pb.UploadBlobRequest(sha256=sha256, data=data).SerializeToString()
    rpc, mine = "/controlplane.v1.BlobService/UploadBlob", token(made, Role.USER)
    assert made.code(rpc, [first, b"\xff\xff"], mine) is grpc.StatusCode.INVALID_ARGUMENT
    get = blobs_pb.GetBlobRequest(sha256=sha256).SerializeToString()
    assert made.code("/controlplane.v1.BlobService/GetBlob", get, mine) is (
        grpc.StatusCode.NOT_FOUND
    )
    assert made.code(rpc, [first], mine) is grpc.StatusCode.OK
    assert made.code("/controlplane.v1.BlobService/GetBlob", get, mine) is grpc.StatusCode.OK


@pytest.mark.parametrize("name", [".", "..", "a@b.example", "-"])
def test_a_principal_of_any_name_owns_what_it_uploads(made: Centre, name: str) -> None:
    sha256 = made.upload(name, name.encode())
    assert made.blobs.owner(sha256, name) == name
    assert made.blobs.owner(sha256, "another") is None
