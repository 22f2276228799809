"""The edge of a real daemon: who may call what, repeats, and where it refuses to listen."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.client import Client
from controlplane.client.errors import ClientError, Denied, Refused
from controlplane.service.permissions import PERMISSIONS, PUBLIC
from controlplane.v1 import (
    agent_service_pb2,
    blob_service_pb2,
    fleet_service_pb2,
    identity_service_pb2,
    job_service_pb2,
    node_pb2,
    usage_service_pb2,
)
from controlplane.wire.nodes import facts_message
from tests.support.cluster import BIN, Cluster, cluster, until
from tests.support.world import facts

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    serve = {"plaintext": ""}
    with cluster(tmp_path_factory.mktemp("one"), "a", serve=serve) as made:
        yield made


def token(made: Cluster, name: str, role: str) -> str:
    out = made.folder / f"{name}.token"
    state = made.folder / "controlplane"
    command: list[str | Path] = [BIN / "controlplane", "token", "create", name, "--role", role]
    command += ["--out", out, "--state-dir", state]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    assert out.stat().st_mode & 0o077 == 0
    return out.read_text().strip()


def test_every_rpc_has_its_row_in_the_table_of_permissions() -> None:
    ours = {
        f"/{service.full_name}/{method.name}"
        for pb in (
            agent_service_pb2,
            blob_service_pb2,
            fleet_service_pb2,
            identity_service_pb2,
            job_service_pb2,
            usage_service_pb2,
        )
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert ours <= PERMISSIONS.keys()
    assert not ours & PUBLIC


def test_no_token_a_wrong_one_and_a_lesser_role_are_denied(one: Cluster) -> None:
    with Client(one.server) as nobody, pytest.raises(Denied, match="carries no token"):
        nobody.server_info()
    with Client(one.server, token="wrong") as stranger, pytest.raises(Denied, match="not valid"):
        stranger.server_info()
    with Client(one.server, token=token(one, "bob", "user")) as bob:
        assert bob.server_info().principal == "bob"
        with pytest.raises(Denied, match="bob has the role user, which may not call"):
            bob.drain("nodes/a", reason="mine")
    agent = (one.folder / "controlplane" / "agent.token").read_text().strip()
    with Client(one.server, token=agent) as spy, pytest.raises(Denied):
        next(iter(spy.list()))


def test_health_is_open_and_what_is_unknown_is_not(one: Cluster) -> None:
    with grpc.insecure_channel(one.server) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=10) == b"\x08\x01"  # status: SERVING
        servers: Any = channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")
        with pytest.raises(grpc.RpcError) as denied:
            servers(b"", timeout=10)
        assert denied.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_owner_is_who_holds_the_token(one: Cluster) -> None:
    with Client(one.server, token=token(one, "carol", "user")) as carol:
        job = carol.submit({"command": ["true"]})
    assert job.owner == "carol"
    assert one.ended(job.name).exit_code == 0


def test_a_repeated_submit_makes_one_job_and_other_content_is_refused(one: Cluster) -> None:
    first = one.client.submit({"command": ["true"]}, request_id="r-1")
    assert one.client.submit({"command": ["true"]}, request_id="r-1").name == first.name
    assert one.ended(first.name).exit_code == 0
    with pytest.raises(Refused, match="'r-1' was used for another request"):
        one.client.submit({"command": ["false"]}, request_id="r-1")


def test_a_drained_node_takes_no_work_until_it_is_taken_back(one: Cluster) -> None:
    assert one.client.drain("nodes/a", reason="new fans").state == node_pb2.NODE_STATE_DRAINED
    assert one.client.drain("nodes/a", reason="new fans").reason == "new fans"
    name = one.submit({"command": ["true"]})
    held = next(job for job in one.client.watch(name) if "take no work" in job.reason)
    assert not held.attempts
    assert one.client.undrain("nodes/a").state == node_pb2.NODE_STATE_READY
    assert one.ended(name).exit_code == 0


def test_a_bad_spec_sent_past_ccctl_is_refused_with_every_field(one: Cluster) -> None:
    with grpc.insecure_channel(one.server) as channel:
        submit: Any = channel.unary_unary(
            "/controlplane.v1.JobService/SubmitJob",
            request_serializer=job_service_pb2.SubmitJobRequest.SerializeToString,
        )
        request = job_service_pb2.SubmitJobRequest()
        request.spec.update({"command": [], "workers": 0, "queue": "nowhere"})
        metadata = (("authorization", f"Bearer {one.token_file.read_text().strip()}"),)
        with pytest.raises(grpc.RpcError) as refused:
            submit(request, metadata=metadata, timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    words = str(refused.value.details())
    assert "command: " in words
    assert "workers: " in words


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("JobService/ListJobs", job_service_pb2.ListJobsRequest(page_token="²"), "page_token"),
        ("JobService/ListJobs", job_service_pb2.ListJobsRequest(page_token="9" * 30), "page_token"),
        ("JobService/ListJobs", job_service_pb2.ListJobsRequest(page_size=-1), "page_size"),
        (
            "JobService/ListJobs",
            job_service_pb2.ListJobsRequest(
                filter=job_service_pb2.JobFilter(created_after=Timestamp(seconds=2**62))
            ),
            "filter.created_after",
        ),
        ("FleetService/ListNodes", fleet_service_pb2.ListNodesRequest(page_size=-1), "page_size"),
    ],
    ids=["no number", "a long number", "jobs", "a moment", "nodes"],
)
def test_what_no_client_of_ours_asks_is_refused_and_no_fault_of_the_server(
    one: Cluster, method: str, request_: Any, field: str
) -> None:
    with grpc.insecure_channel(one.server) as channel:
        call: Any = channel.unary_unary(
            f"/controlplane.v1.{method}", request_serializer=type(request_).SerializeToString
        )
        metadata = (("authorization", f"Bearer {one.token_file.read_text().strip()}"),)
        with pytest.raises(grpc.RpcError) as refused:
            call(request_, metadata=metadata, timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(refused.value.details()).startswith(f"{field}: ")


def test_one_agent_speaks_for_a_node_though_its_identity_was_copied(one: Cluster) -> None:
    """A second one would run all that is placed there once more."""
    secret = (one.folder / "controlplane" / "agent.token").read_text().strip()
    with grpc.insecure_channel(one.server) as channel:
        synchronize: Any = channel.unary_unary(
            "/controlplane.v1.AgentService/Synchronize",
            request_serializer=agent_service_pb2.SynchronizeRequest.SerializeToString,
        )

        def speaks(agent: str, boot: str, call_number: int = 1) -> None:
            request = agent_service_pb2.SynchronizeRequest(
                node_uuid="11111111-1111-4111-8111-111111111111",
                boot_id=boot,
                agent_id=agent,
                call_number=call_number,
                facts=facts_message(facts("copied")),
                facts_digest="x",
            )
            metadata = (("authorization", f"Bearer {secret}"),)
            synchronize(request, metadata=metadata, timeout=10)

        speaks("first", "this host")
        with pytest.raises(grpc.RpcError, match=r"remove node\.json, which was copied"):
            speaks("copied", "another host")
        speaks("first", "this host", 2)
        speaks("started anew", "this host")
        with pytest.raises(grpc.RpcError, match=r"remove node\.json, which was copied"):
            speaks("first", "this host", 3)
        speaks("started anew", "this host", 2)


def test_a_second_daemon_and_a_public_port_without_tls_are_refused(one: Cluster) -> None:
    state = one.folder / "controlplane"
    serve: list[str | Path] = [BIN / "controlplane", "serve", "--state-dir"]
    second = subprocess.run(
        [*serve, state, "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=30
    )
    assert second.returncode == 1
    assert "another control plane already runs on" in second.stderr
    public = subprocess.run(
        [*serve, one.folder / "other", "--listen", "0.0.0.0:0"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert public.returncode == 1
    assert "holds no certificates: run `controlplane init`" in public.stderr
    plain = subprocess.run(
        [*serve, one.folder / "other", "--listen", "0.0.0.0:0", "--plaintext"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert plain.returncode == 1
    assert "tokens would travel in the clear: listen on 127.0.0.1" in plain.stderr


def test_a_server_that_is_down_is_told_as_that() -> None:
    client = Client("127.0.0.1:9", token="x", timeout_s=1, patience_s=1)
    with client, pytest.raises(ClientError, match="does not answer"):
        client.server_info()


def test_a_token_that_was_made_on_the_host_is_an_event_with_its_maker(one: Cluster) -> None:
    token(one, "paul", "operator")

    def found() -> list[Any]:
        events = one.client.events("fileTokens")
        return [event for event in events if event.changed["principal"] == "paul"]

    (event,) = until(found, "the event")
    assert (event.kind, event.principal) == ("file_token.found", "control-plane")
    maker = os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    assert (event.changed["role"], event.changed["made_by"]) == ("operator", maker)
