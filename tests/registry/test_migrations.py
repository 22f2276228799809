"""The sum of migrations is the declared schema, and newer databases are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from controlplane.model.errors import WrongState
from controlplane.registry import tables
from controlplane.registry.database import connect
from controlplane.registry.migrate import alembic_config, upgrade
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


def test_what_an_earlier_release_wrote_is_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    engine = connect(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        connection.execute(
            sa.text("INSERT INTO task VALUES (7, 0, 'pending', 1, 1, 0, 5)")  # before released_us
        )
    upgrade(url)
    with engine.connect() as connection:
        (row,) = connection.execute(sa.select(tables.task)).mappings()
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    assert (row["job_id"], row["not_before_us"], row["released_us"]) == (7, 5, None)


def test_what_an_earlier_release_wrote_is_kept_with_no_signals(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    engine = connect(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        for table, values in {
            "task": {"state": "active", "not_before_us": 0},
            "attempt": {"number": 1, "state": "running", "created_us": 5},
            "lease": {"lease_id": 9, "phase": "running"},
        }.items():
            of_then = sa.inspect(connection).get_columns(table)
            row = {column["name"]: 0 for column in of_then} | values
            names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
            connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), row)
    upgrade(url)
    with engine.connect() as connection:

        def only(table: str) -> dict[str, object]:
            found = connection.execute(sa.select(metadata.tables[table])).mappings().one()
            return dict(found)

        assert only("task")["quick_requeues"] == 0
        attempt = only("attempt")
        assert (attempt["warned_us"], attempt["signals"]) == (None, "[]")
        assert (only("lease")["signals_done"], only("lease")["phase"]) == (0, "running")
        assert (only("lease")["job_dir"], only("lease")["output_fault"]) == ("", "")
    engine.dispose()


def test_usage_and_jobs_of_an_earlier_release_are_ready_for_retention(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    shipped = '{"working_dir":{"sha256":"%s","size":5}}' % ("ab" * 32)
    specs = [shipped, '{"working_dir":null,"comment":"\\"sha256\\""}', "{}"]
    engine = connect(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0008")
        for table in ("job", "usage"):
            columns = sa.inspect(connection).get_columns(table)
            for number, spec in enumerate(specs, 1):
                row: dict[str, object] = {column["name"]: 0 for column in columns}
                row |= {"job_id": number, **({"spec": spec} if table == "job" else {})}
                names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
                connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), row)
    upgrade(url)
    with engine.connect() as connection:
        c = tables.job.c
        kept = connection.execute(sa.select(c.blob_sha256).order_by(c.job_id)).scalars().all()
        assert kept == ["ab" * 32, None, None]
        used = connection.execute(sa.select(tables.usage.c.job_id)).scalars().all()
        assert used == [1, 2, 3]
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
