"""Stands before every handler: who calls, whether they may, and whether what they sent can be
read."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import grpc

from controlplane.model.errors import FieldFault, InvalidRequest, NotAllowed, WrongState
from controlplane.service.auth import CALLER, Principal, Unauthenticated, authenticate
from controlplane.service.errors import refuse
from controlplane.service.permissions import PUBLIC, RPC, authorise

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from controlplane.service.context import House

_MAKERS: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""(requests stream, answers stream) → what makes such a handler."""


class Guard(grpc.aio.ServerInterceptor):
    """Lets a call through only if its principal may make it: deny by default."""

    def __init__(self, house: House) -> None:
        """`house`: knows whose token is whose, and writes denials down."""
        self._house = house
        self._careful: dict[str, Any] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """Look at one call before its handler does."""
        method = details.method
        handler = await continuation(details)
        if handler is None:
            return None
        careful = self._careful.get(method)
        if careful is None:
            careful = self._careful[method] = _careful(handler)
        if method in PUBLIC:
            return careful
        caller: Principal | None = None
        try:
            caller = authenticate(
                self._house.tokens,
                details.invocation_metadata,
                self._house.registry.step_bearer,
            )
            authorise(caller, method)
        except (NotAllowed, WrongState) as error:
            return self._refusing(handler, error, method, caller)
        CALLER.set(caller)  # the handler runs in this very task
        RPC.set(method)
        return careful

    def _refusing(
        self, handler: Any, error: Exception, method: str, caller: Principal | None
    ) -> Any:
        """A handler that refuses whatever is sent, without reading it."""

        async def refused(context: Any) -> None:
            if isinstance(error, NotAllowed):
                who = None if isinstance(error, Unauthenticated) else caller
                self._house.denied(error, method, who, context.peer())
            await refuse(context, error)

        async def deny(_request: Any, context: Any) -> Any:
            await refused(context)

        async def deny_stream(_request: Any, context: Any) -> Any:
            await refused(context)
            yield  # makes it a stream; never reached

        behaviour = deny_stream if handler.response_streaming else deny
        return _MAKERS[handler.request_streaming, handler.response_streaming](
            behaviour,
            request_deserializer=bytes,
            response_serializer=handler.response_serializer,
        )


class _Unreadable:
    """Stands for bytes that are no message of the type that was expected."""


def _careful(handler: Any) -> Any:
    """A handler that refuses what cannot be read as INVALID_ARGUMENT. gRPC itself would answer with
    an internal error, and write a traceback into the log."""
    read = handler.request_deserializer

    def reading(data: bytes) -> Any:
        try:
            return read(data) if read is not None else data
        except Exception:  # whatever the parser raises, the bytes are at fault
            return _Unreadable()

    kind = (handler.request_streaming, handler.response_streaming)
    inner = {
        (False, False): handler.unary_unary,
        (False, True): handler.unary_stream,
        (True, False): handler.stream_unary,
        (True, True): handler.stream_stream,
    }[kind]
    wrap = _answering_many if inspect.isasyncgenfunction(inner) else _answering_one
    return _MAKERS[kind](
        wrap(inner),
        request_deserializer=reading,
        response_serializer=handler.response_serializer,
    )


def _answering_one(inner: Any) -> Any:
    async def behaviour(request: Any, context: Any) -> Any:
        try:
            return await inner(_checked(request), context)
        except InvalidRequest as error:
            await refuse(context, error)

    return behaviour


def _answering_many(inner: Any) -> Any:
    async def behaviour(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for message in inner(_checked(request), context):
                yield message
        except InvalidRequest as error:
            await refuse(context, error)

    return behaviour


def _checked(request: Any) -> Any:
    """One request, or a stream of them. InvalidRequest for one that cannot be read."""
    if hasattr(request, "__aiter__"):
        return _each_checked(request)
    if isinstance(request, _Unreadable):
        words = "the bytes are no message of this rpc's type; are client and server of one version?"
        raise InvalidRequest(FieldFault(field="request", description=words))
    return request


async def _each_checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)
