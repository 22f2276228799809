"""Reading a job's output so that nothing is lost or doubled, whatever happens to the connection.

Attempts are read one after the other, each by its number: the offsets of one mean nothing in the
next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from controlplane.v1 import job_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """So many bytes before these are gone: all that were before, at the beginning of a stream whose
    older output is no longer kept; else those that were dropped on their way."""


class Positions:
    """How far each stream of one attempt was read."""

    def __init__(self, request: pb.ReadLogsRequest) -> None:
        """`request`: what was asked for first, its attempt included."""
        self._request = request
        self._chosen = bool(
            request.tail_bytes or request.HasField("since_time") or request.HasField("until_time")
        )
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
        # Chosen by its end or by time a stream may begin anywhere; but what it begins with may be
        # the first that is kept, and then what was before may have been chosen, too.
        anywhere = self._chosen and message.offset > message.first_kept
        first = message.offset if anywhere else 0
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


Open = Callable[[Callable[[], pb.ReadLogsRequest]], Iterable[pb.ReadLogsResponse]]
"""Opens a stream, and again when it breaks: it asks for each request anew."""


def read_attempts(
    request: pb.ReadLogsRequest,
    next_attempt: Callable[[int], int],
    stream: Open,
    on_attempt: Callable[[int], None],
) -> Iterator[LogPiece]:
    """Yield the output of one attempt after the other, as far as a request asks for them.

    `next_attempt`: the number of the one after another, after 0 of the last; 0 for none.
    `on_attempt`: hears of those that follow the first, before their output.
    """
    timed = request.HasField("since_time") or request.HasField("until_time")
    one = bool(request.attempt or request.step)
    number = newest = request.attempt or next_attempt(0)
    if timed and newest and not one:
        number = 1
    first = number
    while number:
        asked = pb.ReadLogsRequest()
        asked.CopyFrom(request)
        asked.attempt = number
        told = number == first
        if number > newest:
            # It began while the one before was read: this is news, though it may print nothing.
            on_attempt(number)
            told = True
        for piece in read_attempt(asked, stream):
            if not told:
                on_attempt(number)
                told = True
            yield piece
        if one or not (request.follow or timed):
            return
        number = next_attempt(number)


def read_attempt(request: pb.ReadLogsRequest, stream: Open) -> Iterator[LogPiece]:
    """Yield the output of one attempt."""
    positions = Positions(request)
    for message in stream(positions.request):
        if piece := positions.accept(message):
            yield piece
