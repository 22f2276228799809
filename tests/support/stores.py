"""Each kind of store, made when it is asked for, and the projection that it must load again."""

from __future__ import annotations

import itertools
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from controlplane.registry.memory import MemoryStore
from controlplane.registry.migrate import upgrade
from controlplane.registry.sql import SqlStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from controlplane.registry.facts import Facts
    from controlplane.registry.store import Store
    from tests.support.postgres import Postgres

KINDS = ("memory", "sqlite", "postgresql")


@dataclass(frozen=True, kw_only=True)
class Stores:
    """One kind of store."""

    kind: str
    """One of KINDS."""
    connecting: Callable[[], AbstractContextManager[Callable[[], Store]]]
    """Makes a new database for a while, and gives what connects a store to it."""

    @contextmanager
    def database(self) -> Iterator[Callable[[], Store]]:
        """What connects stores to one new database; they are closed with the block."""
        made: list[Store] = []
        with self.connecting() as connect:

            def another() -> Store:
                made.append(connect())
                return made[-1]

            try:
                yield another
            finally:
                for store in made:
                    store.close()


def in_memory() -> Stores:
    """Stores in memory."""

    @contextmanager
    def connecting() -> Iterator[Callable[[], Store]]:
        first = MemoryStore()
        yield lambda: MemoryStore(beside=first)

    return Stores(kind="memory", connecting=connecting)


def on_sqlite(folder: Path) -> Stores:
    """Stores on SQLite, below a folder."""
    numbers = itertools.count()
    template = folder / "template.db"
    upgrade(f"sqlite:///{template}")

    @contextmanager
    def connecting() -> Iterator[Callable[[], Store]]:
        path = shutil.copy(template, folder / f"{next(numbers)}.db")
        yield lambda: SqlStore(f"sqlite:///{path}")

    return Stores(kind="sqlite", connecting=connecting)


def on_postgresql(server: Postgres) -> Stores:
    """Stores on PostgreSQL."""

    @contextmanager
    def connecting() -> Iterator[Callable[[], Store]]:
        with server.database() as url:
            yield lambda: SqlStore(url)

    return Stores(kind="postgresql", connecting=connecting)


def projection(facts: Facts) -> dict[str, object]:
    """What a reload must give again: not why tasks wait, which each cycle says anew, not numbers of
    generations, which only grow, and not what is remembered of attempts that have ended."""
    known = {each.name: getattr(facts, each.name) for each in fields(facts)}
    caches = ("_progress_ended", "_node_views", "_windows", "_fresh", "recent")
    books = ("_memberships", "_shared", "_books")
    for name in ("reasons", "generations", "reserved", *caches, *books):
        del known[name]
    known["node_leases"] = {uuid: held for uuid, held in facts.node_leases.items() if held}
    known["progress"] = {k: p for k, p in facts.progress.items() if k in facts.attempts}
    return known
