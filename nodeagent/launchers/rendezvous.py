"""The rendezvous store in which Horovod's ranks, and Open MPI's daemons, find each other.

    PUT    /SCOPE/KEY   stores the body: 200
    GET    /SCOPE/KEY   200 and the value, or 404 while there is none (Horovod asks every 10 ms)
    DELETE /SCOPE/RANK  this rank has finished with the scope: 200

Horovod's protocol knows no authentication, so everything here is bounded: sizes, keys, connections
and the time that a request may take. Values are bytes that are never looked into. When all
connections are taken, the one that has dawdled longest over its request makes room. Scopes that
begin with `_cc/` are ours: they need `Authorization: Bearer SECRET`, and a GET may wait there
(`?wait_ms=`). It runs in a process of its own, forked from a small one: hence one thread, one
selector, and few imports.
"""

from __future__ import annotations

import selectors
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from nodeagent.launchers.http_request import HEAD_BYTES, BadRequest, Request, parse_head
from nodeagent.launchers.store import KeyValues, Limits, StoreFull

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REQUEST_S = 10.0
"""How long a client may take to send its request and to take the answer, in seconds."""
_LINGER_S = 1.0
_SWEEP_S = 0.25
_CHUNK = 1 << 16
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}


@dataclass(slots=True, eq=False)
class _Connection:
    sock: socket.socket
    until: float
    """Monotonic second at which patience ends."""
    inbox: bytearray = field(default_factory=bytearray)
    outbox: bytes = b""
    request: Request | None = None
    parked: bool = False
    lingering: bool = False


