"""A centre in a few lines, for what shows only over weeks: nodes with GPUs, jobs of known length, a
clock that goes in steps, usage that decays."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from controlplane.model.policy import DEFAULT, Policy
from controlplane.model.view import Account, Changes, Member, NodeView, Part, Running, View, Waiting
from controlplane.scheduling.board import Board
from controlplane.scheduling.policy import decide
from tests.scheduling.test_policy import NOW, gang, node

HOUR = 3_600_000_000


class SmallCentre:
    """Nodes with 8 GPUs each, and what waits and runs."""

    def __init__(self, nodes: int, accounts: dict[str, int], policy: Policy = DEFAULT) -> None:
        self.now, self.policy = NOW, policy
        self.nodes = {f"n{i:03}": node(f"n{i:03}", gpus=8, cpus=64) for i in range(nodes)}
        self.usage = dict.fromkeys(accounts, 0.0)
        self.shares = accounts
        self.waiting: dict[int, Waiting] = {}
        self.running: dict[int, tuple[Running, int]] = {}
        self.waits: dict[int, int] = {}
        self.had = dict.fromkeys(accounts, 0)
        self.view = View(now_us=NOW, seq=1, nodes=tuple(self.nodes.values()), waiting=())
        self.board = Board(self.view)
        self.lengths: dict[int, int] = {}
        self._told: dict[int, tuple[Waiting, ...]] = {}

    def come(self, job_id: int, gpus: int, hours: int, account: str = "") -> None:
        """A job comes, which runs for so many hours; its limit is twice that."""
        shape = {"workers": gpus} if gpus <= 8 else {"workers": gpus, "workers_per_node": 8}
        made = gang(
            job_id,
            gpus=1,
            limit_us=2 * hours * HOUR,
            memory_bytes=0,
            account=account,
            owner=account,
            created_us=self.now,
            **shape,
        )
        self.waiting[job_id] = made
        self._told[job_id] = (made,)
        self.lengths[job_id] = hours * HOUR

    def step(self, hours: int = 1) -> None:
        """Time passes: what is over ends, and what has room starts."""
        self.now += hours * HOUR
        decay = 0.5 ** (hours * HOUR / self.policy.half_life_us)
        nodes: dict[str, NodeView] = {}
        ended: dict[tuple[int, int], Running | None] = {}
        for job_id, (task, end_us) in list(self.running.items()):
            if task.account:
                gpus = task.shape.workers
                self.usage[task.account] += gpus * hours
                self.had[task.account] += gpus * hours
            if end_us <= self.now:
                del self.running[job_id]
                ended[job_id, 0] = None
                for part in task.parts:
                    nodes[part.node_uuid] = self._give(part, back=True)
        self.usage = {name: used * decay for name, used in self.usage.items()}
        accounts = tuple(Account(name=n, parent="", shares=s) for n, s in self.shares.items())
        members = tuple(
            Member(account=n, user=n, usage=round(used * HOUR)) for n, used in self.usage.items()
        )
        accounts = tuple(replace(a, usage=m.usage) for a, m in zip(accounts, members, strict=True))
        self.board.change(Changes(whole=False, nodes=nodes, waiting=self._told, running=ended))
        self._told = {}
        self.view = replace(
            self.view, now_us=self.now, nodes=(), accounts=accounts, members=members
        )
        decided = decide(self.board, self.view, self.policy)
        self.view = replace(self.view, promises=decided.promises, reserved=decided.reserved)
        nodes = {}
        started: dict[tuple[int, int], Running] = {}
        for place in decided.places:
            entry = self.waiting.pop(place.job_id)
            self.waits[place.job_id] = self.now - entry.created_us
            task = Running(
                job_id=place.job_id,
                task_index=0,
                attempt=1,
                owner=entry.owner,
                account=entry.account,
                priority=entry.priority,
                preemptible=False,
                shape=entry.shape,
                parts=place.parts,
                placed_us=self.now,
                until_us=self.now + (entry.limit_us or 0),
                saved_us=self.now,
            )
            self.running[place.job_id] = (task, self.now + self.lengths[place.job_id])
            started[place.job_id, 0] = task
            for part in place.parts:
                nodes[part.node_uuid] = self._give(part, back=False)
        gone: dict[int, tuple[Waiting, ...]] = {job: () for job, _ in started}
        self.board.change(Changes(whole=False, nodes=nodes, waiting=gone, running=started))

    def _give(self, part: Part, *, back: bool) -> NodeView:
        one, sign = self.nodes[part.node_uuid], 1 if back else -1
        ids, cores = set(part.device_ids), set(part.cpu_ids)
        free = {d.device_id for d in one.free_devices}
        free = free | ids if back else free - ids
        held = set(one.free_cpu_ids)
        held = held | cores if back else held - cores
        made: NodeView = replace(
            one,
            free_millicores=one.free_millicores + sign * part.cpu_millicores,
            free_memory_bytes=one.free_memory_bytes + sign * part.memory_bytes,
            free_devices=tuple(d for d in one.devices if d.device_id in free),
            free_cpu_ids=tuple(sorted(held)),
        )
        self.nodes[made.uuid] = made
        return made


def stream(
    seed: int, load: float, gpus: int, sizes: tuple[int, ...], weights: tuple[int, ...]
) -> Iterator[list[tuple[int, int]]]:
    """Jobs for each hour, for ever, that ask for so much of so many GPUs on the average."""
    chance = random.Random(seed)
    lengths = (1, 2, 4, 8)
    mean = sum(s * w for s, w in zip(sizes, weights, strict=True)) / sum(weights)
    rate = load * gpus / (mean * sum(lengths) / len(lengths))
    owed = 0.0
    while True:
        owed += rate
        due = []
        while owed >= 1:
            owed -= 1
            due.append((chance.choices(sizes, weights)[0], chance.choice(lengths)))
        yield due
