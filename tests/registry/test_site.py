"""Priority classes, queues and reservations, on each kind of store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.engine import upkeep
from controlplane.model.account import Account
from controlplane.model.errors import AlreadyExists, InvalidRequest, NotFound, WrongState
from controlplane.model.priority import FIRST_CLASSES, PreemptionPolicy, PriorityClass
from controlplane.model.queues import FIRST_QUEUES, JobQueue
from controlplane.model.reservation import Reservation
from controlplane.model.selector import parse_selector
from controlplane.registry import accounts, jobs, nodes, site
from controlplane.registry.placing import commit_places
from controlplane.scheduling.policy import plan
from tests.support.world import facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.registry.draft import Draft
    from controlplane.registry.facts import Facts
    from tests.support.world import World

HOUR_US = 3_600_000_000


def label(world: World, uuid: str, **labels: str) -> None:
    world.do(lambda draft: nodes.label(draft, uuid, labels, ()))


def loaded(world: World) -> Facts:
    return world.store.reload()


def kinds(world: World, resource: str) -> list[str]:
    return [event.kind for event in world.store.events(resource, after=0, limit=100)]


# --- priority classes ----------------------------------------------------------------------------


def test_a_new_centre_has_three_classes_and_a_queue(world: World) -> None:
    found = loaded(world)
    assert sorted(found.priority_classes.values(), key=lambda c: c.value) == list(FIRST_CLASSES)
    assert list(found.queues.values()) == list(FIRST_QUEUES)
    assert found.priority_class(None) == found.priority_classes["normal"]
    assert world.registry.seq == 0


def test_a_new_default_takes_the_place_of_the_old_one(world: World) -> None:
    polite = PriorityClass(
        name="polite",
        value=500,
        global_default=True,
        preemption=PreemptionPolicy.NEVER,
        description="é",
    )
    made = world.submit()
    assert world.registry.view(0).waiting[0].preempts
    world.do(lambda draft: site.create_class(draft, polite))
    assert loaded(world).priority_classes["polite"] == polite
    assert world.registry.priority_class(None) == polite
    assert [c.name for c in world.registry.priority_classes() if c.global_default] == ["polite"]
    (waiting,) = world.registry.view(0).waiting
    assert (waiting.job_id, waiting.preempts, waiting.priority) == (made, False, 1000)
    with pytest.raises(AlreadyExists):
        world.do(lambda draft: site.create_class(draft, replace(polite, value=7)))
    with pytest.raises(WrongState, match="is the default"):
        world.do(lambda draft: site.delete_class(draft, "polite"))


def test_jobs_of_a_class_that_is_gone_keep_its_value_and_end_nobody(world: World) -> None:
    world.submit(priority_class="high")
    world.do(lambda draft: site.delete_class(draft, "high"))
    (waiting,) = world.registry.view(0).waiting
    assert (waiting.priority, waiting.preempts) == (1000, False)
    assert "high" not in loaded(world).priority_classes
    assert kinds(world, "priorityClasses/high") == ["priority_class.deleted"]
    with pytest.raises(NotFound, match="there are: low, normal"):
        world.do(lambda draft: site.delete_class(draft, "high"))


# --- queues --------------------------------------------------------------------------------------

NIGHT = JobQueue(
    name="night",
    selector=parse_selector("tier=prod,rack in (a,b)"),
    default_limit_us=HOUR_US,
    max_limit_us=2 * HOUR_US,
    max_workers=4,
    max_gpus=8,
    accounts=("vision",),
    users=("ada", "bob"),
    priority=7,
    description="for long nights",
)


def test_a_queue_is_kept_and_changed_and_seen(world: World) -> None:
    world.do(lambda draft: site.create_queue(draft, NIGHT))
    assert loaded(world).queues["night"] == NIGHT
    changes: dict[str, Any] = {"closed": "stock-taking", "users": (), "max_gpus": None}
    world.do(lambda draft: site.update_queue(draft, "night", changes))
    world.do(lambda draft: site.update_queue(draft, "night", changes))
    after = replace(NIGHT, **changes)
    assert loaded(world).queues["night"] == world.registry.queue("night") == after
    assert kinds(world, "queues/night") == ["queue.created", "queue.changed"]
    seen = {queue.name: queue for queue in world.registry.view(0).queues}["night"]
    assert (seen.selector, seen.priority) == (NIGHT.selector, 7)
    assert seen.closed == "the queue night is closed: stock-taking"
    with pytest.raises(InvalidRequest, match="default_time_limit"):
        world.do(lambda draft: site.update_queue(draft, "night", {"max_limit_us": 60_000_000}))


def test_jobs_get_the_time_limit_of_their_queue_and_no_more(world: World) -> None:
    world.do(lambda draft: site.create_queue(draft, NIGHT))
    first = world.submit(queue="night")
    assert world.job(first).time_limit_us == HOUR_US
    assert world.job(world.submit(queue="night", time_limit="10m")).time_limit_us == HOUR_US // 6
    for change in (jobs.Change(time_limit_us=3 * HOUR_US), jobs.Change(no_time_limit=True)):
        with pytest.raises(InvalidRequest, match="allows 2h at most"):
            world.do(lambda draft, it=change: jobs.update(draft, first, it))  # type: ignore[misc]
    longer = jobs.Change(time_limit_us=3 * HOUR_US, by_operator=True)
    world.do(lambda draft: jobs.update(draft, first, longer))
    world.do(lambda draft: site.update_queue(draft, "night", {"default_limit_us": None}))
    assert world.job(world.submit(queue="night")).time_limit_us == 2 * HOUR_US


def test_a_job_is_not_paid_by_an_account_that_its_queue_is_not_for(world: World) -> None:
    world.do(lambda draft: accounts.create(draft, Account(name="open", open=True)))
    mine = JobQueue(name="mine", accounts=("default",))
    world.do(lambda draft: site.create_queue(draft, mine))
    made = world.submit(queue="mine")
    with pytest.raises(InvalidRequest, match="queues/mine, where the job waits, is for account"):
        world.do(lambda draft: jobs.update(draft, made, jobs.Change(account="open")))


def test_a_queue_goes_when_no_job_is_in_it(world: World) -> None:
    world.do(lambda draft: site.create_queue(draft, NIGHT))
    made = world.submit(queue="night")
    with pytest.raises(WrongState, match="1 job of it has not ended"):
        world.do(lambda draft: site.delete_queue(draft, "night"))
    world.cancel(made)
    world.do(lambda draft: site.delete_queue(draft, "night"))
    assert "night" not in loaded(world).queues
    with pytest.raises(InvalidRequest, match="there is no such queue any more"):
        world.submit(queue="night")
    with pytest.raises(WrongState, match="cannot be deleted; close it instead"):
        world.do(lambda draft: site.delete_queue(draft, "default"))


def test_a_closed_queue_takes_jobs_and_starts_none(world: World) -> None:
    world.join("a")
    world.do(lambda draft: site.update_queue(draft, "default", {"closed": "full of dust"}))
    made = world.submit()
    assert world.tick().placed == 0
    why = "the queue default is closed: full of dust"
    assert world.registry.reason(world.job(made)) == why
    world.do(lambda draft: site.update_queue(draft, "default", {"closed": ""}))
    assert world.tick().placed == 1
    assert world.attempt(made).number == 1


def test_nothing_is_committed_to_a_node_that_is_not_of_its_queue(world: World) -> None:
    uuid = world.join("a")
    world.do(lambda draft: site.create_queue(draft, JobQueue(name="n", selector=NIGHT.selector)))
    world.submit(queue="n")
    assert world.tick().placed == 0
    label(world, uuid, tier="prod", rack="b")
    assert world.tick().placed == 1


# --- reservations --------------------------------------------------------------------------------


def reserve(world: World, name: str, **more: Any) -> None:
    now_us = world.clock.now_us()
    values = {"begin_us": now_us, "end_us": now_us + HOUR_US, **more}
    made = Reservation(name=name, **values)
    world.do(lambda draft: site.create_reservation(draft, made))


def test_reserved_nodes_are_for_those_who_may_and_then_for_all(world: World) -> None:
    uuid = world.join("a")
    reserve(world, "demo", node_uuids=(uuid,), users=("bob",))
    (window,) = world.registry.view(world.clock.now_us()).windows
    assert (set(window.nodes), set(window.users)) == ({uuid}, {"bob"})
    assert loaded(world).windows() == (window,)
    mine = world.submit()
    assert world.tick().placed == 0
    world.clock.advance(HOUR_US)
    assert world.registry.view(world.clock.now_us()).windows == ()
    assert world.tick().placed == 1
    assert world.attempt(mine).number == 1


def test_who_it_is_for_needs_no_field_to_use_it(world: World) -> None:
    uuid = world.join("a")
    reserve(world, "demo", node_uuids=(uuid,), accounts=("default",))
    world.submit()
    assert world.tick().placed == 1


def test_nothing_starts_that_may_run_into_maintenance(world: World) -> None:
    uuid = world.join("a")
    begin_us = world.clock.now_us() + HOUR_US
    reserve(world, "power", node_uuids=(uuid,), begin_us=begin_us, end_us=begin_us + HOUR_US)
    for limit in ({}, {"time_limit": "1h"}):
        world.submit(**limit)
        assert world.tick().placed == 0
    world.submit(time_limit="59m", grace_period="1m")
    assert world.tick().placed == 1


def test_a_selector_means_whoever_has_the_labels_by_then(world: World) -> None:
    a, b = world.join("a"), world.join("b")
    label(world, a, rack="r1")
    reserve(world, "r1", selector=parse_selector("rack=r1"))
    assert world.registry.view(0).windows[0].nodes == {a}
    label(world, b, rack="r1")
    assert world.registry.view(0).windows[0].nodes == {a, b}
    with pytest.raises(InvalidRequest, match="no node has such labels"):
        reserve(world, "r2", selector=parse_selector("rack=r2"))


def test_two_reservations_for_somebody_do_not_share_a_node(world: World) -> None:
    uuid = world.join("a")
    reserve(world, "one", node_uuids=(uuid,), users=("bob",))
    with pytest.raises(WrongState, match="a is kept for reservations/one at that time"):
        reserve(world, "two", node_uuids=(uuid,), users=("eve",))
    later = world.clock.now_us() + HOUR_US
    reserve(world, "two", node_uuids=(uuid,), users=("eve",), begin_us=later, end_us=later + 1)
    reserve(world, "mend", node_uuids=(uuid,))


def test_what_is_over_is_forgotten_with_an_event(world: World) -> None:
    uuid = world.join("a")
    reserve(world, "one", node_uuids=(uuid,), users=("bob",))
    reserve(world, "two", node_uuids=(uuid,), end_us=world.clock.now_us() + 2 * HOUR_US)
    submit = world.registry.submit

    def at_once(*args: Any, **kwargs: Any) -> Any:
        future = submit(*args, **kwargs)
        world.registry.run_once()
        return future

    world.registry.submit = at_once  # type: ignore[method-assign]
    world.clock.advance(HOUR_US)
    assert upkeep.forget_reservations(world.registry, world.clock.now_us()) == 1
    assert upkeep.forget_reservations(world.registry, world.clock.now_us()) == 0
    assert list(loaded(world).reservations) == ["two"]
    assert kinds(world, "reservations/one") == ["reservation.created", "reservation.ended"]
    world.do(lambda draft: site.delete_reservation(draft, "two"))
    assert loaded(world).reservations == {}
    assert kinds(world, "reservations/two")[-1] == "reservation.deleted"


# --- labels --------------------------------------------------------------------------------------


def test_an_operators_labels_override_the_agents(world: World) -> None:
    uuid = world.join("a")
    told = replace(facts("a"), labels=(("rack", "r1"), ("tier", "test")))
    world.report(uuid, told=told)

    def labels() -> dict[str, str]:
        (node,) = world.registry.view(0).nodes
        assert dict(loaded(world).nodes[uuid].labels) == dict(node.labels)
        return dict(node.labels)

    label(world, uuid, tier="prod", fast="")
    assert labels() == {"rack": "r1", "tier": "prod", "fast": ""}
    world.report(uuid, told=replace(told, labels=(("rack", "r2"),)))
    assert labels() == {"rack": "r2", "tier": "prod", "fast": ""}

    def take(*keys: str) -> Any:
        return lambda draft: nodes.label(draft, uuid, {}, keys)

    world.do(take("tier"))
    assert labels() == {"rack": "r2", "fast": ""}
    with pytest.raises(NotFound, match="no label rack of an operator's"):
        world.do(take("rack"))
    assert kinds(world, f"nodes/{uuid}").count("node.labelled") == 2


def test_what_one_group_makes_and_takes_away_is_not_there(world: World) -> None:
    def both(draft: Draft) -> None:
        site.create_queue(draft, NIGHT)
        site.delete_queue(draft, "night")

    world.do(both)
    assert "night" not in loaded(world).queues


def test_a_plan_is_looked_at_again_before_it_is_true(world: World) -> None:
    """What the planner could not know: it is told why, and looks again."""
    uuid = world.join("a")
    label(world, uuid, rack="r1")
    made = world.submit(node_selector="rack=r1", time_limit="1h")

    def refused(change: Callable[[Draft], None], undo: Callable[[Draft], None]) -> str:
        (place,) = plan(world.registry.view(world.clock.now_us())).places

        def changed(draft: Draft) -> str:
            change(draft)
            (refusal,) = commit_places(draft, [place])
            undo(draft)
            return refusal.reason

        return world.do(changed)

    def close(draft: Draft) -> None:
        site.update_queue(draft, "default", {"closed": "dust"})

    def opened(draft: Draft) -> None:
        site.update_queue(draft, "default", {"closed": ""})

    def keep(draft: Draft) -> None:
        begin_us = draft.now_us + HOUR_US
        mine = Reservation(
            name="x", begin_us=begin_us, end_us=begin_us + 1, node_uuids=(uuid,), users=("eve",)
        )
        site.create_reservation(draft, mine)

    def free(draft: Draft) -> None:
        site.delete_reservation(draft, "x")

    def relabel(draft: Draft) -> None:
        nodes.label(draft, uuid, {"rack": "r2"}, ())

    def label_again(draft: Draft) -> None:
        nodes.label(draft, uuid, {"rack": "r1"}, ())

    for change, undo, words in (
        (close, opened, "queues/default is closed: dust"),
        (keep, free, "a is kept for reservations/x"),
        (relabel, label_again, "a has not the labels of its node_selector any more"),
    ):
        assert refused(change, undo) == words
    assert world.tick().placed == 1
    assert world.attempt(made).number == 1
