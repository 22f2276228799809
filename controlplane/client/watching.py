"""Watches that go on where they stopped, whatever happens to the connection or the server."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from controlplane.client.errors import Refused
from controlplane.client.retry import FIRST_WAIT_S
from controlplane.v1 import job_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from controlplane.client.transport import Connection
    from controlplane.v1 import event_pb2, job_pb2

TOO_OLD: Final = "TOKEN_OUT_OF_RANGE"
"""The reason of the server's no to a token that it can't go on from."""
REMEMBERED: Final = 10_000
"""So many jobs that were told last are remembered, so that none is told twice."""


class Resumed:
    """Messages of a watch: it is opened again and again, each time with the last token."""

    def __init__(
        self,
        connection: Connection,
        method: Any,
        request: pb.WatchEventsRequest | pb.WatchJobsRequest,
        *,
        first_s: float,
        patience_s: float,
    ) -> None:
        """`request`: what to ask for first. `first_s`: for so long an absent server is waited for
        at first; `patience_s`: later."""
        self.request = request
        self._connection, self._method = connection, method
        self._first_s, self._patience_s = first_s, patience_s

    def messages(self) -> Iterator[Any]:
        """Each message once. The token counts when the caller asks for the next one: what it did
        not finish is told again by a watch from there."""
        while not self._connection.closed:
            for message in self._connection.stream(
                self._method,
                lambda: self.request,
                first_s=self._first_s,
                patience_s=self._patience_s,
            ):
                self._first_s = self._patience_s
                yield message
                self.request.token = message.token
                if isinstance(self.request, pb.WatchEventsRequest):
                    self.request.ClearField("since_time")
            if not self._connection.closed:
                # A server that stops may end its streams in peace; do not storm the next one.
                self._connection.timing.sleep(FIRST_WAIT_S)


def events(watch: Resumed, on_token: Callable[[str], None]) -> Iterator[event_pb2.Event]:
    """Events, each once."""
    for message in watch.messages():
        yield from message.events
        on_token(message.token)


def jobs(watch: Resumed) -> Iterator[job_pb2.Job]:
    """Jobs, as they are and after each change. When the token is too old, the list again."""
    told: OrderedDict[int, str] = OrderedDict()
    while True:
        try:
            for message in watch.messages():
                for job in message.jobs:
                    if told.pop(job.job_id, None) != job.etag:
                        yield job
                    told[job.job_id] = job.etag
                    while len(told) > REMEMBERED:
                        told.popitem(last=False)
            return
        except Refused as error:
            if error.reason != TOO_OLD or not watch.request.token:
                raise
            watch.request.token = ""
