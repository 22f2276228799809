"""The sum of migrations is the declared schema, and newer databases are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from controlplane.model.account import Account
from controlplane.model.errors import WrongState
from controlplane.registry import rows, tables
from controlplane.registry.database import connect
from controlplane.registry.migrate import alembic_config, declared, present, upgrade
from controlplane.registry.tables import metadata

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without anything."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/registry.db"
    server: Postgres = request.getfixturevalue("server")
    return server.empty()


def test_migrations_add_up_to_the_declared_schema(url: str) -> None:
    assert upgrade(url) == upgrade(url) == declared()
    engine = connect(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_postgresql_compares_names_by_their_bytes_and_takes_them_at_any_length(
    server: Postgres,
) -> None:
    url = server.empty()
    upgrade(url)
    engine = connect(url)
    with engine.connect() as connection:
        known = sa.inspect(connection)
        for table in metadata.tables.values():
            types = {column["name"]: column["type"] for column in known.get_columns(table.name)}
            for column in table.c:
                found = types[column.name]
                if isinstance(column.type, tables.Name):
                    assert isinstance(found, sa.VARCHAR), column
                    assert (found.length, found.collation) == (None, "C"), column
                elif isinstance(column.type, sa.BigInteger):
                    assert isinstance(found, sa.BIGINT), column
    engine.dispose()


def test_numbers_that_grow_are_wide() -> None:
    """Moments and numbers that are given out leave 32 bits."""
    for table in metadata.tables.values():
        for column in table.c:
            grows = column.name.endswith(("_us", "_bytes", "_id", "seq", "epoch", "revision"))
            if grows and not isinstance(column.type, tables.Words):
                assert isinstance(column.type, sa.BigInteger), column


def test_an_upgrade_that_fails_half_way_leaves_what_was_there(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0004")
    add_column = Operations.add_column

    def fail(operations: Operations, table: str, column: sa.Column[object]) -> None:
        if column.name == "oom_peak_bytes":
            raise ZeroDivisionError("the power went")
        add_column(operations, table, column)

    monkeypatch.setattr(Operations, "add_column", fail)
    with pytest.raises(ZeroDivisionError):
        upgrade(url)
    monkeypatch.undo()
    with engine.connect() as connection:
        assert present(connection) == "0004"
        assert "progress" not in sa.inspect(connection).get_table_names()
    upgrade(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def put(connection: sa.Connection, table: str, **values: object) -> None:
    """A row of a table as it is now, whatever this release thinks of it."""
    kept = sa.Table(table, sa.MetaData(), autoload_with=connection)
    row = {c.name: "" if isinstance(c.type, sa.String) else 0 for c in kept.c if not c.nullable}
    connection.execute(kept.insert(), {**row, **values})


def only(connection: sa.Connection, table: str) -> dict[str, object]:
    return dict(connection.execute(sa.select(metadata.tables[table])).mappings().one())


def test_what_an_earlier_release_wrote_is_kept(url: str) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        put(connection, "cluster", id=1, uuid="c", seq=7)
        put(connection, "node", uuid="u", facts="{}")
        put(connection, "job", job_id=7, owner="ada", account="vision")
        put(connection, "task", job_id=7, state="active", not_before_us=5)
        put(connection, "attempt", job_id=7, number=1, state="running")
        put(connection, "lease", lease_id=9, job_id=7, attempt=1, node_uuid="u", phase="running")
        put(connection, "worker", job_id=7, attempt=1, stderr_tail="é")
    upgrade(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        cluster = only(connection, "cluster")
        assert (cluster["seq"], cluster["events_removed_seq"]) == (7, 7), "who knows what went"
        account = only(connection, "account")
        assert (account["name"], account["open"], account["shares"]) == ("vision", 1, 1)
        assert rows.account_value(account) == Account(name="vision", open=True)
        job = only(connection, "job")
        assert (job["waits_for"], job["doomed"]) == ("[]", "")
        task = only(connection, "task")
        assert (task["job_id"], task["not_before_us"], task["released_us"]) == (7, 5, None)
        assert task["quick_requeues"] == 0
        attempt = only(connection, "attempt")
        assert (attempt["warned_us"], attempt["signals"]) == (None, "[]")
        lease = only(connection, "lease")
        assert (lease["lease_id"], lease["signals_done"], lease["phase"]) == (9, 0, "running")
        assert (lease["job_dir"], lease["output_fault"]) == ("", "")
        node = only(connection, "node")
        assert (node["enrolled_by"], node["quick_failures"]) == ("", "[]")
        assert node["given_labels"] == "[]"
        worker = only(connection, "worker")
        assert (worker["stderr_tail"], worker["oom_limit_bytes"]) == ("é", None)
    engine.dispose()


def test_usage_and_jobs_of_an_earlier_release_are_ready_for_retention(url: str) -> None:
    shipped = '{"working_dir":{"sha256":"%s","size":5}}' % ("ab" * 32)
    specs = [shipped, '{"working_dir":null,"comment":"\\"sha256\\""}', "{}"]
    engine = connect(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0008")
        for number, spec in enumerate(specs, 1):
            put(connection, "job", job_id=number, spec=spec)
            for table in ("task", "attempt", "usage"):
                put(connection, table, job_id=number)
    upgrade(url)
    with engine.connect() as connection:
        c = tables.job.c
        kept = connection.execute(sa.select(c.blob_sha256).order_by(c.job_id)).scalars().all()
        assert kept == ["ab" * 32, None, None]
        used = connection.execute(sa.select(tables.usage.c.job_id)).scalars().all()
        assert used == [1, 2, 3]
    engine.dispose()


def test_a_database_of_a_newer_release_is_refused_in_words(url: str) -> None:
    upgrade(url)
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(WrongState, match="schema 9999, which this release does not know"):
        upgrade(url)
