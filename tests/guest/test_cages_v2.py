"""Cages of control groups of version 2, under the units as they are shipped and a systemd that has
nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import guest
from tests.support.guest import PYTHON, Guest
from tests.support.guestcentre import centre, seconds, tell, wait_for_node
from tests.support.sdbox import until
from tests.support.sdcentre import ccctl, job, start, submit

pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(lacking := guest.why_not()), reason=lacking or "-"),
]
EAT = (
    "import os, time\nif os.environ['CC_RANK'] == '1': held = bytearray(300 << 20)\ntime.sleep(60)"
)
BOMB = """\
import os
n = 0
try:
    while n < 200:
        if not os.fork():
            os.execvp("sleep", ["sleep", "60"])
        n += 1
except OSError as error:
    print(n < 200, error.strerror, flush=True)
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with centre(tmp_path_factory.mktemp("guest"), node=True) as made:
        yield made


def scopes(machine: Guest) -> list[str]:
    listed = machine.run(
        *("systemctl", "list-units", "--no-legend", "--plain", "--state=active"),
        "nodeagent-*.scope",
    )
    return [line.split()[0] for line in listed.splitlines()]


def groups(machine: Guest) -> list[str]:
    """Those of leases."""
    leases = f"/sys/fs/cgroup/system.slice/{scopes(machine)[0]}/leases"
    return machine.run("find", leases, "-mindepth", "1", "-maxdepth", "1", "-type", "d").split()


def run(machine: Guest, **fields: object) -> str:
    document = {"resources": {"memory": "64MiB", "cpus": 0.5}, **fields}
    return submit(machine, document)


def end(machine: Guest, number: str) -> dict[str, object]:
    until("it to end", lambda: job(machine, number)["exit_code"] is not None, within_s=90)
    return job(machine, number)


def test_a_node_tells_that_it_has_them(machine: Guest) -> None:
    controllers = machine.run("cat", "/sys/fs/cgroup/cgroup.controllers").split()
    assert {"cpu", "memory", "pids"} <= set(controllers)
    assert "control groups v2" in ccctl(machine, "node", "show", "guest")


def test_memory_over_the_limit_is_told_with_rank_peak_and_limit(machine: Guest) -> None:
    told = end(machine, run(machine, command=["python3", "-c", EAT], workers=2))
    assert told["state"] == "failed"
    words = " (SIGKILL), out of memory: it had used 64 MiB of the 64 MiB it may"
    assert str(told["reason"]).startswith("rank 1 on guest was ended by signal 9")
    assert str(told["reason"]).endswith(words)
    until("its groups to go", lambda: not groups(machine), within_s=20)


def test_a_lease_has_no_more_processes_than_it_may(machine: Guest) -> None:
    drop_in = "/etc/systemd/system/nodeagent.service.d/pids.conf"
    machine.write(drop_in, "[Service]\nEnvironment=NODEAGENT_LEASE_PIDS=20\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "nodeagent")
    wait_for_node(machine)
    number = run(machine, command=["python3", "-c", BOMB])
    end(machine, number)
    assert ccctl(machine, "logs", number) == "True Resource temporarily unavailable\n"
    machine.run("rm", drop_in)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "nodeagent")
    wait_for_node(machine)


@pytest.mark.parametrize("verb", ["restart", "kill"])
def test_an_agent_that_goes_leaves_job_and_groups_to_the_next(machine: Guest, verb: str) -> None:
    number = run(machine, command=["sleep", "1000"])
    pgrep = ("pgrep", "-f", "^sleep 1000$")
    until("it to run", lambda: machine.run(*pgrep, check=False).split(), within_s=60)
    (pid,) = machine.run(*pgrep).split()
    until("it to be told", lambda: job(machine, number)["state"] == "active", within_s=20)
    cage, held = machine.run("cat", f"/proc/{pid}/cgroup"), groups(machine)
    assert f"/{scopes(machine)[0]}/leases/" in cage
    before = machine.show("nodeagent", "MainPID")
    if verb == "restart":
        machine.run("systemctl", "restart", "nodeagent")
    else:
        machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "nodeagent")
    until(
        "another agent is there",
        lambda: (
            machine.show("nodeagent", "ActiveState") == "active"
            and machine.show("nodeagent", "MainPID") not in ("0", before)
        ),
        within_s=60,
    )
    wait_for_node(machine)
    assert machine.run("cat", f"/proc/{pid}/cgroup") == cage
    assert groups(machine) == held
    assert len(scopes(machine)) == 1
    assert len(job(machine, number)["attempts"]) == 1
    ccctl(machine, "cancel", number)
    assert end(machine, number)["state"] == "cancelled"
    until("its groups to go", lambda: not groups(machine), within_s=20)
    assert machine.run(*pgrep, check=False) == ""


def test_an_agent_without_leases_lets_its_scope_go(machine: Guest) -> None:
    assert len(scopes(machine)) == 1
    machine.run("systemctl", "stop", "nodeagent")
    until("the scope to go", lambda: not scopes(machine), within_s=20)
    start(machine, "nodeagent")
    wait_for_node(machine)
    assert len(scopes(machine)) == 1


def test_the_contract_of_cages_inside(machine: Guest) -> None:
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp=/tmp/bt")
    tests = "/opt/src/tests/nodeagent/test_cages.py"
    where = ("env", "PYTHONDONTWRITEBYTECODE=1", "--chdir=/opt/src")
    printed = machine.run(*where, PYTHON, *command, tests, timeout_s=600)
    assert "[v2]" not in printed, "a test of version 2 was skipped or failed"
    assert " passed" in printed.splitlines()[-1]
    assert " failed" not in printed
    tell(f"inside: {printed.splitlines()[-1]}; boots {seconds(machine)}")
