"""Priority classes, queues and reservations, read and removed by SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from controlplane.model.priority import FIRST_CLASSES
from controlplane.model.queues import FIRST_QUEUES
from controlplane.registry import siterows, tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.registry.draft import Draft, Overlay
    from controlplane.registry.facts import Facts
    from controlplane.registry.rows import Row


def begin(connection: sa.Connection) -> None:
    """Put in what a new centre has. Neither table is ever empty after that."""
    for table, made in (
        (tables.priority_class, [siterows.class_row(each) for each in FIRST_CLASSES]),
        (tables.queue, [siterows.queue_row(each) for each in FIRST_QUEUES]),
    ):
        if connection.execute(sa.select(table.c.name).limit(1)).first() is None:
            connection.execute(table.insert(), made)


def load(connection: sa.Connection, facts: Facts) -> None:
    """Put all of them into the facts, by name."""
    by_name = "name"
    for row in connection.execute(sa.select(tables.priority_class).order_by(by_name)).mappings():
        facts.priority_classes[row["name"]] = siterows.class_value(row)
    for row in connection.execute(sa.select(tables.queue).order_by(by_name)).mappings():
        facts.queues[row["name"]] = siterows.queue_value(row)
    for row in connection.execute(sa.select(tables.reservation).order_by(by_name)).mappings():
        facts.reservations[row["name"]] = siterows.reservation_value(row)


def tables_of(draft: Draft) -> list[tuple[sa.Table, Overlay[str, Any], Callable[[Any], Row]]]:
    """Those of the tables that a draft changes, with what it changes, and how that is a row."""
    every: list[tuple[sa.Table, Overlay[str, Any], Callable[[Any], Row]]] = [
        (tables.priority_class, draft.priority_classes, siterows.class_row),
        (tables.queue, draft.queues, siterows.queue_row),
        (tables.reservation, draft.reservations, siterows.reservation_row),
    ]
    return [each for each in every if each[1].changed]


def remove(connection: sa.Connection, table: sa.Table, overlay: Overlay[str, Any]) -> None:
    """Remove the rows of what a draft removes."""
    gone = [name for name, value in overlay.changed.items() if value is None]
    if gone:
        connection.execute(table.delete().where(table.c.name.in_(gone)))
