"""Prepares a lease's folder: its working directory, its job's folder, and what a launcher may know
of this node."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.kit.archive import unpack
from controlplane.kit.durable import put_in_place
from controlplane.model import outputs
from nodeagent import host
from nodeagent.accounts import account_for
from nodeagent.behalf import act_for
from nodeagent.launchers import LaunchError, LaunchRefused, NodeContext
from nodeagent.plan import Identity
from nodeagent.room import enter, left, make_a_file

if TYPE_CHECKING:
    from controlplane.model.launch import Launch
    from controlplane.model.node import Device
    from nodeagent.accounts import Account, RunAs
    from nodeagent.cages import Cages
    from nodeagent.folders import Folders, LeaseKey
    from nodeagent.looking import Place
    from nodeagent.plan import StepPlan, WorkerPlan
    from nodeagent.room import Room

Download = Callable[[str], AsyncIterator[bytes]]
"""Yields a blob's parts, by its SHA-256."""
ACCOUNT_S = 10.0
"""An account is looked up for so long: a directory service may hang."""
STEP_TOKEN = ".ccctl-token"
"""A script's token, in the lease's folder for temporary files."""
WORK = "work"
"""A shipped folder's place in a lease's folder for data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What every lease of this node shares."""

    base: NodeContext
    """What a launcher may know of this node; the lease's own fields are filled in for each."""
    folders: Folders
    """Where it keeps things."""
    room: Room
    """What must be free there."""
    log_cap_bytes: int
    """Kept on the node of each output stream."""
    download: Download
    """Fetches a blob from the control plane."""
    limits: tuple[tuple[str, int], ...]
    """Limits of workers."""
    own: Account
    """The agent's own account."""
    run_as: RunAs
    """As whom workers run."""
    allow_root: bool
    """Whether jobs of root's may run as root."""
    devices: Callable[[], tuple[Device, ...]]
    """What the host has now, offered or not."""
    cages: Cages | None
    """Where leases are caged; None: nowhere."""

    def known_account(self) -> Account | None:
        """As whom all jobs run; None where that depends on their owners, and must be looked up."""
        return self.own if self.run_as == "agent" else None

    async def account(self, owner: str) -> Account:
        """As whom a job of `owner` runs. LaunchError when it cannot run here."""
        looking = asyncio.to_thread(account_for, owner, self.run_as, allow_root=self.allow_root)
        try:
            return await asyncio.wait_for(looking, ACCOUNT_S)
        except TimeoutError:
            words = f"the account {owner!r} could not be looked up within {ACCOUNT_S:g} s"
            raise LaunchError(words) from None

    async def fetch(self, sha256: str, key: LeaseKey, account: Account) -> None:
        """Bring a lease's working directory. Raises what the download or the archive raises."""
        work = self.folders.make_data(key) / WORK
        archive = self.folders.blobs / sha256
        if not archive.exists():
            part = self.folders.blobs / f".{sha256}.{key}"
            seen = hashlib.sha256()
            try:
                with part.open("wb") as file:
                    async for piece in self.download(sha256):
                        seen.update(piece)
                        file.write(piece)
                if seen.hexdigest() != sha256:
                    raise LaunchError(
                        "its working directory could not be fetched: what came has another SHA-256,"
                        f" {seen.hexdigest()}"
                    )
                # After a power cut nobody would look again at what lies under its own hash.
                await asyncio.to_thread(put_in_place, part, archive)
            finally:
                part.unlink(missing_ok=True)
        os.utime(archive)  # used: see `upkeep`
        await _unpack(archive, work)
        if self._is_other(account):
            await asyncio.to_thread(_give_all, work, account)

    def _is_other(self, account: Account) -> bool:
        return account.uid != self.own.uid

    def check_room(self, place: Place) -> None:
        """LaunchError when this node's folders have none for another lease. As `prepare`."""
        place.folder = self.folders.state
        if fault := self.room.look():
            raise LaunchError(fault)

    def prepare(self, launch: Launch, key: LeaseKey, account: Account, place: Place) -> NodeContext:
        """Make a lease's folders, and see that its workers can use them. What a launcher may know.

        LaunchError when a folder or a port cannot be had. It may hang, with `place` telling where,
        and leaves its thread as the account: it is meant for `Looks`.
        """
        here = launch.here
        for port in here.ports:
            if launch.member_index == 0 and not host.free_port(self.base.address, port):
                raise LaunchError(
                    f"port {port} of {here.node_display_name} is in use by a process outside"
                )
        self.check_room(place)
        job_dir = self.folders.jobs / launch.task
        tmp = self.folders.tmp / str(key)
        doubtful = self._make(job_dir, account, its_own=True) + self._make(tmp, account)
        token_file = ""
        if launch.step_token:
            token_file = str(tmp / STEP_TOKEN)
            self._keep(tmp / STEP_TOKEN, launch.step_token, account)
        if launch.working_dir_path:
            work = Path(launch.working_dir_path)
        elif launch.working_dir_sha256:
            work = self.folders.data / str(key) / WORK
        else:
            work = job_dir
        if self._is_other(account):
            _act_for(account)
        for folder in doubtful:
            place.folder = folder
            _check_files(folder, key, account)
        place.folder = work
        if launch.working_dir_path:
            place.fault = LaunchRefused
        _check_way(work, place.fault, account, here.node_display_name)
        return replace(
            self.base,
            lease_id=key.lease_id,
            token=key.token,
            display_name=here.node_display_name,
            job_dir=str(job_dir),
            work_dir=str(work),
            tmp_dir=str(tmp),
            step_token_file=token_file,
            devices=self.devices(),
            uid=account.uid,
            user=account.name,
            home=account.home,
            shell=account.shell,
        )

    def _keep(self, path: Path, text: str, account: Account) -> None:
        """A file that is somebody's own."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
            if self._is_other(account):
                os.fchown(fd, account.uid, account.gid)

    def _make(self, folder: Path, account: Account, *, its_own: bool = False) -> list[Path]:
        """Make a folder for an account, which may be there if it is `its_own`; the folder if that
        does not prove yet that the account can make files there."""
        try:
            folder.mkdir(mode=0o700)
            if not self._is_other(account):
                return []  # Who makes a folder gets an inode and a block as for any file.
            os.chown(folder, account.uid, account.gid)
        except FileExistsError:
            if not its_own or not folder.is_dir():
                raise LaunchError(f"{folder} is there already; remove it") from None
            if folder.stat().st_uid != account.uid:
                words = f"{folder} is not {account.name}'s: remove it, or give it to them"
                raise LaunchError(words) from None
        except OSError as error:
            raise LaunchError(
                f"{folder} cannot be made: {error.strerror} ({left(folder.parent)})"
            ) from None
        return [folder]

    def finish(self, plan: StepPlan, launch: Launch, key: LeaseKey, account: Account) -> StepPlan:
        """A launcher's plan with whom it runs as, this node's limits, its cage, and its output's
        place."""
        whom = None
        if self._is_other(account):
            whom = Identity(uid=account.uid, gid=account.gid, groups=account.groups)
        return replace(
            plan,
            workers=tuple(_with_files(worker, launch) for worker in plan.workers),
            limits=self.limits,
            cage=self.cages.plan(key, launch, len(plan.workers)) if self.cages else None,
            identity=whom,
            log_cap_bytes=self.log_cap_bytes,
            output_dir=str(self.folders.data / str(key)),
        )


def _with_files(worker: WorkerPlan, launch: Launch) -> WorkerPlan:
    """A worker with the files that its output goes to: below a working directory that stays, else
    in the job's own folder."""
    named = outputs.Named(
        job_id=launch.job_id,
        task_index=launch.task_index,
        attempt=launch.attempt,
        rank=worker.rank,
        node=launch.here.node_display_name,
        name=launch.job_display_name,
        owner=launch.owner,
        array=launch.task_count > 1,
    )
    base = launch.working_dir_path or worker.env["CC_JOB_DIR"]
    output, error = outputs.files(launch.output, launch.error, base, named)
    return replace(worker, output=output, error=error)


