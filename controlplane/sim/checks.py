"""What must hold at every moment of a simulation of the real scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from controlplane.model.job import JobState
from controlplane.scheduling.policy import plan

if TYPE_CHECKING:
    from controlplane.engine.schedule import Scheduler
    from controlplane.model.job import Attempt, Job
    from controlplane.model.plan import Plan
    from controlplane.registry.draft import Draft
    from controlplane.registry.registry import Registry

MILLI: Final = 1000
NO_REASON: Final = "waits for the scheduler's next cycle"


class Broken(AssertionError):
    """An invariant does not hold: a bug of the scheduler or the registry."""


class Checks:
    """Looks at every commit and every decision; raises `Broken`."""

    def __init__(self, registry: Registry, scheduler: Scheduler) -> None:
        """`registry`, `scheduler`: what is looked at."""
        self._registry, self._scheduler = registry, scheduler
        self._expected: Plan | None = None
        self._over: dict[int, Job] = {}
        self._attempts: dict[tuple[int, int], Attempt] = {}

    def hear(self, draft: Draft) -> None:
        """A commit: nothing terminal changes, and nothing runs twice at once."""
        for number, job in draft.jobs.changed.items():
            if job is None:
                continue
            if number in self._over:
                raise Broken(f"{job.name} had ended, and was changed")
            if job.state.final:
                self._over[number] = job
        for attempt in draft.attempts.changed.values():
            if attempt is None:
                continue
            task = (attempt.job_id, attempt.task_index)
            before = self._attempts.get(task)
            if before is not None and before.number != attempt.number and not before.state.final:
                raise Broken(f"{attempt.name} began while {before.name} was alive")
            if before is not None and before.number == attempt.number and before.state.final:
                raise Broken(f"{attempt.name} had ended, and was changed")
            self._attempts[task] = attempt
            self._check_gang(draft, attempt)

    def _check_gang(self, draft: Draft, attempt: Attempt) -> None:
        leases = [draft.leases[i] for i in attempt.lease_ids]
        placed = sum(lease.workers for lease in leases)
        wanted = draft.jobs[attempt.job_id].spec.workers
        if placed != wanted or len({lease.removed_us is None for lease in leases}) != 1:
            raise Broken(
                f"{attempt.name} has {placed} of {wanted} workers, or a part of its leases"
            )

    def before_cycle(self, now_us: int) -> None:
        """The same view gives the same plan."""
        scene = self._scheduler.scene(now_us)
        self._expected = plan(scene.view, scene.policy)
        if plan(scene.view, scene.policy) != self._expected:
            raise Broken(f"the view at event {scene.view.seq} gave two plans")

    def after_cycle(self, now_us: int) -> None:
        """What was kept from cycle to cycle has decided what a new look does; nothing is over its
        capacity, what waits has a reason, and there is nothing left to do."""
        if self._scheduler.decided != self._expected:
            raise Broken("the scheduler decided otherwise than on a view that it had not kept")
        scene = self._scheduler.scene(now_us)
        view, again = scene.view, plan(scene.view, scene.policy)
        if again.places or again.preempts:
            raise Broken(f"forgotten in the cycle before: {again.places or again.preempts}")
        for node, held in self._registry.nodes():
            devices = [device for lease in held for device in lease.device_ids]
            if len(devices) != len(set(devices)):
                raise Broken(f"a device of {node.facts.display_name} is leased twice")
            if not {device.device_id for device in node.facts.devices}.issuperset(devices):
                raise Broken(f"{node.facts.display_name} leases a device that it does not have")
            if sum(lease.cpu_millicores for lease in held) > node.facts.cpus * MILLI:
                raise Broken(f"{node.facts.display_name} leases more cores than it has")
            if sum(lease.memory_bytes for lease in held) > node.facts.memory_bytes:
                raise Broken(f"{node.facts.display_name} leases more memory than it has")
        for waiting in view.waiting:
            record = self._registry.live_job(waiting.job_id)
            if record is None or record.job.state is not JobState.PENDING:
                continue
            if self._registry.reason(record.job) in ("", NO_REASON):
                raise Broken(f"{record.job.name} waits, and nobody says why")
