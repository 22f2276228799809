"""AgentService: heartbeat, report and instruction in one call; and the agents' logs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controlplane.kit import failpoints
from controlplane.model.errors import (
    FieldFault,
    InvalidRequest,
    NotAllowed,
    Overloaded,
    StoreUnavailable,
    WrongState,
)
from controlplane.model.identity import is_node, principal_of_node
from controlplane.model.nodefaults import fact_faults
from controlplane.registry import audit
from controlplane.registry.nodes import NodeReport, foreign, observe
from controlplane.service.auth import CALLER
from controlplane.service.errors import answers, streams
from controlplane.service.hub import wait
from controlplane.service.identity import check_uuid
from controlplane.service.logstore import StreamId
from controlplane.service.permissions import RPC, may
from controlplane.service.progress import is_of, lease_progress, take_in
from controlplane.service.room import ANSWER_BYTES
from controlplane.service.steps import CLAIM_S, serve, take_in_end
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1 import job_service_pb2 as jobs_pb
from controlplane.v1.agent_service_pb2_grpc import AgentServiceServicer
from controlplane.wire.agents import order_message, status_value
from controlplane.wire.basics import MICRO, duration, from_timestamp
from controlplane.wire.nodes import facts_value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from controlplane.model.lease import Lease
    from controlplane.service.context import House

log = logging.getLogger(__name__)

REMEMBERED_AGENTS = 16
"""Of a node: those that another one has replaced; such a one must not speak again."""
MOST_FAULTS = 20
"""Faults of a report that are told at once."""
MOST_ENDS = 100
"""Ends of steps that are taken in with one call; the agent tells the rest again."""
LAST_OFFSET = 1 << 62
"""No stream of output is so long."""
REMEMBERED_LEASES = 20_000
"""Leases whose logs may still come after their end; older ones are looked up in the store."""


@dataclass(slots=True)
class _Session:
    """What is remembered of a node between its calls; all of it can be told again."""

    agent_id: str = ""
    boot_id: str = ""
    replaced: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED_AGENTS))
    call_number: int = 0
    facts_digest: str = ""
    report_digest: bytes = b""
    parked: asyncio.Event | None = None


class AgentService(AgentServiceServicer):
    """The contract with the agents."""

    def __init__(self, house: House) -> None:
        """`house`: the rooms to speak to."""
        self._house = house
        self._sessions: dict[str, _Session] = {}
        self._leases: OrderedDict[int, Lease | None] = OrderedDict()

    @answers
    async def Synchronize(
        self, request: pb.SynchronizeRequest, context: Any
    ) -> pb.SynchronizeResponse:
        """Take in what an agent observes, and answer what it should do."""
        house, registry = self._house, self._house.registry
        _check(request)
        self._speaks(request.node_uuid)
        if request.epoch_seen > registry.epoch:
            raise WrongState(
                f"the node obeys epoch {request.epoch_seen}, and this control plane is of epoch"
                f" {registry.epoch}: another one has taken its place"
            )
        session = self._sessions.setdefault(request.node_uuid, _Session())
        if session.agent_id == request.agent_id and request.call_number <= session.call_number:
            return pb.SynchronizeResponse(superseded=True)
        self._refuse_a_twin(session, request)
        if session.parked is not None:
            session.parked.set()
        session.agent_id, session.call_number = request.agent_id, request.call_number
        session.boot_id = request.boot_id
        if not request.HasField("facts") and session.facts_digest != request.facts_digest:
            return pb.SynchronizeResponse(epoch=registry.epoch, resend_facts=True)
        house.liveness.hear(request.node_uuid, house.clock.boot_us())
        heard: list[int] = []
        failpoints.reach("synchronize.heard")
        try:
            await self._take_in(session, request, context)
            for told in request.steps_ended[:MOST_ENDS]:
                lease = await self._lease(request.node_uuid, told.lease_id, told.token)
                if lease is not None:
                    await take_in_end(house, lease.job_id, told)
                heard.append(told.step)
        except (Overloaded, StoreUnavailable) as error:
            if registry.node(request.node_uuid) is None:
                raise
            # It is told again with the next call. Were this one refused, the node's lease would run
            # out, and healthy jobs be ended because our disk is full.
            log.warning("a report waits: %s", error)
        return await self._answer(session, request, heard)

    def _refuse_a_twin(self, session: _Session, request: pb.SynchronizeRequest) -> None:
        """WrongState when two agents speak for one node: both would run all that is placed there.

        An agent that is started anew replaces the one before, which never speaks again. One on
        another host, or after a reboot, must wait until that one has been silent for a while.
        """
        if session.agent_id in ("", request.agent_id):
            return
        heard_us = self._house.liveness.heard_us.get(request.node_uuid)
        silent_us = None if heard_us is None else self._house.clock.boot_us() - heard_us
        elsewhere = session.boot_id != request.boot_id
        lives = silent_us is not None and silent_us < 2 * self._house.rules.hold_us
        if request.agent_id in session.replaced or (elsewhere and lives):
            raise WrongState(
                f"another agent speaks for node {request.node_uuid}: remove node.json, which was"
                " copied, from the state_dir of one of the two, and start it again"
            )
        session.replaced.append(session.agent_id)

    async def _take_in(
        self, session: _Session, request: pb.SynchronizeRequest, context: Any
    ) -> None:
        digest = hashlib.blake2b(digest_size=16)
        digest.update(request.boot_id.encode())
        digest.update(request.facts_digest.encode())
        for lease in request.leases:
            digest.update(lease.SerializeToString(deterministic=True))
        report_digest = digest.digest()
        node = self._house.registry.node(request.node_uuid)
        silent = node is None or node.silent_since_us is not None
        enrolled = node is not None and node.enrolled_by
        if report_digest == session.report_digest and not silent and enrolled:
            return
        try:
            report = NodeReport(
                node_uuid=request.node_uuid,
                boot_id=request.boot_id,
                facts=facts_value(request.facts) if request.HasField("facts") else None,
                leases=tuple(status_value(lease) for lease in request.leases),
            )
        except ValueError as error:
            raise InvalidRequest(FieldFault(field="leases", description=str(error))) from None
        faults = fact_faults(report.facts) if report.facts is not None else []
        if faults:
            raise InvalidRequest(*faults[:MOST_FAULTS])
        await self._house.write(lambda draft: observe(draft, report), self._house.actor(context))
        session.report_digest = report_digest
        session.facts_digest = request.facts_digest

    async def _answer(
        self, session: _Session, request: pb.SynchronizeRequest, heard: list[int]
    ) -> pb.SynchronizeResponse:
        house, registry = self._house, self._house.registry
        loop = asyncio.get_running_loop()
        until = loop.time() + house.rules.hold_us / MICRO
        current = request.generation_seen if request.epoch_seen == registry.epoch else 0
        known = frozenset(request.steps_known)
        with house.hub.listening(("node", request.node_uuid)) as changed:
            session.parked = changed
            while registry.generation(request.node_uuid) == current and not house.relays.calls(
                request.node_uuid, known
            ):
                left = until - loop.time()
                if heard or left <= 0 or not await wait(changed, left):
                    break
                if session.parked is not changed:
                    break
                if session.call_number != request.call_number:
                    return pb.SynchronizeResponse(superseded=True)
            if session.parked is changed:
                session.parked = None
        if session.agent_id != request.agent_id or session.call_number != request.call_number:
            return pb.SynchronizeResponse(superseded=True)
        desire = registry.desire(request.node_uuid)
        for order in desire.orders if failpoints.armed() is not None else ():
            verb = "stop" if order.stop else "start"
            failpoints.reach(f"synchronize.{verb}_answered")
        house.liveness.hear(request.node_uuid, house.clock.boot_us())
        orders, whole = _within(order_message(order) for order in desire.orders)
        return pb.SynchronizeResponse(
            cluster_uuid=registry.cluster_uuid,
            epoch=registry.epoch,
            # 0 is none: the next call is answered at once, with what has found no room here.
            generation=desire.generation if whole else 0,
            leases=orders,
            lease_duration=duration(house.rules.lease_us),
            hold=duration(house.rules.hold_us),
            steps=house.relays.calls(request.node_uuid, known),
            steps_heard=heard,
        )

    @streams
    async def ServeStep(
        self, request: AsyncIterator[pb.ServeStepRequest], context: Any
    ) -> AsyncIterator[pb.ServeStepResponse]:
        """Relay between a step's user and the node that it runs on."""
        claim = await _claim(request)
        if not self._speaks(claim.node_uuid):
            raise WrongState("no agent speaks for the node yet: Synchronize enrols it")
        relay = self._house.relays.claim(claim.node_uuid, claim.step, claim.token)
        if relay is None:
            raise WrongState(f"step {claim.step} is not wanted on this node (any more)")
        async for message in serve(self._house, request, relay):
            yield message

    @answers
    async def ShipLogs(self, request: pb.ShipLogsRequest, context: Any) -> pb.ShipLogsResponse:
        """Keep output of workers."""
        if not self._speaks(request.node_uuid):
            raise WrongState("no agent speaks for the node yet: Synchronize enrols it")
        for number, chunk in enumerate(request.chunks):
            _check_chunk(number, chunk)
        places = [await self._place(request.node_uuid, chunk) for chunk in request.chunks]
        now_us = self._house.clock.now_us()
        ends = await asyncio.to_thread(self._keep, request, places, now_us)
        self._house.hub.tell({("log", place.job_id) for place in places if place is not None})
        return pb.ShipLogsResponse(next_offsets=ends)

    @answers
    async def RenewCertificate(
        self, request: pb.RenewCertificateRequest, context: Any
    ) -> pb.RenewCertificateResponse:
        """Give a node another certificate."""
        name, issuer = CALLER.get().name, self._house.issuer
        if issuer is None or not is_node(name):
            raise WrongState("only an agent that called with its node's certificate can renew it")
        node_uuid = name.removeprefix("nodes/")
        # Of the caller's own generation: one that is revoked meanwhile gives what is void.
        generation = CALLER.get().generation
        certificate = issuer.issue(request.certificate_request, node_uuid, generation)
        actor = self._house.actor(context)
        await self._house.write(lambda draft: audit.renewed(draft, generation), actor)
        return pb.RenewCertificateResponse(certificate=certificate, authority=issuer.certificate)

    def _keep(
        self, request: pb.ShipLogsRequest, places: list[StreamId | None], now_us: int
    ) -> list[int]:
        ends = []
        for chunk, place in zip(request.chunks, places, strict=True):
            if place is None:
                ends.append(-1)
                continue
            read_us = from_timestamp(chunk, "read_time")
            time_us = now_us if read_us is None else read_us
            ends.append(self._house.logs.append(place, chunk.offset, chunk.data, time_us))
        pairs = zip(request.chunks, places, strict=True)
        self._house.logs.settle(p for chunk, p in pairs if chunk.settle and p is not None)
        return ends

    @answers
    async def ShipProgress(
        self, request: pb.ShipProgressRequest, context: Any
    ) -> pb.ShipProgressResponse:
        """Keep what workers reported of their progress."""
        if not self._speaks(request.node_uuid):
            raise WrongState("no agent speaks for the node yet: Synchronize enrols it")
        told = lease_progress(request)
        leases = [await self._lease(request.node_uuid, each.lease_id, each.token) for each in told]
        pairs = [
            (lease, each)
            for lease, each in zip(leases, told, strict=True)
            if lease is not None and is_of(each, lease)
        ]
        await take_in(self._house, self._house.actor(context), pairs)
        return pb.ShipProgressResponse(known=[lease is not None for lease in leases])

    def _speaks(self, node_uuid: str) -> bool:
        """Whether the caller has enrolled a node; NotAllowed when another principal has."""
        caller = CALLER.get()
        if is_node(caller.name) and caller.name != principal_of_node(node_uuid):
            raise NotAllowed(
                f"the certificate is that of {caller.name}, which may not speak for"
                f" nodes/{node_uuid}",
                principal_of_node(node_uuid),
            )
        node = self._house.registry.node(node_uuid)
        if node is None or not node.enrolled_by:
            return False
        if not may(CALLER.get(), RPC.get(), node.enrolled_by):
            raise foreign(node, CALLER.get().name)
        return True

    async def _lease(self, node_uuid: str, lease_id: int, token: int) -> Lease | None:
        """A lease of the node's, held or given back; None when it is none or the token stale."""
        if lease_id not in self._leases:
            lease = await asyncio.to_thread(self._house.registry.lease, lease_id)
            self._leases[lease_id] = lease
            if len(self._leases) > REMEMBERED_LEASES:
                self._leases.popitem(last=False)
        known = self._leases[lease_id]
        if known is None or known.token != token or known.node_uuid != node_uuid:
            return None
        return known

    async def _place(self, node_uuid: str, chunk: pb.LogChunk) -> StreamId | None:
        """Where a chunk belongs; None when its lease is none of the node's or its token stale."""
        known = await self._lease(node_uuid, chunk.lease_id, chunk.token)
        if known is None:
            return None
        if not known.first_rank <= chunk.rank < known.first_rank + known.workers:
            return None
        return StreamId(
            job_id=known.job_id,
            task_index=known.task_index,
            attempt=known.attempt,
            rank=chunk.rank,
            stream="err" if chunk.stream == jobs_pb.LOG_STREAM_STDERR else "out",
            step=chunk.step,
        )