def _act_for(account: Account) -> None:
    try:
        act_for(account.uid, account.gid, account.groups)
    except OSError as error:
        words = f"its folders cannot be looked at as {account.name}: {error.strerror}"
        raise LaunchError(words) from None


def _check_files(folder: Path, key: LeaseKey, account: Account) -> None:
    """LaunchError when this thread can make no file in one of our folders."""
    try:
        make_a_file(folder, f".cc-look.{key}")
    except OSError as error:
        raise LaunchError(
            f"{folder}: {account.name} can make no file there: {error.strerror} ({left(folder)});"
            " look at the rights of the folders above it, at quotas, and for room"
        ) from None


def _check_way(
    work: Path, fault: type[LaunchError], account: Account, node_display_name: str
) -> None:
    """`fault` when this thread cannot be in a working directory."""
    try:
        enter(work)
    except (FileNotFoundError, NotADirectoryError):
        raise fault(f"working_dir: {work} is no folder on {node_display_name}") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise fault(
            f"working_dir: {account.name} cannot enter {work} on {node_display_name}: {why}"
        ) from None


def _give_all(folder: Path, account: Account) -> None:
    """Make a folder and all in it somebody's. Itself last: until then nobody else gets into it."""
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.lchown(os.path.join(path, name), account.uid, account.gid)
    os.chown(folder, account.uid, account.gid)


async def _unpack(archive: Path, into: Path) -> None:
    """Unpack in a thread. When cancelled, it has stopped writing: the folder may go."""
    unwanted = threading.Event()

    def work() -> None:
        # An archive is not compressed: what it holds is no larger than itself.
        limit = archive.stat().st_size
        unpack(archive, into, limit_bytes=limit, wanted=lambda: not unwanted.is_set())

    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        unwanted.set()
        await asyncio.gather(working, return_exceptions=True)
        raise
