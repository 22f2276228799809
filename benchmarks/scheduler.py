"""How long a decision takes: cold and warm, against nodes and jobs; beside the limits that it was
made for.

    python -m benchmarks.scheduler [--growth]

CPU seconds of one core, in this process, for a decision is made on one core alone. The peer's
figures are those of Slurm 22.05 with 1,000 nodes x 8 GPUs and high-throughput settings (24 s for a
backfill cycle with 10,000 waiting jobs, where its own limits cut it short), and of Kueue's own test
of placement by topology, with 640 nodes and 15,000 workloads (401 s, an API server included).
"""

from __future__ import annotations

import argparse
import heapq
import random
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table

from controlplane.model.node import Device, DeviceKind
from controlplane.model.policy import DEFAULT
from controlplane.model.spec import Resources
from controlplane.model.view import (
    Account,
    Changes,
    Member,
    NodeView,
    Running,
    Shape,
    View,
    Waiting,
)
from controlplane.scheduling.board import Board
from controlplane.scheduling.decision import Decision
from controlplane.scheduling.explain import explain_task
from controlplane.scheduling.policy import decide

if TYPE_CHECKING:
    from controlplane.model.plan import Plan

GIB = 1 << 30
HOUR = 3_600_000_000
NOW = 10**15
MODELS = (("H100 80GB", 80), ("A100 80GB", 80), ("A100 40GB", 40), ("L40S", 48))
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SHARES = (30, 12, 14, 20, 9, 6, 4, 2, 1.5, 1, 0.5)
"""How often a gang has so many workers, of 100."""
T = TypeVar("T")


