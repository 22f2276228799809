"""From an error of ours to a gRPC status with details that programs can read (google.rpc,
AIP-193)."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from controlplane import __version__
from controlplane.model import errors as e
from controlplane.model.spec import InvalidSpec
from controlplane.service.auth import CALLER, Unauthenticated
from controlplane.service.permissions import RPC

if TYPE_CHECKING:
    from google.protobuf.message import Message

log = logging.getLogger(__name__)
DOMAIN = "controlplane"
LONGEST_MESSAGE, LONGEST_FAULTS = 2000, 2500
"""Bytes of an error on the wire. All of it travels as metadata, of which clients take 8 KiB: a
longer one would reach them as another error."""
VERSION_METADATA = (("cc-server-version", __version__), ("cc-api-version", "v1"))

CODES: dict[type[Exception], grpc.StatusCode] = {
    InvalidSpec: grpc.StatusCode.INVALID_ARGUMENT,
    e.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    e.NotFound: grpc.StatusCode.NOT_FOUND,
    e.RequestIdReused: grpc.StatusCode.ALREADY_EXISTS,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    e.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    e.NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    e.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    e.TokenOutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    e.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    e.StaleControlPlane: grpc.StatusCode.ABORTED,
    e.InvalidTransition: grpc.StatusCode.INTERNAL,
    e.ControlPlaneError: grpc.StatusCode.INTERNAL,
}
"""Error → status; the nearest class in an error's ancestry counts."""


def status_of(error: Exception) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The status that tells of an error. What is none of ours is INTERNAL, and its words stay in
    the log."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = e.Overloaded("the control plane's disk is full; ask your operator to make room")
        log.error("%s", error)
    kind = next((k for k in type(error).__mro__ if k in CODES), None)
    if kind is None:
        log.error("a call failed", exc_info=error)
        code, message, reason = (
            grpc.StatusCode.INTERNAL,
            "internal error; see the server's log",
            "BUG",
        )
    else:
        code, message, reason = CODES[kind], str(error), type(error).__name__
    message = _clipped(message, LONGEST_MESSAGE)
    status = status_pb2.Status(code=code.value[0], message=message)
    _attach(status, error_details_pb2.ErrorInfo(reason=_upper_snake(reason), domain=DOMAIN))
    faults = _fitting(faults_of(error))
    if faults:
        _attach(
            status,
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=field, description=words)
                    for field, words in faults
                ]
            ),
        )
    passes = not isinstance(error, e.QuotaExceeded)  # that may take days
    if passes and code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        _attach(status, error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1)))
    return code, status


def faults_of(error: Exception) -> list[tuple[str, str]]:
    """Fields that an error names, each with what is wrong."""
    if isinstance(error, InvalidSpec):
        return [
            (f.path, f"{f.value_repr}: {f.message}" if f.value_repr else f.message)
            for f in error.faults
        ]
    if isinstance(error, e.InvalidRequest):
        return [(fault.field, fault.description) for fault in error.faults]
    return []


def _clipped(text: str, bytes_on_the_wire: int) -> str:
    """As much of a text as fits; gRPC writes what is not ASCII with three bytes for each."""
    room = bytes_on_the_wire
    for at, char in enumerate(text):
        room -= 1 if " " <= char <= "~" else 3 * len(char.encode("utf-8", "replace"))
        if room < 0:
            return f"{text[:at]}..."
    return text


def _fitting(faults: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """As many faults as fit, and how many were left out."""
    room = LONGEST_FAULTS
    kept: list[tuple[str, str]] = []
    for field, words in faults:
        told = (_clipped(field, 300), _clipped(words, 1000))
        room -= sum(len(text.encode("utf-8", "replace")) for text in told)
        if room < 0:
            return [*kept, ("", f"and {len(faults) - len(kept)} more faults")]
        kept.append(told)
    return kept


def _attach(status: status_pb2.Status, detail: Message) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)


def _upper_snake(name: str) -> str:
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()


async def refuse(context: Any, error: Exception) -> NoReturn:
    """End a call with the status that tells of an error."""
    code, status = status_of(error)
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, status.message, trailing_metadata=VERSION_METADATA + details)
    raise AssertionError("abort raises")


async def _deny(service: Any, context: Any, error: e.NotAllowed) -> NoReturn:
    """Refuse what the caller may not do, and have it written down."""
    service._house.denied(error, RPC.get(), CALLER.get(), context.peer())
    await refuse(context, error)


Handler = TypeVar("Handler", bound=Callable[..., Any])


def answers(handler: Callable[..., Awaitable[Any]]) -> Any:
    """A handler of one answer, with its errors told as statuses."""

    @functools.wraps(handler)
    async def guarded(self: Any, request: Any, context: Any) -> Any:
        context.set_trailing_metadata(VERSION_METADATA)
        try:
            return await handler(self, request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except e.NotAllowed as error:
            await _deny(self, context, error)
        except Exception as error:
            await refuse(context, error)

    return guarded


def streams(handler: Callable[..., AsyncIterator[Any]]) -> Any:
    """A handler of a stream of answers, with its errors told as statuses."""

    @functools.wraps(handler)
    async def guarded(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        context.set_trailing_metadata(VERSION_METADATA)
        try:
            async for message in handler(self, request, context):
                yield message
        except (asyncio.CancelledError, GeneratorExit, grpc.aio.AbortError):
            raise
        except e.NotAllowed as error:
            await _deny(self, context, error)
        except Exception as error:
            await refuse(context, error)

    return guarded
