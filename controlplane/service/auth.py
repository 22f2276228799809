"""Who calls: a principal on every call, told from its token. What it may do is `permissions`' to
say."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from controlplane.model.errors import NotAllowed, WrongState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path


class Role(StrEnum):
    """What a principal is."""

    VIEWER = "viewer"
    """Sees jobs, nodes and events; changes nothing, and reads nobody's output."""
    USER = "user"
    """Submits jobs; sees, follows and ends its own; sees nodes."""
    OPERATOR = "operator"
    """As a user; sees and ends everybody's jobs, without their output; runs the fleet."""
    ADMIN = "admin"
    """May do all that people may."""
    AGENT = "agent"
    """Speaks for the nodes that it enrolled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who speaks, authenticated; never a field of a request."""

    name: str
    """A user's, an operator's or an agent's name."""
    role: Role
    """What it is."""
    job_id: int | None = None
    """The job whose script it is, which may start steps in it and nothing else; None for others."""


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
        self._stamp: tuple[int, int] | None = None

    def principal(self, token: str) -> Principal | None:
        """Whose token it is. A changed file counts from the next call on."""
        self._refresh()
        return self._principals.get(_digest(token))

    def add(self, name: str, role: Role) -> str:
        """Make a token for a principal; it is told this once, and kept only as a hash."""
        token = f"cc_{secrets.token_urlsafe(32)}"
        entries = [*self._read(), {"principal": name, "role": role.value, "sha256": _digest(token)}]
        text = json.dumps({"tokens": entries}, indent=2) + "\n"
        fresh = self._path.with_name(f"{self._path.name}.new")
        write_private(fresh, text)
        fresh.replace(self._path)
        return token

    def _read(self) -> list[dict[str, str]]:
        try:
            mode = self._path.stat().st_mode
            document = json.loads(self._path.read_text())
        except FileNotFoundError:
            return []
        if mode & 0o077:
            raise WrongState(f"{self._path}: others can read it; run: chmod 600 {self._path}")
        entries: list[dict[str, str]] = document["tokens"]
        return entries

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._principals = {
                entry["sha256"]: Principal(name=entry["principal"], role=Role(entry["role"]))
                for entry in self._read()
            }
            self._stamp = stamp


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def authenticate(
    tokens: TokenFile,
    metadata: Sequence[Any] | None,
    step_bearer: Callable[[str], tuple[int, str] | None] = lambda _: None,
) -> Principal:
    """Who sends this metadata. Unauthenticated when it carries no valid token. `step_bearer`: the
    job whose script a token is for, and its owner."""
    for token in _bearers(metadata or ()):
        principal = tokens.principal(token)
        if principal is None and (script := step_bearer(token)) is not None:
            job_id, owner = script
            principal = Principal(name=owner, role=Role.USER, job_id=job_id)
        if principal is not None:
            return principal
        raise Unauthenticated("the token is not valid here; ask your operator for one")
    raise Unauthenticated("the call carries no token; name its file with --token-file")


def _bearers(metadata: Iterable[Any]) -> Iterable[str]:
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer":
                yield token.strip()
