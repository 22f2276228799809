"""Supervisors that take one lease after another, and what makes the spawner fork a new one."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.plan import Identity
from nodeagent.spawner import KEPT
from nodeagent.spawning import Spawner
from nodeagent.supervision import processes
from tests.support.supervised import Lease, gone, shell, step, until, worker


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()


def over(lease: Lease, spawner: Spawner) -> int:
    """Supervise a lease to its end; the supervisor's process id, once that holds it no more."""
    pid = lease.spawn(spawner).supervisor()
    lease.ended()
    until(lambda: not lease.held(), "the supervisor to let go")
    return pid


def waits(pid: int) -> bool:
    """Whether a process reads from a pipe and does nothing else."""
    return "pipe" in Path(f"/proc/{pid}/wchan").read_text()


def free(pid: int) -> None:
    until(lambda: waits(pid), "the supervisor to wait for a next lease")


def test_a_supervisor_takes_one_lease_after_another(tmp_path: Path, spawner: Spawner) -> None:
    seen = set()
    for number in range(1, 6):
        lease = Lease(tmp_path, step(shell(f"echo {number}"), lease_id=number))
        seen.add(pid := over(lease, spawner))
        free(pid)
        assert lease.printed() == b"%d\n" % number
        assert lease.ended().workers[0].exit_code == 0

    assert len(seen) == 1


def test_the_next_lease_finds_nothing_of_the_last_one(tmp_path: Path, spawner: Spawner) -> None:
    """Neither its cores nor its signals nor one open file."""
    first, *rest = sorted(os.sched_getaffinity(0))
    if not rest:
        pytest.skip("this host has one core")
    pid = over(Lease(tmp_path, step(worker("true", cpu_ids=(first,)), lease_id=1)), spawner)
    free(pid)
    descriptors = os.listdir(f"/proc/{pid}/fd")

    show = "grep Cpus_allowed_list /proc/self/status; ls /proc/self/fd | wc -l"
    lease = Lease(tmp_path, step(shell(f"{show}; trap 'exit 3' TERM; sleep 0.1"), lease_id=2))
    assert over(lease, spawner) == pid
    free(pid)

    own = Path("/proc/self/status").read_text()
    (allowed,) = [line for line in own.splitlines() if line.startswith("Cpus_allowed_list")]
    assert lease.printed().decode().splitlines() == [allowed, "4"]  # and the folder that ls reads
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == sorted(descriptors)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"


@pytest.mark.parametrize(
    "plan",
    [
        step(shell("exit 0"), limits=(("core", 0),), lease_id=1),
        step(*(shell("exit 0", rank=rank) for rank in range(17)), lease_id=1),
    ],
    ids=["whose workers had limits", "of a large gang"],
)
def test_a_supervisor_is_not_kept(tmp_path: Path, spawner: Spawner, plan: object) -> None:
    pid = over(Lease(tmp_path, plan), spawner)  # type: ignore[arg-type]

    until(lambda: gone(pid), "it to go")

    again = Lease(tmp_path, step(shell("ulimit -c"), lease_id=2))
    assert over(again, spawner) != pid
    soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
    assert again.printed().split() == [b"unlimited" if soft < 0 else b"%d" % (soft // 512)]


def test_a_free_supervisor_that_was_killed_costs_no_lease(tmp_path: Path, spawner: Spawner) -> None:
    pid = over(Lease(tmp_path, step(shell("exit 0"), lease_id=1)), spawner)
    free(pid)
    os.kill(pid, signal.SIGKILL)

    lease = Lease(tmp_path, step(shell("echo here"), lease_id=2))

    assert over(lease, spawner) != pid
    assert lease.printed() == b"here\n"


def test_few_are_kept(tmp_path: Path, spawner: Spawner) -> None:
    go = tmp_path / "go"
    script = f"while ! [ -e {go} ]; do sleep 0.01; done"
    leases = [Lease(tmp_path, step(shell(script), lease_id=n + 1)) for n in range(KEPT + 3)]
    for lease in leases:
        lease.spawn(spawner)
    for lease in leases:
        lease.running()
    go.touch()
    for lease in leases:
        lease.ended()

    until(lambda: len(processes.children(spawner.pid)) == KEPT, "the others to go")


@pytest.mark.parametrize("violently", [False, True], ids=["in order", "killed"])
def test_free_supervisors_go_with_their_spawner(
    tmp_path: Path, spawner: Spawner, violently: bool
) -> None:
    pid = over(Lease(tmp_path, step(shell("exit 0"), lease_id=1)), spawner)
    free(pid)

    if violently:
        os.kill(spawner.pid, signal.SIGKILL)
    else:
        spawner.close()

    until(lambda: gone(pid), "the free supervisor to go")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start what is somebody else's")
def test_a_worker_is_its_owner_for_good_and_its_supervisor_is_root_again(
    tmp_path: Path, spawner: Spawner
) -> None:
    """Real, effective, saved and file system's: nothing of root is left to come back to."""
    show = "grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb))' /proc/self/status"
    back = "python3 -c 'import os; os.setresuid(0, 0, 0)' 2>&1 | tail -1; sleep 0.2"
    nobody = Identity(uid=65534, gid=65534, groups=(65534, 100))
    plan = step(shell(f"{show}; {back}", cwd="/"), identity=nobody, lease_id=1)
    lease = Lease(tmp_path, plan).spawn(spawner)
    lease.running()
    status = Path(f"/proc/{lease.supervisor()}/status").read_text()
    assert "Uid:\t0\t0\t0\t0" in status
    assert "Gid:\t0\t0\t0\t0" in status
    assert lease.ended().workers[0].exit_code == 0
    lines = [" ".join(line.split()) for line in lease.printed().decode().splitlines()]
    assert lines == [
        "Uid: 65534 65534 65534 65534",
        "Gid: 65534 65534 65534 65534",
        "Groups: 100 65534",
        "CapInh: 0000000000000000",
        "CapPrm: 0000000000000000",
        "CapEff: 0000000000000000",
        "CapAmb: 0000000000000000",
        "PermissionError: [Errno 1] Operation not permitted",
    ]
