"""The leases of this node: a control folder for each, from which a later agent adopts what runs.

Its name tells the lease, `plan.json` is what its supervisor was told, and the supervisor writes the
rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from controlplane.kit import failpoints
from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus
from controlplane.model.signals import signal_number
from nodeagent import reconcile, status
from nodeagent.folders import LeaseKey, leases_in
from nodeagent.held import Held, ended_status
from nodeagent.launchers import LaunchError, LaunchRefused, plan_step
from nodeagent.plan import StepPlan
from nodeagent.progress import LeaseReports
from nodeagent.status import StatusReader
from nodeagent.supervision import record

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from controlplane.model.launch import Launch, LeaseSignal
    from nodeagent.accounts import Account
    from nodeagent.folders import Folders
    from nodeagent.looking import Looks
    from nodeagent.preflight import Preflight
    from nodeagent.spawning import Spawner
    from nodeagent.staging import Stage
    from nodeagent.status import StepEnd

log = logging.getLogger(__name__)

EPILOG = "epilog"
"""Lies in a lease's control folder once its epilog has run."""
_GRACE_MS = 5_000
"""Of workers that are ended because their plan is damaged."""
_DAMAGED = f"{record.PLAN} in its control folder was damaged, so its workers were ended"


class Leases:
    """All leases of this node. Lives in the event loop's thread."""

    def __init__(
        self,
        folders: Folders,
        stage: Stage,
        spawner: Spawner,
        preflight: Preflight,
        looks: Looks,
        changed: Callable[[], None],
    ) -> None:
        """`changed`: called when something is to be reported."""
        self._folders = folders
        self._stage, self._spawner, self._changed = stage, spawner, changed
        self._preflight = preflight
        self._looks = looks
        self.trouble = ""
        """Why this node should get no more leases, in words; empty: it may."""
        self._stopping: dict[int, int] = {}
        self._unheard: dict[int, int] = {}
        self._signals: dict[int, tuple[LeaseSignal, ...]] = {}
        self.held: dict[int, Held] = {}

    def adopt(self) -> int:
        """Take over what an earlier agent has left; how many leases."""
        for key in leases_in(self._folders.control):
            self.held[key.lease_id] = self._adopted(key)
        for key in self._folders.leftovers():
            if key.lease_id not in self.held:
                told = ended_status(key, LeaseEnd.SUPERVISOR_LOST, "the node was rebooted")
                self.held[key.lease_id] = Held(key=key, status=told)
        return len(self.held)

    def _adopted(self, key: LeaseKey) -> Held:
        folder = self.control(key)
        plan = _read_plan(folder / record.PLAN)
        if plan is None:
            spare = _read_plan(folder / record.STAGED)
            if not record.was_supervised(str(folder)):
                return self._unbegun(key, spare)
            if spare is None:
                return self._damaged(key)
            plan = spare
        reader = StatusReader(folder, plan)
        held = Held(key=key, status=reader.read(), reader=reader, plan=plan)
        held.reports = self._reports(key, held.status, plan).resume()
        if held.status.phase is LeasePhase.ENDED:
            self._close(held, held.status)
        return held

    def _unbegun(self, key: LeaseKey, plan: StepPlan | None) -> Held:
        """One whose agent died before it was handed over. What its prolog has begun, the epilog may
        undo."""
        words = "the agent was restarted before the start"
        told = ended_status(key, LeaseEnd.LAUNCH_FAILED, words)
        held = Held(key=key, status=told, plan=plan)
        if plan is not None:
            self._preflight.end_earlier(plan)
            self._close(held, told)
        return held

    def _damaged(self, key: LeaseKey) -> Held:
        """One whose plan is lost in both copies, so that it cannot be reported: its supervisor is
        told to end it, and until it has the lease is held."""
        nothing = StepPlan(lease_id=key.lease_id, token=key.token, workers=())
        reader = StatusReader(self.control(key), nothing)
        log.error("%s is damaged: its workers are ended", self.control(key) / record.PLAN)
        return Held(key=key, status=_of_damaged(reader.read()), reader=reader, damaged=True)

    def _reports(self, key: LeaseKey, told: LeaseStatus, plan: StepPlan) -> LeaseReports:
        uid = plan.identity.uid if plan.identity is not None else os.geteuid()
        return LeaseReports(
            key=key,
            folder=self._folders.tmp / str(key),
            control=self.control(key),
            ranks=tuple(worker.rank for worker in told.workers),
            uid=uid,
        )

    def jobs(self) -> set[str]:
        """Names of the folders of jobs that have a lease here."""
        plans = (held.plan for held in self.held.values())
        envs = (w.env for plan in plans if plan is not None for w in plan.workers[:1])
        return {os.path.basename(env.get("CC_JOB_DIR", "")) for env in envs}

    def statuses(self) -> list[LeaseStatus]:
        """What is to be reported."""
        return [held.status for held in self.held.values() if not held.forgotten]

    def steps_ended(self) -> Iterator[tuple[LeaseKey, int, StepEnd]]:
        """Ends of detached steps that the control plane has not heard of: lease, number, end."""
        for held in self.held.values():
            for number, end in held.ended_steps().items():
                yield held.key, number, end

    def steps_heard(self, numbers: Collection[int]) -> None:
        """The control plane has written these down: they are told no more."""
        for held in self.held.values():
            held.heard_steps.update(held.ended_steps().keys() & set(numbers))

    def refresh(self, lease_id: int, *, look: bool = False) -> None:
        """Read a supervisor's word anew; with `look`, see also whether it is still there."""
        held = self.held.get(lease_id)
        if held is None or held.reader is None or held.status.phase is LeasePhase.ENDED:
            return
        if held.closing is not None:
            return
        if held.damaged:
            status.stop(self.control(held.key), _GRACE_MS, LeaseEnd.SUPERVISOR_LOST, _DAMAGED)
        told_steps = len(held.ended_steps())
        fresh = held.reader.look() if look else held.reader.read()
        fresh = _of_damaged(fresh) if held.damaged else fresh
        if len(held.ended_steps()) != told_steps:
            self._changed()
        if fresh != held.status:
            held.status = fresh
            if fresh.phase is LeasePhase.ENDED:
                self._close(held, fresh)
            self._changed()

    def _close(self, held: Held, ended: LeaseStatus) -> None:
        """Have the epilog run before the lease's end is told, unless there is none or it was."""
        done = self.control(held.key) / EPILOG
        if self._preflight.epilog is None or held.plan is None or done.exists():
            return
        held.status = replace(ended, phase=LeasePhase.STOPPING)
        held.closing = asyncio.create_task(self._epilog(held, held.plan, ended))

    async def _epilog(self, held: Held, plan: StepPlan, ended: LeaseStatus) -> None:
        try:
            await self._run_epilog(held.key, plan)
        finally:
            held.closing = None
            held.status = ended
            self._changed()

    async def _run_epilog(self, key: LeaseKey, plan: StepPlan) -> None:
        self.trouble = await self._preflight.run_epilog(plan)
        if self.trouble:
            log.error("%s; this node takes no more work", self.trouble)
        with contextlib.suppress(OSError):  # no room for it: an agent that is started anew repeats
            (self.control(key) / EPILOG).touch()

    def refresh_all(self) -> None:
        """Read every supervisor's word anew: nudges may be lost, and supervisors may die."""
        for lease_id in list(self.held):
            self.refresh(lease_id, look=True)
        for lease_id, grace_us in list(self._unheard.items()):
            self._stop(reconcile.Stop(lease_id=lease_id, grace_period_us=grace_us))
        for lease_id in list(self._signals):
            self._send_signals(lease_id)

    def perform(self, action: reconcile.Action) -> None:
        """Do what `reconcile` found."""
        match action:
            case reconcile.Start():
                self._start(action)
            case reconcile.Stop():
                self._stop(action)
            case reconcile.Signal():
                self._signals[action.lease_id] = action.signals
                self._send_signals(action.lease_id)
            case reconcile.ChangeLimit():
                # Ordered again with each answer until the supervisor has told that it keeps it.
                control = self.control(self.held[action.lease_id].key)
                status.change_limit(control, action.time_limit_us)
            case reconcile.NeverStarted():
                key = LeaseKey(action.lease_id, action.token)
                self.held[key.lease_id] = Held(
                    key=key, status=ended_status(key, LeaseEnd.ORDERED, "")
                )
                self._changed()
            case reconcile.Forget():
                failpoints.reach("agent.forgets")
                self.held[action.lease_id].forgotten = True
                self._stopping.pop(action.lease_id, None)

    def stopping(self) -> Mapping[int, int]:
        """Leases that were told to stop, with their grace periods."""
        return self._stopping

    def known(self) -> dict[int, LeaseStatus]:
        """Every lease that is held and not forgotten."""
        return {i: held.status for i, held in self.held.items() if not held.forgotten}

    def drop(self, lease_id: int) -> None:
        """Remove a forgotten lease whose output has been handed over."""
        failpoints.reach("agent.drops")
        self._folders.remove(self.held.pop(lease_id).key)

    def resend(self) -> None:
        """The control plane was started anew, and may have lost the newest output: it is asked
        again up to where it has each stream."""
        for held in self.held.values():
            for found in list(held.found.values()):
                found.rewind()

    def data(self, key: LeaseKey) -> Path:
        """The lease's folder for output."""
        return self._folders.data / str(key)

    def control(self, key: LeaseKey) -> Path:
        """The lease's folder for control files."""
        return self._folders.control / str(key)

    def _start(self, action: reconcile.Start) -> None:
        failpoints.reach("agent.ordered")
        key = LeaseKey(action.lease_id, action.token)
        told = LeaseStatus(lease_id=action.lease_id, token=action.token, phase=LeasePhase.STAGING)
        held = self.held[action.lease_id] = Held(key=key, status=told)
        try:
            self._folders.make_control(key)
            failpoints.reach("agent.folder_made")
        except OSError as error:
            self._failed(held, error)
            return
        held.staging = asyncio.create_task(self._stage_then_spawn(held, action.launch))

    async def _stage_then_spawn(self, held: Held, launch: Launch) -> None:
        account = self._stage.known_account()
        slow = bool(launch.working_dir_sha256) or self._preflight.takes_time(launch.device_ids)
        if account is None or slow:
            self._changed()
        try:
            if account is None:
                account = await self._stage.account(launch.owner)
            if launch.working_dir_sha256:
                await self._looks.within(launch.owner, self._stage.check_room)
                await self._stage.fetch(launch.working_dir_sha256, held.key, account)
            plan = await self._planned(held, launch, account)
            await self._preflight.check_devices(launch.device_ids)
            self._keep(held.key, plan)
            try:
                await self._preflight.run_prolog(plan)
                self._hand_over(held, plan)
            except BaseException:
                # What the prolog has begun, the epilog may undo.
                await self._run_epilog(held.key, plan)
                raise
        except asyncio.CancelledError:
            held.status = replace(held.status, phase=LeasePhase.ENDED, end=LeaseEnd.ORDERED)
        except LaunchError as error:
            self._failed(held, error)
        except Exception as error:
            log.warning("a lease could not be staged", extra={"lease": held.key.lease_id})
            words = f"it could not be prepared: {error}"
            self._failed(held, LaunchError(words))
        finally:
            held.staging = None
            if slow or held.status.phase is LeasePhase.ENDED:
                self._changed()

    async def _planned(self, held: Held, launch: Launch, account: Account) -> StepPlan:
        stage, key = self._stage, held.key
        context = await self._looks.within(
            launch.owner, lambda place: stage.prepare(launch, key, account, place)
        )
        return stage.finish(plan_step(launch, context), launch, key, account)

    def _keep(self, key: LeaseKey, plan: StepPlan) -> None:
        """Write the plan down, before anything is done for it."""
        failpoints.reach("agent.prepared")
        _write_plan(self.control(key) / record.STAGED, plan)

    def _hand_over(self, held: Held, plan: StepPlan) -> None:
        """Have a supervisor started."""
        folder = self.control(held.key)
        failpoints.reach("agent.prolog_ran")
        held.plan = plan
        _write_plan(folder / record.PLAN, plan)
        failpoints.reach("agent.plan_written")
        held.reader = StatusReader(folder, plan)
        held.status = replace(held.status, phase=LeasePhase.STARTING)
        held.reports = self._reports(held.key, held.reader.read(), plan)
        self._spawner.spawn(folder)
        failpoints.reach("agent.spawned")

    def _failed(self, held: Held, error: Exception) -> None:
        refused = isinstance(error, LaunchRefused)
        end = LeaseEnd.LAUNCH_REFUSED if refused else LeaseEnd.LAUNCH_FAILED
        held.status = replace(held.status, phase=LeasePhase.ENDED, end=end, message=str(error))
        self._changed()

    def _stop(self, action: reconcile.Stop) -> None:
        held = self.held.get(action.lease_id)
        self._unheard.pop(action.lease_id, None)
        if held is None or held.status.phase is LeasePhase.ENDED:
            return
        failpoints.reach("agent.stop_ordered")
        self._stopping[action.lease_id] = action.grace_period_us
        if held.staging is not None:
            held.staging.cancel()
        elif not status.stop(
            self.control(held.key), action.grace_period_us // 1000, LeaseEnd.ORDERED
        ):
            # Its supervisor does not listen yet: told again with the next look.
            self._unheard[action.lease_id] = action.grace_period_us
            try:
                status.forbid(self.control(held.key))
            except OSError as error:
                log.error("a start cannot be forbidden: %s", error)
        failpoints.reach("agent.stop_sent")

    def _send_signals(self, lease_id: int) -> None:
        """Order what is not reported as sent; again with each look, for the supervisor may not
        listen at the moment, and sends each number once."""
        held = self.held.get(lease_id)
        unsent: tuple[LeaseSignal, ...] = ()
        if held is not None and held.status.phase is not LeasePhase.ENDED:
            done = held.status.signals_done
            unsent = tuple(s for s in self._signals[lease_id] if s.number > done)
        if held is None or not unsent:
            del self._signals[lease_id]
            return
        for each in unsent:
            which = signal_number(each.signal)
            # One that is not heard holds up those behind it: by a higher number it would be lost.
            if not status.signal_workers(self.control(held.key), each.number, which, each.ranks):
                return


def _write_plan(path: Path, plan: StepPlan) -> None:
    # It holds the job's environment: only we may read it, wherever its folder lies.
    path.touch(mode=0o600)
    path.write_text(plan.to_json())


def _read_plan(path: Path) -> StepPlan | None:
    """None for one that is not there or is damaged: its writer may have died in the middle."""
    try:
        return StepPlan.from_json(path.read_bytes())
    except (OSError, *record.DAMAGE):
        return None


def _of_damaged(told: LeaseStatus) -> LeaseStatus:
    """The status of a lease whose plan is lost: it is not known which workers there were."""
    if told.phase is not LeasePhase.ENDED:
        return told
    return replace(told, end=LeaseEnd.SUPERVISOR_LOST, message=_DAMAGED)
