"""What is told of a task that waits: true of the view, and each change tried by the policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model.policy import DEFAULT, Policy
from controlplane.model.selector import EVERYWHERE
from controlplane.model.view import Account, Member, Quota, Running, View, Waiting
from controlplane.scheduling.board import Board
from controlplane.scheduling.decision import Decision
from controlplane.scheduling.explain import explain_task
from controlplane.scheduling.policy import plan
from tests.scheduling.test_policy import NOW, gang, node

HOUR = 3_600_000_000
GIB = 1 << 30


def ran(view: View, job_id: int, until_us: int | None) -> View:
    """The view once one of those that wait has been placed, and will run until then."""
    placed = next(p for p in plan(view).places if p.job_id == job_id)
    entry = next(w for w in view.waiting if w.job_id == job_id)
    nodes = []
    for each in view.nodes:
        for part in (p for p in placed.parts if p.node_uuid == each.uuid):
            each = replace(
                each,
                free_millicores=each.free_millicores - part.cpu_millicores,
                free_memory_bytes=each.free_memory_bytes - part.memory_bytes,
                free_devices=tuple(
                    d for d in each.free_devices if d.device_id not in part.device_ids
                ),
                free_cpu_ids=tuple(c for c in each.free_cpu_ids if c not in part.cpu_ids),
                free_ports=tuple(p for p in each.free_ports if p not in part.ports),
            )
        nodes.append(each)
    runs = Running(
        job_id=job_id,
        task_index=0,
        attempt=1,
        owner=entry.owner,
        account=entry.account,
        priority=entry.priority,
        preemptible=entry.preemptible,
        shape=entry.shape,
        parts=placed.parts,
        created_us=entry.created_us,
        placed_us=view.now_us,
        until_us=until_us,
        saved_us=view.now_us,
    )
    return replace(
        view,
        nodes=tuple(nodes),
        waiting=tuple(w for w in view.waiting if w.job_id != job_id),
        running=(*view.running, runs),
    )


def explained(view: View, job_id: int, policy: Policy = DEFAULT) -> Any:
    decision = Decision(Board(view), view, policy)
    decision.plan()
    jobs = decision.board.tasks.job.tolist()
    return explain_task(decision, jobs.index(job_id))


def test_who_holds_what_it_needs_and_until_when() -> None:
    view = View(
        now_us=NOW,
        seq=7,
        nodes=(node("a", gpus=2), node("b", gpus=2)),
        waiting=(gang(1, gpus=2, owner="bob"), gang(2, gpus=1), gang(3, 2, gpus=2)),
    )
    view = ran(ran(view, 1, NOW + HOUR), 2, NOW + 2 * HOUR)
    told = explained(view, 3)
    assert told.seq == 7
    assert "room for 0 of 2 workers" in told.reason
    assert [(h.job_id, h.owner, h.nodes, h.gpus, h.until_us) for h in told.holders] == [
        (1, "bob", ("a",), 2, NOW + HOUR),
        (2, "", ("b",), 1, NOW + 2 * HOUR),
    ]
    assert told.promised_us == NOW + 2 * HOUR
    assert told.eta.p90_us == NOW + 2 * HOUR
    assert [(c.field, c.value) for c in told.changes] == []


def test_an_eta_is_a_band_by_how_much_of_their_limits_tasks_have_used() -> None:
    view = View(
        now_us=NOW, seq=1, nodes=(node("a", gpus=1),), waiting=(gang(1, gpus=1), gang(2, gpus=1))
    )
    view = replace(ran(view, 1, NOW + 10 * HOUR), pace=(100, 500, 1000))
    eta = explained(view, 2).eta
    assert (eta.p10_us, eta.p50_us, eta.p90_us) == (
        NOW + HOUR,
        NOW + 5 * HOUR,
        NOW + 10 * HOUR,
    )


def test_place_in_line_counts_those_that_could_use_the_same_nodes() -> None:
    other = node("b", gpus=1)
    device = replace(other.devices[0], model="A100")
    other = replace(other, devices=(device,), free_devices=(device,))
    model = node("a", gpus=1).devices[0].model
    mine = [gang(i, gpus=1, gpu_model=model) for i in (1, 2, 3, 9)]
    theirs = [gang(i, gpus=1, gpu_model="A100") for i in (4, 5, 6)]
    view = View(now_us=NOW, seq=1, nodes=(node("a", gpus=1), other), waiting=(*mine, *theirs))
    view = ran(ran(view, 1, None), 4, None)
    assert [(t.ahead, t.behind) for t in (explained(view, i) for i in (2, 3, 9, 5))] == [
        (0, 2),
        (1, 1),
        (2, 0),
        (0, 1),
    ]


def test_another_account_that_has_quota_left_would_start_it() -> None:
    accounts = (
        Account(name="poor", parent="", quota=Quota(gpus=0)),
        Account(name="rich", parent="", quota=Quota(gpus=8)),
    )
    members = (Member(account="poor", user="u"), Member(account="rich", user="u"))
    view = View(
        now_us=NOW,
        seq=1,
        nodes=(node("a", gpus=8),),
        waiting=(gang(1, gpus=1, owner="u", account="poor"),),
        accounts=accounts,
        members=members,
    )
    told = explained(view, 1)
    assert told.reason == (
        "waits for quota: account poor has 0 of 0 GPUs, and this needs 1"
    )  # fmt: skip
    assert [(c.field, c.value) for c in told.changes] == [
        ("account", "rich"),
        ("preemptible", "true"),
    ]


def test_a_shorter_limit_would_start_it_before_what_is_promised() -> None:
    nodes = (node("a", gpus=2), node("b", gpus=2))
    waiting = (
        gang(1, gpus=2, limit_us=2 * HOUR),
        gang(2, 2, gpus=2),
        gang(3, gpus=1, limit_us=9 * HOUR),
    )
    view = View(now_us=NOW, seq=1, nodes=nodes, waiting=waiting)
    view = ran(view, 1, NOW + 2 * HOUR)
    told = explained(view, 3)
    assert "would run into what is promised to job 2" in told.reason
    assert [(c.field, c.value) for c in told.changes] == [("time_limit", "120m")]


def applied(entry: Waiting, change: Any) -> Waiting:
    """The task with a change made, as its user would make it."""
    shape, need = entry.shape, entry.shape.resources
    match change.field:
        case "workers":
            return replace(entry, shape=replace(shape, workers=int(change.value)))
        case "time_limit":
            return replace(entry, limit_us=int(change.value[:-1]) * 60_000_000)
        case "workers_per_node":
            return replace(entry, shape=replace(shape, workers_per_node=None))
        case "within":
            return replace(entry, shape=replace(shape, within=""))
        case "exclusive":
            return replace(entry, shape=replace(shape, exclusive=False))
        case "node_selector":
            return replace(entry, shape=replace(shape, selector=EVERYWHERE))
        case "account":
            return replace(entry, account=change.value)
        case "preemptible":
            return replace(entry, preemptible=True)
    field, value = {
        "resources.gpu_model": ("gpu_model", change.value),
        "resources.gpus": ("gpus", change.value),
        "resources.cpus": ("cpu_millicores", f"{change.value}000"),
        "resources.memory": ("memory_bytes", change.value.removesuffix("GiB")),
    }[change.field]
    made: Any = value if field == "gpu_model" else int(value) * (GIB if "memory" in field else 1)
    return replace(entry, shape=replace(shape, resources=replace(need, **{field: made})))


@settings(deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 8), st.integers(0, 4)), min_size=1, max_size=5),
    gangs=st.lists(
        st.tuples(
            st.integers(1, 6),
            st.integers(0, 3),
            st.integers(1, 4),
            st.integers(1, 9),
            st.sampled_from([1000, 2000]),
        ),
        min_size=2,
        max_size=8,
    ),
)
def test_every_change_that_is_suggested_starts_the_task(
    sizes: list[tuple[int, int]], gangs: list[tuple[int, int, int, int, int]]
) -> None:
    nodes = tuple(node(f"n{i}", cpus=c, gpus=g) for i, (c, g) in enumerate(sizes))
    waiting = tuple(
        gang(i, workers, gpus=g, cpu_millicores=c * 1000, limit_us=h * HOUR, priority=p)
        for i, (workers, g, c, h, p) in enumerate(gangs, 1)
    )
    view = View(now_us=NOW, seq=1, nodes=nodes, waiting=waiting)
    for entry in waiting:
        places = {p.job_id for p in plan(view).places}
        if entry.job_id in places:
            assert entry.limit_us is not None
            view = ran(view, entry.job_id, NOW + entry.limit_us)
    settled = not plan(view).places
    for entry in view.waiting if settled else ():
        for change in explained(view, entry.job_id).changes:
            other = tuple(
                applied(w, change) if w.job_id == entry.job_id else w for w in view.waiting
            )
            decided = plan(replace(view, waiting=other))
            assert entry.job_id in {p.job_id for p in decided.places}, change
