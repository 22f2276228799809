"""How much goes into one message: specs may have 2 MiB each, and gRPC refuses what is too large as
a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.message import Message

LARGEST_MESSAGE = 64 << 20
"""Bytes of a message, either way."""
ANSWER_BYTES = 3 << 20
"""An answer that may go on in another one is not made larger, unless its first part is: gRPC's
clients take 4 MiB where nobody has told them to take more."""

M = TypeVar("M", bound="Message")


def fitting(parts: Iterable[M]) -> Iterator[list[M]]:
    """The parts of answers, in their order; parts are asked for as they are needed."""
    chunk: list[M] = []
    room = ANSWER_BYTES
    for part in parts:
        size = part.ByteSize()
        if chunk and size > room:
            yield chunk
            chunk, room = [], ANSWER_BYTES
        chunk.append(part)
        room -= size
    if chunk:
        yield chunk
