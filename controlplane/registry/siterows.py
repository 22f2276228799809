"""Priority classes, queues and reservations as rows and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from controlplane.model.priority import PreemptionPolicy, PriorityClass
from controlplane.model.queues import JobQueue
from controlplane.model.reservation import Reservation
from controlplane.model.selector import parse_selector

if TYPE_CHECKING:
    from controlplane.registry.rows import Readable, Row

_LISTS = ("accounts", "users", "node_uuids")


def class_row(made: PriorityClass) -> Row:
    """A priority class's row."""
    columns = _columns(made)
    return {
        **columns,
        "global_default": int(made.global_default),
        "preemption": str(made.preemption),
    }


def class_value(row: Readable) -> PriorityClass:
    """The priority class of a row."""
    found = {name: row[name] for name in PriorityClass.__slots__}
    found["global_default"] = bool(found["global_default"])
    return PriorityClass(**{**found, "preemption": PreemptionPolicy(found["preemption"])})


def queue_row(made: JobQueue) -> Row:
    """A queue's row."""
    return _columns(made)


def queue_value(row: Readable) -> JobQueue:
    """The queue of a row."""
    return JobQueue(**_fields(JobQueue, row))


def reservation_row(made: Reservation) -> Row:
    """A reservation's row."""
    return _columns(made)


def reservation_value(row: Readable) -> Reservation:
    """The reservation of a row."""
    return Reservation(**_fields(Reservation, row))


def _columns(value: Any) -> Row:
    columns = {name: getattr(value, name) for name in value.__slots__}
    for name in columns:
        if name in _LISTS:
            columns[name] = json.dumps(columns[name], separators=(",", ":"))
        elif name == "selector":
            columns[name] = str(columns[name])
    return columns


def _fields(kind: Any, row: Readable) -> dict[str, Any]:
    found = {name: row[name] for name in kind.__slots__}
    for name in found:
        if name in _LISTS:
            found[name] = tuple(json.loads(found[name]))
        elif name == "selector":
            found[name] = parse_selector(found[name])
    return found
