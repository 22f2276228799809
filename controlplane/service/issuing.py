"""Issues certificates to nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.kit.pki import Authority, PkiError, key_fingerprint
from controlplane.model.errors import FieldFault, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_REQUEST = 16 << 10
"""Bytes of a certificate request."""


class Issuer:
    """The authority, with how long its certificates for nodes last and where nodes call."""

    def __init__(
        self, authority: Authority, days: int, agent_server: str, now_us: Callable[[], int]
    ) -> None:
        """`agent_server`: as in JoinNodeResponse."""
        self._authority, self._days, self._now_us = authority, days, now_us
        self.agent_server = agent_server

    @property
    def certificate(self) -> bytes:
        """The authority's own, PEM."""
        return self._authority.certificate

    def issue(self, request: bytes, node_uuid: str, generation: int) -> bytes:
        """A certificate of this generation for a node, PEM. InvalidRequest when the request is
        none."""
        _check(request)
        try:
            return self._authority.node(request, node_uuid, generation, self._now_us(), self._days)
        except PkiError as error:
            raise _fault(str(error)) from None


def fingerprint(request: bytes) -> str:
    """SHA-256 of the public key of a request. InvalidRequest when that is none."""
    _check(request)
    try:
        return key_fingerprint(request)
    except PkiError as error:
        raise _fault(str(error)) from None


def _check(request: bytes) -> None:
    if len(request) > LONGEST_REQUEST:
        raise _fault(f"has {len(request)} bytes; at most {LONGEST_REQUEST} are allowed")


def _fault(words: str) -> InvalidRequest:
    return InvalidRequest(FieldFault(field="certificate_request", description=words))
