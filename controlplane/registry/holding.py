"""One process at a time owns a database: the lock that a daemon, an upgrade and a move hold.

It keeps a second control plane from starting. What keeps a first one from writing that does not
know of its successor is the epoch, which each commit looks at.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from controlplane.kit.alone import holder_of, lock_file
from controlplane.model.errors import WrongState
from controlplane.registry.database import connect, name_of, told

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = int.from_bytes(b"ctrlplan")
"""Number of the advisory lock, in each database."""
PATIENCE = "3s"
"""A server needs a moment to see that a process that held the lock has been killed."""
_HOLDER = sa.text(
    "SELECT application_name, coalesce(host(client_addr), 'a local socket') AS address"
    " FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND (classid::bigint << 32) + objid::bigint = :key"
    " AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Hold:
    """A database that is held; `keep` is called now and then."""

    def keep(self) -> str:
        """Take the lock again if it was lost; what is wrong, in words."""
        return ""


class _PostgresHold(Hold):
    """A lock lives as long as the connection that took it, and both end with the server."""

    def __init__(self, engine: sa.Engine, who: str) -> None:
        self._engine, self._who = engine, who
        self._connection: sa.Connection | None = None

    def take(self) -> bool:
        self.drop()
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._connection = connection
        named = sa.func.set_config("application_name", self._who[:63], False)
        connection.execute(sa.select(named, sa.func.set_config("lock_timeout", PATIENCE, False)))
        try:
            connection.execute(sa.select(sa.func.pg_advisory_lock(KEY)))
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == "55P03":  # lock_not_available
                self.drop()
                return False
            raise
        return True

    def keep(self) -> str:
        try:
            if self._connection is not None:
                self._connection.execute(sa.select(1))
                return ""
        except sa.exc.SQLAlchemyError:
            self.drop()
        try:
            if self.take():
                return ""
        except sa.exc.SQLAlchemyError:
            self.drop()
            return ""  # the server is away: the writer tells of it
        return in_use(self._engine)

    def drop(self) -> None:
        if self._connection is not None:
            with suppress(sa.exc.SQLAlchemyError):
                self._connection.detach()
                self._connection.close()
            self._connection = None


@contextmanager
def holding(url: str, program: str) -> Iterator[Hold]:
    """Own a database. WrongState when another process does, with who it is.

    `program`: who we are, for the words that another one gets.
    """
    engine = connect(url)
    who = f"{program}, process {os.getpid()} on {socket.gethostname()}"
    if engine.dialect.name == "sqlite":
        fd = _lock_sqlite(engine, who)
        try:
            yield Hold()
        finally:
            os.close(fd)
        return
    hold = _PostgresHold(engine, who)
    try:
        with told(engine):
            taken = hold.take()
        if not taken:
            raise WrongState(in_use(engine))
        yield hold
    finally:
        hold.drop()
        engine.dispose()


def _lock_sqlite(engine: sa.Engine, who: str) -> int:
    path = lock_path(engine)
    try:
        return lock_file(path, who)
    except BlockingIOError:
        raise WrongState(in_use(engine)) from None
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        why = f"there is no folder {path.parent}" if missing else f"{path}: {error.strerror}"
        raise WrongState(f"the database {name_of(engine)} cannot be opened: {why}") from error


def lock_path(engine: sa.Engine) -> Path:
    """The file beside a database of SQLite whose lock says that it is owned."""
    return Path(f"{engine.url.database}.lock")


def in_use(engine: sa.Engine) -> str:
    """That a database is owned, in words."""
    return (
        f"the database {name_of(engine)} is in use by {holder(engine) or 'another process'};"
        " stop that first, or name another database"
    )


def holder(engine: sa.Engine) -> str:
    """Who owns a database, in words; empty: nobody."""
    if engine.dialect.name == "sqlite":
        return holder_of(lock_path(engine))
    with told(engine), engine.connect() as connection:
        found = connection.execute(_HOLDER, {"key": KEY}).first()
    return f"{found.application_name} ({found.address})" if found is not None else ""
