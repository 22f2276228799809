"""What can go wrong with a call, as one tree. The text of each is one message for people.

ClientError            anything else that failed               exit code 1
├── InvalidInput       a field of the request is wrong         2
├── NotFound           no such job, node, blob                 3
├── Denied             no valid token, or not allowed          4
├── Unreachable        the server does not answer              5
├── DeadlinePassed     the server was too slow                 6
├── Refused            not now, or not in this state           1
└── VersionMismatch    the server speaks another API version   1
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from controlplane.model.errors import FieldFault

XX = "v1"
"""The version of the API that this client speaks."""


class ClientError(Exception):
    """A call failed."""

    exit_code: ClassVar[int] = 1
    """What a program may exit with."""

    def __init__(
        self,
        message: str,
        *,
        faults: Iterable[FieldFault] = (),
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Keep what is known of the failure.

        `faults`: fields of the request that are wrong. `reason` and `metadata`: the server's
        ErrorInfo. `retry_after_s`: when the server says that trying again makes sense.
        """
        super().__init__(message)
        self.message = message
        self.faults = tuple(faults)
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s


class InvalidInput(ClientError):
    """Some fields of the request are wrong; `faults` names each with what is allowed there."""

    exit_code = 2

    @classmethod
    def of(cls, *faults: FieldFault) -> InvalidInput:
        """Make it from faults, one per line in its text."""
        text = "\n".join(": ".join(filter(None, (f.field, f.description))) for f in faults)
        return cls(text, faults=faults)


class NotFound(ClientError):
    """There is nothing of that name."""

    exit_code = 3


class Denied(ClientError):
    """The token is missing or not valid, or its principal may not do that."""

    exit_code = 4


class Unreachable(ClientError):
    """The server does not answer. A change that was asked for may have been made or not; a repeat
    with the same request_id is safe.
    """

    exit_code = 5


class DeadlinePassed(ClientError):
    """The server answers, but did not do so in time. A repeat with the same request_id is safe."""

    exit_code = 6


class Refused(ClientError):
    """The server understood, and can't do it now or in this state."""


class VersionMismatch(ClientError):
    """The server speaks another version of the API."""
