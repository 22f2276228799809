"""What was acknowledged outlives a power cut: of the control plane, of a node, of both."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import guest
from tests.support.guest import DISK, PYTHON, Guest
from tests.support.guestcentre import STATE, centre, join, power_on, seconds, tell, wait_for_node
from tests.support.sdbox import until
from tests.support.sdcentre import BIN, CA, start

pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(lacking := guest.why_not()), reason=lacking or "-"),
]
LOAD = "/opt/src/tests/guest/load.py"
ROUNDS = int(os.environ.get("GUEST_ROUNDS", "4"))
SEED = int(os.environ.get("GUEST_SEED", "1"))


def test_a_cut_takes_what_was_not_synced_and_leaves_what_was(tmp_path: Path) -> None:
    """The others could not fail if this did."""
    with guest.machine(tmp_path) as machine:
        program = (
            "import json, os, sys\n"
            "said = os.open('/dev/ttyS1', os.O_WRONLY | os.O_NOCTTY)\n"
            "for name in ('synced', 'not'):\n"
            f"    with open(f'{DISK}/{{name}}', 'w') as file:\n"
            "        file.write(name)\n"
            "        file.flush()\n"
            "        if name == 'synced': os.fsync(file.fileno())\n"
            "    os.write(said, json.dumps({'written': name}).encode() + b'\\n')\n"
            f"os.rename('{DISK}/synced', '{DISK}/renamed')\n"
            "os.write(said, json.dumps({'written': 'renamed'}).encode() + b'\\n')\n"
        )
        machine.run("python3", "-c", program)
        until("it to say so", lambda: len(machine.heard()) == 3, within_s=20)
        assert machine.run("cat", f"{DISK}/renamed", f"{DISK}/not") == "syncednot"
        machine.cut()
        machine.boot()
        assert machine.run("cat", f"{DISK}/synced") == "synced", "a rename without a sync is lost"
        assert not machine.exists(f"{DISK}/renamed")
        assert not machine.exists(f"{DISK}/not")
        assert [told["written"] for told in machine.heard()] == ["synced", "not", "renamed"]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with centre(tmp_path_factory.mktemp("guest"), node=False) as made:
        yield made


def check(machine: Guest, told: list[dict[str, Any]]) -> list[str]:
    """What is not as it was acknowledged."""
    path = machine.share / "told.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in told))
    printed = machine.run(PYTHON, LOAD, "check", "/mnt/share/told.jsonl", timeout_s=600)
    faults: list[str] = json.loads(printed.splitlines()[-1])
    path.unlink()
    return faults


def test_acknowledged_jobs_and_blobs_outlive_cuts_under_load(machine: Guest) -> None:
    chance = random.Random(SEED)
    for number in range(ROUNDS):
        before = len(machine.heard())
        machine.start(PYTHON, LOAD, "load", str(number))
        loaded = before + 20
        until("it to be under load", lambda: len(machine.heard()) >= loaded, within_s=180)  # noqa: B023
        # Anywhere within a commit interval of the file system, which is 5 s.
        machine.run("sleep", f"{chance.uniform(0, 6):.3f}")
        machine.cut()
        power_on(machine)
        told = machine.heard()
        faults = check(machine, told[before:])
        assert not faults, f"round {number}: {len(faults)} of {len(told) - before}: {faults[:5]}"
        jobs = [each["job"] for each in told if "job" in each]
        assert len(set(jobs)) == len(jobs), "a number was given out twice"
    told = machine.heard()
    faults = check(machine, told)
    assert not faults, f"of earlier rounds: {faults[:5]}"
    counts = [sum(key in each for each in told) for key in ("job", "blob")]
    told_of = f"{counts[0]} jobs and {counts[1]} blobs acknowledged"
    tell(f"{ROUNDS} cuts, {told_of}; boots {seconds(machine)}")


def test_what_a_command_has_made_outlives_a_cut_a_moment_later(machine: Guest) -> None:
    """A token that an admin has in hands, and the credential for which a join token was spent."""
    made = f"{STATE}/rescue.token"
    create = (f"{BIN}/controlplane", "token", "create", "rescue", "--role", "admin", "--out", made)
    machine.run(*create, "--state-dir", STATE)
    machine.cut()
    power_on(machine)
    as_rescue = (f"{BIN}/ccctl", "--ca-file", CA, "--token-file", made)
    assert "rescue" in machine.run(*as_rescue, "whoami")

    join(machine)
    machine.cut()
    power_on(machine)
    start(machine, "nodeagent")
    wait_for_node(machine)
