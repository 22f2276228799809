"""The conversation with the control plane: one idempotent call that is heartbeat, report and
instruction in one."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

import grpc

from controlplane.kit import failpoints
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1 import agent_service_pb2_grpc, blob_service_pb2, blob_service_pb2_grpc
from controlplane.wire.agents import order_value, status_message
from controlplane.wire.basics import from_duration
from controlplane.wire.nodes import facts_message
from nodeagent.reconcile import reconcile
from nodeagent.steps import step_end_message

if TYPE_CHECKING:
    import hashlib
    import random
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from controlplane.kit.clock import Clock
    from controlplane.model.lease import LeaseStatus
    from controlplane.model.node import NodeFacts
    from nodeagent.credential import NodeCredential
    from nodeagent.identity import Identity
    from nodeagent.leases import Leases
    from nodeagent.steps import Steps

log = logging.getLogger(__name__)

CALL_DEADLINE_S = 40.0
"""Longer than any control plane holds a call."""
SHIP_DEADLINE_S = 30.0
BLOB_DEADLINE_S = 600.0
FIRST_RETRY_S, LONGEST_RETRY_S = 0.1, 5.0
CALLS_END_S = 30.0
"""Calls over a connection that was replaced may go on for so long."""
SETTLE_S = 0.002
"""Changes in such a short row are reported together."""
OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
]


class Line:
    """The way to the control plane: TLS in both directions by a certificate, or plaintext with a
    token within this host."""

    def __init__(self, server: str, credential: NodeCredential | None, token: str | None) -> None:
        """One of `credential` and `token`."""
        self._server = server
        self.metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._open(credential)

    def _open(self, credential: NodeCredential | None) -> None:
        if credential is None:
            self.channel = grpc.aio.insecure_channel(self._server, options=OPTIONS)
        else:
            proof = credential.channel_credentials()
            self.channel = grpc.aio.secure_channel(self._server, proof, options=OPTIONS)
        self.agents: Any = agent_service_pb2_grpc.AgentServiceStub(self.channel)
        self.blobs: Any = blob_service_pb2_grpc.BlobServiceStub(self.channel)

    async def renew(self, credential: NodeCredential) -> None:
        """Show another certificate from the next call on."""
        before = self.channel
        self._open(credential)
        await before.close(CALLS_END_S)

    async def close(self) -> None:
        """End it, and all calls."""
        await self.channel.close()


class Session:
    """One agent's conversation, over any number of connections."""

    def __init__(
        self,
        *,
        line: Line,
        identity: Identity,
        agent_id: str,
        boot_id: str,
        facts: Callable[[], NodeFacts],
        leases: Leases,
        clock: Clock,
        deadline_file: Path,
        digest: Callable[[bytes], hashlib._Hash],
        rng: random.Random,
    ) -> None:
        """`facts`: what the host has now. `digest`: SHA-256. `rng`: jitter of retries."""
        self._line = line
        self._identity, self._agent_id, self._boot_id = identity, agent_id, boot_id
        self._facts, self._leases, self._clock = facts, leases, clock
        self._deadline_file, self._deadline_us = deadline_file, 0
        self._longest_retry_s = LONGEST_RETRY_S
        self._digest, self._rng = digest, rng
        self._call_number = 0
        self._generation = 0
        self._known_digest = ""
        self.steps: Steps | None = None
        """Serves the steps that answers call for; none without it."""
        self.changed = asyncio.Event()
        self.connected = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Talk until told to stop."""
        retry_s = FIRST_RETRY_S
        while not stop.is_set():
            try:
                await self._exchange(stop)
                retry_s = FIRST_RETRY_S
            except grpc.aio.AioRpcError as error:
                self._generation = 0
                level = logging.WARNING if retry_s <= FIRST_RETRY_S else logging.DEBUG
                log.log(
                    level,
                    "the control plane does not answer",
                    extra={"code": error.code().name, "details": error.details()},
                )
                retry_s = await self._rest(stop, retry_s)
            except OSError as error:  # A full disk, for one: it ends no agent, and no job with it.
                self._generation = 0
                log.error("an answer cannot be obeyed: %s", error)
                retry_s = await self._rest(stop, retry_s)

    async def _rest(self, stop: asyncio.Event, retry_s: float) -> float:
        """Pause before another try; how long to pause after that."""
        await _pause(stop, retry_s * self._rng.uniform(0.5, 1.0))
        return min(retry_s * 2, self._longest_retry_s)

    async def _exchange(self, stop: asyncio.Event) -> None:
        """One call. Ends early when there is something new to report: the next call tells it."""
        self.changed.clear()
        sent_us = self._clock.boot_us()
        call = asyncio.ensure_future(self._call())
        waits = [asyncio.ensure_future(self.changed.wait()), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait([call, *waits], return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                await asyncio.sleep(SETTLE_S)
            if call.done():
                self._obey(call.result(), sent_us)
        finally:
            for each in (call, *waits):
                each.cancel()
            await asyncio.gather(call, *waits, return_exceptions=True)

    async def _call(self) -> pb.SynchronizeResponse:
        self._call_number += 1
        facts = facts_message(self._facts())
        statuses = self._leases.statuses()
        _reach(statuses, "reports")
        digest = self._digest(facts.SerializeToString(deterministic=True)).hexdigest()
        request = pb.SynchronizeRequest(
            node_uuid=self._identity.uuid,
            boot_id=self._boot_id,
            agent_id=self._agent_id,
            call_number=self._call_number,
            epoch_seen=self._identity.epoch_seen,
            generation_seen=self._generation,
            facts=facts if digest != self._known_digest else None,
            facts_digest=digest,
            leases=[status_message(status) for status in statuses],
            steps_ended=[step_end_message(*each) for each in self._leases.steps_ended()],
            steps_known=self.steps.known() if self.steps is not None else (),
        )
        answer: pb.SynchronizeResponse = await self._line.agents.Synchronize(
            request, metadata=self._line.metadata, timeout=CALL_DEADLINE_S
        )
        _reach(statuses, "told")
        if not answer.superseded:
            self._known_digest = "" if answer.resend_facts else digest
        return answer

    def _obey(self, answer: pb.SynchronizeResponse, sent_us: int) -> None:
        if answer.superseded or answer.resend_facts:
            return
        lease_us = from_duration(answer.lease_duration)
        # Whoever comes back gives a lease anew, and must be noticed well within it.
        self._longest_retry_s = min(LONGEST_RETRY_S, lease_us / 3_000_000)
        deadline_us = sent_us + lease_us
        if deadline_us <= self._clock.boot_us():
            # It was held up for longer than the lease that it grants: by now all that it orders may
            # have been given to others, and a supervisor started for it would find the next lease.
            log.warning("an answer came too late, and is not obeyed")
            return
        newer = answer.epoch > self._identity.epoch_seen
        if not self._identity.obey(answer.epoch):
            log.error("a stale control plane gave orders", extra={"epoch": answer.epoch})
            return
        if not self.connected.is_set():
            self.connected.set()
            log.info("joined the control plane", extra={"epoch": answer.epoch})
        if newer:
            self._leases.resend()
        self._generation = answer.generation
        orders = [order_value(order) for order in answer.leases]
        known, stopping = self._leases.known(), self._leases.stopping()
        try:
            for action in reconcile(orders, known, stopping):
                self._leases.perform(action)
        finally:
            # Not before: a supervisor that is just beginning must not start by the new deadline
            # what this answer ends, and what may run elsewhere by now.
            self._renew(deadline_us)
        if answer.steps_heard:
            self._leases.steps_heard(answer.steps_heard)
        if self.steps is not None:
            self.steps.call(answer.steps)

    def _renew(self, deadline_us: int) -> None:
        """Tell the supervisors until when they may go on; half a second is not worth a write."""
        if deadline_us - self._deadline_us < 500_000:
            return
        fresh = self._deadline_file.with_name(f"{self._deadline_file.name}.new")
        try:
            fresh.write_text(f"{deadline_us}\n")
            os.replace(fresh, self._deadline_file)
        except OSError as error:
            # Cancels must be heard all the same: they may be what makes room.
            log.error("the deadline cannot be written to %s: %s", fresh, error.strerror)
            return
        self._deadline_us = deadline_us

    async def ship(self, request: pb.ShipLogsRequest) -> pb.ShipLogsResponse:
        """Hand over output."""
        answer: pb.ShipLogsResponse = await self._line.agents.ShipLogs(
            request, metadata=self._line.metadata, timeout=SHIP_DEADLINE_S
        )
        return answer

    def serve_step(self, *, timeout_s: float) -> Any:
        """Open a call that serves a step."""
        return self._line.agents.ServeStep(metadata=self._line.metadata, timeout=timeout_s)

    async def ship_progress(self, request: pb.ShipProgressRequest) -> pb.ShipProgressResponse:
        """Hand over what workers reported of their progress."""
        answer: pb.ShipProgressResponse = await self._line.agents.ShipProgress(
            request, metadata=self._line.metadata, timeout=SHIP_DEADLINE_S
        )
        return answer

    async def download(self, sha256: str) -> AsyncIterator[bytes]:
        """Fetch a blob in parts."""
        request = blob_service_pb2.DownloadBlobRequest(sha256=sha256)
        call = self._line.blobs.DownloadBlob(
            request, metadata=self._line.metadata, timeout=BLOB_DEADLINE_S
        )
        async for part in call:
            yield part.data


def _reach(statuses: Sequence[LeaseStatus], when: str) -> None:
    """Be at the failpoints of what is reported."""
    if failpoints.armed() is not None:
        for status in statuses:
            failpoints.reach(f"agent.{when}_{status.phase}")


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
