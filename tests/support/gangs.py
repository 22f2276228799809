"""Runs the plans of a gang for real: a supervisor for each node's plan, and what came of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nodeagent.plan import StepPlan

_SUPERVISE = "import sys, nodeagent.supervisor as s; s.supervise(sys.argv[1], 'test')"


@dataclass
class Outcome:
    """What one node's lease came to."""

    exits: dict[int, int | None] = field(default_factory=dict)
    """Exit code by rank, a signal as its negative number."""
    out: dict[int, str] = field(default_factory=dict)
    err: dict[int, str] = field(default_factory=dict)
    end: str = ""
    message: str = ""


def run(
    plans: Sequence[StepPlan],
    folder: Path,
    *,
    prefixes: Sequence[Sequence[str]] = (),
    timeout_s: float = 50,
) -> list[Outcome]:
    """Supervise all plans at once, each in a folder of its own, until all have ended.

    `prefixes` go before each node's command: how to get into its network, for example.
    """
    leases = [folder / f"lease{index}" for index in range(len(plans))]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for index, (plan, lease) in enumerate(zip(plans, leases, strict=True)):
            lease.mkdir(mode=0o700)
            (lease / "plan.json").write_text(plan.to_json())
            prefix = prefixes[index] if prefixes else ()
            argv = [*prefix, sys.executable, "-c", _SUPERVISE, str(lease)]
            running.append(subprocess.Popen(argv))
        for process in running:
            process.wait(timeout_s)
    finally:
        for process in running:
            process.kill()
            process.wait(5)
    return [_outcome(plan, lease) for plan, lease in zip(plans, leases, strict=True)]


def _outcome(plan: StepPlan, lease: Path) -> Outcome:
    found = Outcome()
    for line in (lease / "status.jsonl").read_text().splitlines():
        fact = json.loads(line)
        if fact["fact"] == "exited":
            number = fact.get("signal")
            found.exits[fact["rank"]] = -number if number else fact.get("exit_code")
        elif fact["fact"] == "ended":
            found.end, found.message = fact["end"], fact.get("message", "")
    for worker in plan.workers:
        found.out[worker.rank] = _stream(lease, worker.rank, "out")
        found.err[worker.rank] = _stream(lease, worker.rank, "err")
    return found


def _stream(lease: Path, rank: int, stream: str) -> str:
    segments = sorted((lease / "logs").glob(f"{rank}.{stream}.*"))
    return b"".join(path.read_bytes() for path in segments).decode(errors="replace")
