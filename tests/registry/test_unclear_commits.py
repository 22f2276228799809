"""The connection ends in the middle of a commit: whether it came through is read, never guessed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.model.errors import (
    ControlPlaneError,
    NotFound,
    StoreRefused,
    StoreUnavailable,
)
from controlplane.model.job import JobState
from controlplane.registry import jobs
from controlplane.registry.sql import SqlStore
from controlplane.registry.store import JobFilter
from tests.support.stores import projection
from tests.support.world import ALICE, World, facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.registry.draft import Draft
    from controlplane.registry.facts import Facts
    from controlplane.registry.store import Store
    from tests.support.postgres import Postgres


class Cut:
    """A store whose connection ends where a test says."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before = self.after = False
        """Whether the next commit is cut off before or after the database has it."""
        self.away = 0
        """So many times it cannot be read again."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, draft: Draft, answers: Any) -> None:
        if self.before:
            self.before = False
            raise StoreUnavailable("the server closed the connection")
        self._store.commit(draft, answers)
        if self.after:
            self.after = False
            raise StoreUnavailable("the server closed the connection")

    def reload(self) -> Facts:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("the database does not answer")
        return self._store.reload()


@pytest.fixture
def cut(connected: Callable[[], Store]) -> Cut:
    return Cut(connected())


@pytest.fixture
def world(cut: Cut) -> World:
    made = World(cut)
    made.join("a")
    made.submit(name="before")
    return made


def same(world: World) -> bool:
    return projection(world.store.reload()) == projection(world.registry._facts)


def test_a_commit_that_came_through_is_answered_and_told(cut: Cut, world: World) -> None:
    told: list[Draft] = []
    world.registry.listen(told.append)
    cut.after = True
    assert world.submit(name="through", once="r") == 2
    assert [list(draft.jobs.changed) for draft in told] == [[2]]
    assert world.job(2).state is JobState.PENDING
    assert same(world)
    assert world.submit(name="through", once="r") == 2
    assert world.submit() == 3


def test_one_that_did_not_is_refused_and_may_be_tried_again(cut: Cut, world: World) -> None:
    told: list[Draft] = []
    world.registry.listen(told.append)
    cut.before = True
    with pytest.raises(StoreUnavailable):
        world.submit(name="lost", once="r")
    assert told == []
    assert same(world)
    assert world.submit(name="lost", once="r") == 2


@pytest.mark.parametrize("through", [True, False])
def test_nothing_is_built_on_what_nobody_knows(cut: Cut, world: World, through: bool) -> None:
    told: list[Draft] = []
    world.registry.listen(told.append)
    cut.before, cut.after = not through, through
    cut.away = 3
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            world.submit(name="in doubt", once="r")
    assert told == []
    assert world.submit(name="in doubt", once="r") == 2
    assert [list(draft.jobs.changed) for draft in told] == [[2]]
    assert same(world)
    assert world.submit() == 3
    events = world.store.events("", after=0, limit=99)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


def test_why_jobs_wait_is_still_known_afterwards(cut: Cut, world: World) -> None:
    waits = world.submit(workers=1000)
    world.tick()
    reason = world.registry.reason(world.job(waits))
    cut.before = True
    with pytest.raises(StoreUnavailable):
        world.submit()
    assert world.registry.reason(world.job(waits)) == reason


def test_an_answer_without_a_change_does_not_turn_the_numbers_back(cut: Cut, world: World) -> None:
    """Its commit says which event was the last: it must not be an older one than the database's."""
    cut.after, cut.away = True, 1
    with pytest.raises(StoreUnavailable):
        world.submit(name="through")
    world.cancel(2)
    world.do(lambda draft: jobs.cancel(draft, [2]))
    assert world.submit() == 3
    assert same(world)


@pytest.mark.parametrize("stores", ["sqlite", "postgresql"], indirect=True)
def test_a_change_that_the_database_never_takes_harms_nobody_of_its_group(
    connected: Callable[[], Store],
) -> None:
    world = World(connected())
    submit = world.registry.submit

    def bad(draft: Draft) -> None:
        node = world.registry.node(uuid)
        assert node is not None
        draft.emit("node.changed", node.name)
        draft.nodes[uuid] = type(node)(
            uuid=uuid, facts=node.facts, boot_id="", created_us=2**70, enrolled_by="alice"
        )

    uuid = world.join("a")
    world.report(uuid, told=facts("a", cpus=2))
    first = submit(lambda draft: draft.emit("test.first", "jobs/0"), ALICE)
    never = submit(bad, ALICE)
    missing = submit(lambda draft: jobs.cancel(draft, [77]), ALICE)
    last = submit(lambda draft: draft.emit("test.last", "jobs/0"), ALICE)
    world.registry.run_once()
    assert last.result(0) == first.result(0) + 1
    fault = never.exception(0)
    assert isinstance(fault, StoreRefused)
    assert isinstance(fault, ControlPlaneError)
    assert isinstance(missing.exception(0), NotFound)
    assert same(world)
    assert world.store.jobs(JobFilter(), before=None, limit=1, full=True) == []


CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


def test_a_server_that_ends_the_connection_after_it_committed(server: Postgres) -> None:
    """The real thing: COMMIT waits for a standby that there is none of, and is cut off there."""
    with server.database() as url, ThreadPoolExecutor(1) as pool:
        world = World(SqlStore(url))
        server.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        server.execute("SELECT pg_reload_conf()")
        try:
            number, cut = 0, False
            while not cut:  # the server takes a moment to know of its setting
                number += 1
                submitted = pool.submit(world.submit, name="through", once=f"r{number}")
                while not cut and not submitted.done():
                    cut = bool(server.execute(CUT_OFF))
                assert submitted.result(30) == number
        finally:
            server.execute("ALTER SYSTEM RESET synchronous_standby_names")
            server.execute("SELECT pg_reload_conf()")
        assert same(world)
        assert world.submit(name="through", once=f"r{number}") == number
        assert world.submit() == number + 1
        world.store.close()
