"""Prepares a lease's folder: its working directory, its job's folder, and what a launcher may know
of this node."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.kit.archive import unpack
from nodeagent import host
from nodeagent.launchers import LaunchError, NodeContext

if TYPE_CHECKING:
    from controlplane.model.launch import Launch
    from nodeagent.plan import StepPlan

Download = Callable[[str], AsyncIterator[bytes]]
"""Yields a blob's parts, by its SHA-256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What every lease of this node shares."""

    base: NodeContext
    """What a launcher may know of this node; the lease's own fields are filled in for each."""
    cache_dir: Path
    """Blobs that were fetched."""
    jobs_dir: Path
    """Folders of jobs, the same for all attempts."""
    log_cap_bytes: int
    """Kept on the node of each output stream."""
    download: Download
    """Fetches a blob from the control plane."""

    async def fetch(self, sha256: str, into: Path) -> None:
        """Bring a working directory. Raises what the download or the archive raises."""
        archive = self.cache_dir / sha256
        if not archive.exists():
            self.cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = self.cache_dir / f".{sha256}.{into.parent.name}"
            try:
                with part.open("wb") as file:
                    async for data in self.download(sha256):
                        file.write(data)
                part.replace(archive)
            finally:
                part.unlink(missing_ok=True)
        await _unpack(archive, into)

    def context(self, launch: Launch, folder: Path, lease_id: int, token: int) -> NodeContext:
        """What a launcher may know. LaunchError when a folder cannot be made or a port is taken."""
        here = launch.here
        for port in here.ports:
            if launch.member_index == 0 and not host.free_port(self.base.address, port):
                raise LaunchError(
                    f"port {port} of {here.node_display_name} is in use by a process outside"
                )
        if launch.working_dir_path:
            work = Path(launch.working_dir_path)
            if not work.is_dir():
                raise LaunchError(f"working_dir: {work} is no folder on {here.node_display_name}")
        else:
            work = folder / "work"
            work.mkdir(exist_ok=True, mode=0o700)
        job_dir = self.jobs_dir / str(launch.job_id)
        job_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "tmp").mkdir(exist_ok=True, mode=0o700)
        return replace(
            self.base,
            lease_id=lease_id,
            token=token,
            display_name=here.node_display_name,
            job_dir=str(job_dir),
            work_dir=os.fspath(work),
            tmp_dir=os.fspath(folder / "tmp"),
        )

    def finish(self, plan: StepPlan) -> StepPlan:
        """A launcher's plan with this node's limits."""
        return replace(plan, log_cap_bytes=self.log_cap_bytes)


async def _unpack(archive: Path, into: Path) -> None:
    """Unpack in a thread. When cancelled, it has stopped writing: the folder may go."""
    unwanted = threading.Event()
    work = asyncio.ensure_future(
        asyncio.to_thread(unpack, archive, into, wanted=lambda: not unwanted.is_set())
    )
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        unwanted.set()
        await asyncio.gather(work, return_exceptions=True)
        raise
