"""From a failed gRPC call to the error that stands for it, with all that the server told."""

from __future__ import annotations

from typing import Any, Final, TypedDict

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from controlplane import __version__
from controlplane.client.errors import (
    ClientError,
    DeadlinePassed,
    Denied,
    InvalidInput,
    NotFound,
    Refused,
    Unreachable,
    VersionMismatch,
)
from controlplane.model.errors import FieldFault

API_VERSION: Final = "v1"
"""The version of the API that this client speaks."""

_TREE: Final[dict[grpc.StatusCode, type[ClientError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: Denied,
    grpc.StatusCode.PERMISSION_DENIED: Denied,
    grpc.StatusCode.ALREADY_EXISTS: Refused,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
    grpc.StatusCode.OUT_OF_RANGE: Refused,
    grpc.StatusCode.ABORTED: Refused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Refused,
}

_PLAIN_WORDS: Final = (
    ("Connection refused", "connection refused"),
    ("Socket closed", "the connection broke"),
    ("Connection reset", "the connection broke"),
    ("GOAWAY", "it is stopping"),
    ("No such file or directory", "there is no such socket"),
    ("errors resolving", "its name can't be resolved"),
    ("Expected SETTINGS", "what listens there is no gRPC server, or one that wants TLS"),
    ("WRONG_VERSION_NUMBER", "what listens there does not speak TLS"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "no CA that you trust signed its certificate; name its CA's file",
    ),
    ("Hostname Verification", "its certificate is for another host name"),
)
"""What gRPC says of a connection → what it means."""


class _Details(TypedDict):
    """What the server attached to an error."""

    faults: tuple[FieldFault, ...]
    reason: str
    metadata: dict[str, str]
    retry_after_s: float | None


def from_rpc(error: grpc.RpcError, server: str) -> ClientError:
    """Give the error that stands for a failed call to `server`."""
    if not isinstance(error, grpc.Call):
        return ClientError(f"The call to {server} failed: {error}")
    code, message = error.code(), error.details() or ""
    metadata = _metadata(error)
    details = _details(metadata)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return _mismatch(server, metadata, "does not know what was asked for")
    theirs = metadata.get("cc-api-version", API_VERSION)
    if theirs != API_VERSION:
        return _mismatch(server, metadata, f"speaks API {theirs}")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return Unreachable(f"The server at {server} does not answer: {_plain(message)}.", **details)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlinePassed(f"The server at {server} did not answer in time.", **details)
    if code is grpc.StatusCode.INVALID_ARGUMENT and details["faults"]:
        return InvalidInput(InvalidInput.of(*details["faults"]).message, **details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
        return InvalidInput(
            f"The request is too large: a message to the server may have 64 MiB ({message});"
            " submit fewer or smaller jobs at once.",
            **details,
        )
    words = message or f"The call failed with {code.name if code else 'no code'}."
    return _TREE.get(code, ClientError)(words, **details)


def check_version(call: grpc.Call, server: str, *, ended: bool = True) -> None:
    """Raise `VersionMismatch` when an answer says that the server speaks another API version.

    `ended`: whether the call is over; before, only what was told at its beginning counts.
    """
    metadata: dict[str, Any] = _metadata(call) if ended else dict(call.initial_metadata() or ())
    theirs = metadata.get("cc-api-version", API_VERSION)
    if theirs != API_VERSION:
        raise _mismatch(server, metadata, f"speaks API {theirs}")


def _mismatch(server: str, metadata: dict[str, Any], words: str) -> VersionMismatch:
    theirs: str = metadata.get("cc-server-version", "unknown")
    return VersionMismatch(
        f"The server at {server} (version {theirs}) {words}. This client (version {__version__}) "
        f"speaks API {API_VERSION}: use one of the server's version."
    )


def _metadata(call: grpc.Call) -> dict[str, Any]:
    # A call that fails at once has its only metadata at its end. Waits for that end.
    return dict(call.initial_metadata() or ()) | dict(call.trailing_metadata() or ())


def _details(metadata: dict[str, Any]) -> _Details:
    found = _Details(faults=(), reason="", metadata={}, retry_after_s=None)
    packed = metadata.get("grpc-status-details-bin", b"")
    for detail in status_pb2.Status.FromString(packed).details:
        request, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(request):
            found["faults"] += tuple(
                FieldFault(field=one.field, description=one.description)
                for one in request.field_violations
            )
        elif detail.Unpack(info):
            found["reason"], found["metadata"] = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            found["retry_after_s"] = retry.retry_delay.ToTimedelta().total_seconds()
    return found


def _plain(message: str) -> str:
    for needle, words in _PLAIN_WORDS:
        if needle in message:
            return words
    return message.rpartition("last error: ")[2].rstrip(".") or "the connection broke"
