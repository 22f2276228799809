"""Priority classes, queues and reservations on the wire; what comes is checked here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from controlplane.model.errors import FieldFault, InvalidRequest
from controlplane.model.identity import USER_NAME
from controlplane.model.priority import HIGHEST_VALUE, PreemptionPolicy, PriorityClass
from controlplane.model.queues import JobQueue
from controlplane.model.reservation import Reservation
from controlplane.model.selector import EVERYWHERE, Selector, parse_selector
from controlplane.v1 import queue_service_pb2 as pb
from controlplane.wire.basics import (
    MICRO,
    EnumWire,
    duration,
    from_duration,
    from_timestamp,
    timestamp,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from controlplane.model.view import Window

POLICIES = EnumWire(PreemptionPolicy, pb.PreemptionPolicy, "PREEMPTION_POLICY")
SLUG: Final = re.compile(r"[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?")
LONGEST_TEXT: Final = 1000
"""Characters of a description, a reason or a selector."""
MOST_NAMES: Final = 1000
"""Accounts, users or nodes of one queue or reservation."""
LONGEST_US: Final = 366 * 86_400 * MICRO
QUEUE_FIELDS: Final = {
    "node_selector": "selector",
    "default_time_limit": "default_limit_us",
    "max_time_limit": "max_limit_us",
    "max_workers": "max_workers",
    "max_gpus": "max_gpus",
    "accounts": "accounts",
    "users": "users",
    "priority": "priority",
    "closed": "closed",
    "description": "description",
}
"""Fields of a queue that may be changed → attributes of its value."""


def fault(field: str, words: str) -> InvalidRequest:
    """The error for one field."""
    return InvalidRequest(FieldFault(field=field, description=words))


def slug(field: str, name: str) -> str:
    """A name. InvalidRequest when it is none."""
    if not SLUG.fullmatch(name):
        words = "must be 1 to 63 of a-z, 0-9 and, between them, - . _"
        raise fault(field, f"{name[:80]!r}: {words}")
    return name


def class_message(made: PriorityClass) -> pb.PriorityClass:
    """A priority class."""
    return pb.PriorityClass(
        name=made.resource,
        value=made.value,
        global_default=made.global_default,
        preemption=POLICIES.out(made.preemption),
        description=made.description,
    )


def class_value(name: str, message: pb.PriorityClass) -> PriorityClass:
    """A priority class that somebody wants. InvalidRequest for what it cannot be."""
    if abs(message.value) > HIGHEST_VALUE:
        words = f"{message.value}: must be from {-HIGHEST_VALUE} to {HIGHEST_VALUE}"
        raise fault("priority_class.value", words)
    try:
        policy = POLICIES.into(message.preemption or pb.PREEMPTION_POLICY_LOWER)
    except ValueError as error:
        raise fault("priority_class.preemption", str(error)) from None
    return PriorityClass(
        name=slug("priority_class_id", name),
        value=message.value,
        global_default=message.global_default,
        preemption=policy,
        description=_text("priority_class.description", message.description),
    )


def queue_message(made: JobQueue) -> pb.Queue:
    """A queue."""
    default, most = made.default_limit_us, made.max_limit_us
    return pb.Queue(
        name=made.resource,
        node_selector=str(made.selector),
        default_time_limit=duration(default) if default is not None else None,
        max_time_limit=duration(most) if most is not None else None,
        max_workers=made.max_workers,
        max_gpus=made.max_gpus,
        accounts=made.accounts,
        users=made.users,
        priority=made.priority,
        closed=made.closed,
        description=made.description,
    )


def queue_value(name: str, message: pb.Queue) -> JobQueue:
    """A queue that somebody wants. InvalidRequest for what it cannot be."""
    return JobQueue(
        name=slug("queue_id", name),
        selector=_selector("queue.node_selector", message.node_selector),
        default_limit_us=_limit(message, "default_time_limit"),
        max_limit_us=_limit(message, "max_time_limit"),
        max_workers=_count(message, "max_workers", 1),
        max_gpus=_count(message, "max_gpus", 0),
        accounts=_names("queue.accounts", message.accounts, SLUG.fullmatch),
        users=_names("queue.users", message.users, USER_NAME.fullmatch),
        priority=message.priority,
        closed=_text("queue.closed", message.closed),
        description=_text("queue.description", message.description),
    )


def queue_changes(request: pb.UpdateQueueRequest) -> dict[str, Any]:
    """What somebody wants changed, by attribute."""
    paths = list(dict.fromkeys(request.update_mask.paths))
    unknown = [path for path in paths if path not in QUEUE_FIELDS]
    if unknown or not paths:
        told = f"{unknown[0][:80]!r}: is none of its fields" if unknown else "names nothing"
        raise fault("update_mask", f"{told}; they are {', '.join(QUEUE_FIELDS)}")
    made = queue_value("x", request.queue)
    return {QUEUE_FIELDS[path]: getattr(made, QUEUE_FIELDS[path]) for path in paths}


def reservation_message(made: Reservation, window: Window) -> pb.Reservation:
    """A reservation, with the nodes that it has by now."""
    return pb.Reservation(
        name=made.resource,
        begin_time=timestamp(made.begin_us),
        end_time=timestamp(made.end_us),
        nodes=[f"nodes/{uuid}" for uuid in sorted(window.nodes)],
        node_selector=str(made.selector),
        accounts=made.accounts,
        users=made.users,
        maintenance=made.maintenance,
        description=made.description,
    )


def reservation_value(
    name: str, message: pb.Reservation, uuid_of: Callable[[str], str], now_us: int
) -> Reservation:
    """A reservation that somebody wants. InvalidRequest for what it cannot be. `uuid_of`: the UUID
    of the node of a name."""
    begin_us, end_us = _time(message, "begin_time"), _time(message, "end_time")
    begin_us = now_us if begin_us is None else begin_us
    if end_us is None or end_us <= max(begin_us, now_us):
        raise fault("reservation.end_time", "must be set, later than its begin_time and than now")
    if end_us - begin_us > LONGEST_US:
        raise fault("reservation.end_time", "must be at most 366 days after its begin_time")
    if len(message.nodes) > MOST_NAMES:
        words = f"{len(message.nodes)} of them; at most {MOST_NAMES}, or a node_selector"
        raise fault("reservation.nodes", words)
    selector = _selector("reservation.node_selector", message.node_selector)
    if bool(message.nodes) == bool(selector):
        raise fault("reservation.nodes", "name nodes, or a node_selector in their place")
    somebody = bool(message.accounts or message.users)
    if somebody == message.maintenance:
        raise fault(
            "reservation.maintenance",
            "say for which accounts or users it is, or that it is maintenance, for nobody",
        )
    return Reservation(
        name=slug("reservation_id", name),
        begin_us=begin_us,
        end_us=end_us,
        node_uuids=tuple(sorted({uuid_of(each) for each in message.nodes})),
        selector=selector,
        accounts=_names("reservation.accounts", message.accounts, SLUG.fullmatch),
        users=_names("reservation.users", message.users, USER_NAME.fullmatch),
        description=_text("reservation.description", message.description),
    )


def selector_value(field: str, text: str) -> Selector:
    """A selector of a request; empty: everywhere. InvalidRequest when it is none."""
    return _selector(field, text)


def _selector(field: str, text: str) -> Selector:
    if not text.strip():
        return EVERYWHERE
    try:
        return parse_selector(_text(field, text))
    except ValueError as error:
        raise fault(field, str(error)) from None


def _text(field: str, text: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise fault(field, f"has {len(text)} characters; at most {LONGEST_TEXT} are allowed")
    return text.strip()


def _names(field: str, names: Iterable[str], allowed: Callable[[str], object]) -> tuple[str, ...]:
    found = sorted(set(names))
    if len(found) > MOST_NAMES:
        raise fault(field, f"{len(found)} of them; at most {MOST_NAMES} are allowed")
    for name in found:
        if not allowed(name):
            raise fault(field, f"{name[:80]!r}: is no name that there can be")
    return tuple(found)


def _count(message: pb.Queue, field: str, least: int) -> int | None:
    if not message.HasField(field):  # type: ignore[arg-type]  # one of its optional numbers
        return None
    number: int = getattr(message, field)
    if number < least:
        raise fault(f"queue.{field}", f"{number}: must be {least} or more, or not set")
    return number


def _limit(message: pb.Queue, field: str) -> int | None:
    if not message.HasField(field):  # type: ignore[arg-type]  # one of its durations
        return None
    limit_us = from_duration(getattr(message, field))
    if not MICRO <= limit_us <= LONGEST_US or limit_us % MICRO:
        raise fault(f"queue.{field}", "must be whole seconds, from 1 s to 366 days, or not set")
    return limit_us


def _time(message: pb.Reservation, field: str) -> int | None:
    try:
        return from_timestamp(message, field)
    except ValueError as error:
        raise fault(f"reservation.{field}", str(error)) from None
