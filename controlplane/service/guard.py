"""Stands before every handler: who calls, whether they may, and whether what they sent can be
read."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import grpc

from controlplane.model.errors import FieldFault, InvalidRequest, NotAllowed, WrongState
from controlplane.service.auth import CALLER, Principal, Unauthenticated
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
        """`house`: knows who is who, and writes denials down."""
        self._house = house
        self._guarded: dict[str, Any] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """Put the guard before a handler; it looks at each call before the handler does."""
        method = details.method
        guarded = self._guarded.get(method)
        if guarded is None:
            handler = await continuation(details)
            if handler is None:
                return None
            guarded = self._guarded[method] = self._before(handler, method)
        return guarded

    def _before(self, handler: Any, method: str) -> Any:
        """A handler that refuses whom it must without reading what they sent, and what cannot be
        read as INVALID_ARGUMENT. gRPC itself would answer that with an internal error, and write a
        traceback into the log."""
        read = handler.request_deserializer or bytes
        kind = (handler.request_streaming, handler.response_streaming)
        inner = {
            (False, False): handler.unary_unary,
            (False, True): handler.unary_stream,
            (True, False): handler.stream_unary,
            (True, True): handler.stream_stream,
        }[kind]

        async def one(sent: Any, context: Any) -> Any:
            try:
                self._admit(method, context)
                return await inner(_read(read, sent), context)
            except (InvalidRequest, NotAllowed, WrongState) as error:
                await refuse(context, error)

        async def many(sent: Any, context: Any) -> AsyncIterator[Any]:
            try:
                self._admit(method, context)
                async for message in inner(_read(read, sent), context):
                    yield message
            except (InvalidRequest, NotAllowed, WrongState) as error:
                await refuse(context, error)

        return _MAKERS[kind](
            many if inspect.isasyncgenfunction(inner) else one,
            response_serializer=handler.response_serializer,
        )

    def _admit(self, method: str, context: Any) -> None:
        """NotAllowed, written down, unless the caller may make this call on something."""
        if method in PUBLIC:
            return
        caller: Principal | None = None
        try:
            caller = self._house.door.principal(context)
            authorise(caller, method)
        except NotAllowed as error:
            who = None if isinstance(error, Unauthenticated) else caller
            self._house.denied(error, method, who, context.peer())
            raise
        CALLER.set(caller)  # the handler runs in this very task
        RPC.set(method)


def _read(read: Callable[[bytes], Any], sent: Any) -> Any:
    """One request, or a stream of them. InvalidRequest for one that cannot be read."""
    if hasattr(sent, "__aiter__"):
        return _read_each(read, sent)
    try:
        return read(sent)
    except Exception:  # whatever the parser raises, the bytes are at fault
        words = "the bytes are no message of this rpc's type; are client and server of one version?"
        raise InvalidRequest(FieldFault(field="request", description=words)) from None


async def _read_each(
    read: Callable[[bytes], Any], sent: AsyncIterator[bytes]
) -> AsyncIterator[Any]:
    async for data in sent:
        yield _read(read, data)
