"""The leases of this node: a control folder for each, from which a later agent adopts what runs.

Its name tells the lease, `plan.json` is what its supervisor was told, and the supervisor writes the
rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus
from controlplane.model.signals import signal_number
from nodeagent import reconcile, status
from nodeagent.folders import LeaseKey, leases_in
from nodeagent.launchers import LaunchError, plan_step
from nodeagent.plan import StepPlan
from nodeagent.progress import LeaseReports
from nodeagent.status import StatusReader
from nodeagent.supervision import record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from controlplane.model.launch import Launch, LeaseSignal
    from nodeagent.accounts import Account
    from nodeagent.folders import Folders
    from nodeagent.spawning import Spawner
    from nodeagent.staging import Stage
    from nodeagent.streams import Stream

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Held:
    """One lease that this node holds."""

    key: LeaseKey
    """Names it, and its folders."""
    status: LeaseStatus
    """As last read."""
    reader: StatusReader | None = None
    """Reads its supervisor's word, once there is a supervisor."""
    staging: asyncio.Task[None] | None = None
    """Fetches what it needs."""
    offsets: dict[tuple[int, Stream], int] = field(default_factory=dict)
    """Up to where each stream has been handed over."""
    reports: LeaseReports | None = None
    """What its workers report of their progress, once there may be any."""
    forgotten: bool = False
    """The control plane knows all about it; only output may still have to be handed over."""


class Leases:
    """All leases of this node. Lives in the event loop's thread."""

    def __init__(
        self,
        folders: Folders,
        stage: Stage,
        spawner: Spawner,
        changed: Callable[[], None],
    ) -> None:
        """`changed`: called when something is to be reported."""
        self._folders = folders
        self._stage, self._spawner, self._changed = stage, spawner, changed
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
                told = _ended(key, LeaseEnd.SUPERVISOR_LOST, "the node was rebooted")
                self.held[key.lease_id] = Held(key=key, status=told)
        return len(self.held)

    def _adopted(self, key: LeaseKey) -> Held:
        folder = self._control(key)
        try:
            plan = StepPlan.from_json((folder / record.PLAN).read_bytes())
        except (OSError, ValueError, KeyError, TypeError):  # Its writer died before the end of it.
            words = "the agent was restarted before the start"
            return Held(key=key, status=_ended(key, LeaseEnd.LAUNCH_FAILED, words))
        reader = StatusReader(folder, plan)
        held = Held(key=key, status=reader.read(), reader=reader)
        uid = plan.identity.uid if plan.identity is not None else os.geteuid()
        held.reports = self._reports(key, held.status, uid).resume()
        return held

    def _reports(self, key: LeaseKey, told: LeaseStatus, uid: int) -> LeaseReports:
        return LeaseReports(
            key=key,
            folder=self._folders.tmp / str(key),
            control=self._control(key),
            ranks=tuple(worker.rank for worker in told.workers),
            uid=uid,
        )

    def statuses(self) -> list[LeaseStatus]:
        """What is to be reported."""
        return [held.status for held in self.held.values() if not held.forgotten]

    def refresh(self, lease_id: int, *, look: bool = False) -> None:
        """Read a supervisor's word anew; with `look`, see also whether it is still there."""
        held = self.held.get(lease_id)
        if held is None or held.reader is None or held.status.phase is LeasePhase.ENDED:
            return
        fresh = held.reader.look() if look else held.reader.read()
        if fresh != held.status:
            held.status = fresh
            self._changed()

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
            case reconcile.NeverStarted():
                key = LeaseKey(action.lease_id, action.token)
                self.held[key.lease_id] = Held(key=key, status=_ended(key, LeaseEnd.ORDERED, ""))
                self._changed()
            case reconcile.Forget():
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
        self._folders.remove(self.held.pop(lease_id).key)

    def data(self, key: LeaseKey) -> Path:
        """The lease's folder for output."""
        return self._folders.data / str(key)

    def _control(self, key: LeaseKey) -> Path:
        return self._folders.control / str(key)

    def _start(self, action: reconcile.Start) -> None:
        key = LeaseKey(action.lease_id, action.token)
        told = LeaseStatus(lease_id=action.lease_id, token=action.token, phase=LeasePhase.STAGING)
        held = self.held[action.lease_id] = Held(key=key, status=told)
        try:
            self._folders.make_control(key)
            account = self._stage.known_account()
            if account is None or action.launch.working_dir_sha256:
                held.staging = asyncio.create_task(self._stage_then_spawn(held, action.launch))
                self._changed()
            else:
                self._spawn(held, action.launch, account)
        except (OSError, LaunchError) as error:
            self._failed(held, str(error))

    async def _stage_then_spawn(self, held: Held, launch: Launch) -> None:
        try:
            account = await self._stage.account(launch.owner)
            if launch.working_dir_sha256:
                await self._stage.fetch(launch.working_dir_sha256, held.key, account)
            self._spawn(held, launch, account)
        except asyncio.CancelledError:
            held.status = replace(held.status, phase=LeasePhase.ENDED, end=LeaseEnd.ORDERED)
        except LaunchError as error:
            self._failed(held, str(error))
        except Exception as error:
            log.warning("a lease could not be staged", extra={"lease": held.key.lease_id})
            self._failed(held, f"its working directory could not be fetched: {error}")
        finally:
            held.staging = None
            self._changed()

    def _spawn(self, held: Held, launch: Launch, account: Account) -> None:
        folder = self._control(held.key)
        context = self._stage.context(launch, held.key, account)
        plan = self._stage.finish(plan_step(launch, context), held.key, account)
        (folder / record.PLAN).write_text(plan.to_json())
        held.reader = StatusReader(folder, plan)
        held.status = replace(held.status, phase=LeasePhase.STARTING)
        held.reports = self._reports(held.key, held.reader.read(), account.uid)
        self._spawner.spawn(folder)

    def _failed(self, held: Held, words: str) -> None:
        held.status = replace(
            held.status, phase=LeasePhase.ENDED, end=LeaseEnd.LAUNCH_FAILED, message=words
        )
        self._changed()

    def _stop(self, action: reconcile.Stop) -> None:
        held = self.held.get(action.lease_id)
        self._unheard.pop(action.lease_id, None)
        if held is None or held.status.phase is LeasePhase.ENDED:
            return
        self._stopping[action.lease_id] = action.grace_period_us
        if held.staging is not None:
            held.staging.cancel()
        elif not status.stop(
            self._control(held.key), action.grace_period_us // 1000, LeaseEnd.ORDERED
        ):
            # Its supervisor does not listen yet: told again with the next look.
            self._unheard[action.lease_id] = action.grace_period_us

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
            if not status.signal_workers(self._control(held.key), each.number, which, each.ranks):
                return


def _ended(key: LeaseKey, end: LeaseEnd, message: str) -> LeaseStatus:
    return LeaseStatus(
        lease_id=key.lease_id, token=key.token, phase=LeasePhase.ENDED, end=end, message=message
    )
