"""The real server in this process, over a registry on SQLite, with a token for each principal that
a test names. No scheduler runs, and no agent: tests lay down what there is."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from controlplane.engine.schedule import Scheduler
from controlplane.engine.upkeep import Liveness
from controlplane.kit.clock import SystemClock
from controlplane.kit.credential import hash_of, new_secret
from controlplane.kit.pki import Authority, make_authority
from controlplane.model.event import Actor
from controlplane.model.identity import Role
from controlplane.model.spec import parse_spec, spec_sha256
from controlplane.registry import identity, jobs, nodes
from controlplane.registry.migrate import upgrade
from controlplane.registry.registry import Registry
from controlplane.registry.sql import SqlStore
from controlplane.service import server as edge
from controlplane.service.auth import Doorkeeper, TokenFile
from controlplane.service.blobstore import BlobStore
from controlplane.service.context import House, Rules
from controlplane.service.hub import Hub
from controlplane.service.issuing import Issuer
from controlplane.service.logstore import LogStore
from controlplane.service.seriesstore import SeriesStore
from controlplane.v1 import (
    account_service_pb2,
    agent_service_pb2,
    blob_service_pb2,
    fleet_service_pb2,
    identity_service_pb2,
    job_service_pb2,
    queue_service_pb2,
    schedule_service_pb2,
    step_service_pb2,
    usage_service_pb2,
)
from tests.support.world import facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.model.event import Event
    from controlplane.model.keep import Keep
    from controlplane.model.lease import LeaseStatus

SERVICES = (
    account_service_pb2,
    agent_service_pb2,
    blob_service_pb2,
    fleet_service_pb2,
    identity_service_pb2,
    job_service_pb2,
    usage_service_pb2,
    step_service_pb2,
    schedule_service_pb2,
    queue_service_pb2,
)
METHODS: dict[str, Any] = {
    f"/{service.full_name}/{method.name}": method
    for pb in SERVICES
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""Every rpc of ours, with its descriptor."""
FOREVER = ("/controlplane.v1.JobService/WatchEvents", "/controlplane.v1.JobService/WatchJobs")
"""Rpcs that go on for ever; the first answer comes at once."""
MICRO = 1_000_000
AUTHORITY = Authority(make_authority("a test", SystemClock().now_us()))


class Centre:
    """A server and what is behind it."""

    def __init__(
        self, folder: Path, loop: asyncio.AbstractEventLoop, keep: Keep | None = None
    ) -> None:
        url = f"sqlite:///{folder}/registry.db"
        upgrade(url)
        clock = SystemClock()
        self.registry = Registry(SqlStore(url), clock.now_us, keep)
        self.scheduler = Scheduler(self.registry)
        self.tokens = TokenFile(folder / "tokens.json")
        self.blobs = BlobStore(folder / "blobs", 1 << 20)
        self.house = House(
            registry=self.registry,
            clock=clock,
            liveness=Liveness(lease_us=20 * MICRO, margin_us=MICRO),
            hub=Hub(loop),
            logs=LogStore(folder / "logs", 1 << 20),
            series=SeriesStore(folder / "series"),
            blobs=self.blobs,
            door=Doorkeeper(self.tokens, self.registry, clock),
            scheduler=self.scheduler,
            issuer=Issuer(AUTHORITY, 30, ":7601", clock.now_us),
            rules=Rules(
                lease_us=20 * MICRO,
                hold_us=MICRO // 20,
            ),
        )
        self.registry.listen(self.house.hub.committed)
        self.address = f"unix:{folder}/s"
        self._known: dict[tuple[str, Role], str] = {}
        self.channel: Any = None

    def token(self, name: str, role: Role) -> str:
        """A principal's token; the same one each time."""
        if (name, role) not in self._known and role is Role.JOINER:
            self._known[name, role] = secret = new_secret("ccjoin")
            hour_us = 3600 * MICRO
            self.do(
                lambda draft: identity.create_join_token(draft, hash_of(secret), hour_us, ""),
                "an-admin",
            )
        if (name, role) not in self._known:
            self._known[name, role] = self.tokens.add(name, role)
        return self._known[name, role]

    def call(
        self, rpc: str, data: bytes | list[bytes], token: str | None, timeout_s: float = 10.0
    ) -> list[bytes]:
        """Call an rpc with bytes as they are, and give the bytes of all its answers; of one that
        goes on for ever, of the first. Raises grpc.RpcError."""
        method = METHODS[rpc]
        many, given = method.server_streaming, [data] if isinstance(data, bytes) else data
        metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        kind = (method.client_streaming, many)
        make = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
            (True, True): self.channel.stream_stream,
        }[kind]
        asked = iter(given) if method.client_streaming else given[0]
        answer = make(rpc)(asked, metadata=metadata, timeout=timeout_s)
        if rpc in FOREVER:
            first: bytes = next(answer)
            answer.cancel()
            return [first]
        return list(answer) if many else [answer]

    def code(
        self, rpc: str, data: bytes | list[bytes], token: str | None, timeout_s: float = 10.0
    ) -> grpc.StatusCode:
        """Call an rpc; the status that it ends with."""
        try:
            self.call(rpc, data, token, timeout_s)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK

    def do(self, command: Any, principal: str) -> Any:
        """Have the registry run a command for a principal."""
        return self.registry.submit(command, Actor(principal=principal, peer="test")).result(10)

    def submit(self, owner: str, **document: Any) -> int:
        """A job of somebody's; its number."""
        spec = parse_spec({"command": ["true"], **document})
        wanted = jobs.Wanted(spec, spec_sha256(spec), 1000)
        return int(self.do(lambda draft: jobs.submit(draft, [wanted]), owner)[0])

    def join(self, uuid: str, principal: str, name: str = "") -> str:
        """A node that an agent of this principal has enrolled; its UUID."""
        report = nodes.NodeReport(
            node_uuid=uuid, boot_id="boot", facts=facts(name or uuid[-4:], cpus=64), leases=()
        )
        self.do(lambda draft: nodes.observe(draft, report), principal)
        return uuid

    def report(self, uuid: str, principal: str, *leases: LeaseStatus) -> None:
        """What an agent of this principal tells of a node's leases."""
        report = nodes.NodeReport(node_uuid=uuid, boot_id="boot", facts=None, leases=leases)
        self.do(lambda draft: nodes.observe(draft, report), principal)

    def place(self) -> None:
        """Place what waits, as the scheduler would."""
        self.scheduler.cycle(self.house.clock.now_us())

    def upload(self, owner: str, data: bytes) -> str:
        """A blob of somebody's; its SHA-256."""
        import hashlib

        sha256 = hashlib.sha256(data).hexdigest()
        receiving = self.blobs.receive(sha256)
        receiving.write(data)
        receiving.finish(owner)
        receiving.close()
        return sha256

    def events(self, resource: str = "") -> list[Event]:
        """What happened, oldest first."""
        return list(self.registry.store.events(resource, after=0, limit=100_000))


@contextlib.contextmanager
def centre(folder: Path, keep: Keep | None = None) -> Iterator[Centre]:
    """A centre that serves until the end of the block. `keep`: of what is over; by default all."""
    loop = asyncio.new_event_loop()
    made = Centre(folder, loop, keep)
    made.registry.start()
    stop = asyncio.Event()
    ready = threading.Event()

    async def serve() -> None:
        server, _ = edge.build(made.house)
        edge.listen(server, "listen", made.address, None)
        await server.start()
        ready.set()
        await stop.wait()
        await server.stop(0.2)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    made.channel = grpc.insecure_channel(made.address)
    try:
        yield made
    finally:
        made.channel.close()
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        made.registry.close()
