"""Priority classes, queues and reservations: what stands between jobs and nodes."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from controlplane.v1 import queue_service_pb2 as pb


class Queues:
    """Asks for everything that QueueService does. Methods raise as those of `Client`.

    Names may be short (`night`) or resource names (`queues/night`).
    """

    def __init__(self, stub: Any, call: Callable[[Any, Any], Any]) -> None:
        """`call`: makes one unary call of a stub's method."""
        self._stub, self._call = stub, call

    def create_priority_class(
        self, name: str, made: pb.PriorityClass, *, request_id: str | None = None
    ) -> pb.PriorityClass:
        """Make a priority class."""
        from controlplane.v1 import queue_service_pb2 as pb

        request = pb.CreatePriorityClassRequest(
            priority_class_id=name, priority_class=made, request_id=_id(request_id)
        )
        return self._call(self._stub.CreatePriorityClass, request)  # type: ignore[no-any-return]

    def priority_class(self, name: str) -> pb.PriorityClass:
        """One priority class."""
        from controlplane.v1 import queue_service_pb2 as pb

        request = pb.GetPriorityClassRequest(name=_full("priorityClasses", name))
        return self._call(self._stub.GetPriorityClass, request)  # type: ignore[no-any-return]

    def priority_classes(self) -> Iterator[pb.PriorityClass]:
        """All priority classes, by name."""
        from controlplane.v1 import queue_service_pb2 as pb

        request = pb.ListPriorityClassesRequest()
        yield from self._pages(self._stub.ListPriorityClasses, request, "priority_classes")

    def delete_priority_class(self, name: str, *, request_id: str | None = None) -> None:
        """Remove a priority class; jobs that have it keep its value."""
        from controlplane.v1 import queue_service_pb2 as pb

        request = pb.DeletePriorityClassRequest(
            name=_full("priorityClasses", name), request_id=_id(request_id)
        )
        self._call(self._stub.DeletePriorityClass, request)

    def create_queue(self, name: str, made: pb.Queue, *, request_id: str | None = None) -> pb.Queue:
        """Make a queue."""
        from controlplane.v1 import queue_service_pb2 as pb

        request = pb.CreateQueueRequest(queue_id=name, queue=made, request_id=_id(request_id))
        return self._call(self._stub.CreateQueue, request)  # type: ignore[no-any-return]

    def queue(self, name: str) -> pb.Queue:
        """One queue."""
        from controlplane.v1 import queue_service_pb2 as pb

        request = pb.GetQueueRequest(name=_full("queues", name))
        return self._call(self._stub.GetQueue, request)  # type: ignore[no-any-return]

    def queues(self) -> Iterator[pb.Queue]:
        """All queues, by name."""
        from controlplane.v1 import queue_service_pb2 as pb

        yield from self._pages(self._stub.ListQueues, pb.ListQueuesRequest(), "queues")

    def update_queue(
        self, name: str, new: pb.Queue, fields: Iterable[str], *, request_id: str | None = None
    ) -> pb.Queue:
        """Change these fields of a queue to what they are in `new`."""
        from google.protobuf.field_mask_pb2 import FieldMask

        from controlplane.v1 import queue_service_pb2 as pb

        request = pb.UpdateQueueRequest(
            queue=new, update_mask=FieldMask(paths=fields), request_id=_id(request_id)
        )
        request.queue.name = _full("queues", name)
        return self._call(self._stub.UpdateQueue, request)  # type: ignore[no-any-return]

    def delete_queue(self, name: str, *, request_id: str | None = None) -> None:
        """Remove a queue that no job is in."""
        from controlplane.v1 import queue_service_pb2 as pb

        request = pb.DeleteQueueRequest(name=_full("queues", name), request_id=_id(request_id))
        self._call(self._stub.DeleteQueue, request)

    def create_reservation(
        self, name: str, made: pb.Reservation, *, request_id: str | None = None
    ) -> pb.Reservation:
        """Keep nodes for somebody for a time, or for nobody."""
        from controlplane.v1 import queue_service_pb2 as pb

        request = pb.CreateReservationRequest(
            reservation_id=name, reservation=made, request_id=_id(request_id)
        )
        return self._call(self._stub.CreateReservation, request)  # type: ignore[no-any-return]

    def reservation(self, name: str) -> pb.Reservation:
        """One reservation."""
        from controlplane.v1 import queue_service_pb2 as pb

        request = pb.GetReservationRequest(name=_full("reservations", name))
        return self._call(self._stub.GetReservation, request)  # type: ignore[no-any-return]

    def reservations(self) -> Iterator[pb.Reservation]:
        """All reservations that are not over, by name."""
        from controlplane.v1 import queue_service_pb2 as pb

        request = pb.ListReservationsRequest()
        yield from self._pages(self._stub.ListReservations, request, "reservations")

    def delete_reservation(self, name: str, *, request_id: str | None = None) -> None:
        """Give the nodes of a reservation back before its end."""
        from controlplane.v1 import queue_service_pb2 as pb

        request = pb.DeleteReservationRequest(
            name=_full("reservations", name), request_id=_id(request_id)
        )
        self._call(self._stub.DeleteReservation, request)

    def _pages(self, method: Any, request: Any, field: str) -> Iterator[Any]:
        while True:
            page = self._call(method, request)
            yield from getattr(page, field)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def _id(request_id: str | None) -> str:
    return request_id or uuid.uuid4().hex


def _full(collection: str, name: str) -> str:
    return f"{collection}/{name.removeprefix(f'{collection}/')}"
