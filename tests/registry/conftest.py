"""Every store behind one contract: in memory, on SQLite, and on a PostgreSQL of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import Postgres, postgres
from tests.support.stores import KINDS, Stores, in_memory, on_postgresql, on_sqlite
from tests.support.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from controlplane.registry.store import Store


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A server of its own is for `make test`; the quick loop has the other stores."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        params = callspec.params.values() if callspec is not None else ()
        if "postgresql" in params or "server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """One server for all tests of this room."""
    with postgres() as made:
        yield made


@pytest.fixture(params=KINDS)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Each kind of store in turn."""
    if request.param == "memory":
        return in_memory()
    if request.param == "sqlite":
        return on_sqlite(tmp_path)
    return on_postgresql(request.getfixturevalue("server"))


@pytest.fixture
def connected(stores: Stores) -> Iterator[Callable[[], Store]]:
    """Connects stores to one new database; they are closed with the test."""
    with stores.database() as connect:
        yield connect


@pytest.fixture
def world(connected: Callable[[], Store]) -> World:
    """A world over each kind of store."""
    return World(connected())
