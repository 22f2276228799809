"""FleetService: nodes, and the control plane itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlplane import __version__
from controlplane.model.errors import FieldFault, InvalidRequest
from controlplane.model.selector import is_label
from controlplane.registry import identity
from controlplane.registry import nodes as commands
from controlplane.service.asked import page_size
from controlplane.service.auth import CALLER
from controlplane.service.context import once_for
from controlplane.service.errors import answers
from controlplane.service.permissions import GET_JOB, may_job
from controlplane.v1 import fleet_service_pb2 as pb
from controlplane.v1 import node_pb2
from controlplane.v1.fleet_service_pb2_grpc import FleetServiceServicer
from controlplane.wire.nodes import node_message
from controlplane.wire.site import selector_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.model.node import Node
    from controlplane.registry.draft import Draft
    from controlplane.registry.registry import LeaseSummary
    from controlplane.service.context import House


MICRO = 1_000_000
MOST_LABELS = 64
"""Labels in one call."""
LONGEST_REASON = 1000
"""Characters of the reason for a drain."""


class FleetService(FleetServiceServicer):
    """Shows nodes, and takes them out of service and back."""

    def __init__(self, house: House) -> None:
        """`house`: the rooms to speak to."""
        self._house = house

    @answers
    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        """List nodes by display name."""
        limit = page_size(request.page_size)
        selector = selector_value("node_selector", request.node_selector)
        ordered = sorted(
            (
                (node, held)
                for node, held in self._house.registry.nodes()
                if selector.allows(dict(node.labels))
            ),
            key=lambda pair: (pair[0].facts.display_name, pair[0].uuid),
        )
        names = [f"{node.facts.display_name}\n{node.uuid}" for node, _ in ordered]
        start = sum(name <= request.page_token for name in names) if request.page_token else 0
        page = ordered[start : start + limit]
        more = start + limit < len(ordered)
        return pb.ListNodesResponse(
            nodes=[self._message(node, held) for node, held in page],
            next_page_token=names[start + limit - 1] if more else "",
        )

    @answers
    async def GetNode(self, request: pb.GetNodeRequest, context: Any) -> node_pb2.Node:
        """Show one node."""
        return self._shown(self._find(request.name).uuid)

    @answers
    async def DrainNode(self, request: pb.DrainNodeRequest, context: Any) -> node_pb2.Node:
        """Send a node no more work."""
        if not request.reason.strip():
            words = "say why, for those who look at the node later"
            raise InvalidRequest(FieldFault(field="reason", description=words))
        if len(request.reason) > LONGEST_REASON:
            words = f"has {len(request.reason)} characters; at most {LONGEST_REASON} are allowed"
            raise InvalidRequest(FieldFault(field="reason", description=words))
        node_uuid = self._find(request.name).uuid
        await self._change(
            lambda draft: commands.drain(draft, node_uuid, request.reason), request, context
        )
        return self._shown(node_uuid)

    @answers
    async def UndrainNode(self, request: pb.UndrainNodeRequest, context: Any) -> node_pb2.Node:
        """Take a node back into service."""
        node_uuid = self._find(request.name).uuid
        await self._change(lambda draft: commands.undrain(draft, node_uuid), request, context)
        return self._shown(node_uuid)

    @answers
    async def LabelNode(self, request: pb.LabelNodeRequest, context: Any) -> node_pb2.Node:
        """Give a node labels, and take given ones away."""
        given, taken = dict(request.labels), list(dict.fromkeys(request.remove))
        for key, value in (*given.items(), *((key, "") for key in taken)):
            if not is_label(key, value):
                words = f"{f'{key}={value}'[:200]!r}: is no label that a node can have"
                raise InvalidRequest(FieldFault(field="labels", description=words))
        if not 1 <= len(given) + len(taken) <= MOST_LABELS:
            words = f"{len(given) + len(taken)} of them; name 1 to {MOST_LABELS}"
            raise InvalidRequest(FieldFault(field="labels", description=words))
        node_uuid = self._find(request.name).uuid
        await self._change(
            lambda draft: commands.label(draft, node_uuid, given, taken), request, context
        )
        return self._shown(node_uuid)

    @answers
    async def ReleaseNode(self, request: pb.ReleaseNodeRequest, context: Any) -> node_pb2.Node:
        """Let another agent speak for a node."""
        node_uuid = self._find(request.name).uuid
        await self._change(lambda draft: commands.release(draft, node_uuid), request, context)
        return self._shown(node_uuid)

    @answers
    async def RevokeNode(self, request: pb.RevokeNodeRequest, context: Any) -> node_pb2.Node:
        """Shut a node out."""
        registry = self._house.registry
        wanted = request.name.removeprefix("nodes/")
        joined = registry.admission(wanted) is not None
        node_uuid = wanted if joined else self._find(request.name).uuid
        naming = [t.sha256 for t in registry.join_tokens() if t.node_uuid == node_uuid]
        await self._change(
            lambda draft: identity.revoke(draft, node_uuid, naming), request, context
        )
        if registry.node(node_uuid) is None:
            return node_pb2.Node(name=f"nodes/{node_uuid}")
        return self._shown(node_uuid)

    @answers
    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.ServerInfo:
        """Tell which control plane this is."""
        caller = CALLER.get()
        return pb.ServerInfo(
            version=__version__,
            cluster_uuid=self._house.registry.cluster_uuid,
            epoch=self._house.registry.epoch,
            principal=caller.name,
            role=caller.role,
        )

    async def _change(self, command: Callable[[Draft], None], request: Any, context: Any) -> None:
        actor = self._house.actor(context)

        def answered(draft: Draft) -> dict[str, object]:
            command(draft)
            return {}

        await self._house.write(answered, actor, once_for(actor.principal, request))

    def _find(self, name: str) -> Node:
        return commands.find((node for node, _ in self._house.registry.nodes()), name)

    def _shown(self, node_uuid: str) -> node_pb2.Node:
        shown = next(pair for pair in self._house.registry.nodes() if pair[0].uuid == node_uuid)
        return self._message(*shown)

    def _message(self, node: Node, held: tuple[LeaseSummary, ...]) -> node_pb2.Node:
        house, caller = self._house, CALLER.get()
        heard_boot_us = house.liveness.heard_us.get(node.uuid)
        heard_us = None
        if heard_boot_us is not None:
            heard_us = house.clock.now_us() - (house.clock.boot_us() - heard_boot_us)
        seen = {
            lease.attempt for lease in held if may_job(house.registry, caller, GET_JOB, lease.whose)
        }
        reason = node.drain_reason or ""
        if node.silent_since_us is not None and heard_us is not None:
            reason = f"silent for {(house.clock.now_us() - heard_us) // MICRO} s"
        return node_message(
            node,
            reason=reason,
            heard_us=heard_us,
            busy=bool(held),
            attempts=sorted(seen),
            leased=(
                sum(lease.cpu_millicores for lease in held),
                sum(lease.memory_bytes for lease in held),
                tuple(sorted(d for lease in held for d in lease.device_ids)),
            ),
        )
