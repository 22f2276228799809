"""What a decision places, and in which words it refuses. Jobs and nodes as data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.node import DeviceKind, Node
from controlplane.model.spec import Resources
from controlplane.model.view import Shape, View, Waiting
from controlplane.registry.facts import view_of
from controlplane.scheduling.policy import plan
from tests.support.world import facts

if TYPE_CHECKING:
    from controlplane.model.plan import Plan

NOW = 1_000_000_000


def node(name: str, **has: int) -> Any:
    made = Node(uuid=name, facts=facts(name, **has), boot_id="b", created_us=0)
    return view_of(made, [], 0)


def gang(job_id: int, workers: int = 1, **changes: Any) -> Waiting:
    need: dict[str, Any] = {
        "gpus": 0,
        "cpu_millicores": 1000,
        "memory_bytes": 1 << 30,
        "gpu_model": None,
    }
    fields: dict[str, Any] = {
        "priority": 1000,
        "created_us": job_id,
        "not_before_us": 0,
    }
    form: dict[str, Any] = {"workers_per_node": None, "ports": 0}
    need |= {k: changes.pop(k) for k in list(changes) if k in need}
    form |= {k: changes.pop(k) for k in list(changes) if k in form}
    fields |= changes
    shape = Shape(workers=workers, resources=Resources(**need), **form)
    return Waiting(job_id=job_id, task_index=0, shape=shape, **fields)


def decide(nodes: list[Any], *gangs: Waiting) -> Plan:
    return plan(View(now_us=NOW, seq=1, nodes=tuple(nodes), waiting=gangs))


def where(decided: Plan) -> dict[int, list[tuple[str, int]]]:
    return {p.job_id: [(x.node_uuid, x.workers) for x in p.parts] for p in decided.places}


def test_priority_goes_before_age_and_age_before_number() -> None:
    decided = decide(
        [node("a", cpus=1)], gang(1), gang(2, priority=2000), gang(3, priority=2000, created_us=0)
    )
    assert where(decided) == {3: [("a", 1)]}


def test_a_gang_is_packed_on_the_node_that_it_fits_best() -> None:
    nodes = [node("big", gpus=8), node("small", gpus=2)]
    assert where(decide(nodes, gang(1, 2, gpus=1))) == {1: [("small", 2)]}


def test_a_gang_over_several_nodes_uses_the_fewest_and_the_best_fit_for_the_rest() -> None:
    nodes = [node("a", gpus=4), node("b", gpus=4), node("c", gpus=1)]
    assert where(decide(nodes, gang(1, 5, gpus=1))) == {1: [("a", 4), ("c", 1)]}


def test_workers_per_node_are_exact() -> None:
    nodes = [node("a", gpus=4), node("b", gpus=4)]
    decided = decide(nodes, gang(1, 4, gpus=1, workers_per_node=2))
    assert where(decided) == {1: [("a", 2), ("b", 2)]}


def test_two_gangs_that_each_want_all_devices_neither_split_nor_block() -> None:
    nodes = [node("a", gpus=2), node("b", gpus=2)]
    decided = decide(nodes, gang(1, 4, gpus=1), gang(2, 4, gpus=1))
    assert where(decided) == {1: [("a", 2), ("b", 2)]}
    assert [hold.job_id for hold in decided.holds] == [2]


def test_leases_name_distinct_devices_cores_and_ports() -> None:
    decided = decide([node("a", gpus=2)], gang(1, gpus=1, ports=1), gang(2, gpus=1, ports=1))
    first, second = (p.parts[0] for p in decided.places)
    assert (first.device_ids, second.device_ids) == (("a-gpu0",), ("a-gpu1",))
    assert (first.cpu_ids, second.cpu_ids) == ((0,), (1,))
    assert (first.ports, second.ports) == ((20000,), (20001,))


def with_devices(name: str, *kinds: tuple[DeviceKind, str]) -> Any:
    made = node(name, gpus=len(kinds))
    devices = tuple(
        replace(device, kind=kind, model=model)
        for device, (kind, model) in zip(made.devices, kinds, strict=True)
    )
    return replace(made, devices=devices, free_devices=devices)


def test_gpus_are_of_any_vendor_unless_a_model_is_named() -> None:
    mixed = with_devices(
        "a", (DeviceKind.AMD_GPU, "AMD Instinct MI300X OAM"), (DeviceKind.GPU, "NVIDIA H100")
    )
    (place,) = decide([mixed], gang(1, gpus=2)).places
    assert place.parts[0].device_ids == ("a-gpu0", "a-gpu1")
    (place,) = decide([mixed], gang(1, gpus=1, gpu_model="h100")).places
    assert place.parts[0].device_ids == ("a-gpu1",)


def test_a_tpu_chip_is_given_to_a_job_that_names_it_and_to_no_other() -> None:
    chips = with_devices("a", *[(DeviceKind.TPU, "TPU v4")] * 4)
    for model in (None, "v4"):
        decided = decide([chips], gang(1, gpus=1, gpu_model=model))
        assert decided.places == ()
        (hold,) = decided.holds
        assert hold.reason.startswith("can never run because ")
    assert "the most are 0 GPUs" in decide([chips], gang(1, gpus=1)).holds[0].reason
    assert "(there are: TPU v4)" in decide([chips], gang(1, gpus=1, gpu_model="v4")).holds[0].reason
    for model in ("TPU v4", "tpu"):
        (place,) = decide([chips], gang(1, gpus=4, gpu_model=model)).places
        assert len(place.parts[0].device_ids) == 4
    both = [chips, node("b", gpus=1)]
    assert where(decide(both, gang(1, gpus=1))) == {1: [("b", 1)]}


@pytest.mark.parametrize(
    ("nodes", "wish", "reason"),
    [
        ([], gang(1), "waits: no node has joined the cluster yet"),
        (
            [node("a")],
            gang(1, gpus=1, gpu_model="B200"),
            "can never run because no node has a GPU of model 'B200' (there are: none)",
        ),
        (
            [node("a", gpus=4)],
            gang(1, gpus=8),
            "can never run because a worker needs 8 GPUs, 1 core, 1 GiB of memory,"
            " and no node has so much: the most are 4 GPUs, 8 cores, 64 GiB of memory",
        ),
        (
            [node("a", gpus=4)],
            gang(1, 8, gpus=1),
            "can never run because its 8 workers need 1 GPU, 1 core, 1 GiB of memory each,"
            " and the whole cluster has room for 4",
        ),
        (
            [node("a")],
            gang(1, 2, workers_per_node=1),
            "can never run because it needs 2 nodes with room for 1 worker each,"
            " and the cluster has only 1",
        ),
        (
            [replace(node("a"), takes_work=False)],
            gang(1),
            "waits for resources: room for 0 of 1 worker (1 core, 1 GiB of memory each);"
            " 1 node take no work (draining, silent or in trouble)",
        ),
        (
            [replace(node("a", gpus=1), free_devices=())],
            gang(1, gpus=1),
            "waits for resources: room for 0 of 1 worker (1 GPU, 1 core, 1 GiB of memory each);"
            " 1 node without enough free GPUs",
        ),
        (
            [node("a")],
            gang(1, not_before_us=NOW + 1_500_000),
            "backs off after a fault: the next attempt may start in 2 s",
        ),
    ],
)
def test_every_no_has_its_reason(nodes: list[Any], wish: Waiting, reason: str) -> None:
    (hold,) = decide(nodes, wish).holds
    assert hold.reason == reason


gangs = st.builds(
    gang,
    st.integers(1, 10_000),
    st.integers(1, 12),
    gpus=st.integers(0, 4),
    cpu_millicores=st.sampled_from([500, 1000, 2000]),
    priority=st.sampled_from([100, 1000]),
    ports=st.integers(0, 1),
)
sizes = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), max_size=5)


@given(sizes, st.lists(gangs, max_size=12, unique_by=lambda g: g.job_id), st.randoms())
def test_invariants_of_every_plan(
    has: list[tuple[int, int]], waiting: list[Waiting], rng: Any
) -> None:
    nodes = [node(f"n{i}", cpus=c, gpus=g) for i, (c, g) in enumerate(has)]
    decided = decide(nodes, *waiting)
    by_id = {g.job_id: g for g in waiting}
    told = [p.job_id for p in decided.places] + [h.job_id for h in decided.holds]
    assert sorted(told) == sorted(by_id), "each waiting gang is placed or held, once"
    assert all(hold.reason for hold in decided.holds)
    for place in decided.places:
        assert sum(p.workers for p in place.parts) == by_id[place.job_id].shape.workers, (
            "whole gangs"
        )
    for view in nodes:
        parts = [p for x in decided.places for p in x.parts if p.node_uuid == view.uuid]
        assert sum(p.cpu_millicores for p in parts) <= view.free_millicores
        assert sum(p.memory_bytes for p in parts) <= view.free_memory_bytes
        for kind in ("device_ids", "cpu_ids", "ports"):
            given_out = [each for p in parts for each in getattr(p, kind)]
            assert len(given_out) == len(set(given_out)), f"{kind} are leased once"
    shuffled = nodes[:]
    rng.shuffle(shuffled)
    assert decide(shuffled, *waiting) == decided, "the order of nodes decides nothing"


def test_a_node_whose_agent_has_no_root_takes_only_its_own_users_jobs() -> None:
    alices = replace(node("a", cpus=4), only_owner="alice")
    decided = decide([alices, node("b", cpus=1)], gang(1, owner="bob"), gang(2, owner="bob"))

    assert where(decided) == {1: [("b", 1)]}
    assert decided.holds[0].reason == (
        "waits for resources: room for 0 of 1 worker (1 core, 1 GiB of memory each);"
        " 1 node can run only jobs of alice; 1 node without enough free cores"
    )
    assert where(decide([alices], gang(1, owner="alice"))) == {1: [("a", 1)]}


def test_who_has_no_node_at_all_can_never_run() -> None:
    alices = replace(node("a", cpus=4), only_owner="alice")

    (hold,) = decide([alices], gang(1, owner="bob")).holds

    assert hold.reason == (
        "can never run because no node runs jobs of bob: their agents have no root,"
        " and run only alice's"
    )


def test_what_was_refused_to_one_owner_is_not_refused_to_another() -> None:
    alices = replace(node("a", cpus=4), only_owner="alice")

    decided = decide([alices], gang(1, owner="bob"), gang(2, owner="alice"))

    assert where(decided) == {2: [("a", 1)]}
