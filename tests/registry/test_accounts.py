"""Accounts: kept by every store, asked at each submit and placement, and told to decisions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.model.account import (
    HOUR_US,
    Account,
    Doing,
    Held,
    Limits,
    MembersMay,
)
from controlplane.model.errors import (
    AlreadyExists,
    InvalidRequest,
    NotAllowed,
    NotFound,
    QuotaExceeded,
    WrongState,
)
from controlplane.model.event import Actor
from controlplane.model.policy import DAY_US, DEFAULT
from controlplane.model.spec import parse_spec, spec_sha256
from controlplane.registry import accounts, jobs
from controlplane.registry.books import Books
from controlplane.registry.jobs import Change
from controlplane.registry.memory import matches
from controlplane.registry.placing import commit_places
from controlplane.registry.registry import Registry
from controlplane.registry.store import JobFilter, Sight
from controlplane.scheduling.policy import plan
from tests.registry.test_arrays import finish
from tests.support.stores import projection
from tests.support.world import ALICE, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.registry.store import Store

BOB = Actor(principal="bob", peer="test")
MINUTE = 60_000_000


def make(world: World, name: str, parent: str = "", **fields: Any) -> Account:
    return world.do(
        lambda draft: accounts.create(draft, Account(name=name, parent=parent, **fields))
    )


def join(world: World, account: str, user: str = "alice", **fields: Any) -> list[str]:
    return world.do(lambda draft: accounts.set_member(draft, account, user, fields))[1]


def change(world: World, name: str, **fields: Any) -> list[str]:
    return world.do(lambda draft: accounts.update(draft, name, fields))[1]


def used(world: World) -> dict[str, int]:
    """Usage by account, and by account and user, as a decision sees it now."""
    view = world.registry.view(world.clock.now_us())
    return {a.name: a.usage for a in view.accounts} | {
        f"{m.account}/{m.user}": m.usage for m in view.members
    }


def furnished(world: World) -> None:
    make(world, "science", shares=3, description="all of it")
    make(
        world,
        "vision",
        "science",
        limits=Limits(gpus=8, queued=5, gpu_hours=100),
        members_may=MembersMay.SEE,
    )
    join(world, "vision", default=True, shares=2)
    join(world, "vision", "bob", coordinator=True, limits=Limits(running=1))


def test_the_default_account_is_always_there_and_open(world: World) -> None:
    (account,) = world.registry.accounts()
    assert (account.name, account.open, account.parent) == ("default", True, "")
    assert world.job(world.submit()).account == "default"
    with pytest.raises(WrongState, match="stays; close it: ccctl account update default --no-open"):
        world.do(lambda draft: accounts.delete(draft, "default"))


def test_accounts_and_what_was_used_are_kept_by_every_store(world: World) -> None:
    furnished(world)
    world.join("n1", gpus=4)
    job_id = world.submit(resources={"gpus": 2}, tasks="0-2")
    world.tick()
    world.clock.advance(10 * MINUTE)
    finish(world, job_id, 0)
    assert world.registry.held("science") == Held(1, 1, 2)
    assert used(world)["vision/alice"] > 0
    held, seen = projection(world.registry._facts), world.registry.view(world.clock.now_us())
    again = world.store.reload()
    assert projection(again) == held
    told = again.view(world.clock.now_us())
    assert (told.accounts, told.members) == (seen.accounts, seen.members)


def test_what_is_removed_is_gone_from_every_store(
    world: World, connected: Callable[[], Store]
) -> None:
    make(world, "old")
    join(world, "old", default=True)
    world.join("n1", gpus=1)
    job_id = world.submit(resources={"gpus": 1})
    with pytest.raises(WrongState, match="that have not ended: 1 that waits and 0 that run; end"):
        world.do(lambda draft: accounts.delete(draft, "old"))
    world.tick()
    world.clock.advance(MINUTE)
    finish(world, job_id, 0)
    make(world, "below", "old")
    with pytest.raises(WrongState, match="has accounts below it: below"):
        world.do(lambda draft: accounts.delete(draft, "old"))
    world.do(lambda draft: accounts.delete(draft, "below"))
    world.do(lambda draft: accounts.delete(draft, "old"))
    for facts in (world.registry._facts, Registry(connected(), world.clock.now_us)._facts):
        assert list(facts.accounts) == ["default"]
        assert (facts.members, facts.spendings) == ({}, {})
    assert used(world) == {"default": 0}


def test_an_account_is_made_once_under_a_parent_that_is_there(world: World) -> None:
    make(world, "a")
    with pytest.raises(AlreadyExists, match="accounts/a: is there already"):
        make(world, "a")
    with pytest.raises(InvalidRequest, match='parent: "b": there is no such account'):
        make(world, "c", "b")
    with pytest.raises(InvalidRequest, match="account_id: 'No!': must be 1 to 63 of a-z"):
        make(world, "No!")
    make(world, "b", "a")
    for parent in ("a", "b"):
        with pytest.raises(InvalidRequest, match="is a itself, or below it"):
            change(world, "a", parent=parent)
    above = "b"
    for number in range(14):
        above = make(world, f"x{number}", above).name
    with pytest.raises(InvalidRequest, match="at most 16 accounts may be above one another"):
        make(world, "deepest", above)
    make(world, "top")
    with pytest.raises(InvalidRequest, match="at most 16 accounts may be above one another"):
        change(world, "a", parent="top")


def test_changes_are_told_before_and_after(world: World) -> None:
    furnished(world)
    change(world, "vision", shares=7, limits=Limits(gpus=4, queued=5, gpu_hours=100))
    join(world, "vision", "bob", coordinator=False)
    events = world.store.events("accounts/vision", after=0, limit=99)
    told = {event.kind: dict(event.changed) for event in events}
    assert told["account.changed"] == {"shares": [1, 7], "quota.gpus": [8, 4]}
    assert told["account.member_changed"] == {"coordinator": [True, False]}
    seq = world.registry.seq
    change(world, "vision", shares=7)
    join(world, "vision", "bob", coordinator=False)
    assert world.registry.seq == seq, "a repeat changes nothing"


def test_a_job_is_paid_by_an_account_of_its_owner(world: World) -> None:
    furnished(world)
    assert world.job(world.submit()).account == "vision", "alice's default one"
    assert world.job(world.submit(BOB)).account == "default"
    assert world.job(world.submit(BOB, account="vision")).account == "vision"
    assert world.job(world.submit(account="default")).account == "default"
    with pytest.raises(NotAllowed, match="accounts/science: alice is no member of it; yours are:"):
        world.submit(account="science")
    with pytest.raises(InvalidRequest, match='account: "no": there is no such account; yours are'):
        world.submit(account="no")
    change(world, "default", open=False)
    with pytest.raises(NotAllowed, match="accounts/default: bob is no member of it; yours are: v"):
        world.submit(BOB)


def test_one_account_at_most_is_a_users_default(world: World) -> None:
    furnished(world)
    join(world, "science", default=True)
    assert {m.account for m in world.registry.memberships("alice").values() if m.default} == {
        "science"
    }
    world.do(lambda draft: accounts.remove_member(draft, "science", "alice"))
    assert world.job(world.submit()).account == "default"
    with pytest.raises(NotFound, match="accounts/science/members/alice: there is no such member"):
        world.do(lambda draft: accounts.remove_member(draft, "science", "alice"))


def test_what_waits_above_the_quota_is_refused_at_submit(world: World) -> None:
    furnished(world)
    world.submit(tasks="0-3")
    with pytest.raises(QuotaExceeded, match="accounts/vision: 4 tasks wait, and 5 may"):
        world.submit(tasks="0-1")
    last = world.submit()
    with pytest.raises(QuotaExceeded, match=r"wait, and 5 may \(queued of its quota\), so 1 more"):
        world.submit(BOB, account="vision")
    world.cancel(last)
    world.submit()
    change(world, "science", limits=Limits(queued=0))
    world.cancel(1)
    with pytest.raises(QuotaExceeded, match="accounts/science: 1 task waits, and 0 may"):
        world.submit(BOB, account="vision")


def test_jobs_of_one_group_see_each_other(world: World) -> None:
    make(world, "tight", limits=Limits(queued=3))
    join(world, "tight", default=True)
    spec = parse_spec({"command": ["true"]})
    wanted = [jobs.Wanted(spec, spec_sha256(spec), 1)]
    futures = [world.registry.submit(lambda d: jobs.submit(d, wanted), ALICE) for _ in range(5)]
    world.registry.run_once()
    refused = [future.exception(timeout=0) for future in futures]
    assert [isinstance(fault, QuotaExceeded) for fault in refused] == [False] * 3 + [True] * 2
    assert world.registry.held("tight") == Held(queued=3)


def test_a_quota_below_what_is_used_is_taken_and_told(world: World) -> None:
    furnished(world)
    world.submit(tasks="0-3")
    (warning,) = change(world, "vision", limits=Limits(queued=1))
    assert warning == (
        "vision has 4 waiting tasks by now, above its quota of 1: nothing of it is ended, and"
        " nothing is added until there are fewer"
    )
    assert join(world, "vision", limits=Limits(queued=9)) == []


def test_what_is_above_the_quota_waits_and_says_so(world: World) -> None:
    furnished(world)
    world.join("n1", gpus=16, cpus=64)
    for _ in range(4):
        world.submit(resources={"gpus": 3})
    assert world.tick().placed == 2
    assert "account vision has 6 of 8 GPUs" in world.registry.reason(world.job(4))
    change(world, "vision", limits=Limits(gpus=9))
    assert world.tick().placed == 1
    world.submit(BOB, account="vision")
    world.submit(BOB, account="vision")
    assert world.tick().placed == 1
    assert "bob in account vision has 1 of 1 running task" in world.registry.reason(world.job(6))


def test_a_plan_that_is_above_the_quota_by_now_is_refused_at_the_commit(world: World) -> None:
    furnished(world)
    world.join("n1", gpus=16, cpus=64)
    for _ in range(2):
        world.submit(resources={"gpus": 3})
    world.submit(BOB, account="vision")
    places = plan(world.registry.view(world.clock.now_us()), DEFAULT).places
    assert len(places) == 3
    change(world, "science", limits=Limits(gpus=4, borrow_gpus=1))
    join(world, "vision", "bob", limits=Limits(running=0))
    refused = world.do(lambda draft: commit_places(draft, places))
    assert {each.job_id: each.reason for each in refused} == {
        2: "accounts/science has 3 GPUs, and may have 5",
        3: "bob in accounts/vision runs 0 tasks, and may run 0",
    }


def test_a_job_moves_to_another_account_while_nothing_of_it_runs(world: World) -> None:
    furnished(world)
    world.join("n1", gpus=1)
    waits, runs = world.submit(resources={"gpus": 2}), world.submit()
    world.tick()
    move = Change(account="default")
    world.do(lambda draft: jobs.update(draft, waits, move))
    assert world.job(waits).account == "default"
    assert world.registry.held("default") == Held(queued=1)
    with pytest.raises(WrongState, match="pays for all of it; requeue it"):
        world.do(lambda draft: jobs.update(draft, runs, move))
    with pytest.raises(NotAllowed, match="alice is no member"):
        world.do(lambda draft: jobs.update(draft, waits, Change(account="science")), BOB)
    record = world.store.job(waits)
    assert record is not None
    assert record.job.account == "default"


def test_decisions_see_the_tree_with_what_was_used(world: World) -> None:
    furnished(world)
    world.join("n1", gpus=4)
    world.clock.advance(MINUTE - world.clock.now_us() % MINUTE)
    job_id = world.submit(resources={"gpus": 2})
    world.tick()
    assert used(world) == {
        "default": 0,
        "science": 0,
        "vision": 0,
        "vision/alice": 0,
        "vision/bob": 0,
    }
    world.clock.advance(10 * MINUTE)
    lives = used(world)
    assert (lives["vision/alice"], lives["vision"], lives["science"]) == (20 * MINUTE,) * 3
    finish(world, job_id, 0)
    assert used(world) == lives, "its end changes nothing"
    world.clock.advance(DEFAULT.half_life_us)
    assert used(world)["science"] == 10 * MINUTE
    view = world.registry.view(world.clock.now_us())
    assert [(a.name, a.parent, a.shares) for a in view.accounts] == [
        ("default", "", 1),
        ("science", "", 3),
        ("vision", "science", 1),
    ]
    assert view.accounts[2].quota.gpus == 8
    assert [(m.user, m.shares, m.quota.running) for m in view.members] == [
        ("alice", 2, None),
        ("bob", 1, 1),
    ]


def test_what_is_kept_for_decisions_is_what_a_new_look_makes(world: World) -> None:
    furnished(world)
    world.join("n1", gpus=4)

    def look() -> None:
        now_us = world.clock.now_us()
        seen = world.registry.view(now_us)
        assert world.registry.view(now_us).members is seen.members, "nothing has changed"
        fresh = replace(world.registry._facts, _books=Books())
        assert fresh.view(now_us) == seen

    look()
    first = world.submit(resources={"gpus": 1}, tasks="0-2")
    look()
    elsewhere = world.submit(BOB, resources={"gpus": 1})
    look()
    world.tick()
    for index in range(3):
        world.clock.advance(MINUTE // 4)
        look()
        finish(world, first, index)
        look()
    world.cancel(elsewhere)
    look()
    change(world, "vision", shares=5)
    look()
    world.clock.advance(DAY_US)
    look()


def test_gpu_hours_that_are_used_up_are_told_to_decisions(world: World) -> None:
    furnished(world)
    join(world, "vision", limits=Limits(gpu_hours=1, window_days=2))
    world.join("n1", gpus=4)
    world.clock.advance(DAY_US - world.clock.now_us() % DAY_US)
    job_id = world.submit(resources={"gpus": 4})
    world.tick()

    def spent() -> list[str]:
        view = world.registry.view(world.clock.now_us())
        return [each.spent for each in (view.accounts[2], view.members[0])]

    world.clock.advance(HOUR_US // 4 - MINUTE)
    assert spent() == ["", ""]
    world.clock.advance(MINUTE)
    words = (
        "alice in vision has used its 1 GPU-hours within 2 days (1 by now); they count no longer as"
        " days go by, or an operator raises them"
    )
    assert spent() == ["", words]
    world.clock.advance(25 * HOUR_US)
    assert spent()[0].startswith("vision has used its 100 GPU-hours within 30 days (101 by now)")
    finish(world, job_id, 0)
    world.clock.advance(2 * DAY_US)
    assert spent()[1] == "", "the window has gone by"
    assert spent()[0]


def test_who_sees_and_stops_whose_jobs(world: World) -> None:
    furnished(world)
    make(world, "below", "vision")

    def may(user: str) -> dict[str, set[str]]:
        return {doing: set(world.registry.shared(user, doing)) for doing in Doing}

    assert may("alice") == {"see": {"vision"}, "read": set(), "stop": set()}
    assert may("bob") == {"see": {"vision", "below"}, "read": set(), "stop": {"vision", "below"}}
    assert may("eve") == {"see": set(), "read": set(), "stop": set()}
    change(world, "default", members_may=MembersMay.STOP)
    assert may("eve") == {doing: {"default"} for doing in Doing}


def test_a_list_takes_what_is_within_sight(world: World) -> None:
    furnished(world)
    mine, theirs = world.submit(), world.submit(BOB)
    shared = world.submit(BOB, account="vision")

    def found(**fields: Any) -> set[int]:
        which = JobFilter(**fields)
        records = world.store.jobs(which, before=None, limit=9, full=False)
        assert {j for j in (mine, theirs, shared) if matches(which, world.job(j))} == {
            record.job.job_id for record in records
        }
        return {record.job.job_id for record in records}

    sight = Sight(owner="alice", accounts=frozenset({"vision"}))
    assert found(sight=sight) == {mine, shared}
    assert found(sight=sight, owner="bob") == {shared}
    assert found(sight=Sight(owner="alice", accounts=frozenset())) == {mine}
    assert found(account="vision") == {mine, shared}
