"""Who calls: a principal on every call, told from its certificate or its token. What it may do is
`permissions`' to say."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from controlplane.kit.credential import hash_of, new_secret
from controlplane.kit.pki import read_certificate
from controlplane.kit.private import one_at_a_time, replace_private
from controlplane.model.errors import NotAllowed, WrongState
from controlplane.model.identity import Role, principal_of_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from controlplane.kit.clock import Clock
    from controlplane.registry.registry import Registry


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who speaks, authenticated; never a field of a request."""

    name: str
    """A user's, an operator's or an agent's name."""
    role: Role
    """What it is."""
    credential: str = ""
    """Of a host that joins: SHA-256 of its join token."""
    generation: int = 0
    """Of an agent: that of its certificate; 0: it has none."""
    job_id: int | None = None
    """The job whose script it is, which may start steps in it and nothing else; None for others."""


REMEMBERED_CERTIFICATES = 20_000
"""Certificates that were read before: one for each node, and a few to spare."""

TOGETHER_US = 5_000
"""Calls within this share one look at the tokens' file: each would give the interpreter's lock
away."""

CALLER: ContextVar[Principal] = ContextVar("caller")
"""Who makes the call that is being handled, as the guard found; set for every call that it let
through but the public ones."""


class Unauthenticated(NotAllowed):
    """The call carries no valid token."""


class TokenFile:
    """Tokens of principals, hashed, in a file that only its owner can read."""

    def __init__(self, path: Path) -> None:
        """`path`: need not exist yet."""
        self._path = path
        self._principals: dict[str, Principal] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._looked_us: int | None = None

    def principal(self, token: str, at_us: int | None = None) -> Principal | None:
        """Whose token it is. A changed file counts from the next call on; one that cannot be used
        does not, and is told in the log.

        `at_us`: the time of a call on boot time: those that come together, with tokens that are
        known, share a look at the file.
        """
        digest = hash_of(token)
        known = self._principals.get(digest)
        if known is not None and at_us is not None:
            if self._looked_us is not None and 0 <= at_us - self._looked_us < TOGETHER_US:
                return known
            self._looked_us = at_us
        self._look()
        return self._principals.get(digest)

    def _look(self) -> None:
        try:
            stamp = self._path.stat()
        except FileNotFoundError:
            self._principals, self._stamp = {}, None
            return
        now = (stamp.st_mtime_ns, stamp.st_size, stamp.st_ino)
        if now != self._stamp:
            self._stamp = now
            try:
                self._principals = self.read()
            except (OSError, ValueError, KeyError, TypeError, WrongState) as error:
                log.error("tokens_file: %s counts as it was before: %s", self._path, error)

    def knows(self, name: str) -> bool:
        """Whether a principal of this name has a token."""
        self.principal("")
        return any(each.name == name for each in self._principals.values())

    def read(self) -> dict[str, Principal]:
        """All that is in it, by hash. WrongState when others can read it; OSError, ValueError,
        KeyError or TypeError when it is damaged."""
        return {
            entry["sha256"]: Principal(name=entry["principal"], role=Role(entry["role"]))
            for entry in self.entries()
        }

    def add(self, name: str, role: Role, made_by: str = "") -> str:
        """Make a token for a principal; it is told this once, and kept only as a hash. `made_by`:
        the account of this host that asks for it."""
        token = new_secret("cc")
        with one_at_a_time(self._path):
            entry = {"principal": name, "role": role.value, "sha256": hash_of(token)}
            entry |= {"made_by": made_by} if made_by else {}
            text = json.dumps({"tokens": [*self.entries(), entry]}, indent=2) + "\n"
            replace_private(self._path, text)
        return token

    def entries(self) -> list[dict[str, str]]:
        """All that is in it, as it is written there; raises as `read` does."""
        try:
            mode, text = self._path.stat().st_mode, self._path.read_text()
        except FileNotFoundError:
            return []
        if mode & 0o077:
            raise WrongState(f"{self._path}: others can read it; run: chmod 600 {self._path}")
        entries: list[dict[str, str]] = json.loads(text)["tokens"]
        return entries


class Doorkeeper:
    """Tells who calls, from what the registry and the tokens' file know."""

    def __init__(self, tokens: TokenFile, registry: Registry, clock: Clock) -> None:
        """`tokens`: those that were made on the control plane's host."""
        self._tokens, self._registry, self._clock = tokens, registry, clock
        self._read_certificate = lru_cache(REMEMBERED_CERTIFICATES)(read_certificate)

    def knows(self, name: str) -> bool:
        """Whether a token that was made on the control plane's host is this principal's."""
        return self._tokens.knows(name)

    def principal(self, context: Any) -> Principal:
        """Who makes this call. Unauthenticated when it shows nothing that is valid."""
        connection = context.auth_context()
        if certificates := connection.get("x509_pem_cert"):
            return self._of_certificate(certificates[0])
        for secret in _bearers(context.invocation_metadata() or ()):
            return self._of_token(secret, encrypted=b"ssl" in _security(connection))
        raise Unauthenticated("the call carries no token; name its file with --token-file")

    def _of_certificate(self, pem: bytes) -> Principal:
        """gRPC has let the connection in, so our authority has signed it. Since then it may have
        ended, and its node may have been revoked."""
        found = self._read_certificate(pem)
        if not found.node_uuid:
            raise Unauthenticated("the certificate is no node's; `nodeagent join` gets one")
        name = principal_of_node(found.node_uuid)
        again = f"an admin lets the host in again with `ccctl node token create --node {name[6:]}`"
        if found.until_us <= self._clock.now_us():
            raise Unauthenticated(f"the certificate of {name} has ended; {again}")
        admission = self._registry.admission(found.node_uuid)
        if admission is None or found.generation < admission.generation:
            raise Unauthenticated(f"the certificate of {name} was revoked; {again}")
        return Principal(name=name, role=Role.AGENT, generation=found.generation)

    def _of_token(self, secret: str, *, encrypted: bool) -> Principal:
        digest = hash_of(secret)
        found = self._tokens.principal(secret, self._clock.boot_us())
        if found is not None and found.role is Role.AGENT and encrypted:
            raise Unauthenticated(
                "an agent's token counts on a plaintext connection within one host alone; run"
                " `nodeagent join` with a token of `ccctl node token create`"
            )
        if found is not None:
            return found
        if (token := self._registry.token(digest)) is not None:
            user = self._registry.user(token.user)
            why = token.why_void(self._clock.now_us())
            if user is None or why:
                raise Unauthenticated(f"the token {why}; ask your operator for another one")
            if user.barred_us is not None:
                raise Unauthenticated(f"the user {user.name} is barred; ask your operator")
            return Principal(name=user.name, role=user.role)
        if (script := self._registry.step_bearer(secret)) is not None:
            job_id, owner = script
            return Principal(name=owner, role=Role.USER, job_id=job_id)
        if (joining := self._registry.join_token(digest)) is not None:
            if why := joining.why_void(self._clock.now_us()):
                raise Unauthenticated(f"the join token {why}; ask an admin for another one")
            name = f"joinTokens/{joining.token_id}"
            return Principal(name=name, role=Role.JOINER, credential=digest)
        raise Unauthenticated("the token is not valid here; ask your operator for one")


def _security(connection: Any) -> Sequence[bytes]:
    found: Sequence[bytes] = connection.get("transport_security_type", ())
    return found


def _bearers(metadata: Iterable[Any]) -> Iterable[str]:
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer":
                yield token.strip()
