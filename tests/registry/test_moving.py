"""A registry moves to another database with every row, verified, or not at all."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from controlplane.model.account import Account, Limits
from controlplane.model.errors import StoreRefused, WrongState
from controlplane.model.identity import Admission
from controlplane.model.reservation import Reservation
from controlplane.model.spending import Spending
from controlplane.registry import accounts, tables
from controlplane.registry.database import connect, reading, writing
from controlplane.registry.holding import holding
from controlplane.registry.inspecting import inspect
from controlplane.registry.migrate import upgrade
from controlplane.registry.moving import move
from controlplane.registry.sql import SqlStore
from tests.registry.test_store import furnish
from tests.support.stores import projection
from tests.support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from controlplane.registry.draft import Draft
    from tests.support.postgres import Postgres


def join_and_tell(draft: Draft) -> None:
    draft.admissions["u"] = Admission(
        node_uuid="u", generation=2**40, admitted_us=5, admitted_by="é"
    )
    accounts.create(draft, Account(name="vision", limits=Limits(gpus=8)))
    accounts.set_member(draft, "vision", "é", {"default": True})
    spent = Spending(account="vision", user="é", usage_us=2**62, as_of_us=2**50, days=((19675, 7),))
    draft.spendings[spent.key] = spent
    kept = Reservation(name="é", begin_us=2**50, end_us=2**51, node_uuids=("u",), users=("bob",))
    draft.reservations[kept.name] = kept
    for number in range(1200):
        draft.emit("test.many", f"nodes/{number}", {"é": number})


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A database of SQLite with something of every noun."""
    url = f"sqlite:///{tmp_path}/source.db"
    upgrade(url)
    world = World(SqlStore(url))
    furnish(world)
    job_id = world.submit(once="asked", name="a \U0001f600")
    world.tick()
    (node,) = world.statuses(job_id)
    ended = world.ended(world.statuses(job_id)[node], exit_code=1)
    workers = (replace(ended.workers[0], stderr_tail="one\0two"),)
    world.report(node, replace(ended, workers=workers))
    world.do(join_and_tell)
    world.registry.close()
    return url


@pytest.fixture
def target(server: Postgres) -> str:
    return server.empty()


def everything(url: str) -> dict[str, int]:
    engine = connect(url)
    with reading(engine) as connection:
        found = {
            table.name: connection.execute(
                sa.select(sa.func.count()).select_from(table)
            ).scalar_one()
            for table in tables.metadata.sorted_tables
        }
    engine.dispose()
    return found


def test_every_row_arrives_and_the_numbers_go_on(source: str, target: str) -> None:
    said: list[str] = []
    moved = move(source, target, said.append)
    assert {each.table: each.rows for each in moved} == everything(source) == everything(target)
    assert all(each.rows for each in moved), "something of every table"
    assert "event: verified" in said
    assert inspect(target).faults == []

    before = SqlStore(source)
    after = SqlStore(target)
    old, new = World(before), World(after)
    held = projection(old.registry._facts)
    assert projection(new.registry._facts) == held
    last = old.registry._facts.cluster.last_job_id
    assert new.submit(once="asked", name="a \U0001f600") == 4
    assert new.submit() == last + 1
    assert new.registry._facts.cluster.uuid == old.registry._facts.cluster.uuid
    record = after.job(4)
    assert record is not None
    assert record.attempts[0].workers[0].stderr_tail == "one\ufffdtwo"
    before.close()
    after.close()


def test_there_and_back_again_is_the_same(source: str, target: str, tmp_path: Path) -> None:
    there = move(source, target, lambda _: None)
    back = move(target, f"sqlite:///{tmp_path}/back.db", lambda _: None)
    assert there == back


def test_a_target_that_is_not_empty_is_refused(source: str, target: str) -> None:
    move(source, target, lambda _: None)
    with pytest.raises(WrongState, match="is not empty: its table"):
        move(source, target, lambda _: None)


def test_a_database_of_something_else_is_refused(
    source: str, target: str, server: Postgres
) -> None:
    server.execute("CREATE TABLE job (a INTEGER)", str(sa.make_url(target).database))
    with pytest.raises(WrongState, match="is not empty: it has the table job"):
        move(source, target, lambda _: None)


def test_the_database_itself_is_no_target(source: str) -> None:
    with pytest.raises(WrongState, match="is where the registry is already"):
        move(source, source, lambda _: None)


@pytest.mark.parametrize("owned", ["source", "target"])
def test_neither_may_be_in_use(source: str, target: str, owned: str) -> None:
    with (
        holding({"source": source, "target": target}[owned], "a control plane"),
        pytest.raises(WrongState, match="is in use by a control plane, process"),
    ):
        move(source, target, lambda _: None)


def test_an_older_schema_is_brought_up_to_date_first(target: str, tmp_path: Path) -> None:
    with pytest.raises(WrongState, match="run `controlplane db upgrade` first"):
        move(f"sqlite:///{tmp_path}/new.db", target, lambda _: None)


def test_what_cannot_be_kept_there_leaves_the_target_empty(source: str, target: str) -> None:
    engine = connect(source)
    with writing(engine) as connection:
        connection.execute(tables.attempt.delete())
    engine.dispose()
    with pytest.raises(StoreRefused, match="violates foreign key"):
        move(source, target, lambda _: None)
    assert not any(everything(target).values())
    assert any("belong to no attempt that is there" in fault for fault in inspect(source).faults)


# --- looking one through --------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            made = f"sqlite:///{tmp_path}/x.db"
            upgrade(made)
        else:
            server: Postgres = request.getfixturevalue("server")
            made = stack.enter_context(server.database())
        yield made


def test_a_sound_database_is_told_of(url: str) -> None:
    found = inspect(url)
    assert found.told["cluster"] == "none yet: no control plane has run on it"
    world = World(SqlStore(url))
    furnish(world)
    with holding(url, "a control plane"):
        found = inspect(url)
    world.registry.close()
    assert found.faults == []
    assert found.rows["job"] == 3
    assert found.told["schema"].endswith(", as this release declares it")
    assert found.told["in use by"].startswith("a control plane, process ")
    assert found.told["cluster"].startswith(world.registry.cluster_uuid)


def test_numbers_that_would_be_given_out_twice_are_found(url: str) -> None:
    world = World(SqlStore(url))
    world.submit()
    engine = connect(url)
    with writing(engine) as connection:
        connection.execute(tables.cluster.update().values(last_job_id=0))
    engine.dispose()
    world.registry.close()
    (fault,) = inspect(url).faults
    assert fault == ("job has number 1, but the last that was given out is 0 (cluster.last_job_id)")


def test_a_schema_that_somebody_changed_is_found(url: str) -> None:
    engine = connect(url)
    with writing(engine) as connection:
        connection.exec_driver_sql("DROP INDEX ix_lease_job_id")
    engine.dispose()
    (fault,) = inspect(url).faults
    assert fault.startswith("the schema is not as declared: ")
    assert "ix_lease_job_id" in fault


def test_damage_of_a_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    url = f"sqlite:///{path}"
    upgrade(url)
    world = World(SqlStore(url))
    for _ in range(200):
        world.submit(name="x" * 100)
    world.registry.close()
    engine = connect(url)
    with reading(engine) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'ix_job_owner_job_id'"
        page = connection.exec_driver_sql(query).scalar_one()
        size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    engine.dispose()
    with path.open("r+b") as file:
        file.seek((page - 1) * size + size // 2)
        file.write(b"\xff" * (size // 2))
    faults = inspect(url).faults
    assert faults
    assert all(fault.startswith("damaged: ") for fault in faults)
