"""Builds the gRPC server: services, guard, health, reflection; and where it may listen."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import grpc
from grpc_channelz.v1 import channelz  # type: ignore[import-untyped]
from grpc_health.v1 import (  # type: ignore[import-untyped]
    health,
    health_pb2,
    health_pb2_grpc,
)
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from controlplane.model.errors import WrongState
from controlplane.service.accounts import AccountService
from controlplane.service.agents import AgentService
from controlplane.service.blobs import BlobService
from controlplane.service.fleet import FleetService
from controlplane.service.guard import Guard
from controlplane.service.identity import IdentityService
from controlplane.service.jobs import JobService
from controlplane.service.queues import QueueService
from controlplane.service.room import LARGEST_MESSAGE
from controlplane.service.schedule import ScheduleService
from controlplane.service.steps import StepService
from controlplane.service.usage import UsageService
from controlplane.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    agent_service_pb2,
    agent_service_pb2_grpc,
    blob_service_pb2,
    blob_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    identity_service_pb2,
    identity_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    queue_service_pb2,
    queue_service_pb2_grpc,
    schedule_service_pb2,
    schedule_service_pb2_grpc,
    step_service_pb2,
    step_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)

if TYPE_CHECKING:
    from controlplane.service.context import House

OPTIONS = [
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    # Every agent holds a call: a burst of reconnections must not be answered CANCELLED.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.so_reuseport", 0),
]


class _Unregistered:
    """Takes services as handlers that are found by name. Where gRPC knows each method, a task waits
    for calls of each, and every call of any makes the event loop look at all these tasks anew."""

    def __init__(self, server: Any) -> None:
        """`server`: where the handlers go."""
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Nothing."""


def build(house: House) -> tuple[Any, Any]:
    """A server with all services that listens nowhere yet, and its health."""
    server = grpc.aio.server(interceptors=[Guard(house)], options=OPTIONS)
    inner: Any = _Unregistered(server)
    job_service_pb2_grpc.add_JobServiceServicer_to_server(JobService(house), inner)
    fleet_service_pb2_grpc.add_FleetServiceServicer_to_server(FleetService(house), inner)
    blob_service_pb2_grpc.add_BlobServiceServicer_to_server(BlobService(house), inner)
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(AgentService(house), inner)
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(UsageService(house), inner)
    identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(IdentityService(house), inner)
    queue_service_pb2_grpc.add_QueueServiceServicer_to_server(QueueService(house), inner)
    step_service_pb2_grpc.add_StepServiceServicer_to_server(StepService(house), inner)
    schedule_service_pb2_grpc.add_ScheduleServiceServicer_to_server(ScheduleService(house), inner)
    account_service_pb2_grpc.add_AccountServiceServicer_to_server(AccountService(house), inner)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = [
        pb.DESCRIPTOR.services_by_name[name].full_name
        for pb, name in (
            (job_service_pb2, "JobService"),
            (fleet_service_pb2, "FleetService"),
            (blob_service_pb2, "BlobService"),
            (agent_service_pb2, "AgentService"),
            (usage_service_pb2, "UsageService"),
            (identity_service_pb2, "IdentityService"),
            (queue_service_pb2, "QueueService"),
            (step_service_pb2, "StepService"),
            (schedule_service_pb2, "ScheduleService"),
            (account_service_pb2, "AccountService"),
            (health_pb2, "Health"),
        )
    ]
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    channelz.add_channelz_servicer(server)
    return server, checks


def listen(server: Any, setting: str, address: str, credentials: Any | None) -> int:
    """Have the server listen; answers the port. `credentials`: for TLS; None: plaintext.

    WrongState, which names the setting, in plaintext beyond this host, or when it cannot.
    """
    if credentials is None and not is_local(address):
        raise WrongState(
            f"{setting}: {address!r} is reached from other hosts, and tokens would travel in the"
            " clear: `controlplane init` makes certificates; or listen on 127.0.0.1 or unix:PATH"
        )
    try:
        if credentials is None:
            port: int = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except (RuntimeError, OSError) as error:
        raise WrongState(f"{setting}: {address!r} cannot be listened on: {error}") from error
    if not port and not address.startswith("unix:"):
        raise WrongState(f"{setting}: {address!r} cannot be listened on; is the port in use?")
    return port


def is_local(address: str) -> bool:
    """Whether only this host reaches an address: loopback by number or name, or a unix socket."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def say_serving(checks: Any) -> None:
    """Answer SERVING to those who ask for the health of the whole."""
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
