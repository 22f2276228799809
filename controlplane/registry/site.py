"""Commands of those who run a centre: priority classes, queues and reservations."""

from __future__ import annotations

from dataclasses import fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from controlplane.model.errors import (
    AlreadyExists,
    FieldFault,
    InvalidRequest,
    NotFound,
    WrongState,
)
from controlplane.model.queues import DEFAULT_QUEUE, JobQueue
from controlplane.model.selector import EVERYWHERE, Selector
from controlplane.model.words import count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.model.priority import PriorityClass
    from controlplane.model.reservation import Reservation
    from controlplane.registry.draft import Draft, Overlay

T = TypeVar("T", "PriorityClass", "JobQueue", "Reservation")


def found(table: Overlay[str, T], name: str, noun: str) -> T:
    """The one of this name. NotFound, with those that there are, when there is none."""
    value = table.get(name)
    if value is None:
        there = ", ".join(sorted(key for key, _ in table.items())) or "none"
        raise NotFound(f"{name[:100]}: there is no such {noun}; there are: {there}")
    return value


def _new(table: Overlay[str, T], value: T, noun: str) -> None:
    if table.get(value.name) is not None:
        words = f"{value.resource}: is there already; choose another name"
        raise AlreadyExists(f"{words}, or delete that {noun} first")
    table[value.name] = value


def _told(value: Any) -> dict[str, object]:
    """What is set of a value, for an event."""
    told = {one.name: getattr(value, one.name) for one in fields(value) if one.name != "name"}
    return {
        name: _plain(each) for name, each in told.items() if each not in (None, "", (), EVERYWHERE)
    }


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Selector | StrEnum) else value


# --- priority classes ----------------------------------------------------------------------------


def create_class(draft: Draft, made: PriorityClass) -> None:
    """Make a priority class. Where it is the default, the one until now is it no longer."""
    _new(draft.priority_classes, made, "class")
    if made.global_default:
        for name, other in draft.priority_classes.items():
            if other.global_default and name != made.name:
                draft.priority_classes[name] = replace(other, global_default=False)
    draft.emit("priority_class.created", made.resource, _told(made))


def delete_class(draft: Draft, name: str) -> None:
    """Remove a priority class. Jobs that have it keep its value, and end no others any more."""
    gone = found(draft.priority_classes, name, "priority class")
    if gone.global_default:
        raise WrongState(
            f"{gone.resource} is the default, and cannot be deleted; make another one the default"
            " first: `ccctl priority-class create NAME --value N --default`"
        )
    draft.priority_classes[name] = None
    draft.emit("priority_class.deleted", gone.resource, {"value": gone.value})


# --- queues --------------------------------------------------------------------------------------


def create_queue(draft: Draft, made: JobQueue) -> None:
    """Make a queue."""
    check_queue(made)
    _new(draft.queues, made, "queue")
    draft.emit("queue.created", made.resource, _told(made))


def update_queue(draft: Draft, name: str, changes: dict[str, Any]) -> None:
    """Change fields of a queue. Jobs that wait in it keep the time limits that they have."""
    before = found(draft.queues, name, "queue")
    after = replace(before, **changes)
    check_queue(after)
    if after == before:
        return
    pairs = {
        field: [_plain(getattr(before, field)), _plain(value)]
        for field, value in changes.items()
        if value != getattr(before, field)
    }
    draft.emit("queue.changed", before.resource, pairs)
    draft.queues[name] = after


def check_queue(queue: JobQueue) -> None:
    """InvalidRequest for limits that contradict each other."""
    default, most = queue.default_limit_us, queue.max_limit_us
    if default is not None and most is not None and default > most:
        words = f"{queue.too_long(default)}: name less, or a longer maximum"
        raise InvalidRequest(FieldFault(field="default_time_limit", description=words))


def delete_queue(draft: Draft, name: str) -> None:
    """Remove a queue that no job is in."""
    gone = found(draft.queues, name, "queue")
    if name == DEFAULT_QUEUE:
        raise WrongState(
            f"{gone.resource} is for jobs that name none, and cannot be deleted; close it instead:"
            f' `ccctl queue update {name} --close "why"`'
        )
    left = sum(job.spec.queue == name and not job.state.final for _, job in draft.jobs.items())
    if left:
        words = "has" if left == 1 else "have"
        raise WrongState(
            f"{gone.resource}: {count(left, 'job')} of it {words} not ended; close it, and delete"
            " it when they have"
        )
    draft.queues[name] = None
    draft.emit("queue.deleted", gone.resource)


# --- reservations --------------------------------------------------------------------------------


def create_reservation(draft: Draft, made: Reservation) -> None:
    """Keep nodes for somebody, or for nobody. WrongState where one of them is another's then."""
    _new(draft.reservations, made, "reservation")
    mine = _nodes(draft, made)
    if not mine:
        words = f'"{made.selector}": no node has such labels; `ccctl node list` shows what there is'
        raise InvalidRequest(FieldFault(field="node_selector", description=words))
    for name, other in draft.reservations.items():
        overlaps = other.touches(made.begin_us, made.end_us) and mine & _nodes(draft, other)
        if name != made.name and not (other.maintenance or made.maintenance) and overlaps:
            node = draft.nodes[min(overlaps)].facts.display_name
            raise WrongState(
                f"{node} is kept for {other.resource} at that time; name other nodes, or a time"
                " that does not overlap"
            )
    draft.emit("reservation.created", made.resource, _told(made))


def _nodes(draft: Draft, reservation: Reservation) -> set[str]:
    return {
        uuid for uuid, node in draft.nodes.items() if reservation.holds(uuid, dict(node.labels))
    }


def delete_reservation(draft: Draft, name: str) -> None:
    """Give the nodes of a reservation back before its end."""
    gone = found(draft.reservations, name, "reservation")
    draft.reservations[name] = None
    draft.emit("reservation.deleted", gone.resource, {"end_us": gone.end_us})


def forget_reservations(draft: Draft, names: Iterable[str]) -> None:
    """Forget reservations that are over."""
    for name in names:
        gone = draft.reservations.get(name)
        if gone is not None and gone.end_us <= draft.now_us:
            draft.reservations[name] = None
            draft.emit("reservation.ended", gone.resource, {"end_us": gone.end_us})
