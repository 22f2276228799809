"""Brings a database's schema up to date, and tells when it is newer than this release knows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from controlplane.model.errors import WrongState
from controlplane.registry.database import check_fit, connect, name_of, writing

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).with_name("migrations")


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for this package's migrations."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def declared() -> str:
    """The revision that this release declares."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if head is None:
        raise AssertionError("no migrations in the package")
    return head


def present(connection: Connection) -> str | None:
    """The revision that a database has; None when it has no schema yet.

    WrongState when it was written by a newer release.
    """
    found = MigrationContext.configure(connection).get_current_revision()
    script = ScriptDirectory.from_config(alembic_config())
    known = {revision.revision for revision in script.walk_revisions()}
    if found is not None and found not in known:
        raise WrongState(
            f"the database {name_of(connection.engine)} has schema {found}, which this"
            " release does not know: a newer one wrote it; install that, or a backup"
        )
    return found


def upgrade(url: str) -> str:
    """Apply every migration that the database lacks; answers the revision that it then has.

    WrongState when the database was written by a newer release.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)  # each start would be told at length
    engine = connect(url)
    head = declared()
    try:
        with writing(engine) as connection:
            check_fit(connection)
            if present(connection) != head:
                command.upgrade(alembic_config(connection), "head")
            return head
    finally:
        engine.dispose()
