"""Prepares a lease's folder: its working directory, its job's folder, and what a launcher may know
of this node."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.kit.archive import unpack
from nodeagent import host
from nodeagent.launchers import LaunchError, NodeContext

if TYPE_CHECKING:
    from controlplane.model.launch import Launch
    from nodeagent.folders import Folders, LeaseKey
    from nodeagent.plan import StepPlan

Download = Callable[[str], AsyncIterator[bytes]]
"""Yields a blob's parts, by its SHA-256."""
WORK = "work"
"""The working directory in a lease's folder, where the job names no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What every lease of this node shares."""

    base: NodeContext
    """What a launcher may know of this node; the lease's own fields are filled in for each."""
    folders: Folders
    """Where it keeps things."""
    log_cap_bytes: int
    """Kept on the node of each output stream."""
    download: Download
    """Fetches a blob from the control plane."""

    async def fetch(self, sha256: str, data: Path) -> None:
        """Bring a lease's working directory. Raises what the download or the archive raises."""
        archive = self.folders.blobs / sha256
        if not archive.exists():
            part = self.folders.blobs / f".{sha256}.{data.name}"
            seen = hashlib.sha256()
            try:
                with part.open("wb") as file:
                    async for piece in self.download(sha256):
                        seen.update(piece)
                        file.write(piece)
                if seen.hexdigest() != sha256:
                    raise LaunchError(f"what came has another SHA-256: {seen.hexdigest()}")
                part.replace(archive)
            finally:
                part.unlink(missing_ok=True)
        await asyncio.to_thread(unpack, archive, data / WORK)

    def context(self, launch: Launch, key: LeaseKey, data: Path) -> NodeContext:
        """What a launcher may know. LaunchError when a folder is missing or a port is taken.

        `data`: the lease's folder for what may be large.
        """
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
            work = data / WORK
            if not launch.working_dir_sha256:
                work.mkdir(mode=0o700)
        job_dir = self.folders.jobs / str(launch.job_id)
        job_dir.mkdir(exist_ok=True, mode=0o700)
        tmp = data / "tmp"
        tmp.mkdir(mode=0o700)
        return replace(
            self.base,
            lease_id=key.lease_id,
            token=key.token,
            display_name=here.node_display_name,
            job_dir=str(job_dir),
            work_dir=str(work),
            tmp_dir=str(tmp),
        )

    def finish(self, plan: StepPlan, data: Path) -> StepPlan:
        """A launcher's plan with this node's limits, and its output under `data`."""
        return replace(plan, log_cap_bytes=self.log_cap_bytes, output_dir=str(data))
