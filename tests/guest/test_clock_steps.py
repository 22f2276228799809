"""The clock of a whole machine is set by an hour, back and on, under a centre: for all of its
programs and libraries at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import guest
from tests.support.guestcentre import centre, tell, wait_for_node
from tests.support.sdbox import until
from tests.support.sdcentre import ccctl, job, nodes, submit

if TYPE_CHECKING:
    from tests.support.guest import Guest

pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(lacking := guest.why_not()), reason=lacking or "-"),
]
LEASE_S, MARGIN_S = 60, 10
SHORT = f"""\
[Service]
Environment=CONTROLPLANE_NODE_LEASE_S={LEASE_S} CONTROLPLANE_NODE_LEASE_MARGIN_S={MARGIN_S}
Environment=CONTROLPLANE_HOLD_S=2
"""
DONE = ("succeeded", "failed", "cancelled")
LIMIT_S = 30
ENDS_S = 600.0
"""What is due in seconds has come by then, and what is an hour late has not."""
MEASURED = """\
import signal, time
began = time.clock_gettime(time.CLOCK_BOOTTIME)
def end(*_):
    print(time.clock_gettime(time.CLOCK_BOOTTIME) - began)
    raise SystemExit(1)
signal.signal(signal.SIGTERM, end)
print("runs", flush=True)
time.sleep(3600)
"""
STEPS = (-3600, 7200)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with centre(tmp_path_factory.mktemp("guest"), node=True) as made:
        made.write("/etc/systemd/system/controlplane.service.d/short.conf", SHORT)
        made.run("systemctl", "daemon-reload")
        made.run("systemctl", "restart", "controlplane")
        wait_for_node(made)
        yield made


def work(machine: Guest, program: str, **fields: Any) -> str:
    command = ["python3", "-c", program]
    resources = {"memory": "48MiB", "cpus": 0.5}
    return submit(machine, {"command": command, "resources": resources, **fields})


def set_clock(machine: Guest, by_s: int) -> None:
    machine.run("sh", "-c", f"date -s @$(( $(date +%s) + {by_s} ))")


def ended(machine: Guest, number: str) -> dict[str, Any]:
    until(f"job {number} to end", lambda: job(machine, number)["state"] in DONE, within_s=ENDS_S)
    return job(machine, number)


def runs(machine: Guest, number: str) -> None:
    def look() -> bool:
        attempts = job(machine, number)["attempts"]
        return bool(attempts) and attempts[-1]["state"] == "running"

    until(f"job {number} to run", look, within_s=ENDS_S)


@pytest.mark.parametrize("by_s", STEPS)
def test_what_is_due_comes_in_time_and_nothing_before(machine: Guest, by_s: int) -> None:
    stays = work(machine, "import time; time.sleep(3600)")
    limited = work(machine, MEASURED, time_limit=LIMIT_S)
    for each in (stays, limited):
        runs(machine, each)
    fails = work(machine, "raise SystemExit(1)", max_attempts=2)
    set_clock(machine, by_s)

    assert len(ended(machine, fails)["attempts"]) == 2
    assert ended(machine, limited)["state"] == "failed"
    time.sleep(LEASE_S + MARGIN_S)
    for unit in ("nodeagent", "controlplane"):
        machine.run("systemctl", "restart", unit)
    wait_for_node(machine)
    runs(machine, stays)
    told = job(machine, stays)
    assert len(told["attempts"]) == 1, told["attempts"][0]["cause"]
    _, seconds = ccctl(machine, "logs", limited).split()
    assert LIMIT_S - 1 < float(seconds) < ENDS_S
    tell(f"clock set by {by_s:+} s: a limit of {LIMIT_S} s ended after {float(seconds):.1f} s")

    # Nobody renews the lease: its workers end by their supervisor's clock, and the job waits for
    # its node.
    machine.run("systemctl", "stop", "nodeagent")
    until("the node to be lost", lambda: nodes(machine) != ["ready"], within_s=ENDS_S)
    until("the job to wait", lambda: job(machine, stays)["state"] == "pending", within_s=ENDS_S)
    machine.run("systemctl", "start", "nodeagent")
    wait_for_node(machine)
    ccctl(machine, "cancel", stays)
    assert ended(machine, stays)["attempts"][0]["state"] == "node_lost"