async def _claim(request: AsyncIterator[pb.ServeStepRequest]) -> pb.StepClaim:
    try:
        message = await asyncio.wait_for(anext(aiter(request)), CLAIM_S)
    except (StopAsyncIteration, TimeoutError):
        message = pb.ServeStepRequest()
    if message.WhichOneof("part") != "claim":
        words = "the first message must name the step"
        raise InvalidRequest(FieldFault(field="claim", description=words))
    return message.claim


def _check_chunk(number: int, chunk: pb.LogChunk) -> None:
    if not 0 <= chunk.offset <= LAST_OFFSET:
        words = f"{chunk.offset}: must be from 0 to {LAST_OFFSET}"
        raise InvalidRequest(FieldFault(field=f"chunks[{number}].offset", description=words))
    try:
        from_timestamp(chunk, "read_time")
    except ValueError as error:
        fault = FieldFault(field=f"chunks[{number}].read_time", description=str(error))
        raise InvalidRequest(fault) from None
    if chunk.step < 0:
        words = f"{chunk.step}: steps are numbered from 1"
        raise InvalidRequest(FieldFault(field=f"chunks[{number}].step", description=words))


def _check(request: pb.SynchronizeRequest) -> None:
    check_uuid(request.node_uuid)
    if not request.boot_id or len(request.boot_id) > 64:
        words = "must be the host's boot id, of at most 64 characters"
        raise InvalidRequest(FieldFault(field="boot_id", description=words))


def _within(orders: Iterable[pb.LeaseOrder]) -> tuple[list[pb.LeaseOrder], bool]:
    """The orders of an answer, and whether each says how its lease is started: not all do where
    that would be too much for one message. All leases are named."""
    found, room, whole = list(orders), ANSWER_BYTES, True
    for order in found:
        if order.HasField("launch"):
            size = order.ByteSize()
            if room < min(size, ANSWER_BYTES):
                order.ClearField("launch")
                room, whole = 0, False
            else:
                room -= size
    return found, whole
