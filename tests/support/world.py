"""A small world for tests: a registry over a store, and nodes that report by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from controlplane.engine.schedule import Outcome, Scheduler
from controlplane.kit.clock import ManualClock
from controlplane.model.account import Account
from controlplane.model.event import Actor
from controlplane.model.lease import (
    LeaseEnd,
    LeasePhase,
    LeaseStatus,
    WorkerState,
    WorkerStatus,
)
from controlplane.model.node import Device, DeviceKind, NodeFacts
from controlplane.model.spec import parse_spec, spec_sha256
from controlplane.registry import accounts, jobs, nodes
from controlplane.registry.registry import Once, Registry
from controlplane.registry.store import RequestKey, Store
from controlplane.registry.which import Which
from controlplane.scheduling.policy import plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.model.job import Attempt, Job
    from controlplane.registry.draft import Draft

T = TypeVar("T")
ALICE = Actor(principal="alice", peer="test")


def facts(name: str, *, cpus: int = 8, gpus: int = 0, memory_gib: int = 64) -> NodeFacts:
    """What a node has."""
    return NodeFacts(
        display_name=name,
        address="127.0.0.1",
        cpus=cpus,
        memory_bytes=memory_gib << 30,
        devices=tuple(
            Device(
                device_id=f"{name}-gpu{i}",
                kind=DeviceKind.GPU,
                model="NVIDIA H100 80GB HBM3",
                memory_bytes=80 << 30,
                index=i,
            )
            for i in range(gpus)
        ),
        port_first=20000,
        port_last=20099,
    )


class World:
    """One registry, written in the test's own thread, on a clock that stands."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = ManualClock()
        self.registry = Registry(store, self.clock.now_us)
        self.scheduler: Scheduler | None = None

    def do(
        self, command: Callable[[Draft], T], actor: Actor = ALICE, once: Once | None = None
    ) -> T:
        future = self.registry.submit(command, actor, once)
        self.registry.run_once()
        return future.result(timeout=0)

    def submit(self, actor: Actor = ALICE, /, *, once: str = "", **document: Any) -> int:
        spec = parse_spec({"command": ["true"], **document})
        wanted = jobs.Wanted(spec, spec_sha256(spec), 1000)
        key = Once(
            key=RequestKey(principal="alice", request_id=once), content_hash=spec_sha256(spec)
        )
        body = self.do(
            lambda draft: {"job_id": jobs.submit(draft, [wanted])[0]},
            actor,
            once=key if once else None,
        )
        return int(body["job_id"])

    def open_account(self, name: str) -> None:
        """An account that everybody may submit to."""
        self.do(lambda draft: accounts.create(draft, Account(name=name, open=True)))

    def cancel(self, *job_ids: int) -> jobs.Cancelled:
        return self.do(lambda draft: jobs.cancel(draft, map(Which, job_ids)))

    def join(self, name: str, **has: int) -> str:
        uuid = f"00000000-0000-4000-8000-{name:>012}"
        self.report(uuid, told=facts(name, **has))
        return uuid

    def report(
        self,
        uuid: str,
        *statuses: LeaseStatus,
        told: NodeFacts | None = None,
        boot_id: str = "boot-1",
    ) -> None:
        report = nodes.NodeReport(node_uuid=uuid, boot_id=boot_id, facts=told, leases=statuses)
        self.do(lambda draft: nodes.observe(draft, report))

    def tick(self) -> Outcome:
        if self.scheduler is None or self.scheduler.registry is not self.registry:
            self.scheduler = Scheduler(self.registry)
        view = self.registry.view(self.clock.now_us())
        expected = plan(view)
        submit = self.registry.submit

        def at_once(*args: Any, **kwargs: Any) -> Any:
            future = submit(*args, **kwargs)
            self.registry.run_once()
            return future

        self.registry.submit = at_once  # type: ignore[method-assign]
        try:
            outcome = self.scheduler.cycle(self.clock.now_us())
        finally:
            self.registry.submit = submit  # type: ignore[method-assign]
        assert self.scheduler.decided == expected, "what is kept decides as the whole view does"
        return outcome

    def job(self, job_id: int) -> Job:
        return self.registry.job(job_id).job

    def attempt(self, job_id: int) -> Attempt:
        return self.registry.job(job_id).attempts[-1]

    def statuses(
        self, job_id: int, index: int | None = None, **changes: Any
    ) -> dict[str, LeaseStatus]:
        """What the nodes of a job's last attempt, or a task's, would report; by node."""
        record = self.registry.job(job_id, index)
        found = {}
        for lease_id in record.attempts[-1].lease_ids:
            lease = record.leases[lease_id]
            ranks = range(lease.first_rank, lease.first_rank + lease.workers)
            status = LeaseStatus(
                lease_id=lease_id,
                token=lease.token,
                phase=LeasePhase.RUNNING,
                workers=tuple(self.worker(rank, rank - lease.first_rank) for rank in ranks),
            )
            found[lease.node_uuid] = replace(status, **changes)
        return found

    def worker(self, rank: int, local_rank: int, **changes: Any) -> WorkerStatus:
        running = WorkerStatus(
            rank=rank,
            local_rank=local_rank,
            state=WorkerState.RUNNING,
            pid=1000 + rank,
            started_us=self.clock.now_us(),
        )
        return replace(running, **changes)

    def ended(self, status: LeaseStatus, *, exit_code: int = 0) -> LeaseStatus:
        """A status of a lease whose workers have all ended."""
        workers = tuple(
            replace(
                w, state=WorkerState.ENDED, exit_code=exit_code, ended_us=self.clock.now_us() + 1
            )
            for w in status.workers
        )
        return replace(status, phase=LeasePhase.ENDED, end=LeaseEnd.NATURAL, workers=workers)
