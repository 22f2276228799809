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
from controlplane.registry.sql import connect

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).with_name("migrations")


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for this package's migrations."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def upgrade(url: str) -> str:
    """Apply every migration that the database lacks; answers the revision that it then has.

    WrongState when the database was written by a newer release.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)  # each start would be told at length
    script = ScriptDirectory.from_config(alembic_config())
    engine = connect(url)
    try:
        with engine.begin() as connection:
            present = MigrationContext.configure(connection).get_current_revision()
            known = {revision.revision for revision in script.walk_revisions()}
            if present is not None and present not in known:
                raise WrongState(
                    f"the database {engine.url.render_as_string()} has schema {present}, which this"
                    " release does not know: a newer one wrote it; install that, or a backup"
                )
            head = script.get_current_head()
            if head is None:
                raise AssertionError("no migrations in the package")
            if present != head:
                command.upgrade(alembic_config(connection), "head")
            return head
    finally:
        engine.dispose()
