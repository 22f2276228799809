"""Ports of this machine that are one test's alone, whatever runs beside it.

They lie below the range from which the kernel gives ports to whoever asks for any: so neither a
client's end of a connection nor another test's server takes one between here and its use.
"""

from __future__ import annotations

import functools
import itertools
import os
import socket

BLOCK = 50
_FIRSTS = range(10_000, 32_000, BLOCK)


class Ports:
    """A block of ports, until it is closed or this process ends."""

    def __init__(self) -> None:
        # A name that one process at a time can hold, and that goes with it, however it ends. Each
        # process looks from elsewhere on, because connections of the last one may linger.
        begin = os.getpid() % len(_FIRSTS)
        for first in (*_FIRSTS[begin:], *_FIRSTS[:begin]):
            self._held = socket.socket(socket.AF_UNIX)
            try:
                self._held.bind(f"\0controlplane-tests-port-{first}")
            except OSError:
                self._held.close()
                continue
            self.first, self.last = first, first + BLOCK - 1
            self._turn = itertools.cycle(range(first, first + BLOCK))
            return
        raise AssertionError(f"all ports from {_FIRSTS[0]} on are held by tests: end some")

    def next(self) -> int:
        """The next one that nobody listens on."""
        return next(port for port in itertools.islice(self._turn, BLOCK) if _is_free(port))

    def close(self) -> None:
        """Let others have it."""
        self._held.close()


@functools.cache
def _own() -> Ports:
    return Ports()


def free_port() -> int:
    """A TCP port that nobody listens on, and another one each time."""
    return _own().next()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
