"""The node's certificate: asked for by `nodeagent join`, kept in `credential.json`, renewed by the
agent before it ends. Its key is made here and never leaves the host."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import grpc

from controlplane.kit import pki
from controlplane.kit.address import parse_address
from controlplane.kit.credential import hash_of
from controlplane.kit.private import replace_private
from controlplane.v1 import (
    agent_service_pb2,
    identity_service_pb2,
    identity_service_pb2_grpc,
)

if TYPE_CHECKING:
    from pathlib import Path

    from controlplane.kit.credential import Credential

JOIN_DEADLINE_S = 30.0
RENEW_DEADLINE_S = 30.0
FILE = "credential.json"
JOINING = "joining.json"


class JoinError(Exception):
    """The host could not join; the text says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCredential:
    """What an agent shows, whom it trusts, and where it calls."""

    server: str
    """Where agents are listened to: host:port."""
    certificate: str
    """The node's, PEM."""
    key: str
    """Its private key, PEM."""
    authority: str
    """PEM of whom to trust."""
    people_server: str = ""
    """Where people are listened to: for programs of jobs that ask the control plane."""
    people_authority: str = ""
    """PEM of whom they trust; empty: what the system trusts, or no TLS within this host."""

    def channel_credentials(self) -> Any:
        """For a gRPC channel."""
        return grpc.ssl_channel_credentials(
            self.authority.encode(), self.key.encode(), self.certificate.encode()
        )

    def due(self, now_us: int) -> bool:
        """Whether the certificate should be renewed."""
        return pki.read_certificate(self.certificate.encode()).due(now_us)

    def write(self, state_dir: Path) -> None:
        """Keep it, for its owner's eyes alone."""
        replace_private(state_dir / FILE, json.dumps(asdict(self)))

    def check(self, node_uuid: str) -> NodeCredential:
        """Itself. PkiError when it is not what this node asked for."""
        pair = pki.KeyPair(certificate=self.certificate.encode(), key=self.key.encode())
        pki.check_node(pair, node_uuid)
        parse_address(self.server)
        return self


def keep_authority(held: NodeCredential | None, state_dir: Path) -> str:
    """A file with whom programs of jobs trust, which all may read; empty for none."""
    path = state_dir / "ca.crt"
    if held is None or not held.people_authority:
        path.unlink(missing_ok=True)
        return ""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(held.people_authority)
    fresh.chmod(0o644)
    fresh.replace(path)
    return str(path)


def load(state_dir: Path) -> NodeCredential | None:
    """What is kept; None when the host has not joined. ValueError, in words, when it is damaged or
    others can read it."""
    path = state_dir / FILE
    again = "join anew with `nodeagent join`"
    try:
        mode, text = path.stat().st_mode, path.read_bytes()
    except FileNotFoundError:
        return None
    if mode & 0o077:
        raise ValueError(f"{path}: others could read it, so it is worth nothing: {again}")
    try:
        found = NodeCredential(**json.loads(text))
        pki.read_certificate(found.certificate.encode())
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path}: is damaged; restore it, or {again}") from None
    return found


def join(handed: Credential, node_uuid: str, state_dir: Path) -> NodeCredential:
    """Ask for a certificate with what an admin has handed over, and keep it. JoinError when there
    is none.

    The key is kept from before the call until its certificate is, so that the same token can be
    used again when the answer was lost.
    """
    path = state_dir / JOINING
    key = _key_for(path, hash_of(handed.secret))
    request = identity_service_pb2.JoinNodeRequest(
        node_uuid=node_uuid, certificate_request=pki.make_request(key, node_uuid)
    )
    if handed.authority:
        trust = grpc.ssl_channel_credentials(handed.authority)
        channel = grpc.secure_channel(handed.server, trust)
    elif parse_address(handed.server).local:
        channel = grpc.insecure_channel(handed.server)
    else:
        channel = grpc.secure_channel(handed.server, grpc.ssl_channel_credentials())
    with channel:
        try:
            answer = identity_service_pb2_grpc.IdentityServiceStub(channel).JoinNode(
                request,
                metadata=(("authorization", f"Bearer {handed.secret}"),),
                timeout=JOIN_DEADLINE_S,
            )
        except grpc.RpcError as error:
            raise JoinError(_words(error, handed.server)) from None
    try:
        got = NodeCredential(
            server=_whole(answer.agent_server, handed.server),
            certificate=answer.certificate.decode(),
            key=key.decode(),
            authority=answer.authority.decode(),
            people_server=handed.server,
            people_authority=handed.authority.decode(),
        ).check(node_uuid)
    except ValueError as error:
        raise JoinError(f"the control plane's answer cannot be used: {error}") from None
    got.write(state_dir)
    path.unlink()
    return got


def _key_for(path: Path, secret_sha256: str) -> bytes:
    """The key that this token was tried with before, or a new one, which is kept."""
    try:
        tried = json.loads(path.read_text())
        if tried["token"] == secret_sha256:
            return str(tried["key"]).encode()
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    key = pki.new_key()
    replace_private(path, json.dumps({"token": secret_sha256, "key": key.decode()}))
    return key


def _words(error: Any, server: str) -> str:
    if error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
        why = error.details() or error.code().name
        return f"the control plane at {server} does not answer: {why}"
    return str(error.details())


def _whole(agent_server: str, asked: str) -> str:
    """An address that names a host: the one that was asked, where the answer names none."""
    if not agent_server.startswith(":"):
        return agent_server
    address = parse_address(asked)
    host = address.host or "127.0.0.1"
    return f"[{host}]{agent_server}" if ":" in host else f"{host}{agent_server}"


async def renewed(held: NodeCredential, agents: Any, node_uuid: str) -> NodeCredential:
    """The credential with another key and certificate. `agents`: the stub to ask. Raises
    grpc.RpcError, and PkiError for an answer that is not what was asked for."""
    key = pki.new_key()
    answer = await agents.RenewCertificate(
        agent_service_pb2.RenewCertificateRequest(
            certificate_request=pki.make_request(key, node_uuid)
        ),
        timeout=RENEW_DEADLINE_S,
    )
    return replace(
        held,
        certificate=answer.certificate.decode(),
        key=key.decode(),
        authority=answer.authority.decode(),
    ).check(node_uuid)