def make_nodes(count: int) -> dict[str, NodeView]:
    """Hosts of 8 GPUs in four models, 32 behind a leaf, 8 leaves in a block, 8 blocks in a
    spine."""
    made = {}
    for i in range(count):
        model, memory = MODELS[i * len(MODELS) // count]
        uuid = f"node-{i:06}"
        devices = tuple(
            Device(
                device_id=f"GPU-{i}-{k}",
                kind=DeviceKind.GPU,
                model=model,
                memory_bytes=memory * GIB,
                index=k,
                numa_node=k // 4,
            )
            for k in range(8)
        )
        made[uuid] = NodeView(
            uuid=uuid,
            display_name=f"n{i}",
            takes_work=True,
            cpus=96,
            memory_bytes=1024 * GIB,
            devices=devices,
            free_millicores=96_000,
            free_memory_bytes=1024 * GIB,
            free_devices=devices,
            free_cpu_ids=tuple(range(96)),
            free_ports=tuple(range(20_000, 20_016)),
            labels=(
                ("fabric/block", f"b{i // 256}"),
                ("fabric/leaf", f"l{i // 32}"),
                ("fabric/spine", f"s{i // 2048}"),
            ),
        )
    return made


def make_jobs(count: int, nodes: int, seed: int = 1, first: int = 1) -> list[Waiting]:
    """Gangs of 1 to 1,024 workers with a GPU each, of 200 accounts and 1,000 users."""
    chance = random.Random(seed)
    shapes: dict[tuple[int, str | None, int], Shape] = {}
    sizes = [size for size in SIZES if size <= nodes * 2]
    weights = SHARES[: len(sizes)]
    made = []
    for i in range(count):
        workers = chance.choices(sizes, weights)[0]
        model = chance.choice(("H100", "A100", "L40S", None))
        key = (workers, model, chance.choice((4, 8, 10)))
        if key not in shapes:
            need = Resources(
                gpus=1, cpu_millicores=key[2] * 1000, memory_bytes=32 * GIB, gpu_model=model
            )
            each = 8 if workers > 8 else None
            shapes[key] = Shape(workers=workers, workers_per_node=each, resources=need, ports=1)
        user = chance.randrange(1000)
        made.append(
            Waiting(
                job_id=first + i,
                task_index=0,
                owner=f"u{user}",
                account=f"a{user % 200}",
                priority=chance.choice((100, 1000, 1000, 1000, 10_000)),
                created_us=NOW - (count - i) * 1_000_000,
                not_before_us=0,
                limit_us=chance.choice((1, 2, 4, 8, 24, 72)) * HOUR,
                shape=shapes[key],
            )
        )
    return made


def make_view(nodes: int, jobs: int) -> View:
    """A free cluster, and all that wait for it."""
    chance = random.Random(7)
    accounts = tuple(
        Account(name=f"a{i}", parent="", shares=chance.randrange(1, 9)) for i in range(200)
    )
    members = tuple(
        Member(account=f"a{i % 200}", user=f"u{i}", usage=chance.randrange(10**12))
        for i in range(1000)
    )
    waiting = make_jobs(jobs, nodes)
    return View(
        now_us=NOW,
        seq=1,
        nodes=tuple(make_nodes(nodes).values()),
        waiting=tuple(waiting),
        accounts=accounts,
        members=members,
    )


class Cluster:
    """A board, and what becomes of it when its plans are made true."""

    def __init__(self, view: View) -> None:
        """`view`: as it is before the first decision."""
        self.view = replace(view, nodes=(), waiting=(), running=())
        self.nodes = {node.uuid: node for node in view.nodes}
        self.waiting = {w.job_id: w for w in view.waiting}
        self.running: dict[tuple[int, int], Running] = {}
        self.board = Board(view)

    def decide(self) -> Plan:
        """Decide over the board."""
        return decide(self.board, self.view)

    def commit(self, plan: Plan) -> Changes:
        """Make a plan true; what changed."""
        nodes: dict[str, NodeView] = {}
        started: dict[tuple[int, int], Running] = {}
        for place in plan.places:
            entry = self.waiting.pop(place.job_id)
            limit = entry.limit_us or 0
            started[place.job_id, 0] = Running(
                job_id=place.job_id,
                task_index=0,
                attempt=1,
                owner=entry.owner,
                account=entry.account,
                priority=entry.priority,
                preemptible=False,
                shape=entry.shape,
                parts=place.parts,
                placed_us=self.view.now_us,
                until_us=self.view.now_us + limit,
                saved_us=self.view.now_us,
            )
            for part in place.parts:
                node, held = self.nodes[part.node_uuid], set(part.device_ids)
                cores = set(part.cpu_ids)
                self.nodes[node.uuid] = nodes[node.uuid] = replace(
                    node,
                    free_millicores=node.free_millicores - part.cpu_millicores,
                    free_memory_bytes=node.free_memory_bytes - part.memory_bytes,
                    free_devices=tuple(d for d in node.free_devices if d.device_id not in held),
                    free_cpu_ids=tuple(c for c in node.free_cpu_ids if c not in cores),
                )
        self.running |= started
        self.view = replace(self.view, promises=plan.promises, reserved=plan.reserved)
        waiting: dict[int, tuple[Waiting, ...]] = {job: () for job, _ in started}
        return Changes(whole=False, nodes=nodes, waiting=waiting, running=started)

    def end(self, keys: list[tuple[int, int]]) -> Changes:
        """End tasks; what changed."""
        nodes: dict[str, NodeView] = {}
        for key in keys:
            for part in self.running.pop(key).parts:
                node = self.nodes[part.node_uuid]
                held = {d.device_id for d in node.free_devices} | set(part.device_ids)
                self.nodes[node.uuid] = nodes[node.uuid] = replace(
                    node,
                    free_millicores=node.free_millicores + part.cpu_millicores,
                    free_memory_bytes=node.free_memory_bytes + part.memory_bytes,
                    free_devices=tuple(d for d in node.devices if d.device_id in held),
                    free_cpu_ids=tuple(sorted((*node.free_cpu_ids, *part.cpu_ids))),
                )
        return Changes(whole=False, nodes=nodes, waiting={}, running=dict.fromkeys(keys))


def took(work: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds, and what came of it."""
    began = time.process_time()
    value = work()
    return time.process_time() - began, value


def rows() -> Iterator[tuple[str, float, float, str]]:
    """What was measured, in CPU seconds, and the limit that it should keep."""
    view = make_view(1000, 10_000)
    cold, _ = took(lambda: decide(Board(view), view))
    yield "1,000 nodes, 10,000 waiting, all of them, cold", cold, 0.5, "24 s"

    cluster = Cluster(view)
    cluster.board.change(cluster.commit(cluster.decide()))
    decision = Decision(cluster.board, cluster.view, DEFAULT)
    decision.plan()
    chance = random.Random(3)
    chosen = chance.sample(range(len(cluster.board.tasks)), 20)
    told, _ = took(lambda: [explain_task(decision, row) for row in chosen])
    again, _ = took(lambda: Decision(cluster.board, cluster.view, DEFAULT).plan())
    yield "the same: explain one job, the decision included", again + told / 20, 0.2, ""

    large = make_view(10_000, 100_000)
    cold, _ = took(lambda: decide(Board(large), large))
    yield "10,000 nodes, 100,000 waiting, 200 accounts, cold", cold, 1.0, ""
    cluster = Cluster(large)
    cluster.board.change(cluster.commit(cluster.decide()))
    warm = []
    for turn in range(10):
        ended = chance.sample(sorted(cluster.running), 50)
        new = make_jobs(50, 10_000, seed=turn + 10, first=200_000 + 50 * turn)
        cluster.waiting |= {w.job_id: w for w in new}
        changes = replace(cluster.end(ended), waiting={w.job_id: (w,) for w in new})

        def cycle(changes: Changes = changes) -> Plan:
            cluster.board.change(changes)
            return cluster.decide()

        seconds, plan = took(cycle)
        warm.append(seconds)
        cluster.board.change(cluster.commit(plan))
    yield "the same, full, after 100 changes (median of 10)", sorted(warm)[5], 0.05, ""
    seconds, (cycles, lasted) = took(admitted)
    what = f"640 nodes, 15,000 gangs behind one leaf each: {cycles:,} cycles, {lasted:,} s"
    yield what, seconds, 20, "401 s"
    unchanged, plan = took(cluster.decide)
    assert not plan.places, "an unchanged world is decided the same"
    yield "the same, full, nothing changed", unchanged, 0.05, ""


def admitted(nodes: int = 640, jobs: int = 15_000) -> tuple[int, int]:
    """Run as many gangs, which each must lie behind one leaf switch, to the last one's start, on a
    virtual clock: the size of Kueue's own test of placement by topology. Cycles, and simulated
    seconds."""
    chance = random.Random(11)
    view = replace(make_view(nodes, 0), accounts=(), members=())
    cluster = Cluster(view)
    need = Resources(gpus=8, cpu_millicores=64_000, memory_bytes=512 * GIB, gpu_model=None)
    shapes = [
        Shape(workers=n, workers_per_node=1, resources=need, ports=1, within="fabric/leaf")
        for n in (1, 2, 8)
    ]
    ends: list[tuple[int, tuple[int, int]]] = []
    length = {}
    for job in range(1, jobs + 1):
        length[job] = chance.randrange(60, 600) * 1_000_000
        cluster.waiting[job] = Waiting(
            job_id=job,
            task_index=0,
            priority=1000,
            created_us=NOW,
            not_before_us=0,
            limit_us=2 * length[job],
            shape=chance.choices(shapes, (70, 25, 5))[0],
        )
    waiting = {job: (entry,) for job, entry in cluster.waiting.items()}
    cluster.board.change(Changes(whole=False, nodes={}, waiting=waiting, running={}))
    cycles, now = 0, NOW
    while cluster.waiting:
        cluster.view = replace(cluster.view, now_us=now)
        plan = cluster.decide()
        cycles += 1
        cluster.board.change(cluster.commit(plan))
        for place in plan.places:
            heapq.heappush(ends, (now + length[place.job_id], (place.job_id, 0)))
        # A daemon's cycles are a second apart when much happens.
        now = max(now + 1_000_000, ends[0][0])
        over = []
        while ends and ends[0][0] <= now:
            over.append(heapq.heappop(ends)[1])
        cluster.board.change(cluster.end(over))
    return cycles, (now - NOW) // 1_000_000


def growth() -> Iterator[tuple[int, int, float, float]]:
    """Cost of a cold and of an unchanged decision against nodes and against jobs."""
    for nodes, jobs in (
        *((n, 10_000) for n in (100, 1000, 10_000, 100_000)),
        *((1000, j) for j in (100, 1000, 100_000, 1_000_000)),
    ):
        view = make_view(nodes, jobs)
        cold, _ = took(lambda view=view: decide(Board(view), view))  # type: ignore[misc]
        cluster = Cluster(view)
        cluster.board.change(cluster.commit(cluster.decide()))
        again, _ = took(cluster.decide)
        yield nodes, jobs, cold, again


def main() -> None:
    """Measure, and print the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--growth", action="store_true", help="up to 100,000 nodes, 10^6 jobs")
    wanted = options.parse_args()
    console = Console()
    table = Table("a decision", "CPU s", "limit", "ratio", "peer")
    for what, seconds, limit, peer in rows():
        table.add_row(what, f"{seconds:.3f}", f"{limit:g}", f"{seconds / limit:.2f}", peer)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    table.add_row("memory, GiB", f"{memory:.2f}", "1", f"{memory:.2f}", "")
    console.print(table)
    if wanted.growth:
        grown = Table("nodes", "jobs", "cold, CPU s", "unchanged, CPU s")
        for nodes, jobs, cold, again in growth():
            grown.add_row(f"{nodes:,}", f"{jobs:,}", f"{cold:.3f}", f"{again:.3f}")
        console.print(grown)


if __name__ == "__main__":
    main()
