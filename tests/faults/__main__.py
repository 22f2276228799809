"""Plays the scenarios and prints the table: `python -m tests.faults [PATTERN …]`."""

from __future__ import annotations

import fnmatch
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.playing import play
from tests.faults.scenarios import SCENARIOS


def main(patterns: list[str]) -> int:
    wanted = [
        scenario
        for scenario in SCENARIOS
        if not patterns or any(fnmatch.fnmatch(scenario.name, p) for p in patterns)
    ]
    if os.geteuid() != 0:
        print("not root: scenarios that need a disk or hosts of their own are left out")
        wanted = [scenario for scenario in wanted if scenario.on in ("sqlite", "postgresql")]
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    outcomes = play(wanted, folder, lambda outcome: print(outcome, flush=True))
    failed = [outcome for outcome in outcomes if outcome.faults]
    print(f"{len(outcomes)} scenarios, {len(failed)} failed")
    if failed:
        print(f"what was there is kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
