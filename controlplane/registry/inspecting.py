"""Looks a database through: its schema, what it holds, who owns it, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from controlplane.registry import tables
from controlplane.registry.database import check_fit, connect, name_of, reading
from controlplane.registry.holding import holder
from controlplane.registry.migrate import declared, present

MOST_TOLD = 10
"""So many faults of one kind are told."""


@dataclass(slots=True, kw_only=True)
class Findings:
    """What a look has found."""

    told: dict[str, str] = field(default_factory=dict)
    """What it is, in words, by what is told of."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows by table."""
    faults: list[str] = field(default_factory=list)
    """What is wrong, a sentence each."""


def inspect(url: str) -> Findings:
    """Look a database through, without changing anything. A daemon may run on it meanwhile."""
    engine = connect(url)
    found = Findings(told={"database": name_of(engine)})
    try:
        with reading(engine) as connection:
            check_fit(connection)
            found.told["server"] = _server(connection)
            schema = present(connection)
            found.told["schema"] = _of_schema(schema)
            found.told["in use by"] = holder(engine) or "nobody"
            found.faults += _integrity(connection)
            if schema == declared():
                _look_at_rows(connection, found)
    finally:
        engine.dispose()
    return found


def _server(connection: sa.Connection) -> str:
    if connection.dialect.name == "sqlite":
        return f"SQLite {connection.exec_driver_sql('SELECT sqlite_version()').scalar_one()}"
    return f"PostgreSQL {connection.exec_driver_sql('SHOW server_version').scalar_one()}"


def _of_schema(schema: str | None) -> str:
    if schema is None:
        return "none yet: `controlplane db upgrade` makes it, and so does a start"
    if schema == declared():
        return f"{schema}, as this release declares it"
    return f"{schema}; `controlplane db upgrade` brings it to {declared()}, and so does a start"


def _integrity(connection: sa.Connection) -> list[str]:
    if connection.dialect.name != "sqlite":
        return []  # of PostgreSQL its own tools know more: pg_amcheck
    check = connection.exec_driver_sql(f"PRAGMA integrity_check({MOST_TOLD})").scalars()
    return [f"damaged: {line}" for line in check if line != "ok"]


def _look_at_rows(connection: sa.Connection, found: Findings) -> None:
    differences = compare_metadata(MigrationContext.configure(connection), tables.metadata)
    found.faults += [f"the schema is not as declared: {each}" for each in differences[:MOST_TOLD]]
    if found.faults:
        return  # what follows would stumble over it
    for table in tables.metadata.sorted_tables:
        count = sa.select(sa.func.count()).select_from(table)
        found.rows[table.name] = connection.execute(count).scalar_one()
        found.faults += _orphans(connection, table)
    row = connection.execute(sa.select(tables.cluster)).mappings().first()
    if row is None:
        found.told["cluster"] = "none yet: no control plane has run on it"
        return
    found.told["cluster"] = f"{row['uuid']}, epoch {row['epoch']}, event {row['seq']}"
    for name, column in (
        ("seq", tables.event.c.seq),
        ("last_job_id", tables.job.c.job_id),
        ("last_lease_id", tables.lease.c.lease_id),
    ):
        most = connection.execute(sa.select(sa.func.max(column))).scalar_one() or 0
        if most > row[name]:
            found.faults.append(
                f"{column.table.name} has number {most}, but the last that was given out is"
                f" {row[name]} (cluster.{name})"
            )


def _orphans(connection: sa.Connection, table: sa.Table) -> list[str]:
    faults = []
    for key in table.foreign_key_constraints:
        parent = key.referred_table
        pairs = [(element.parent, element.column) for element in key.elements]
        lost = (
            sa.select(sa.func.count())
            .select_from(table.outerjoin(parent, sa.and_(*(a == b for a, b in pairs))))
            .where(pairs[0][1].is_(None))
        )
        if count := connection.execute(lost).scalar_one():
            faults.append(f"{count} of {table.name} belong to no {parent.name} that is there")
    return faults
