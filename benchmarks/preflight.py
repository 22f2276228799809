"""What a node looks at before a lease's workers start: ``python -m benchmarks.preflight``.

The agent's own code on this machine's folders, without a control plane and without workers: folders
are made and looked at, a simulated device is asked for its users, and the site's prolog, `true`, is
run. Prints wall and processor time for each lease, beside a bare start of `true` in the same run;
as root, that of another account's leases too, which look as somebody else.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from nodeagent.accounts import Account, account_for, own_account
from nodeagent.devices import Shared, open_devices
from nodeagent.folders import Folders, LeaseKey
from nodeagent.launchers import plan_step
from nodeagent.looking import Looks
from nodeagent.preflight import Preflight
from nodeagent.room import Room
from nodeagent.staging import Stage
from tests.support.launches import launch, members, node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT_MS = 20
"""What looks may cost a lease where the site has no prolog."""
GANG = members([1], addresses=["127.0.0.1"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """The leases of one run."""

    wall_ms: list[float]
    """Of each, from its order to where a supervisor would be started."""
    cpu_ms: float
    """Processor time of each, the prolog's own included, on average."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leases", type=int, default=300, help="leases of each run")
    count: int = parser.parse_args().leases
    prolog = Path(shutil.which("true") or "/bin/true")
    bare = bare_ms(prolog, count)
    beside = statistics.median(bare.wall_ms)
    table = Table("leases of", "prolog", "median", "99 of 100", "CPU", "beside a bare start")
    table.add_row("(a bare start of `true`)", "", *times(bare), "")
    for whose, account in accounts().items():
        for program in (None, prolog):
            took = asyncio.run(leases(account, program, count))
            median = statistics.median(took.wall_ms)
            limit = f", {median / LIMIT_MS:.3f} × the limit" if program is None else ""
            words = f"{median / beside:.2f} ×{limit}"
            table.add_row(whose, "true" if program else "none", *times(took), words)
    Console(highlight=False, width=120).print(table)


def accounts() -> dict[str, Account]:
    """As whom leases run here."""
    found = {"the agent's own user": own_account()}
    if os.geteuid() == 0:
        other = next(e for e in pwd.getpwall() if e.pw_uid not in (0, os.geteuid()))
        found["another account"] = account_for(other.pw_name, "owner", allow_root=False)
    return found


async def leases(account: Account, prolog: Path | None, count: int) -> Took:
    """So many leases, one after another, of a job each."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o711)  # another account must get through to what is its own
        folders = Folders(state=Path(name) / "state", runtime=Path(name) / "run", shared=True)
        folders.prepare("boot")
        devices = Shared(
            open_devices(
                "simulated",
                simulated_count=1,
                simulated_model="H100",
                simulated_memory_bytes=80 << 30,
                node_uuid=str(uuid.UUID(int=1)),
            )
        )
        ids = [device.device_id for device in devices.discover()]
        stage = a_stage(folders)
        preflight = Preflight(users=devices.users, prolog=prolog, epilog=None, deadline_s=60.0)
        looks = Looks()
        walls = []
        spent = cpu_s()
        for number in range(1, count + 1):
            began = time.monotonic()
            key = LeaseKey(number, number)
            order = launch("command", GANG, job_id=number)
            context = await looks.within(
                "ada", lambda place, order=order, key=key: stage.prepare(order, key, account, place)
            )
            plan = stage.finish(plan_step(order, context), order, key, account)
            await preflight.check_devices(ids)
            await preflight.run_prolog(plan)
            walls.append((time.monotonic() - began) * 1000)
        spent = cpu_s() - spent
        devices.close()
    return Took(wall_ms=walls, cpu_ms=spent / count * 1000)


def a_stage(folders: Folders) -> Stage:
    """As an agent's with the default floors."""
    return Stage(
        base=node(GANG),
        folders=folders,
        room=Room(
            folders=(folders.data, folders.tmp, folders.jobs),
            free_bytes=256 << 20,
            free_inodes=10_000,
        ),
        log_cap_bytes=64 << 20,
        download=no_download,
        limits=(),
        own=own_account(),
        run_as="owner",
        allow_root=True,
        devices=tuple,
        cages=None,
    )


async def no_download(_sha256: str) -> AsyncIterator[bytes]:
    """Nothing is shipped here."""
    raise AssertionError("no lease of this benchmark has a shipped folder")
    yield b""


def bare_ms(program: Path, count: int) -> Took:
    """Starts of the program without us."""
    walls = []
    spent = cpu_s()
    for _ in range(count):
        began = time.monotonic()
        subprocess.run([program], check=True, timeout=30)
        walls.append((time.monotonic() - began) * 1000)
    return Took(wall_ms=walls, cpu_ms=(cpu_s() - spent) / count * 1000)


def cpu_s() -> float:
    """Processor time of this process and of the children that it has waited for, in seconds."""
    return sum(os.times()[:4])


def times(took: Took) -> tuple[str, str, str]:
    """Median, 99 of 100, and processor time, in words."""
    late = sorted(took.wall_ms)[min(int(len(took.wall_ms) * 0.99), len(took.wall_ms) - 1)]
    return f"{statistics.median(took.wall_ms):.2f} ms", f"{late:.1f} ms", f"{took.cpu_ms:.2f} ms"


if __name__ == "__main__":
    main()
