"""Reading a job's output so that nothing is lost or doubled, whatever happens to the connection.

Attempts are read one after the other, each by its number: the offsets of one mean nothing in the
next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from controlplane.v1 import job_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

STREAMS = {"stdout": pb.LOG_STREAM_STDOUT, "stderr": pb.LOG_STREAM_STDERR}
"""Names of the output streams."""
_NAMES = {number: name for name, number in STREAMS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """Some bytes that a worker wrote; not necessarily text, nor whole lines."""

    attempt: int
    """Number of the attempt."""
    rank: int
    """The worker's rank."""
    stream: str
    """`stdout` or `stderr`."""
    offset: int
    """Offset of the first byte from the stream's start."""
    data: bytes
    """The bytes."""
    missing_bytes: int = 0
    """So many bytes before these were dropped by the job's cap on output, and are gone."""


class Positions:
    """How far each stream of one attempt was read."""

    def __init__(self, request: pb.ReadLogsRequest) -> None:
        """`request`: what was asked for first, its attempt included."""
        self._request = request
        self._next: dict[tuple[int, int], int] = {}

    def request(self) -> pb.ReadLogsRequest:
        """What to ask for so that reading goes on where it stopped."""
        request = pb.ReadLogsRequest()
        request.CopyFrom(self._request)
        if self._next:
            # A tail is counted back from the present end: once it was given, it would lose bytes.
            request.tail_bytes = 0
        for (rank, stream), offset in sorted(self._next.items()):
            request.positions.add(rank=rank, stream=pb.LogStream.ValueType(stream), offset=offset)
        return request

    def accept(self, message: pb.ReadLogsResponse) -> LogPiece | None:
        """Give what is new in a message, or None."""
        key = (message.rank, int(message.stream))
        # With a tail a stream may begin anywhere; else what lies before its first byte is missing.
        first = message.offset if self._request.tail_bytes else 0
        expected = self._next.get(key, first)
        data = message.data[max(0, expected - message.offset) :]
        if not data:
            return None
        start = max(expected, message.offset)
        self._next[key] = start + len(data)
        piece = LogPiece(
            attempt=message.attempt,
            rank=message.rank,
            stream=_NAMES.get(message.stream, "stdout"),
            offset=start,
            data=data,
        )
        return replace(piece, missing_bytes=start - expected) if start > expected else piece


def read_attempt(
    request: pb.ReadLogsRequest,
    stream: Callable[[Callable[[], pb.ReadLogsRequest]], Iterable[pb.ReadLogsResponse]],
) -> Iterator[LogPiece]:
    """Yield the output of one attempt. `stream` opens a stream, and again when it breaks."""
    positions = Positions(request)
    for message in stream(positions.request):
        if piece := positions.accept(message):
            yield piece
