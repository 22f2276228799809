"""Transactions of both databases, their faults in words, and the lock on them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from controlplane.model.errors import StoreUnavailable, WrongState
from controlplane.registry import tables
from controlplane.registry.database import connect, reading, writing
from controlplane.registry.holding import holder, holding
from controlplane.registry.migrate import upgrade
from controlplane.registry.sql import SqlStore
from tests.support.cluster import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

ANSWER = {"principal": "p", "content_hash": "", "answer": "{}", "created_us": 0}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        made = f"sqlite:///{tmp_path}/x.db"
        upgrade(made)
        yield made
        return
    server: Postgres = request.getfixturevalue("server")
    with server.database() as made:
        yield made


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    made = connect(url)
    yield made
    made.dispose()


def count(connection: sa.Connection) -> int:
    query = sa.select(sa.func.count()).select_from(tables.request)
    return int(connection.execute(query).scalar_one())


def test_all_queries_of_a_read_see_one_moment(engine: sa.Engine) -> None:
    with reading(engine) as before:
        assert count(before) == 0
        with writing(engine) as connection:
            connection.execute(tables.request.insert(), {**ANSWER, "request_id": "r"})
        assert count(before) == 0
    with reading(engine) as after:
        assert count(after) == 1


def test_a_transaction_that_fails_leaves_nothing(engine: sa.Engine) -> None:
    with contextlib.suppress(ZeroDivisionError), writing(engine) as connection:
        connection.execute(tables.request.insert(), {**ANSWER, "request_id": "r"})
        connection.exec_driver_sql("CREATE TABLE half (a INTEGER)")
        raise ZeroDivisionError
    with reading(engine) as connection:
        assert count(connection) == 0
        assert "half" not in sa.inspect(connection).get_table_names()


def test_a_database_has_one_owner_who_is_named(url: str, engine: sa.Engine) -> None:
    assert holder(engine) == ""
    with holding(url, "a test") as hold:
        assert hold.keep() == ""
        assert holder(engine).startswith("a test, process ")
        with pytest.raises(WrongState, match=r"is in use by a test, process .*; stop that first"):
            holding(url, "another").__enter__()
    assert holder(engine) == ""
    with holding(url, "another"):
        pass


def test_an_owner_that_was_killed_has_no_database_any_more(url: str, engine: sa.Engine) -> None:
    code = f"""
        from controlplane.registry.holding import holding
        with holding({url!r}, "a victim"):
            print("held", flush=True)
            input()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert f"a victim, process {child.pid} on " in holder(engine)
        child.kill()
        child.wait()
    with holding(url, "a successor"):
        pass


def test_the_lock_is_taken_again_after_the_server_was_restarted(server: Postgres) -> None:
    with server.database() as url, holding(url, "a test") as hold:
        engine = connect(url)
        server.stop()
        assert hold.keep() == "", "the writer tells that the server is away"
        server.start()
        assert holder(engine) == ""
        assert hold.keep() == ""
        assert holder(engine).startswith("a test, ")
        engine.dispose()


def test_an_owner_that_lost_the_lock_says_who_has_it(server: Postgres) -> None:
    with server.database() as url, holding(url, "a test") as hold:
        server.stop()
        server.start()
        with holding(url, "a usurper"):
            assert "is in use by a usurper, process " in hold.keep()
        assert hold.keep() == ""


def test_a_store_goes_on_by_itself_when_the_server_is_back(server: Postgres) -> None:
    with server.database() as url:
        store = SqlStore(url)
        store.open()
        server.stop()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                store.job(1)
        server.start()
        assert store.job(1) is None
        assert store.reload().cluster.epoch == 1
        store.close()


def lose_the_connection(engine: sa.Engine, server: Postgres) -> None:
    with writing(engine) as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        server.execute(f"SELECT pg_terminate_backend({pid})")
        until(
            lambda: not server.execute(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"),
            "the connection to end",
        )
        count(connection)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_connection_that_the_server_ends_is_told_and_made_anew(
    engine: sa.Engine, server: Postgres
) -> None:
    with pytest.raises(StoreUnavailable, match="terminating connection"):
        lose_the_connection(engine, server)
    with reading(engine) as connection:
        assert count(connection) == 0


def test_what_was_acknowledged_is_on_the_disk_whatever_the_server_is_set_to(
    server: Postgres,
) -> None:
    with server.database() as url:
        name = sa.make_url(url).database
        for site, ours in (("off", "on"), ("remote_apply", "remote_apply")):
            server.execute(f"ALTER DATABASE {name} SET synchronous_commit = '{site}'")
            engine = connect(url)
            with writing(engine) as connection:
                found = connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()
            assert found == ours
            engine.dispose()
        server.execute(f"ALTER DATABASE {name} RESET synchronous_commit")


def test_sqlite_is_durable(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/x.db")
    with writing(engine) as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous")
        }
    engine.dispose()
    assert pragma == {"journal_mode": "wal", "synchronous": 2}


def test_a_database_that_cannot_keep_every_text_is_refused(server: Postgres) -> None:
    server.execute(
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
    )
    with pytest.raises(WrongState, match="keeps texts as LATIN1; make one with CREATE DATABASE"):
        upgrade(server.url("latin"))


@pytest.mark.parametrize("wrong", ["mysql://h/x", "postgresql+psycopg2://h/x", "nonsense"])
def test_other_databases_are_refused(wrong: str) -> None:
    with pytest.raises(sa.exc.ArgumentError):
        connect(wrong)


def test_the_short_name_of_postgresql_is_known() -> None:
    for url in ("postgresql://h/x", "postgres://h/x"):
        assert connect(url).url.drivername == "postgresql+psycopg"
