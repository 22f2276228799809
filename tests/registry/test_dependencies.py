"""Jobs that wait for others: what comes, what never can, and what is kept of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from controlplane.engine.upkeep import end_unmet
from controlplane.model.errors import InvalidRequest
from controlplane.model.job import JobState
from controlplane.model.spec import parse_spec, spec_sha256
from controlplane.registry import jobs
from controlplane.registry.depending import Past, Unread
from controlplane.registry.removal import Doomed, remove
from controlplane.registry.which import Which

if TYPE_CHECKING:
    from controlplane.registry.draft import Draft
    from tests.support.world import World

PENDING, SUCCEEDED, FAILED = JobState.PENDING, JobState.SUCCEEDED, JobState.FAILED
CANCELLED = JobState.CANCELLED


def finish(world: World, job_id: int, *, exit_code: int = 0, index: int | None = None) -> None:
    """Let what runs of a job end."""
    for node, status in world.statuses(job_id, index).items():
        world.report(node, world.ended(status, exit_code=exit_code))


def reason(world: World, job_id: int) -> str:
    world.tick()
    return world.registry.reason(world.job(job_id))


def kinds(world: World, job_id: int) -> list[str]:
    events = world.store.events(f"jobs/{job_id}", after=0, limit=1000)
    return [event.kind for event in events if event.kind.startswith("dependency.")]


@pytest.mark.parametrize(
    ("kind", "exit_code", "met"),
    [
        ("afterok", 0, True),
        ("afterok", 3, False),
        ("afternotok", 0, False),
        ("afternotok", 3, True),
        ("afterany", 0, True),
        ("afterany", 3, True),
    ],
)
def test_it_comes_or_never_can_in_the_commit_of_the_end(
    world: World, kind: str, exit_code: int, met: bool
) -> None:
    world.join("a")
    first = world.submit()
    second = world.submit(depends_on=[f"{kind}:{first}"])
    assert world.tick().placed == 1
    assert f"waits for jobs/{first} to" in reason(world, second)
    assert [str(each) for each in world.job(second).waits_for] == [f"{kind}:{first}"]
    finish(world, first, exit_code=exit_code)
    assert world.job(second).waits_for == ()
    assert kinds(world, second) == [f"dependency.{'met' if met else 'failed'}"]
    assert world.tick().placed == int(met)
    if not met:
        assert reason(world, second).startswith(f"can never run because jobs/{first} ")
        assert world.store.reload().unmet() == [Which(second)]


def test_all_that_is_waited_for_must_come(world: World) -> None:
    world.join("a")
    one, two = world.submit(), world.submit()
    last = world.submit(depends_on=[f"afterok:{one}", f"afterany:{two}"])
    assert world.tick().placed == 2
    finish(world, one)
    assert world.tick().placed == 0
    fresh = world.store.reload()
    assert [str(each) for each in fresh.jobs[last].waits_for] == [f"afterany:{two}"]
    assert list(fresh.waiters(two, None)) == [last]
    finish(world, two, exit_code=1)
    assert world.tick().placed == 1


def test_a_cancelled_job_has_not_succeeded(world: World) -> None:
    first = world.submit()
    well, badly = (
        world.submit(depends_on=[f"afterok:{first}"]),
        world.submit(depends_on=[f"afternotok:{first}"]),
    )
    world.cancel(first)
    assert "was cancelled" in world.job(well).doomed
    assert (world.job(badly).doomed, world.job(badly).waits_for) == ("", ())


def test_the_outcome_stays_when_what_was_waited_for_is_removed(world: World) -> None:
    world.join("a")
    first = world.submit()
    met, never = (
        world.submit(depends_on=[f"afterok:{first}"], workers=9),
        world.submit(depends_on=[f"afternotok:{first}"]),
    )
    world.tick()
    finish(world, first)
    world.do(lambda draft: remove(draft, Doomed(jobs=(first,), jobs_before_us=1)))
    facts = world.store.reload()
    assert (facts.jobs[met].waits_for, facts.jobs[met].doomed) == ((), "")
    assert f"jobs/{first} succeeded" in facts.jobs[never].doomed
    assert kinds(world, met) == ["dependency.met"]


def test_what_has_ended_before_the_submit_is_told_by_who_submits(world: World) -> None:
    world.join("a")
    first = world.submit()
    world.tick()
    finish(world, first)
    with pytest.raises(Unread):
        world.submit(depends_on=[f"afterok:{first}"])
    spec = parse_spec({"command": ["true"], "depends_on": [f"afterok:{first}"]})
    for state, doomed in ((SUCCEEDED, False), (FAILED, True)):
        wanted = jobs.Wanted(spec, spec_sha256(spec), 1000, pasts={first: Past(state, {})})
        (made,) = world.do(lambda draft, it=wanted: jobs.submit(draft, [it]))  # type: ignore[misc]
        assert bool(world.job(made).doomed) is doomed
        assert world.job(made).waits_for == ()


def test_a_task_can_be_waited_for(world: World) -> None:
    world.join("a", cpus=2)
    array = world.submit(tasks="0-3")
    after = world.submit(depends_on=[f"afterok:{array}_1"])
    world.tick()
    finish(world, array, index=0)
    assert world.job(after).waits_for
    finish(world, array, index=1)
    assert not world.job(after).waits_for
    late = world.submit(depends_on=[f"afterok:{array}_1", f"afternotok:{array}_0"])
    assert f"jobs/{array}/tasks/0 succeeded" in world.job(late).doomed
    never_made = world.submit(depends_on=[f"afterany:{array}_3", f"afterok:{array}_3"])
    world.cancel(array)
    assert "was cancelled" in world.job(never_made).doomed


def test_tasks_of_a_live_array_that_failed_are_known_after_a_restart(world: World) -> None:
    world.join("a", cpus=2)
    array = world.submit(tasks="0-3")
    world.tick()
    finish(world, array, index=0, exit_code=1)
    finish(world, array, index=1)
    assert world.store.reload().ill(array) == {0: FAILED}
    after = world.submit(depends_on=[f"afternotok:{array}_0"])
    assert (world.job(after).waits_for, world.job(after).doomed) == ((), "")


def test_tasks_wait_for_their_pairs_in_whatever_order_these_end(world: World) -> None:
    world.join("a", cpus=3)
    first = world.submit(tasks="0-2")
    second = world.submit(tasks="0-2", depends_on=[f"aftercorr:{first}"])
    assert world.tick().placed == 3
    assert "task by task" in reason(world, second)
    finish(world, first, index=2)
    assert world.tick().placed == 1
    assert world.registry.job(second, 2).attempts
    finish(world, first, index=0, exit_code=1)
    assert world.tick().placed == 0
    assert world.store.reload().unmet() == [Which(second, 0)]
    finish(world, first, index=1)
    assert world.job(second).waits_for == ()
    assert world.tick().placed == 1
    for index in (1, 2):
        finish(world, second, index=index)
    assert world.job(second).state is PENDING
    assert "did not succeed" in reason(world, second)
    world.cancel(second)
    ended = world.job(second)
    assert (ended.state, ended.ended.succeeded, ended.ended.cancelled) == (CANCELLED, 2, 1)


def test_pairs_of_what_is_cancelled_never_run(world: World) -> None:
    first = world.submit(tasks="0-4")
    second = world.submit(tasks="1-3", depends_on=[f"aftercorr:{first}"])
    world.do(lambda draft: jobs.cancel(draft, [Which(first, 2)]))
    assert [each.task for each in world.registry.unmet()] == [2]
    world.cancel(first)
    assert sorted(each.task or 0 for each in world.registry.unmet()) == [1, 2, 3]
    assert world.job(second).unmade == 0


def test_pairs_that_have_all_succeeded_cost_nothing(world: World) -> None:
    world.join("a")
    first = world.submit(tasks="0-1")
    world.tick()
    for index in (0, 1):
        finish(world, first, index=index)
    spec = parse_spec({"command": ["true"], "tasks": "0-1", "depends_on": [f"aftercorr:{first}"]})
    for ends, unmade in (({0: SUCCEEDED, 1: SUCCEEDED}, 2), ({0: SUCCEEDED, 1: FAILED}, 0)):
        wanted = jobs.Wanted(spec, spec_sha256(spec), 1000, pasts={first: Past(FAILED, ends)})
        (made,) = world.do(lambda draft, it=wanted: jobs.submit(draft, [it]))  # type: ignore[misc]
        assert (world.job(made).unmade, world.job(made).waits_for) == (unmade, ())
    assert world.tick().placed == 3


def test_jobs_of_one_group_may_wait_for_each_other_and_end(world: World) -> None:
    def at_once(draft: Draft) -> list[int]:
        def submit(**document: Any) -> int:
            spec = parse_spec({"command": ["true"], **document})
            return jobs.submit(draft, [jobs.Wanted(spec, spec_sha256(spec), 1000)])[0]

        first = submit()
        second = submit(depends_on=[f"afterok:{first}"])
        third = submit(depends_on=[f"afterany:{second}"])
        jobs.cancel(draft, [Which(first)])
        return [first, second, third]

    _, second, third = world.do(at_once)
    assert world.job(second).doomed
    assert world.job(third).waits_for


def test_what_can_never_run_is_ended_where_a_site_wants_that(world: World) -> None:
    first = world.submit()
    before, chain = first, []
    for _ in range(5):
        before = world.submit(depends_on=[f"afterok:{before}"])
        chain.append(before)
    world.cancel(first)
    assert all(world.job(number).state is PENDING for number in chain)
    submit = world.registry.submit

    def at_once(*args: Any, **kwargs: Any) -> Any:
        future = submit(*args, **kwargs)
        world.registry.run_once()
        return future

    world.registry.submit = at_once  # type: ignore[method-assign]
    assert end_unmet(world.registry) == 5
    assert all(world.job(number).state is CANCELLED for number in chain)
    assert world.job(chain[0]).reason == (
        f"cancelled by control-plane: it could never run because jobs/{first} was cancelled, and"
        f" afterok:{first} wants it to succeed"
    )


def test_a_task_of_what_is_being_cancelled_cannot_be_waited_for(world: World) -> None:
    world.join("a", cpus=1)
    array = world.submit(tasks="0-3")
    world.tick()
    world.cancel(array)
    with pytest.raises(InvalidRequest, match="is being cancelled") as caught:
        world.submit(depends_on=[f"afterany:{array}_3"])
    assert caught.value.faults[0].field == "depends_on[0]"
    assert world.submit(depends_on=[f"afterany:{array}"])


def test_nothing_begins_before_its_time(world: World) -> None:
    world.join("a")
    made = world.submit(begin="2023-11-14T22:14:00Z")
    assert world.tick().placed == 0
    assert reason(world, made) == "waits until 2023-11-14T22:14:00Z (begin)"
    world.clock.advance(40_000_000)
    assert world.tick().placed == 1
