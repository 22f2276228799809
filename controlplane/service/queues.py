"""QueueService: priority classes, queues and reservations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from controlplane.model.errors import NotFound
from controlplane.registry import site
from controlplane.registry.nodes import find
from controlplane.service.asked import page_size
from controlplane.service.context import once_for
from controlplane.service.errors import answers
from controlplane.v1 import queue_service_pb2 as pb
from controlplane.v1.queue_service_pb2_grpc import QueueServiceServicer
from controlplane.wire import site as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from controlplane.registry.draft import Draft
    from controlplane.service.context import House

T = TypeVar("T")


class QueueService(QueueServiceServicer):
    """Keeps what stands between jobs and nodes."""

    def __init__(self, house: House) -> None:
        """`house`: the rooms to speak to."""
        self._house = house

    # --- priority classes ----------------------------------------------------------------------

    @answers
    async def CreatePriorityClass(
        self, request: pb.CreatePriorityClassRequest, context: Any
    ) -> pb.PriorityClass:
        """Make a priority class."""
        made = wire.class_value(request.priority_class_id, request.priority_class)
        await self._change(lambda draft: site.create_class(draft, made), request, context)
        return self._class(made.name)

    @answers
    async def GetPriorityClass(
        self, request: pb.GetPriorityClassRequest, context: Any
    ) -> pb.PriorityClass:
        """Show a priority class."""
        return self._class(named(request.name, "priorityClasses"))

    @answers
    async def ListPriorityClasses(
        self, request: pb.ListPriorityClassesRequest, context: Any
    ) -> pb.ListPriorityClassesResponse:
        """List priority classes by name."""
        every = {each.name: each for each in self._house.registry.priority_classes()}
        page, token = _page(every, request)
        return pb.ListPriorityClassesResponse(
            priority_classes=map(wire.class_message, page), next_page_token=token
        )

    @answers
    async def DeletePriorityClass(
        self, request: pb.DeletePriorityClassRequest, context: Any
    ) -> pb.DeletePriorityClassResponse:
        """Remove a priority class."""
        name = named(request.name, "priorityClasses")
        await self._change(lambda draft: site.delete_class(draft, name), request, context)
        return pb.DeletePriorityClassResponse()

    def _class(self, name: str) -> pb.PriorityClass:
        every = {each.name: each for each in self._house.registry.priority_classes()}
        return wire.class_message(_one(every, name, "priority class"))

    # --- queues --------------------------------------------------------------------------------

    @answers
    async def CreateQueue(self, request: pb.CreateQueueRequest, context: Any) -> pb.Queue:
        """Make a queue."""
        made = wire.queue_value(request.queue_id, request.queue)
        await self._change(lambda draft: site.create_queue(draft, made), request, context)
        return self._queue(made.name)

    @answers
    async def GetQueue(self, request: pb.GetQueueRequest, context: Any) -> pb.Queue:
        """Show a queue."""
        return self._queue(named(request.name, "queues"))

    @answers
    async def ListQueues(
        self, request: pb.ListQueuesRequest, context: Any
    ) -> pb.ListQueuesResponse:
        """List queues by name."""
        page, token = _page({each.name: each for each in self._house.registry.queues()}, request)
        return pb.ListQueuesResponse(queues=map(wire.queue_message, page), next_page_token=token)

    @answers
    async def UpdateQueue(self, request: pb.UpdateQueueRequest, context: Any) -> pb.Queue:
        """Change a queue."""
        name, changes = named(request.queue.name, "queues"), wire.queue_changes(request)
        await self._change(lambda draft: site.update_queue(draft, name, changes), request, context)
        return self._queue(name)

    @answers
    async def DeleteQueue(
        self, request: pb.DeleteQueueRequest, context: Any
    ) -> pb.DeleteQueueResponse:
        """Remove a queue."""
        name = named(request.name, "queues")
        await self._change(lambda draft: site.delete_queue(draft, name), request, context)
        return pb.DeleteQueueResponse()

    def _queue(self, name: str) -> pb.Queue:
        every = {each.name: each for each in self._house.registry.queues()}
        return wire.queue_message(_one(every, name, "queue"))

    # --- reservations --------------------------------------------------------------------------

    @answers
    async def CreateReservation(
        self, request: pb.CreateReservationRequest, context: Any
    ) -> pb.Reservation:
        """Keep nodes for a time."""
        nodes = [node for node, _ in self._house.registry.nodes()]
        made = wire.reservation_value(
            request.reservation_id,
            request.reservation,
            lambda name: find(nodes, name).uuid,
            self._house.clock.now_us(),
        )
        await self._change(lambda draft: site.create_reservation(draft, made), request, context)
        return self._reservation(made.name)

    @answers
    async def GetReservation(
        self, request: pb.GetReservationRequest, context: Any
    ) -> pb.Reservation:
        """Show a reservation."""
        return self._reservation(named(request.name, "reservations"))

    @answers
    async def ListReservations(
        self, request: pb.ListReservationsRequest, context: Any
    ) -> pb.ListReservationsResponse:
        """List reservations by name."""
        page, token = _page(self._reservations(), request)
        return pb.ListReservationsResponse(reservations=page, next_page_token=token)

    @answers
    async def DeleteReservation(
        self, request: pb.DeleteReservationRequest, context: Any
    ) -> pb.DeleteReservationResponse:
        """Give nodes back."""
        name = named(request.name, "reservations")
        await self._change(lambda draft: site.delete_reservation(draft, name), request, context)
        return pb.DeleteReservationResponse()

    def _reservation(self, name: str) -> pb.Reservation:
        return _one(self._reservations(), name, "reservation")

    def _reservations(self) -> dict[str, pb.Reservation]:
        now_us = self._house.clock.now_us()
        return {
            each.name: wire.reservation_message(each, window)
            for each, window in self._house.registry.reservations()
            if each.end_us > now_us
        }

    async def _change(self, command: Callable[[Draft], None], request: Any, context: Any) -> None:
        actor = self._house.actor(context)

        def answered(draft: Draft) -> dict[str, object]:
            command(draft)
            return {}

        await self._house.write(answered, actor, once_for(actor.principal, request))


def named(name: str, collection: str) -> str:
    """The name in `queues/night`. InvalidRequest for anything else."""
    found = name.removeprefix(f"{collection}/")
    if not found or "/" in found:
        raise wire.fault("name", f"{name[:80]!r}: must be {collection}/<name>")
    return found


def _one(every: Mapping[str, T], name: str, noun: str) -> T:
    if name not in every:
        there = ", ".join(sorted(every)) or "none"
        raise NotFound(f"{name[:100]}: there is no such {noun}; there are: {there}")
    return every[name]


def _page(every: Mapping[str, T], request: Any) -> tuple[Iterable[T], str]:
    limit = page_size(request.page_size)
    left = sorted(name for name in every if name > request.page_token)
    more = len(left) > limit
    return [every[name] for name in left[:limit]], left[limit - 1] if more else ""
