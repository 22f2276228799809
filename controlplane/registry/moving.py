"""Moves a registry to another database: every row, verified on both sides, or nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from controlplane.model.errors import WrongState
from controlplane.registry import tables
from controlplane.registry.database import connect, name_of, reading, writing
from controlplane.registry.holding import holding
from controlplane.registry.migrate import declared, present, upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from controlplane.registry.rows import Row

_CHUNK = 1_000
"""Rows in one insert."""
_TOLD_EVERY = 50_000
"""Rows between two words on how far a table is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A table that was copied, and found the same on both sides."""

    table: str
    """Its name."""
    rows: int
    """How many rows it has."""
    digest: str
    """SHA-256 of its rows in canonical form, in order of their keys."""


def move(source_url: str, target_url: str, tell: Callable[[str], None]) -> list[Moved]:
    """Copy every table into an empty database. Both are owned meanwhile, so that no control plane
    writes to either. The target is written in one transaction: it is whole, or as it was.

    WrongState when that cannot be done, with the reason. `tell`: told of how far it is.
    """
    source, target = connect(source_url), connect(target_url)
    if source.url == target.url:
        raise WrongState(f"{name_of(target)} is where the registry is already")
    with holding(source_url, "a move"), holding(target_url, "a move"):
        try:
            _check_source(source)
            _check_target(target)
            upgrade(target_url)
            with writing(target) as into:
                _check_empty(into)
                moved = [_copy(source, into, table, tell) for table in _tables()]
                _check_same(into, moved, tell)
            return moved
        finally:
            source.dispose()
            target.dispose()


def _tables() -> list[sa.Table]:
    return tables.metadata.sorted_tables


def _check_source(engine: sa.Engine) -> None:
    with reading(engine) as connection:
        schema = present(connection)
    if schema != declared():
        raise WrongState(
            f"the database {name_of(engine)} has schema {schema or 'none'}, not {declared()}:"
            " run `controlplane db upgrade` first"
        )


def _check_target(engine: sa.Engine) -> None:
    with reading(engine) as connection:
        if present(connection) is None and (there := sa.inspect(connection).get_table_names()):
            raise WrongState(
                f"the database {name_of(engine)} is not empty: it has the table {there[0]};"
                " name a new one"
            )


def _check_empty(connection: sa.Connection) -> None:
    for table in _tables():
        if connection.execute(sa.select(table).limit(1)).first() is not None:
            raise WrongState(
                f"the database {name_of(connection.engine)} is not empty: its table {table.name}"
                " has rows; name a new one"
            )


def _copy(
    source: sa.Engine, into: sa.Connection, table: sa.Table, tell: Callable[[str], None]
) -> Moved:
    digest, count = hashlib.sha256(), 0
    with reading(source) as connection:
        whole = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        for chunk in _rows(connection, table):
            into.execute(table.insert(), chunk)
            for row in chunk:
                digest.update(canonical(row))
            before, count = count, count + len(chunk)
            if before // _TOLD_EVERY != count // _TOLD_EVERY:
                tell(f"{table.name}: {count} of {whole} rows")
    tell(f"{table.name}: {count} rows copied")
    return Moved(table=table.name, rows=count, digest=digest.hexdigest())


def _check_same(into: sa.Connection, moved: Sequence[Moved], tell: Callable[[str], None]) -> None:
    """Read back what was written, before it counts."""
    for table, expected in zip(_tables(), moved, strict=True):
        digest, count = hashlib.sha256(), 0
        for chunk in _rows(into, table):
            for row in chunk:
                digest.update(canonical(row))
            count += len(chunk)
        found = Moved(table=table.name, rows=count, digest=digest.hexdigest())
        if found != expected:
            raise WrongState(
                f"the table {table.name} is not the same on both sides: {expected.rows} rows with"
                f" digest {expected.digest[:12]} became {found.rows} with {found.digest[:12]};"
                " nothing was moved"
            )
        tell(f"{table.name}: verified")


def _rows(connection: sa.Connection, table: sa.Table) -> Iterator[list[Row]]:
    """All rows in order of their keys, which is the same in each kind of database."""
    query = sa.select(table).order_by(*table.primary_key)
    result = connection.execute(query, execution_options={"yield_per": _CHUNK})
    for part in result.mappings().partitions():
        yield [dict(row) for row in part]


def canonical(row: Row) -> bytes:
    """A row as bytes that are the same in each kind of database."""
    known = {
        name: tables.without_nul(value) if isinstance(value, str) else value
        for name, value in row.items()
    }
    text = json.dumps(known, separators=(",", ":"), sort_keys=True, ensure_ascii=True)
    return text.encode() + b"\n"
