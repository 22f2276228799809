"""The sum of migrations is the declared schema, and newer databases are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from controlplane.model.errors import WrongState
from controlplane.registry.migrate import alembic_config, upgrade
from controlplane.registry.sql import connect
from controlplane.registry.tables import metadata

if TYPE_CHECKING:
    from pathlib import Path


def test_migrations_add_up_to_the_declared_schema(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    assert upgrade(url) == upgrade(url)
    engine = connect(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_database_of_a_newer_release_is_refused_in_words(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    upgrade(url)
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(WrongState, match="schema 9999, which this release does not know"):
        upgrade(url)


def test_a_node_of_before_is_kept_and_enrolled_by_whose_agent_calls_next(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    engine = connect(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        connection.execute(
            sa.text(
                "INSERT INTO node (uuid, display_name, facts, boot_id, created_us)"
                " VALUES ('u', 'n', '{}', 'b', 0)"
            )
        )
    upgrade(url)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT enrolled_by FROM node")).scalar_one() == ""
    engine.dispose()
