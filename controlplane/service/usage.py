"""UsageService: who used how much of what."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from controlplane.model.errors import FieldFault, InvalidRequest
from controlplane.model.keep import moment
from controlplane.model.usage import Key, UsageFilter, UsageGroup
from controlplane.registry.usage import UsagePage, usage_page
from controlplane.service.asked import job_number, page_size
from controlplane.service.auth import CALLER
from controlplane.service.errors import answers
from controlplane.service.permissions import RPC, Reach, may, reach, refusal
from controlplane.v1 import usage_service_pb2 as pb
from controlplane.v1.usage_service_pb2_grpc import UsageServiceServicer
from controlplane.wire.basics import from_timestamp, timestamp
from controlplane.wire.usage import USAGE_GROUPS, row_message

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from controlplane.service.context import House


class UsageService(UsageServiceServicer):
    """Sums usage."""

    def __init__(self, house: House) -> None:
        """`house`: the rooms to speak to."""
        self._house = house

    @answers
    async def GetUsage(self, request: pb.GetUsageRequest, context: Any) -> pb.GetUsageResponse:
        """Sum usage within a window."""
        registry, now_us = self._house.registry, self._house.clock.now_us()
        kept_us = registry.usage_removed_us
        by, which = usage_group(request.group_by), _narrowed(usage_filter(request, now_us, kept_us))
        after, limit = _after(request.page_token, by), page_size(request.page_size)

        def read() -> UsagePage:
            alive = registry.living()
            return usage_page(
                registry.store, alive, which, by, now_us=now_us, after=after, limit=limit
            )

        page = await asyncio.to_thread(read)
        rows = [row_message(key, one) for key, one in page.sums]
        return pb.GetUsageResponse(
            rows=rows,
            total=row_message("", page.total),
            from_time=request.from_time if request.HasField("from_time") else _begin(which),
            to_time=timestamp(which.to_us),
            # Told apart from no token also where the key is the empty name.
            next_page_token=f"{by}:{rows[-1].key}" if page.more else "",
        )


def usage_group(number: int) -> UsageGroup:
    """What to sum by. InvalidRequest for what this release does not know."""
    try:
        group: UsageGroup = USAGE_GROUPS.into(number or pb.USAGE_GROUP_USER)
    except ValueError as error:
        raise InvalidRequest(FieldFault(field="group_by", description=str(error))) from None
    return group


def usage_filter(request: pb.GetUsageRequest, now_us: int, kept_us: int = 0) -> UsageFilter:
    """Which usage counts. InvalidRequest for a window that holds no time, or that reaches behind
    the moment from which on all usage is kept: its sums would be too small."""
    from_us, to_us = _moment(request, "from_time"), _moment(request, "to_time")
    end_us = now_us if to_us is None else min(to_us, now_us)
    if kept_us and from_us is not None and from_us < kept_us:
        words = (
            f"{moment(max(from_us, 0))}: usage is kept from {moment(kept_us)} on (keep_usage_days"
            " of the control plane); let the window begin there or later, or name no beginning"
        )
        raise InvalidRequest(FieldFault(field="from_time", description=words))
    if kept_us and end_us <= kept_us:
        words = f"{moment(max(end_us, 0))}: usage is kept from {moment(kept_us)} on"
        raise InvalidRequest(FieldFault(field="to_time", description=f"{words} (keep_usage_days)"))
    begin_us = max(from_us or 0, kept_us)
    if begin_us >= end_us:
        if to_us is not None and to_us <= now_us:
            words = "the window holds no time: from_time must lie before to_time"
        else:
            words = "the window holds no time: it begins in the future"
        raise InvalidRequest(FieldFault(field="from_time", description=words))
    return UsageFilter(from_us=begin_us, to_us=end_us, owner=request.owner, account=request.account)


def _begin(which: UsageFilter) -> Timestamp | None:
    """Where a window without a beginning of its own begins; None for all that ever was."""
    return timestamp(which.from_us) if which.from_us else None


def _moment(request: pb.GetUsageRequest, field: str) -> int | None:
    try:
        return from_timestamp(request, field)
    except ValueError as error:
        raise InvalidRequest(FieldFault(field=field, description=str(error))) from None


def _narrowed(which: UsageFilter) -> UsageFilter:
    """A filter that takes only what the caller may see. NotAllowed when it asks for others'."""
    caller = CALLER.get()
    if reach(caller, RPC.get()) is Reach.ALL:
        return which
    if which.owner and not may(caller, RPC.get(), which.owner):
        error = refusal(caller, RPC.get(), f"usage of {which.owner[:100]!r}")
        error.resource = "usage"  # the name is the caller's words, and may be anything
        raise error
    return replace(which, owner=caller.name)


def _after(token: str, by: UsageGroup) -> Key | None:
    if not token:
        return None
    group, colon, key = token.partition(":")
    if group == by and colon:
        try:
            return job_number(key) if by is UsageGroup.JOB else key
        except InvalidRequest:
            pass
    words = "is none of this request's; use the next_page_token of the answer before"
    raise InvalidRequest(FieldFault(field="page_token", description=words))
