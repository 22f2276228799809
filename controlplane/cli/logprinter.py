"""Output of workers on its way to the screen or a pipe.

To a pipe, the bytes of one worker pass unchanged. On a terminal, control characters are made
visible, so that no program's output can play with it. With several workers each line begins with
its rank.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, BinaryIO, Final

from controlplane.cli.text import visible

if TYPE_CHECKING:
    from controlplane.client import LogPiece

LINE_LIMIT_BYTES: Final = 64 * 1024
"""A line that is longer is shown in parts, so that memory has a bound."""


class LogPrinter:
    """Writes pieces of output as they come."""

    def __init__(self, out: BinaryIO, *, prefixed: bool, terminal: bool) -> None:
        """`prefixed`: lines begin with the rank. `terminal`: control characters can be seen."""
        self._out = out
        self._prefixed = prefixed
        self._terminal = terminal
        self._decoders: dict[tuple[int, int, str], codecs.IncrementalDecoder] = {}
        self._begun: dict[tuple[int, int, str], bytes] = {}

    def write(self, piece: LogPiece) -> None:
        """Write one piece; with ranks before lines, a line waits for its end."""
        key = (piece.attempt, piece.rank, piece.stream)
        data = self._visible(key, piece.data) if self._terminal else piece.data
        if not self._prefixed:
            self._out.write(data)
        else:
            *lines, rest = (self._begun.pop(key, b"") + data).split(b"\n")
            if len(rest) > LINE_LIMIT_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._line(piece.rank, line)
            if rest:
                self._begun[key] = rest
        self._out.flush()

    def close(self) -> None:
        """Write the last lines, which have no end."""
        for (_, rank, _), line in sorted(self._begun.items()):
            self._line(rank, line)
        self._begun.clear()
        self._out.flush()

    def _line(self, rank: int, line: bytes) -> None:
        self._out.write(b"[%d] %b\n" % (rank, line))

    def _visible(self, key: tuple[int, int, str], data: bytes) -> bytes:
        decoder = self._decoders.get(key)
        if decoder is None:
            # Incremental: a character may be split between two pieces.
            decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
            self._decoders[key] = decoder
        text = decoder.decode(data).replace("\r\n", "\n").replace("\r", "\n")
        return visible(text).encode()
