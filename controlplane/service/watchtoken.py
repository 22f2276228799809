"""Tokens of watches: where one has come to, in a text that only this cluster reads."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from controlplane.model.errors import FieldFault, InvalidRequest

_VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchToken:
    """Where a watch has come to."""

    cluster: str
    """UUID of the cluster."""
    seq: int
    """All events up to this number were told."""
    before: int = 0
    """Amid the list of jobs: those with numbers under this are still to be listed; 0: none is."""

    def write(self) -> str:
        """As text."""
        words = f"{_VERSION} {self.cluster} {self.seq} {self.before}"
        return base64.urlsafe_b64encode(words.encode()).decode().rstrip("=")


def read(text: str, cluster: str) -> WatchToken:
    """The token that a caller sends. InvalidRequest for what is none, or another cluster's."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        found = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
        version, of, seq, before = found.split(" ")
        token = WatchToken(cluster=of, seq=_number(seq), before=_number(before))
        if version != _VERSION:
            raise ValueError(version)
    except (binascii.Error, ValueError):
        raise _fault(f"{text[:80]!r} is no token of a watch; leave it out to begin anew") from None
    if token.cluster != cluster:
        raise _fault(
            f"it is of the cluster {token.cluster[:40]!r}, and this is {cluster}: leave it out to"
            " begin anew here, or ask the control plane that gave it"
        )
    return token


def _number(text: str) -> int:
    if not (text.isdigit() and len(text) < 19):
        raise ValueError(text)
    return int(text)


def _fault(words: str) -> InvalidRequest:
    return InvalidRequest(FieldFault(field="token", description=words))
