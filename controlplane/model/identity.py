"""Who may speak: roles, users, and tokens, of which only the hash is known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

USER_NAME = re.compile(r"[A-Za-z0-9._@-]{1,100}")
"""What a principal may be called."""
SHA256_HEX = re.compile(r"[0-9a-f]{64}")
"""A hash as tokens are told by."""
ID_CHARACTERS = 12
"""A token's name is so many characters of its hash: enough to tell it, too few to be of use."""


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
    """Speaks for its node, or for the nodes that it enrolled."""
    JOINER = "joiner"
    """A host that holds a join token: may become a node, and do nothing else."""


PEOPLE = (Role.VIEWER, Role.USER, Role.OPERATOR, Role.ADMIN)
"""Roles of users."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who may speak."""

    name: str
    """As `USER_NAME`; also the account on the nodes."""
    role: Role
    """One of `PEOPLE`."""
    created_us: int
    """When it was made, UTC in microseconds."""
    created_by: str
    """Principal who made it."""
    barred_us: int | None = None
    """Since when it is barred; None: it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a user shows to be let in."""

    sha256: str
    """Of its secret, in hex."""
    user: str
    """Whose it is."""
    label: str
    """What it is for."""
    created_us: int
    """When it was made, UTC in microseconds."""
    created_by: str
    """Principal who made it."""
    expires_us: int | None
    """When it ends; None: never."""
    revoked_us: int | None = None
    """Since when it is void; None: it is not."""

    @property
    def token_id(self) -> str:
        """Tells it, and opens nothing."""
        return self.sha256[:ID_CHARACTERS]

    def why_void(self, now_us: int) -> str:
        """Why it lets nobody in, in words; empty when it does."""
        return _why_void(self.revoked_us, self.expires_us, now_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """What a host shows to become a node."""

    sha256: str
    """Of its secret, in hex."""
    node_uuid: str
    """The node that joins again by it; empty: a new one."""
    created_us: int
    """When it was made, UTC in microseconds."""
    created_by: str
    """Principal who made it."""
    expires_us: int
    """When it ends."""
    used_by: str = ""
    """UUID of the node that joined by it; empty: none yet."""
    key_sha256: str = ""
    """Of the public key that joined by it."""
    generation: int = 0
    """Of the certificates that it gave; 0: none yet."""
    revoked_us: int | None = None
    """Since when it is void; None: it is not."""

    @property
    def token_id(self) -> str:
        """Tells it, and opens nothing."""
        return self.sha256[:ID_CHARACTERS]

    def why_void(self, now_us: int) -> str:
        """Why it lets no host in, in words; empty when it does."""
        return _why_void(self.revoked_us, self.expires_us, now_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """That a host may speak for a node, from its join on, also before it was first heard."""

    node_uuid: str
    """The node."""
    generation: int
    """Of its certificates: those of lower ones are void."""
    admitted_us: int
    """When it joined last, UTC in microseconds."""
    admitted_by: str
    """Name of the join token."""


def _why_void(revoked_us: int | None, expires_us: int | None, now_us: int) -> str:
    if revoked_us is not None:
        return "was revoked"
    if expires_us is not None and expires_us <= now_us:
        return "has expired"
    return ""


def principal_of_node(node_uuid: str) -> str:
    """The principal of an agent that has a certificate: its node's name. No user can have it."""
    return f"nodes/{node_uuid}"


def is_node(principal: str) -> bool:
    """Whether a principal is an agent that has a certificate."""
    return principal.startswith("nodes/")
