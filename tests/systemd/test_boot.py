"""The units under a real systemd, as an operator installs them, on a host of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import sdbox
from tests.support.sdbox import Host, until
from tests.support.sdcentre import (
    TOKEN,
    ccctl,
    installed,
    job,
    journal,
    nodes,
    serve,
    start,
    submit,
)

CGROUPS = (Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup"))
"""Where systemd keeps its groups: version 1, version 2."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(lacking := sdbox.why_not()), reason=lacking or "-"),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with installed(tmp_path_factory.mktemp("sdbox")) as host:
        yield host


def test_the_control_plane_starts_confined_and_answers(host: Host) -> None:
    pid = start(host, "controlplane")

    status = host.path(f"/proc/{pid}/status").read_text()
    assert host.show("controlplane", "ActiveState") == "active"
    assert host.show("controlplane", "StatusText").startswith("serving on 127.0.0.1:7600")
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    assert "0.1.0" in ccctl(host, "version", "--remote")
    for path, mode in ((TOKEN, 0o600), ("/var/lib/controlplane", 0o700)):
        found = host.path(path).stat()
        assert (found.st_mode & 0o7777, found.st_uid) == (
            mode,
            int(host.run("id", "-u", "controlplane")),
        )


def test_the_control_plane_feeds_its_watchdog(host: Host) -> None:
    start(host, "controlplane")
    first = int(host.show("controlplane", "WatchdogTimestampMonotonic"))

    until(
        "the watchdog was fed again",
        lambda: int(host.show("controlplane", "WatchdogTimestampMonotonic")) > first,
        within_s=30,
    )


def test_a_control_plane_that_hangs_is_started_again(host: Host) -> None:
    hanging = start(host, "controlplane")

    host.run("kill", "-STOP", str(hanging))

    until(
        "another process serves",
        lambda: (
            host.show("controlplane", "ActiveState") == "active"
            and int(host.show("controlplane", "MainPID")) not in (0, hanging)
        ),
        within_s=60,
    )
    assert "0.1.0" in ccctl(host, "version", "--remote")


@pytest.fixture
def centre(host: Host) -> Host:
    """The host with both daemons up, and its node ready."""
    serve(host)
    return host


@pytest.fixture
def worker(centre: Host) -> Iterator[tuple[str, int]]:
    """A job that runs, and the process id (on its host) of its only worker."""
    number = submit(centre, {"name": "sleeper", "command": ["sleep", "1000"]})
    until("it runs", lambda: pids(centre, "sleep"), within_s=20)
    (pid,) = pids(centre, "sleep")
    yield number, pid
    ccctl(centre, "cancel", number)


def pids(host: Host, name: str) -> list[int]:
    return [int(pid) for pid in host.run("pgrep", "-x", name, check=False).split()]


def members(host: Host) -> list[str]:
    """The processes in the agent's control group."""
    group = host.show("nodeagent", "ControlGroup")
    listed = [root / group.lstrip("/") / "cgroup.procs" for root in CGROUPS]
    (procs,) = [host.path(str(path)) for path in listed if host.path(str(path)).exists()]
    return procs.read_text().split()


@pytest.mark.parametrize("verb", ["restart", "kill"])
def test_a_job_outlives_its_agent(centre: Host, worker: tuple[str, int], verb: str) -> None:
    number, pid = worker
    before = centre.show("nodeagent", "MainPID")
    cage = centre.path(f"/proc/{pid}/cgroup").read_text()
    assert "/system.slice/nodeagent.service/nodeagent." in cage

    if verb == "restart":
        centre.run("systemctl", "restart", "nodeagent")
    else:
        centre.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "nodeagent")
    until(
        "another agent is there",
        lambda: (
            centre.show("nodeagent", "ActiveState") == "active"
            and centre.show("nodeagent", "MainPID") not in ("0", before)
        ),
        within_s=20,
    )

    until("the node is ready", lambda: nodes(centre) == ["ready"], within_s=20)
    assert pids(centre, "sleep") == [pid]
    assert centre.path(f"/proc/{pid}/cgroup").read_text() == cage
    until(
        "agent and spawner are there, and the old spawner with its supervisor and the worker",
        lambda: len(members(centre)) == 5,
        within_s=10,
    )
    assert job(centre, number)["state"] == "active"
    ccctl(centre, "cancel", number)
    until(
        "the new agent ends the worker of the old one",
        lambda: job(centre, number)["state"] == "cancelled",
        within_s=30,
    )
    assert pids(centre, "sleep") == []


def test_a_worker_inherits_no_cage(centre: Host, worker: tuple[str, int]) -> None:
    _, pid = worker
    status = centre.path(f"/proc/{pid}/status").read_text()
    environment = centre.path(f"/proc/{pid}/environ").read_text()

    assert "NoNewPrivs:\t0" in status
    assert "Seccomp:\t0" in status
    assert centre.path(f"/proc/{pid}/oom_score_adj").read_text() == "0\n"
    mounts = [str(centre.path(f"/proc/{number}/ns/mnt").readlink()) for number in (1, pid)]
    assert mounts[0] == mounts[1]
    assert "NOTIFY_SOCKET" not in environment
    assert "WATCHDOG_USEC" not in environment


def test_stopping_the_control_plane_is_clean(host: Host) -> None:
    start(host, "controlplane")

    host.run("systemctl", "stop", "controlplane")

    assert host.show("controlplane", "ActiveState") == "inactive"
    assert host.show("controlplane", "Result") == "success"
    assert host.show("controlplane", "ExecMainStatus") == "0"
    assert "Traceback" not in journal(host, "controlplane")
