"""One contract, every store: what `Store` promises, method by method."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.model.errors import StaleControlPlane, StoreUnavailable
from controlplane.model.event import CONTROL_PLANE, Actor
from controlplane.model.identity import Role
from controlplane.model.job import JobState
from controlplane.model.lease import LeasePhase, WorkerState
from controlplane.model.progress import Checkpoint, LeaseProgress, Point
from controlplane.model.spec import canonical_json, parse_spec, spec_sha256
from controlplane.registry import identity, jobs
from controlplane.registry import progress as reported
from controlplane.registry.draft import Draft
from controlplane.registry.facts import FIRST
from controlplane.registry.memory import matches
from controlplane.registry.store import Answer, JobFilter, RequestKey, Whose
from tests.support.examples import examples
from tests.support.stores import projection
from tests.support.world import World, facts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from controlplane.model.node import NodeFacts
    from controlplane.registry.store import Store

HUGE = 2**62
ALL = JobFilter()


def numbers(
    store: Store, which: JobFilter = ALL, before: int | None = None, limit: int = 99
) -> list[int]:
    found = store.jobs(which, before=before, limit=limit, full=False)
    return [record.job.job_id for record in found]


def finish(world: World, job_id: int) -> None:
    for uuid, status in world.statuses(job_id).items():
        world.report(uuid, status)
    for uuid, status in world.statuses(job_id).items():
        world.report(uuid, world.ended(status))


def furnish(world: World) -> tuple[int, int, int]:
    """Something of every noun; jobs that have ended, that run and that wait."""
    world.do(lambda draft: identity.create_user(draft, "ada", Role.USER))
    world.do(lambda draft: identity.create_token(draft, "ada", "a" * 64, "laptop", None))
    world.do(lambda draft: identity.create_join_token(draft, "b" * 64, HUGE, ""))
    node = world.join("a", gpus=2)
    world.join("b")
    done = world.submit(name="done")
    world.tick()
    finish(world, done)
    runs = world.submit(name="runs", resources={"gpus": 1}, workers=2, workers_per_node=2)
    world.tick()
    (status,) = world.statuses(runs).values()
    world.report(node, status)
    told = LeaseProgress(
        lease_id=status.lease_id,
        token=status.token,
        rank=0,
        points=(Point(time_us=5, step=3, metrics=(("loss", 0.5), ("é", 1e-300))),),
        checkpoint=Checkpoint(time_us=6, rank=0, path="/data/é"),
    )
    world.do(lambda draft: reported.take_in(draft, [((runs, 0, 1), told)], {}) and None)
    return done, runs, world.submit(name="waits", workers=1000)


def test_what_was_committed_is_loaded_again(world: World, connected: Callable[[], Store]) -> None:
    _, runs, waits = furnish(world)
    held = projection(world.registry._facts)
    assert projection(world.store.reload()) == held
    assert held["progress"]
    assert held["users"]
    assert held["tokens"]
    assert held["join_tokens"]
    again = connected()
    found = again.open()
    assert found.cluster == replace(world.registry._facts.cluster, epoch=2)
    assert projection(found) == {**held, "cluster": found.cluster}
    assert set(found.jobs) == {runs, waits}
    assert set(found.waiting) == {(waits, FIRST)}


def test_one_job_with_everything_that_became_of_it(world: World) -> None:
    done, runs, waits = furnish(world)
    ended = world.store.job(done)
    assert ended is not None
    assert (ended.job.state, ended.job.exit_code) == (JobState.SUCCEEDED, 0)
    assert [attempt.number for attempt in ended.attempts] == [1]
    assert list(ended.usages) == [(done, 0, 1)]
    (lease,) = ended.leases.values()
    assert (lease.phase, lease.removed_us) == (LeasePhase.ENDED, world.clock.now_us())
    live = world.store.job(runs)
    assert live is not None
    assert replace(live) == replace(world.registry.job(runs), usages={})
    assert [worker.state for worker in live.attempts[0].workers] == [WorkerState.RUNNING] * 2
    assert list(live.progress) == [(runs, 0, 1)]
    waiting = world.store.job(waits)
    assert waiting is not None
    assert (waiting.attempts, waiting.leases, waiting.usages) == ((), {}, {})
    assert world.store.job(HUGE) is None
    full = world.store.jobs(ALL, before=None, limit=9, full=True)
    assert list(full) == [waiting, live, ended]
    assert [
        record.attempts for record in world.store.jobs(ALL, before=None, limit=9, full=False)
    ] == [()] * 3


def test_leases_and_owners_are_found_live_and_ended(world: World) -> None:
    done, runs, waits = furnish(world)
    for job_id in (done, runs):
        for lease_id, lease in world.registry.job(job_id).leases.items():
            assert world.store.lease(lease_id) == lease
    assert world.store.lease(HUGE) is None
    everybody = dict.fromkeys((done, runs, waits), Whose("alice", "default"))
    assert world.store.owners([*everybody, HUGE]) == everybody
    assert world.store.owners([]) == {}


NAMES = ("sweep-1", "Sweep-1", "sweep_1", "sweep%1", "a[b]c", "abc", "é", "z", "back\\slash", "50%")


@pytest.fixture
def named(world: World) -> World:
    """Jobs that differ in everything that can be asked for."""
    world.do(lambda draft: draft.emit("test.begin", "jobs/0"))
    for number, name in enumerate(NAMES):
        labels = {"team": "x" if number % 2 else "y", **({"odd": ""} if number % 3 else {})}
        actor = Actor(principal=f"user-{number % 3}", peer="test")
        world.submit(actor, name=name, labels=labels)
        world.clock.advance(10)
    world.cancel(2, 5, 7)
    return world


FILTERS = st.builds(
    JobFilter,
    states=st.frozensets(st.sampled_from(JobState), max_size=2),
    owner=st.sampled_from(["", "user-0", "user-1", "USER-1", "nobody", "user-_"]),
    name_pattern=st.sampled_from(
        ["", "*", "sweep?1", "s*", "S*", "*[b]*", "[a-z]*", "*%*", "*_*", "*\\*", "???", "?", "é"]
    ),
    created_from_us=st.none() | st.integers(-5, 120),
    created_before_us=st.none() | st.integers(-5, 120),
    labels=st.sampled_from([(), (("team", "x"),), (("team", "y"), ("odd", "")), (("odd", "1"),)]),
)


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it is only read
)
@given(FILTERS, st.none() | st.integers(0, 12), st.integers(1, 4))
def test_every_filter_finds_what_the_pure_function_takes(
    named: World, which: JobFilter, before: int | None, limit: int
) -> None:
    began = named.clock.now_us() - 10 * len(NAMES)
    moments = ("created_from_us", "created_before_us")
    moved = {name: began + at for name in moments if (at := getattr(which, name)) is not None}
    which = replace(which, **moved)
    jobs = [record.job for record in named.store.jobs(ALL, before=None, limit=99, full=True)]
    expected = [
        job.job_id
        for job in sorted(jobs, key=lambda job: -job.job_id)
        if matches(which, job) and (before is None or job.job_id < before)
    ]
    assert numbers(named.store, which, before) == expected
    paged: list[int] = []
    while part := numbers(named.store, which, paged[-1] if paged else before, limit):
        paged += part
    assert paged == expected


def test_a_bracket_in_a_pattern_stands_for_itself(named: World) -> None:
    assert numbers(named.store, JobFilter(name_pattern="a[b]*")) == [5]
    assert numbers(named.store, JobFilter(name_pattern="*[*")) == [5]


def test_events_of_a_resource_are_its_own_and_its_parts(world: World) -> None:
    others = (
        "jobs/1",
        "jobs/10",
        "jobs/1/tasks/0",
        "jobs/1-b",
        "jobs/1 b",
        "jobs/1\u00e9",
        "jobs/2",
    )

    def tell(draft: Draft) -> None:
        for resource in others:
            draft.emit("test.told", resource, {"é": [1, None]})

    world.do(tell)

    def told(resource: str, after: int = 0, limit: int = 99) -> list[str]:
        return [e.resource for e in world.store.events(resource, after=after, limit=limit)]

    assert told("") == list(others)
    assert told("jobs/1") == ["jobs/1", "jobs/1/tasks/0"]
    assert told("jobs/1", after=1) == ["jobs/1/tasks/0"]
    assert told("jobs/1", limit=1) == ["jobs/1"]
    assert told("jobs/3") == []
    (first, *_) = world.store.events("", after=0, limit=1)
    assert (first.seq, first.kind, first.actor, dict(first.changed)) == (
        1,
        "test.told",
        Actor(principal="alice", peer="test"),
        {"é": [1, None]},
    )


def test_answers_are_kept_by_who_asked_and_forgotten_by_age(connected: Callable[[], Store]) -> None:
    store = connected()
    loaded = store.open()
    keys = [RequestKey(principal=f"p{i % 2}", request_id=f"r{i // 2}é") for i in range(1500)]
    given_ = {
        key: Answer(content_hash=f"{i:064x}", body={"job_id": HUGE, "é": None}, created_us=HUGE + i)
        for i, key in enumerate(keys)
    }
    store.commit(Draft(loaded, 0, CONTROL_PLANE), given_)
    assert store.answers(keys) == given_
    stranger = RequestKey(principal="p2", request_id="r0é")
    assert store.answers([stranger, keys[0]]) == {keys[0]: given_[keys[0]]}
    assert store.answers([]) == {}
    assert store.forget_answers(HUGE + 1400) == 1400
    assert store.answers(keys) == {key: given_[key] for key in keys[1400:]}
    assert store.forget_answers(HUGE) == 0


def test_odd_texts_and_large_numbers_are_kept(world: World) -> None:
    told = replace(
        facts("a", gpus=1),
        memory_bytes=HUGE,
        display_name="n" * 3000,
        labels=(("é", "\U0001f600"),),
    )
    device = replace(told.devices[0], memory_bytes=HUGE, model="m" * 500, fault="\U0001f600")
    node = "00000000-0000-4000-8000-00000000000a"
    world.report(node, told=replace(told, devices=(device,)))
    job_id = world.submit(name="\U0001f600")
    world.tick()
    (status,) = world.statuses(job_id).values()
    workers = (
        replace(
            status.workers[0], stderr_tail="é\n" * 9000, stdout_bytes=HUGE, peak_memory_bytes=HUGE
        ),
    )
    world.report(node, replace(status, message="w" * 9000, workers=workers))
    assert projection(world.store.reload()) == projection(world.registry._facts)


def test_what_a_program_wrote_with_a_nul_is_no_reason_to_refuse_its_report(world: World) -> None:
    node = world.join("a")
    job_id = world.submit()
    world.tick()
    (status,) = world.statuses(job_id).values()
    ended = world.ended(status, exit_code=1)
    workers = (replace(ended.workers[0], stderr_tail="one\0two"),)
    world.report(node, replace(ended, workers=workers))
    assert world.job(job_id).state is JobState.FAILED
    record = world.store.job(job_id)
    assert record is not None
    (worker,) = record.attempts[0].workers
    assert worker.stderr_tail in ("one\0two", "one\ufffdtwo")
    assert numbers(world.store, JobFilter(name_pattern="\0", owner="\0")) == []


def test_each_of_those_that_open_at_once_gets_an_epoch_of_its_own(
    connected: Callable[[], Store],
) -> None:
    def epoch_of(store: Store) -> int | None:
        try:
            return store.open().cluster.epoch
        except StaleControlPlane:  # overtaken while it loaded
            return None

    several = [connected() for _ in range(6)]
    with ThreadPoolExecutor(len(several)) as pool:
        taken = [epoch for epoch in pool.map(epoch_of, several) if epoch is not None]
    assert len(set(taken)) == len(taken)
    assert max(taken) == len(several)
    assert connected().open().cluster.epoch == len(several) + 1


def test_a_store_whose_epoch_is_over_writes_nothing(connected: Callable[[], Store]) -> None:
    old, new = connected(), connected()
    stale = Draft(old.open(), 0, CONTROL_PLANE)
    fresh = Draft(new.open(), 0, CONTROL_PLANE)
    stale.emit("test.stale", "jobs/0")
    fresh.emit("test.fresh", "jobs/0")
    with pytest.raises(StaleControlPlane):
        old.commit(stale, {})
    new.commit(fresh, {})
    with pytest.raises(StaleControlPlane):
        old.commit(stale, {})
    with pytest.raises(StaleControlPlane):
        old.reload()
    assert [event.kind for event in new.events("", after=0, limit=9)] == ["test.fresh"]
    assert new.reload().cluster.seq == 1


def test_a_change_that_was_not_made_of_the_last_commit_is_refused_whole(
    connected: Callable[[], Store],
) -> None:
    store = connected()
    loaded = store.open()
    first, second = Draft(loaded, 0, CONTROL_PLANE), Draft(loaded, 0, CONTROL_PLANE)
    first.emit("test.first", "jobs/0")
    second.emit("test.second", "jobs/0")
    answer = Answer(content_hash="", body={}, created_us=0)
    key = RequestKey(principal="p", request_id="r")
    store.commit(first, {})
    for late in (second, Draft(loaded, 0, CONTROL_PLANE)):
        with pytest.raises(StoreUnavailable, match=r"is at event 1, .* made at event 0"):
            store.commit(late, {key: answer})
    assert store.answers([key]) == {}
    assert store.reload().cluster.seq == 1


def test_devices_that_a_node_has_no_more_are_gone(world: World) -> None:
    node = world.join("a", gpus=3)
    had: NodeFacts = world.registry._facts.nodes[node].facts
    turned: Sequence[object] = had.devices[:0:-1]
    world.report(node, told=replace(had, devices=tuple(turned)))  # type: ignore[arg-type]
    assert len(world.store.reload().nodes[node].facts.devices) == 2


def test_any_number_of_jobs_is_written_in_one_commit(world: World) -> None:
    for count in (1, 7, 8, 9, 63, 65, 511, 513, 1_100):
        specs = [parse_spec({"command": ["true", str(n)], "name": f"n{n}"}) for n in range(count)]
        wanted = [jobs.Wanted(spec, spec_sha256(spec), 1000) for spec in specs]
        made = world.do(partial(jobs.submit, wanted=wanted))
        kept = world.store.jobs_of(made)
        assert [kept[number].spec for number in made] == specs


def test_a_spec_is_kept_as_the_text_that_came_with_it(world: World) -> None:
    spec = parse_spec({"command": ["true"], "env": {"B": "2", "A": "é"}})
    wanted = jobs.Wanted(spec, spec_sha256(spec), 1000, canonical_json(spec))
    (number,) = world.do(partial(jobs.submit, wanted=[wanted]))
    record = world.registry.live_job(number)
    assert record is not None
    assert world.store.jobs_of([number])[number] == record.job
