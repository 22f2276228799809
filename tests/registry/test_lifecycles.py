"""Whatever happens, in whatever order, on every store: the invariants hold after each step, and
what is loaded again is what was held in memory.

`EXAMPLES=200 STEPS=100 pytest tests/registry/test_lifecycles.py --timeout 0` looks longer.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from controlplane.model.errors import RequestIdReused, StaleControlPlane
from controlplane.model.event import CONTROL_PLANE
from controlplane.model.job import JobState
from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus
from controlplane.registry import nodes
from controlplane.registry.registry import Registry
from controlplane.registry.store import JobFilter, JobRecord
from controlplane.scheduling.policy import plan
from tests.support.examples import examples
from tests.support.stores import Stores, projection
from tests.support.world import World, facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.registry.store import Store

HAS: dict[str, dict[str, int]] = {
    "1": {"cpus": 4, "gpus": 2},
    "2": {"cpus": 4, "gpus": 2},
    "3": {"cpus": 8, "gpus": 0, "memory_gib": 2},
}
"""The nodes that there may be, by name."""
PICK = st.integers(0, 999)
"""Which of those that there are."""
ENDS = st.sampled_from(["run", "succeed", "fail", "launch_failed"])
SHAPES = st.sampled_from(
    [
        {},
        {"resources": {"gpus": 1}},
        {"workers": 2, "workers_per_node": 1, "resources": {"gpus": 2}},
        {"workers": 3, "resources": {"cpus": 2}},
        {"workers": 2, "launcher": "torchrun", "resources": {"memory": "1500MiB"}},
        {"workers": 1000},
    ]
)


class Lifecycles(RuleBasedStateMachine):
    """People, agents and accidents, over one registry."""

    stores: Stores

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        self.connect: Callable[[], Store] = self.stack.enter_context(self.stores.database())
        self.world = World(self.connect())
        self.acknowledged: dict[str, int] = {}
        self.terminal: dict[int, JobRecord] = {}
        self.last_report: dict[str, tuple[LeaseStatus, ...]] = {}
        self.boots: Counter[str] = Counter()
        for name in ("1", "2"):
            self.join(name)

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    # --- what people do ------------------------------------------------------------------------

    @rule(shape=SHAPES, attempts=st.integers(1, 2))
    def submit(self, shape: dict[str, Any], attempts: int) -> None:
        request_id = f"r{len(self.acknowledged)}"
        job_id = self.world.submit(once=request_id, max_attempts=attempts, **shape)
        assert job_id not in self.acknowledged.values(), "a number was given out twice"
        self.acknowledged[request_id] = job_id

    @precondition(lambda self: self.world.registry._facts.jobs)
    @rule(kind=st.sampled_from(["afterok", "afterany", "afternotok"]), pick=PICK)
    def submit_what_waits_for_another(self, kind: str, pick: int) -> None:
        others = sorted(self.world.registry._facts.jobs)
        self.submit({"depends_on": [f"{kind}:{others[pick % len(others)]}"]}, 1)

    @precondition(lambda self: self.acknowledged)
    @rule(pick=PICK)
    def submit_again(self, pick: int) -> None:
        request_id = sorted(self.acknowledged)[pick % len(self.acknowledged)]
        try:
            again = self.world.submit(once=request_id, name="another")
        except RequestIdReused:
            return
        raise AssertionError(f"{request_id} was taken for a new request: {again}")

    @precondition(lambda self: self.acknowledged)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        jobs = sorted(self.world.registry._facts.jobs) or sorted(self.acknowledged.values())
        self.world.cancel(jobs[pick % len(jobs)])

    # --- what the control plane does -----------------------------------------------------------

    @rule()
    def tick(self) -> None:
        seq = self.world.registry.view(0).seq
        outcome = self.world.tick()
        assert not outcome.refused
        view = self.world.registry.view(self.world.clock.now_us())
        assert (view.seq == seq) == (outcome.placed + outcome.preempted + outcome.promised == 0)
        assert not plan(view).places, "planning again gives nothing new"
        waits = {(hold.job_id, hold.task_index) for hold in plan(view).holds}
        assert waits == {(one.job_id, one.task_index) for one in view.waiting}

    @rule(seconds=st.integers(1, 400))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.advance(seconds * 1_000_000)

    @rule()
    def restart(self) -> None:
        world, before = self.world, self.world.registry
        stale, world.store = world.store, self.connect()
        world.registry = Registry(world.store, world.clock.now_us)
        assert world.registry.epoch == before.epoch + 1
        paused = before.submit(lambda draft: draft.emit("test.stale", "jobs/0"), CONTROL_PLANE)
        try:
            before.run_once()
        except StaleControlPlane:
            return
        finally:
            paused.cancel()
            stale.close()
        raise AssertionError("a control plane whose epoch is over has written")

    @rule(pick=PICK)
    def fall_silent_past_its_lease(self, pick: int) -> None:
        uuid = self.uuid(pick)
        now_us = self.world.clock.now_us()
        self.world.do(lambda draft: nodes.silence(draft, uuid, now_us))
        self.world.do(lambda draft: nodes.expire(draft, uuid))
        self.last_report.pop(uuid, None)

    # --- what agents do ------------------------------------------------------------------------

    @property
    def joined(self) -> list[str]:
        return sorted(node.uuid for node, _ in self.world.registry.nodes())

    def uuid(self, pick: int) -> str:
        return self.joined[pick % len(self.joined)]

    def report(self, uuid: str, *statuses: LeaseStatus) -> None:
        self.last_report[uuid] = statuses
        self.world.report(uuid, *statuses, boot_id=f"boot-{self.boots[uuid]}")

    @rule()
    def another_joins(self) -> None:
        self.join("3")

    def join(self, name: str) -> None:
        uuid = f"00000000-0000-4000-8000-{name:>012}"
        held = self.last_report.get(uuid, ())
        self.world.report(
            uuid, *held, told=facts(name, **HAS[name]), boot_id=f"boot-{self.boots[uuid]}"
        )

    @rule(pick=PICK, ends=ENDS, one=PICK)
    def obey(self, pick: int, ends: str, one: int) -> None:
        """The agent has what it was ordered: one lease moves on, and what it should end does."""
        uuid = self.uuid(pick)
        statuses = []
        orders = self.world.registry.desire(uuid).orders
        for number, order in enumerate(orders):
            known = {s.lease_id: s for s in self.last_report.get(uuid, ())}
            status = known.get(order.lease_id) or self.running(uuid, order.lease_id)
            if status.phase is not LeasePhase.ENDED:
                if order.stop:
                    ended = self.world.ended(status, exit_code=143)
                    status = replace(ended, end=LeaseEnd.ORDERED)
                elif number == one % len(orders):
                    status = self.moved(status, ends)
            statuses.append(status)
        self.report(uuid, *statuses)

    @rule(ends=ENDS, shape=SHAPES)
    def a_day_goes_by(self, ends: str, shape: dict[str, Any]) -> None:
        """What most of the time is: jobs come, are placed, run and end."""
        self.submit(shape, 2)
        self.tick()
        for each in range(len(self.joined)):
            self.obey(each, "run", each)
        for each in range(len(self.joined)):
            self.obey(each, ends, each)

    def running(self, uuid: str, lease_id: int) -> LeaseStatus:
        lease = self.world.registry.lease(lease_id)
        assert lease is not None
        assert lease.node_uuid == uuid
        return LeaseStatus(
            lease_id=lease_id,
            token=lease.token,
            phase=LeasePhase.RUNNING,
            workers=tuple(
                self.world.worker(lease.first_rank + local, local) for local in range(lease.workers)
            ),
        )

    def moved(self, status: LeaseStatus, ends: str) -> LeaseStatus:
        if ends == "run":
            return status
        if ends == "launch_failed":
            failed = {"phase": LeasePhase.ENDED, "end": LeaseEnd.LAUNCH_FAILED, "workers": ()}
            return replace(status, message="no room", **failed)  # type: ignore[arg-type]
        return self.world.ended(status, exit_code=0 if ends == "succeed" else 3)

    @precondition(lambda self: self.last_report)
    @rule(pick=PICK)
    def report_the_same_again(self, pick: int) -> None:
        known = sorted(self.last_report)
        uuid = known[pick % len(known)]
        seq = self.world.registry.view(0).seq
        silent = (node := self.world.registry.node(uuid)) and node.silent_since_us is not None
        held = {order.lease_id for order in self.world.registry.desire(uuid).orders}
        told = {status.lease_id for status in self.last_report[uuid]}
        self.report(uuid, *self.last_report[uuid])
        if not silent and held <= told:
            assert self.world.registry.view(0).seq == seq, "a repeat changed something"

    @rule(pick=PICK)
    def report_under_a_stale_token(self, pick: int) -> None:
        uuid = self.uuid(pick)
        for order in self.world.registry.desire(uuid).orders:
            lease = self.world.registry.lease(order.lease_id)
            assert lease is not None
            if lease.acknowledged:
                return  # its absence from the report would be news
        statuses = [
            self.world.ended(replace(status, token=status.token - 1), exit_code=9)
            for order in self.world.registry.desire(uuid).orders
            for status in [self.running(uuid, order.lease_id)]
        ]
        before = self.leases()
        self.world.report(uuid, *statuses, boot_id=f"boot-{self.boots[uuid]}")
        assert self.leases() == before

    def leases(self) -> object:
        return projection(self.world.registry._facts)["leases"]

    @rule(pick=PICK)
    def reboot(self, pick: int) -> None:
        uuid = self.uuid(pick)
        self.boots[uuid] += 1
        self.report(uuid)

    # --- what holds after each step ------------------------------------------------------------

    @invariant()
    def nothing_is_leased_beyond_capacity(self) -> None:
        known = self.world.registry._facts
        for uuid, node in known.nodes.items():
            held = [known.leases[lease_id] for lease_id in known.node_leases.get(uuid, ())]
            assert all(lease.node_uuid == uuid for lease in held)
            for claims in ("device_ids", "cpu_ids", "ports"):
                claimed = Counter(one for lease in held for one in getattr(lease, claims))
                assert not claimed or max(claimed.values()) == 1, f"{claims} of {uuid} twice"
            assert {d for lease in held for d in lease.device_ids} <= {
                device.device_id for device in node.facts.devices
            }
            assert sum(lease.cpu_millicores for lease in held) <= node.facts.cpus * 1000
            assert sum(lease.memory_bytes for lease in held) <= node.facts.memory_bytes
        assert {i for held in known.node_leases.values() for i in held} == set(known.leases)

    @invariant()
    def a_gang_is_whole_or_absent_and_runs_once(self) -> None:
        known = self.world.registry._facts
        lives: Counter[int] = Counter(attempt.job_id for attempt in known.attempts.values())
        assert not lives or max(lives.values()) == 1, "a job runs twice"
        of_attempts = set()
        for attempt in known.attempts.values():
            leases = [known.leases[lease_id] for lease_id in attempt.lease_ids]
            ranks = [r for x in leases for r in range(x.first_rank, x.first_rank + x.workers)]
            assert sorted(ranks) == list(range(known.jobs[attempt.job_id].spec.workers))
            of_attempts |= set(attempt.lease_ids)
        assert of_attempts == set(known.leases)
        active = {job.job_id for job in known.jobs.values() if job.state is JobState.ACTIVE}
        assert active == set(lives)

    @invariant()
    def nothing_acknowledged_disappears_and_nothing_terminal_changes(self) -> None:
        found = self.world.store.jobs(JobFilter(), before=None, limit=10_000, full=True)
        by_number = {record.job.job_id: record for record in found}
        assert sorted(by_number) == sorted(self.acknowledged.values())
        for job_id, record in by_number.items():
            if record.job.state.final:
                assert self.terminal.setdefault(job_id, record) == record
            else:
                assert job_id not in self.terminal

    @invariant()
    def every_waiting_job_has_a_reason(self) -> None:
        for job in self.world.registry._facts.jobs.values():
            if job.state is JobState.PENDING:
                assert self.world.registry.reason(job).strip()

    @invariant()
    def an_unchanged_view_gives_the_same_plan(self) -> None:
        view = self.world.registry.view(self.world.clock.now_us())
        assert repr(plan(view)) == repr(plan(view))

    @invariant()
    def what_is_loaded_again_is_what_is_held(self) -> None:
        loaded = self.world.store.reload()
        assert projection(loaded) == projection(self.world.registry._facts)

    @invariant()
    def events_are_numbered_without_a_gap(self) -> None:
        events = self.world.store.events("", after=0, limit=100_000)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))


@pytest.mark.timeout(180)
def test_whatever_happens_the_invariants_hold(stores: Stores) -> None:
    machine = type("Machine", (Lifecycles,), {"stores": stores})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(10),
            stateful_step_count=int(os.environ.get("STEPS", "25")),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
