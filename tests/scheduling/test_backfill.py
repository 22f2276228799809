"""What is promised is kept: nothing that passes the first in line delays it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model.policy import Backfill, Policy
from controlplane.model.view import Promise, View, Waiting, Window
from controlplane.scheduling.policy import plan
from tests.scheduling.test_explain import HOUR, ran
from tests.scheduling.test_policy import NOW, gang, node, where


def two_nodes(*gangs: Waiting) -> View:
    return View(now_us=NOW, seq=1, nodes=(node("a", gpus=2), node("b", gpus=2)), waiting=gangs)


def placed(view: View, policy: Policy | None = None) -> list[int]:
    return [place.job_id for place in plan(view, policy or Policy()).places]


def first_blocked() -> View:
    """Node `a` is taken for two hours; the first in line wants both nodes."""
    view = two_nodes(gang(1, gpus=2, limit_us=2 * HOUR), gang(2, 2, gpus=2, limit_us=HOUR))
    return ran(view, 1, NOW + 2 * HOUR)


def also(view: View, *gangs: Waiting) -> View:
    return replace(view, waiting=(*view.waiting, *gangs))


def test_what_ends_in_time_passes_and_what_does_not_waits() -> None:
    view = also(
        first_blocked(),
        gang(3, gpus=1, limit_us=3 * HOUR),
        gang(4, gpus=1),
        gang(5, gpus=1, limit_us=2 * HOUR),
    )
    decided = plan(view)
    assert where(decided) == {5: [("b", 1)]}
    assert decided.promises == (Promise(job_id=2, task_index=0, start_us=NOW + 2 * HOUR),)
    assert decided.holds.reason(3) == (
        "waits its turn: it would fit now, but would run into what is promised to job 2"
    )


def test_what_the_promise_leaves_over_may_be_taken_for_long() -> None:
    view = also(first_blocked(), gang(3, gpus=0, limit_us=9 * HOUR), gang(4, gpus=0))
    assert placed(view) == [3, 4]


@pytest.mark.parametrize(
    ("backfill", "starts"),
    [
        (Backfill.NONE, []),
        (Backfill.SKIP, [3, 5]),
        (Backfill.EASY, [5]),
        (Backfill.CONSERVATIVE, [5]),
    ],
)
def test_backfill_is_as_the_site_wishes(backfill: Backfill, starts: list[int]) -> None:
    longer, short = gang(3, gpus=1, limit_us=3 * HOUR), gang(5, gpus=1, limit_us=HOUR)
    view = also(first_blocked(), longer, short)
    assert placed(view, Policy(backfill=backfill)) == starts


def test_conservative_promises_a_time_to_each_that_waits() -> None:
    view = also(first_blocked(), gang(3, 2, gpus=2, limit_us=HOUR), gang(4, gpus=2, limit_us=HOUR))
    promises = plan(view, Policy(backfill=Backfill.CONSERVATIVE)).promises
    assert [(p.job_id, (p.start_us - NOW) // HOUR) for p in promises] == [(2, 2), (3, 3)]
    assert placed(view, Policy(backfill=Backfill.CONSERVATIVE)) == [4]


def test_a_promise_outlives_those_that_come_later_with_the_same_class() -> None:
    view = first_blocked()
    view = replace(view, promises=plan(view).promises, now_us=NOW + HOUR)
    older = gang(9, 2, gpus=2, limit_us=HOUR, created_us=0)
    assert plan(also(view, older)).promises[0].job_id == 2
    urgent = gang(9, 2, gpus=2, limit_us=HOUR, priority=2000)
    assert plan(also(view, urgent)).promises[0].job_id == 9


def test_nobody_is_placed_whose_limit_runs_into_a_window() -> None:
    window = Window(
        name="fans", begin_us=NOW + HOUR, end_us=NOW + 2 * HOUR, nodes=frozenset({"a", "b"})
    )
    view = replace(two_nodes(), windows=(window,))
    long, short = gang(1, gpus=1, limit_us=2 * HOUR), gang(2, gpus=1, limit_us=HOUR)
    assert placed(also(view, long, gang(3, gpus=1), short)) == [2]
    theirs = replace(window, users=frozenset({"ada"}))
    view = replace(view, windows=(theirs,))
    assert placed(also(view, replace(long, owner="ada"), gang(3, gpus=1, owner="bob"))) == [1]


SHAPES = st.tuples(
    st.integers(1, 4), st.integers(0, 2), st.integers(1, 3), st.integers(1, 9), st.booleans()
)


@settings(deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(2, 8), st.integers(0, 4)), min_size=1, max_size=4),
    gangs=st.lists(SHAPES, min_size=2, max_size=10),
    backfill=st.sampled_from([Backfill.EASY, Backfill.CONSERVATIVE]),
)
def test_whatever_passes_a_promised_gang_leaves_it_its_start(
    sizes: list[tuple[int, int]], gangs: list[Any], backfill: Backfill
) -> None:
    policy = Policy(backfill=backfill, preemption=False)
    nodes = tuple(node(f"n{i}", cpus=c, gpus=g) for i, (c, g) in enumerate(sizes))
    waiting = tuple(
        gang(
            i,
            workers,
            gpus=gpus,
            cpu_millicores=cores * 1000,
            workers_per_node=1 if even else None,
            limit_us=hours * HOUR,
        )
        for i, (workers, gpus, cores, hours, even) in enumerate(gangs, 1)
    )
    view = View(now_us=NOW, seq=1, nodes=nodes, waiting=waiting)
    decided = plan(view, policy)
    for promise in decided.promises:
        # At the promised moment, when all that was placed has run to its limit and those that
        # were promised an earlier start are left aside, the gang has its place.
        earlier = {p.job_id for p in decided.promises if p.start_us < promise.start_us}
        if earlier:
            continue
        runs = [p.job_id for p in decided.places]
        limits = {w.job_id: w.limit_us or 0 for w in waiting}
        until = promise.start_us - NOW
        still = tuple(w for w in waiting if w.job_id in runs and limits[w.job_id] > until)
        later = replace(view, waiting=still)
        kept = {p.job_id: p for p in decided.places if p.job_id in {w.job_id for w in still}}
        free = _taken(later, kept)
        asks = next(w for w in waiting if w.job_id == promise.job_id)
        there = replace(free, now_us=promise.start_us, waiting=(asks,))
        assert [p.job_id for p in plan(there, policy).places] == [promise.job_id]


def _taken(view: View, kept: dict[int, Any]) -> View:
    """The view with what these placements hold taken."""
    nodes = []
    for each in view.nodes:
        for place in kept.values():
            for part in (p for p in place.parts if p.node_uuid == each.uuid):
                each = replace(
                    each,
                    free_millicores=each.free_millicores - part.cpu_millicores,
                    free_memory_bytes=each.free_memory_bytes - part.memory_bytes,
                    free_devices=tuple(
                        d for d in each.free_devices if d.device_id not in part.device_ids
                    ),
                    free_cpu_ids=tuple(c for c in each.free_cpu_ids if c not in part.cpu_ids),
                )
        nodes.append(each)
    return replace(view, nodes=tuple(nodes))
