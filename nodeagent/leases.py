"""The leases of this node: a folder for each, from which a later agent adopts what runs.

`lease.json` names the lease, `plan.json` is what its supervisor was told, and the supervisor writes
the rest.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus
from nodeagent import reconcile, status
from nodeagent.launchers import LaunchError, plan_step
from nodeagent.status import StatusReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from controlplane.model.launch import Launch
    from nodeagent.spawning import Spawner
    from nodeagent.staging import Stage

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Held:
    """One lease that this node holds."""

    folder: Path | None
    """None for a lease that was stopped before it was seen."""
    status: LeaseStatus
    """As last read."""
    reader: StatusReader | None = None
    """Reads its supervisor's word, once there is a supervisor."""
    staging: asyncio.Task[None] | None = None
    """Fetches what it needs."""
    offsets: dict[tuple[int, str], int] = field(default_factory=dict)
    """Up to where each stream has been handed over."""
    forgotten: bool = False
    """The control plane knows all about it; only output may still have to be handed over."""


class Leases:
    """All leases of this node. Lives in the event loop's thread."""

    def __init__(
        self,
        folder: Path,
        boot_id: str,
        stage: Stage,
        spawner: Spawner,
        changed: Callable[[], None],
    ) -> None:
        """`changed`: called when something is to be reported."""
        self._folder, self._boot_id = folder, boot_id
        self._stage, self._spawner, self._changed = stage, spawner, changed
        self._stopping: dict[int, int] = {}
        self._unheard: dict[int, int] = {}
        self.held: dict[int, Held] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def adopt(self) -> int:
        """Take over what an earlier agent has left; how many leases."""
        for folder in sorted(self._folder.iterdir()):
            try:
                note = json.loads((folder / "lease.json").read_text())
                lease_id, token, boot_id = (
                    int(note["lease_id"]),
                    int(note["token"]),
                    note["boot_id"],
                )
            except (OSError, ValueError, KeyError, TypeError):
                shutil.rmtree(folder, ignore_errors=True)  # died while it was made: never reported
                continue
            if boot_id != self._boot_id:
                told = _ended(lease_id, token, LeaseEnd.SUPERVISOR_LOST, "the node was rebooted")
                self.held[lease_id] = Held(folder=folder, status=told)
            elif not (folder / "plan.json").exists():
                words = "the agent was restarted before the start"
                told = _ended(lease_id, token, LeaseEnd.LAUNCH_FAILED, words)
                self.held[lease_id] = Held(folder=folder, status=told)
            else:
                reader = StatusReader(folder)
                self.held[lease_id] = Held(folder=folder, status=reader.read(), reader=reader)
        return len(self.held)

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

    def perform(self, action: reconcile.Action) -> None:
        """Do what `reconcile` found."""
        match action:
            case reconcile.Start():
                self._start(action)
            case reconcile.Stop():
                self._stop(action)
            case reconcile.NeverStarted():
                told = _ended(action.lease_id, action.token, LeaseEnd.ORDERED, "")
                self.held[action.lease_id] = Held(folder=None, status=told)
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
        folder = self.held.pop(lease_id).folder
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self, action: reconcile.Start) -> None:
        folder = self._folder / str(action.lease_id)
        token = action.token
        told = LeaseStatus(lease_id=action.lease_id, token=token, phase=LeasePhase.STAGING)
        held = Held(folder=folder, status=told)
        self.held[action.lease_id] = held
        note = {"lease_id": action.lease_id, "token": token, "boot_id": self._boot_id}
        try:
            folder.mkdir(mode=0o700)
            (folder / "lease.json").write_text(json.dumps(note))
            if action.launch.working_dir_sha256:
                held.staging = asyncio.create_task(self._fetch_then_spawn(held, action.launch))
                self._changed()
                return
            self._spawn(held, action.launch)
        except (OSError, LaunchError) as error:
            self._failed(held, str(error))

    async def _fetch_then_spawn(self, held: Held, launch: Launch) -> None:
        assert held.folder is not None
        try:
            await self._stage.fetch(launch.working_dir_sha256, held.folder / "work")
            self._spawn(held, launch)
        except asyncio.CancelledError:
            held.status = replace(held.status, phase=LeasePhase.ENDED, end=LeaseEnd.ORDERED)
        except Exception as error:
            log.warning("a lease could not be staged", extra={"lease": held.status.lease_id})
            self._failed(held, f"its working directory could not be fetched: {error}")
        finally:
            held.staging = None
            self._changed()

    def _spawn(self, held: Held, launch: Launch) -> None:
        assert held.folder is not None
        context = self._stage.context(launch, held.folder, held.status.lease_id, held.status.token)
        plan = self._stage.finish(plan_step(launch, context))
        (held.folder / "plan.json.new").write_text(plan.to_json())
        (held.folder / "plan.json.new").replace(held.folder / "plan.json")
        held.reader = StatusReader(held.folder)
        held.status = replace(held.status, phase=LeasePhase.STARTING)
        self._spawner.spawn(held.folder)

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
        elif held.folder is not None and not status.stop(
            held.folder, action.grace_period_us // 1000, LeaseEnd.ORDERED
        ):
            # Its supervisor does not listen yet: told again with the next look.
            self._unheard[action.lease_id] = action.grace_period_us


def _ended(lease_id: int, token: int, end: LeaseEnd, message: str) -> LeaseStatus:
    return LeaseStatus(
        lease_id=lease_id, token=token, phase=LeasePhase.ENDED, end=end, message=message
    )
