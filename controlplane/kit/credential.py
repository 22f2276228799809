"""What people and hosts are handed to find a control plane, to trust it, and to be let in: an
address, an authority and a secret, in one line.

``cclogin_…`` is for people and their `ccctl login`, ``ccjoin_…`` for hosts and `nodeagent join`.
Behind the prefix is base64url of a JSON document. It holds a secret: it belongs into a file of
mode 0600, and not on a command line.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Literal

from controlplane.kit.pki import PkiError, pack, unpack

Kind = Literal["login", "join"]
SECRET_BYTES = 32
LONGEST = 64 << 10
"""Characters of a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What the line says."""

    kind: Kind
    """For whom it is."""
    server: str
    """Address of the control plane: host:port."""
    authority: bytes
    """PEM of the certificate to trust; empty: what the system trusts, or no TLS within a host."""
    secret: str
    """What is shown to be let in."""

    def write(self) -> str:
        """The line."""
        document = {"server": self.server, "secret": self.secret}
        if self.authority:
            document["ca"] = pack(self.authority)
        text = json.dumps(document, separators=(",", ":")).encode()
        return f"cc{self.kind}_{base64.urlsafe_b64encode(text).decode().rstrip('=')}"


def read_credential(line: str, kind: Kind) -> Credential:
    """What a line says. ValueError, which never repeats it, when it is none of this kind."""
    text = line.strip()
    prefix = f"cc{kind}_"
    for other, command in (("login", "ccctl login"), ("join", "nodeagent join")):
        if other != kind and text.startswith(f"cc{other}_"):
            raise ValueError(f"is for `{command}`")
    if not text.startswith(prefix) or len(text) > LONGEST:
        raise ValueError(f"holds no line that begins with {prefix}")
    coded = text.removeprefix(prefix)
    try:
        document = json.loads(base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)))
        server, secret, ca = document["server"], document["secret"], document.get("ca", "")
        if not (isinstance(server, str) and isinstance(secret, str) and isinstance(ca, str)):
            raise TypeError
        if not (secret.isascii() and secret.isprintable() and server.isprintable()):
            raise ValueError
        authority = unpack(ca) if ca else b""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, PkiError):
        raise ValueError("is damaged; was all of it copied?") from None
    return Credential(kind=kind, server=server, authority=authority, secret=secret)


def new_secret(prefix: str) -> str:
    """256 random bits behind a prefix that tells what they are."""
    return f"{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"


def hash_of(secret: str) -> str:
    """By which a server knows a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
