"""Our own way to the rendezvous store's private scopes, for the small programs inside a gang."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

_WAIT_MS = 20_000
_RETRY_S = 0.05
_ATTEMPT_S = 30.0
_ANSWER_BYTES = 16 << 20


class StoreError(Exception):
    """The store refused; the message has its words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where a gang's store is, and the secret that opens it."""

    host: str
    """Literal address that it listens on."""
    port: int
    """TCP port that it listens on."""
    secret: str
    """Secret of the gang."""

    def get(self, scope: str, key: str, *, deadline: float) -> bytes:
        """Wait for a value until a second of the monotonic clock.

        TimeoutError when there is none by then, `StoreError` when the store refuses.
        """
        while True:
            left_ms = int((deadline - time.monotonic()) * 1000)
            wait_ms = max(0, min(left_ms, _WAIT_MS))
            status, body = self._call("GET", f"{scope}/{key}?wait_ms={wait_ms}", b"", deadline)
            if status == 200:
                return body
            if status != 404:
                raise StoreError(f"the rendezvous store answered {status}: {body[:200]!r}")

    def put(self, scope: str, key: str, value: bytes, *, deadline: float) -> None:
        """Store a value. TimeoutError when the store cannot be reached, `StoreError` when it
        refuses."""
        status, body = self._call("PUT", f"{scope}/{key}", value, deadline)
        if status != 200:
            raise StoreError(f"the rendezvous store answered {status}: {body[:200]!r}")

    def _call(self, method: str, path: str, body: bytes, deadline: float) -> tuple[int, bytes]:
        """Ask until there is an answer or the deadline has come."""
        failure: Exception | None = None
        while (left := deadline - time.monotonic()) > 0:
            try:
                return self._ask(method, path, body, min(left + 1, _ATTEMPT_S))
            except (OSError, ValueError) as error:  # not up yet, gone, or cut off in the middle
                failure = error
                time.sleep(min(_RETRY_S, max(0.0, left)))
        raise TimeoutError(
            f"no answer from the rendezvous store at {self.host}:{self.port}"
            + (f" ({failure})" if failure else "")
        )

    def _ask(self, method: str, path: str, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        head = (
            f"{method} /{path} HTTP/1.0\r\nAuthorization: Bearer {self.secret}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((self.host, self.port), timeout=timeout_s) as sock:
            sock.settimeout(timeout_s)
            sock.sendall(head.encode() + body)
            answer = bytearray()
            while len(answer) < _ANSWER_BYTES and (data := sock.recv(1 << 16)):
                answer += data
        first, found, value = bytes(answer).partition(b"\r\n\r\n")
        parts = first.split(b" ", 2)
        if not found or len(parts) < 2:
            raise ValueError("the answer was cut off")
        return int(parts[1]), value