class Rendezvous:
    """The store behind one listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        scopes: Mapping[str, int],
        secret: str,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve on `listener`, which it makes non-blocking and closes in the end."""
        self.store = KeyValues(scopes, limits or Limits.for_gang(scopes.get("global", 1)))
        self._limits = self.store.limits
        self._secret = secret.encode()
        self._clock = clock
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._connections: dict[_Connection, None] = {}
        self._inbound = 0
        self._next_sweep = 0.0
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, None)

    def step(self, timeout_s: float | None = None) -> None:
        """Wait for something to do, at most so long, and do it."""
        if self._connections:
            timeout_s = _SWEEP_S if timeout_s is None else min(timeout_s, _SWEEP_S)
        for ready, events in self._selector.select(timeout_s):
            connection: _Connection | None = ready.data
            if connection is None:
                self._accept()
            elif connection in self._connections:
                self._turn(connection, events)
        now = self._clock()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_S
            self._sweep(now)

    def close(self) -> None:
        """Close every socket."""
        for connection in list(self._connections):
            self._drop(connection)
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, _peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # out of descriptors, or the client has gone
                self._make_room()
                return
            if len(self._connections) >= self._limits.connections:
                self._make_room()
            sock.setblocking(False)
            connection = _Connection(sock, self._clock() + REQUEST_S)
            self._connections[connection] = None
            self._selector.register(sock, selectors.EVENT_READ, connection)

    def _make_room(self) -> None:
        waiting = [c for c in self._connections if not c.parked] or list(self._connections)
        if waiting:
            self._drop(min(waiting, key=lambda connection: connection.until))

    def _turn(self, connection: _Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                self._read(connection)
            elif events & selectors.EVENT_WRITE:
                self._write(connection)
        except BlockingIOError:
            pass
        except BadRequest as refusal:
            self._answer(connection, refusal.status, str(refusal).encode())
        except OSError:
            self._drop(connection)

    def _read(self, connection: _Connection) -> None:
        data = connection.sock.recv(_CHUNK)
        if not data:
            self._drop(connection)
            return
        if connection.lingering or connection.parked:  # nothing more is of interest
            return
        connection.inbox += data
        self._inbound += len(data)
        if connection.request is None:
            connection.request = self._head(connection)
        if self._inbound > self._limits.total_bytes:
            raise BadRequest(503, "too much on its way in; try again")
        request = connection.request
        if request is not None and len(connection.inbox) >= request.body_bytes:
            self._serve(connection, request, bytes(connection.inbox[: request.body_bytes]))

    def _head(self, connection: _Connection) -> Request | None:
        head, found, _body = bytes(connection.inbox[: HEAD_BYTES + 4]).partition(b"\r\n\r\n")
        if not found:
            if len(connection.inbox) > HEAD_BYTES:
                raise BadRequest(431, f"the headers may have {HEAD_BYTES} bytes")
            return None
        request = parse_head(head, self._limits.path_bytes)
        if request.private and not self._authorised(request.bearer):
            raise BadRequest(401, "this scope needs the gang's secret")
        if request.body_bytes > self._limits.value_bytes:
            raise BadRequest(413, f"a value may have {self._limits.value_bytes} bytes")
        del connection.inbox[: len(head) + 4]
        self._inbound -= len(head) + 4
        return request

    def _authorised(self, bearer: str) -> bool:
        from hmac import compare_digest  # late: it loads OpenSSL, and Horovod's ranks never need it

        return bool(self._secret) and compare_digest(self._secret, bearer.encode())

    def _serve(self, connection: _Connection, request: Request, body: bytes) -> None:
        scope, key = request.scope, request.key
        if request.method == "PUT":
            try:
                self.store.put(scope, key, body)
            except StoreFull as full:
                raise BadRequest(507, str(full)) from None
            self._answer(connection, 200)
            self._wake(scope, key, body)
        elif request.method == "DELETE":
            self.store.finish(scope, key)
            self._answer(connection, 200)
        else:
            value = self.store.get(scope, key)
            if value is None and request.private and request.wait_ms:
                connection.parked = True
                connection.until = self._clock() + request.wait_ms / 1000
            elif value is None:
                self._answer(connection, 404)
            else:
                self._answer(connection, 200, value)

    def _wake(self, scope: str, key: str, value: bytes) -> None:
        for connection in list(self._connections):
            request = connection.request
            if connection.parked and request and (request.scope, request.key) == (scope, key):
                self._answer(connection, 200, value)

    def _answer(self, connection: _Connection, status: int, body: bytes = b"") -> None:
        self._inbound -= len(connection.inbox)
        connection.inbox.clear()
        connection.parked = False
        connection.lingering = True
        connection.until = self._clock() + REQUEST_S
        head = f"HTTP/1.0 {status} {_REASONS[status]}\r\nContent-Length: {len(body)}\r\n"
        head += "Allow: GET, PUT, DELETE\r\n" if status == 405 else ""
        connection.outbox = head.encode() + b"\r\n" + body
        try:
            self._write(connection)
        except BlockingIOError:
            self._selector.modify(connection.sock, selectors.EVENT_WRITE, connection)
        except OSError:
            self._drop(connection)

    def _write(self, connection: _Connection) -> None:
        sent = connection.sock.send(connection.outbox)
        connection.outbox = connection.outbox[sent:]
        if connection.outbox:
            self._selector.modify(connection.sock, selectors.EVENT_WRITE, connection)
            return
        # A close with bytes unread would reset the connection and may take the answer with it.
        connection.sock.shutdown(socket.SHUT_WR)
        connection.until = self._clock() + _LINGER_S
        self._selector.modify(connection.sock, selectors.EVENT_READ, connection)

    def _sweep(self, now: float) -> None:
        for connection in [c for c in self._connections if c.until <= now]:
            if connection.lingering:
                self._drop(connection)
            elif connection.parked:
                self._answer(connection, 404)
            else:
                self._answer(connection, 408)

    def _drop(self, connection: _Connection) -> None:
        if connection in self._connections:
            del self._connections[connection]
            self._inbound -= len(connection.inbox)
            with suppress(KeyError, ValueError):
                self._selector.unregister(connection.sock)
            connection.sock.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket. OSError when the address is not ours or the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def serve(
    host: str, port: int, scopes: Mapping[str, int], secret: str, ready: Callable[[], None]
) -> NoReturn:
    """Serve until the process ends; calls `ready` once when it listens. OSError when it cannot."""
    store = Rendezvous(listen(host, port), scopes, secret)
    ready()
    while True:
        store.step()
