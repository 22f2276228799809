"""A database by its URL: connections that are durable and give up in time, and its faults in words.

SQLite runs in WAL mode with `synchronous=FULL`: a commit that returned survives a power cut
(https://sqlite.org/wal.html). PostgreSQL promises the same by `synchronous_commit`.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from controlplane.model.errors import (
    ControlPlaneError,
    Overloaded,
    StoreRefused,
    StoreUnavailable,
    WrongState,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_POSTGRESQL = 150_000
"""The oldest PostgreSQL that is tested, as it numbers itself."""
_SQLITE = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "busy_timeout=5000",
    "foreign_keys=OFF",
    "case_sensitive_like=ON",  # as in every other database: Sweep-1 is no sweep-*
)
_POSTGRESQL = {
    "lock_timeout": "10s",
    # A control plane that was stopped in the middle of a commit must not keep its successor out.
    "idle_in_transaction_session_timeout": "60s",
    # A server must see within half a minute that our host is gone, and give our locks back.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_REACHING = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""How soon we see that the server is gone, as libpq names it; the URL may say otherwise."""
_CONNECTIONS = 32
"""At most so many calls read at once; as many threads as asyncio has for them."""


def connect(url: str) -> sa.Engine:
    """An engine for a database URL, with what each kind of database needs to be durable.

    sqlalchemy.exc.ArgumentError when it is the URL of no database that we know.
    """
    known = sa.make_url(url)
    if known.drivername in ("postgresql", "postgres"):
        known = known.set(drivername="postgresql+psycopg")
    if known.drivername in ("sqlite", "sqlite+pysqlite"):
        engine = sa.create_engine(known, json_serializer=json.dumps)
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    if known.drivername != "postgresql+psycopg":
        raise sa.exc.ArgumentError(f"{known.drivername} is no database that we know")
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of what we tell in words
    engine = sa.create_engine(
        known,
        pool_pre_ping=True,
        max_overflow=_CONNECTIONS,
        pool_timeout=10,
        json_serializer=json.dumps,
        connect_args={name: value for name, value in _REACHING.items() if name not in known.query},
    )
    sa.event.listen(engine, "connect", _set_up_postgresql)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # We begin transactions by ourselves: the driver would begin none for reads or changes of the
    # schema, so that a page of jobs were of several moments, and half an upgrade could stay.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _SQLITE:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get("reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _set_up_postgresql(connection: Any, _record: object) -> None:
    connection.autocommit = True
    names = ", ".join(
        f"set_config('{name}', '{value}', false)" for name, value in _POSTGRESQL.items()
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {names}")
        # More than `on` is the site's to choose; less would lose what was acknowledged.
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )
    connection.autocommit = False


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that changes something; its faults are told in words."""
    with told(engine), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction whose queries all see one moment; its faults are told in words."""
    options: dict[str, Any] = {"reads": True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with (
        told(engine),
        engine.connect().execution_options(**options) as connection,
        connection.begin(),
    ):
        yield connection


def check_fit(connection: sa.Connection) -> None:
    """WrongState when the server is too old for us, or cannot keep every text."""
    if connection.dialect.name != "postgresql":
        return
    if int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) < LEAST_POSTGRESQL:
        found = connection.exec_driver_sql("SHOW server_version").scalar_one()
        raise WrongState(
            f"the server of {name_of(connection.engine)} is PostgreSQL {found};"
            f" {LEAST_POSTGRESQL // 10_000} or later is needed"
        )
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise WrongState(
            f"the database {name_of(connection.engine)} keeps texts as {encoding}; make one with"
            " CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


def name_of(engine: sa.Engine) -> str:
    """A database as it is told: its URL without the password."""
    return engine.url.render_as_string()


@contextmanager
def told(engine: sa.Engine) -> Iterator[None]:
    """Tell the faults of a database in words.

    Overloaded when its disk is full, StoreRefused when it will never take what it was given,
    StoreUnavailable in every other case.
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _in_words(engine, error) from error
    except OverflowError as error:  # SQLite's driver says so by itself
        raise StoreRefused(f"the database {name_of(engine)} refuses a change: {error}") from error
    except sa.exc.TimeoutError as error:
        raise StoreUnavailable(
            f"the database {name_of(engine)} is busy: all connections to it are in use"
        ) from error


def _in_words(engine: sa.Engine, error: sa.exc.DBAPIError) -> ControlPlaneError:
    words = "; ".join(line.strip() for line in str(error.orig).strip().splitlines())
    if "disk is full" in words or "No space left" in words:
        return Overloaded(f"no room on the disk of the database {engine.url.database}")
    if _is_damage(error):
        return StoreUnavailable(
            f"the database {name_of(engine)} is damaged: {words}; stop what runs on it, and"
            " restore a backup"
        )
    if (
        isinstance(
            error,
            sa.exc.DataError
            | sa.exc.IntegrityError
            | sa.exc.ProgrammingError
            | sa.exc.NotSupportedError,
        )
        and not error.connection_invalidated
    ):
        return StoreRefused(f"the database {name_of(engine)} refuses a change: {words}")
    return StoreUnavailable(f"the database {name_of(engine)} does not answer: {words}")


def _is_damage(error: sa.exc.DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None)
    return str(code).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "XX001", "XX002"))
