"""What must be right on this host before workers start, and the programs of the site around them:
the prolog before, the epilog after.

A lease that fails here has cost its job nothing but the look: no worker was started, the fault is
the node's, and the words say what to mend.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nodeagent.launchers import LaunchError
from nodeagent.supervision import processes

if TYPE_CHECKING:
    from nodeagent.plan import StepPlan

LOOK_S = 5.0
"""The driver has so long to tell who uses a device."""
RELEASE_S = 3.0
"""What an earlier job used is free after so long: a driver cleans up behind its processes."""
PAUSE_S = 0.1
SAID_BYTES = 2000
"""So much of the end of what a program of the site's says is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """The checks of one node."""

    users: Callable[[Sequence[str]], Mapping[str, str]]
    """Which of these devices cannot be used now, each with why; it may block."""
    prolog: Path | None
    """The site's program to run before the workers start."""
    epilog: Path | None
    """The site's program to run after they have ended."""
    deadline_s: float
    """How long each of the two may take."""

    def takes_time(self, device_ids: Sequence[str]) -> bool:
        """Whether `ready` must be awaited, or there is nothing to wait for."""
        return bool(device_ids) or self.prolog is not None

    async def check_devices(self, device_ids: Sequence[str]) -> None:
        """LaunchError when a device is broken, or somebody else uses it."""
        if not device_ids:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + RELEASE_S
        while True:
            try:
                looking = asyncio.to_thread(self.users, device_ids)
                faults = await asyncio.wait_for(looking, LOOK_S)
            except TimeoutError:
                words = f"the devices' driver did not answer within {LOOK_S:g} s"
                raise LaunchError(words) from None
            if not faults:
                return
            if loop.time() > until:
                raise LaunchError("; ".join(f"{name}: {why}" for name, why in faults.items()))
            await asyncio.sleep(PAUSE_S)

    async def run_prolog(self, plan: StepPlan) -> None:
        """LaunchError when the prolog fails, or takes too long."""
        if self.prolog is not None and (why := await run(self.prolog, plan, self.deadline_s)):
            raise LaunchError(f"the prolog {self.prolog} {why}")

    async def run_epilog(self, plan: StepPlan) -> str:
        """Run the epilog; what was wrong, in words, or nothing."""
        if self.epilog is None:
            return ""
        why = await run(self.epilog, plan, self.deadline_s)
        return f"the epilog {self.epilog} {why}" if why else ""

    def end_earlier(self, plan: StepPlan) -> None:
        """End what an agent that died has left of the prolog: what it was told no worker is."""
        told = {f"{name}={value}".encode() for name, value in environment(plan).items()}
        found = processes.everything() if self.prolog is not None else ()
        left = [each.pid for each in found if told <= processes.environment(each.pid)]
        processes.signal_all(left, signal.SIGKILL)


async def run(program: Path, plan: StepPlan, deadline_s: float) -> str:
    """Run a program of the site's for a lease; what was wrong, in words, or nothing. None of its
    processes is left when this returns, or is cancelled."""
    with tempfile.TemporaryFile() as said:
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=environment(plan),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return f"cannot be run: {error.strerror}"
        try:
            await asyncio.wait_for(process.wait(), deadline_s)
        except TimeoutError:
            return f"had not ended after {deadline_s:g} s"
        finally:
            # What it has left in its session too, or the next job would find it.
            _end_group(process.pid)
            await process.wait()
        code = process.returncode or 0
        if code == 0:
            return ""
        how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        said.seek(max(0, said.seek(0, os.SEEK_END) - SAID_BYTES))
        last = said.read().decode(errors="replace").strip()
        return f"{how}: {last}" if last else how


def environment(plan: StepPlan) -> dict[str, str]:
    """What a program of the site's is told of the lease, and nothing of the job's own."""
    told = plan.workers[0].env if plan.workers else {}
    names = (
        *("CC_JOB_ID", "CC_JOB_NAME", "CC_TASK_INDEX", "CC_ATTEMPT", "CC_OWNER", "CC_JOB_DIR"),
        *("CC_NODE_NAME", "CC_NODE_RANK", "CC_NODES", "CC_HOSTS", "CC_DEVICES", "TMPDIR"),
    )
    uid = plan.identity.uid if plan.identity is not None else os.geteuid()
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        **{name: told[name] for name in names if name in told},
        "CC_UID": str(uid),
    }


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
