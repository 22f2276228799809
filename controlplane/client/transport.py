"""The way to one server: where it is, how it is trusted, and calls that outlive its restarts."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import grpc

from controlplane.client.decode import check_version, from_rpc
from controlplane.client.errors import DeadlinePassed, InvalidInput
from controlplane.client.retry import Patience, Timing
from controlplane.model.errors import FieldFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

DEFAULT_PORT: Final = 7600
"""The port of a server whose address names none."""

STREAM_S: Final = 300.0
"""Streams are opened anew after so many seconds, so that none hangs on a dead connection."""

_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 64 * 2**20),
    # A step may be silent for hours: this tells that its way is still there.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

Request = TypeVar("Request", bound="Message")
Response = TypeVar("Response", bound="Message")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is, and whether the way there is encrypted."""

    target: str
    """As gRPC writes it: `host:port` or `unix:/path`."""
    tls: bool
    """Whether TLS is spoken."""


def parse_address(server: str, *, has_ca: bool) -> Address:
    """Read `host`, `host:port`, `unix:/path` or a URL; raise `InvalidInput` when it can't be used.

    Loopback addresses and sockets are plaintext unless a CA or `https` is named; others are TLS.
    """

    def fault(words: str) -> InvalidInput:
        return InvalidInput.of(FieldFault(field="server", description=f"{server!r} {words}"))

    if server.startswith("unix:") and len(server) > len("unix:"):
        return Address(target=server, tls=False)
    scheme, found, rest = server.rpartition("://")
    if scheme not in ("", "http", "https") or (found and not scheme):
        raise fault("is no address; write host:port, https://host:port or unix:/path")
    host, colon, port = rest.rstrip("/").rpartition(":")
    if not colon or rest.endswith("]"):
        host, port = rest.rstrip("/"), str(DEFAULT_PORT)
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise fault("is no address; write host:port with a port from 1 to 65535")
    if any(not c.isprintable() or c in " /@" for c in host) or (":" in host and host[0] != "["):
        raise fault("is no address; write host:port, and an IPv6 address as [::1]:7600")
    loopback = _is_loopback(host)
    if scheme == "http" and not loopback:
        raise fault(
            "would be reached without encryption, and your token with it could be read on the way; "
            "plaintext is only for loopback addresses and unix: sockets: write https://"
        )
    tls = scheme == "https" or not loopback or (has_ca and scheme != "http")
    return Address(target=f"{host}:{port}", tls=tls)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Connection:
    """A channel to one server. May be used by several threads."""

    def __init__(
        self, server: str, *, token: str | None, ca_file: Path | None, timing: Timing
    ) -> None:
        """Prepare the channel; nothing is dialled before the first call.

        Raises `InvalidInput` for an address, a token or a CA file that can't be used.
        """
        address = parse_address(server, has_ca=ca_file is not None)
        self.server = server
        self.timing = timing
        self.metadata = _metadata(token)
        self.closed = False
        if address.tls:
            credentials = grpc.ssl_channel_credentials(_roots(ca_file))
            self.channel = grpc.secure_channel(address.target, credentials, options=_OPTIONS)
        else:
            self.channel = grpc.insecure_channel(address.target, options=_OPTIONS)

    def close(self) -> None:
        """End the channel and every call on it; streams end as if there were no more to say."""
        self.closed = True
        self.channel.close()

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout_s: float,
    ) -> Response:
        """Get one answer within `timeout_s` seconds, tries while the server is away included."""
        return self.attempt(
            lambda left_s: method.with_call(request, timeout=left_s, metadata=self.metadata),
            timeout_s,
        )

    def attempt(
        self, once: Callable[[float], tuple[Response, grpc.Call]], timeout_s: float
    ) -> Response:
        """As `call`, for a call of any kind: `once` gets the seconds that it may take."""
        patience = Patience(timing=self.timing, limit_s=timeout_s)
        while True:
            try:
                response, call = once(patience.left_s)
            except grpc.RpcError as error:
                patience.wait_after(from_rpc(error, self.server))
            else:
                check_version(call, self.server)
                return response

    def stream(
        self,
        method: grpc.UnaryStreamMultiCallable[Request, Response],
        request: Callable[[], Request],
        *,
        first_s: float,
        patience_s: float,
    ) -> Iterator[Response]:
        """Yield messages until the server ends the stream; open it anew whenever it breaks.

        `request` is asked before each opening, and says from where to go on. The first message must
        come within `first_s` seconds of an absent server; later it may be away for `patience_s`.
        """
        patience = Patience(timing=self.timing, limit_s=first_s)
        while not self.closed:
            call = method(request(), timeout=STREAM_S, metadata=self.metadata)
            try:
                for message in call:
                    check_version(call, self.server, ended=False)
                    patience.succeeded(patience_s)
                    yield message
                check_version(call, self.server)
                return
            except grpc.RpcError as error:
                if self.closed:
                    return
                fault = from_rpc(error, self.server)
                if isinstance(fault, DeadlinePassed):
                    continue  # our own STREAM_S: a stream may be silent as long as it likes
                patience.wait_after(fault)
            finally:
                call.cancel()


def _metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    if token is None:
        return ()
    if not token or not token.isascii() or any(not c.isprintable() or c == " " for c in token):
        raise InvalidInput.of(
            FieldFault(
                field="token", description="must be one line of printable ASCII without spaces"
            )
        )
    return (("authorization", f"Bearer {token}"),)


def _roots(ca_file: Path | None) -> bytes | None:
    """The certificates to trust: those of the file, else the system's, else gRPC's own."""
    if ca_file is None:
        system = ssl.get_default_verify_paths().cafile
        return Path(system).read_bytes() if system else None
    try:
        roots = ca_file.read_bytes()
    except OSError as error:
        words = f"{str(ca_file)!r} can't be read: {error.strerror}"
        raise InvalidInput.of(FieldFault(field="ca_file", description=words)) from error
    if b"-----BEGIN CERTIFICATE-----" not in roots:
        words = f"{str(ca_file)!r} holds no PEM certificate"
        raise InvalidInput.of(FieldFault(field="ca_file", description=words))
    return roots
