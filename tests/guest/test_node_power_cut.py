"""Jobs whose node loses its power: what had ended stays so, what ran is told and run again."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import guest
from tests.support.guestcentre import NODE, centre, power_on, seconds, tell, wait_for_node
from tests.support.sdbox import until
from tests.support.sdcentre import ccctl, job, submit

if TYPE_CHECKING:
    from tests.support.guest import Guest

pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(lacking := guest.why_not()), reason=lacking or "-"),
]
WORKER = "/opt/src/tests/guest/worker.py"
ROUNDS = int(os.environ.get("GUEST_ROUNDS", "4"))
SEED = int(os.environ.get("GUEST_SEED", "1"))
DONE = ("succeeded", "failed")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with centre(tmp_path_factory.mktemp("guest"), node=True) as made:
        yield made


def work(machine: Guest, name: str, seconds_: float, code: int = 0) -> str:
    """Submit a job of one worker; its number."""
    command = ["python3", WORKER, name, str(seconds_), str(code)]
    resources = {"memory": "48MiB", "cpus": 0.5}
    return submit(machine, {"name": name, "command": command, "resources": resources})


def has_ended(machine: Guest, number: str) -> dict[str, Any]:
    until(f"job {number} to end", lambda: job(machine, number)["state"] in DONE, within_s=120)
    return job(machine, number)


def folders(machine: Guest) -> list[str]:
    """Those of leases, on the disk and on the tmpfs."""
    where = (f"{NODE}/leases", f"{NODE}/tmp", "/run/nodeagent/leases")
    return machine.run("find", *where, "-mindepth", "1", "-maxdepth", "1").split()


def attempts(told: dict[str, Any]) -> list[tuple[str, str]]:
    """State and cause of each."""
    found = [(each["state"], each.get("cause") or {}) for each in told["attempts"]]
    return [(state, cause.get("message", "")) for state, cause in found]


def wait_until_all_run(machine: Guest, names: set[str]) -> None:
    until(
        "they say that they run",
        lambda: names <= {each.get("began") for each in machine.heard()},
        within_s=60,
    )


def check_settled(machine: Guest, settled: dict[str, tuple[str, int]]) -> None:
    """What had ended, and is known to, stays as it was, with its output."""
    for number, (name, code) in settled.items():
        told = job(machine, number)
        state = "failed" if code else "succeeded"
        assert (told["state"], told["exit_code"], len(told["attempts"])) == (state, code, 1)
        assert ccctl(machine, "logs", number) == f"the words of {name}\n"


def check_long(machine: Guest, number: str) -> None:
    """What ran is told as lost with its node, and was run again."""
    told = has_ended(machine, number)
    (first, words), (second, _) = attempts(told)
    assert (first, second, told["state"]) == ("node_lost", "succeeded", "succeeded")
    assert "was rebooted" in words


def check_racing(machine: Guest, number: str) -> int:
    """What may have been at any point has its true end, by whatever attempt; how many were lost."""
    told = has_ended(machine, number)
    code = int(told["display_name"].rpartition("-")[2])
    *lost, last = attempts(told)
    assert told["exit_code"] == code
    assert all(state == "node_lost" for state, _ in lost)
    assert last[0] == ("failed" if code else "succeeded")
    return len(lost)


def test_jobs_of_a_node_that_loses_its_power(machine: Guest) -> None:
    chance = random.Random(SEED)
    settled: dict[str, tuple[str, int]] = {}
    cut_off = 0
    for number in range(ROUNDS):
        done = {f"done-{number}-{code}": code for code in (0, 3)}
        settled |= {work(machine, name, 0, code): (name, code) for name, code in done.items()}
        for each in settled:
            has_ended(machine, each)
        until("their output to be settled", lambda: not folders(machine), within_s=60)
        names = [f"long-{number}-{i}" for i in range(2)]
        long = [work(machine, name, 3600) for name in names]
        wait_until_all_run(machine, set(names))
        racing = [work(machine, f"racing-{number}-{i}", 2 * i, i) for i in range(3)]
        machine.run("sleep", f"{chance.uniform(0, 2):.3f}")
        machine.cut()

        power_on(machine)
        wait_for_node(machine)
        check_settled(machine, settled)
        for each in long:
            check_long(machine, each)
        cut_off += sum(check_racing(machine, each) for each in racing)
        until("nothing of leases to be left", lambda: not folders(machine), within_s=60)
    assert not [each for each in machine.heard() if "twice" in each]
    tell(
        f"{ROUNDS} cuts of a node: {len(settled)} jobs that had ended, {2 * ROUNDS} that ran,"
        f" {3 * ROUNDS} in between, of which {cut_off} were cut off; boots {seconds(machine)}"
    )
