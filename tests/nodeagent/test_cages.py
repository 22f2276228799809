"""Cages of leases: one contract for each version of control groups, as far as this host has them,
under real supervisors."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.model.lease import LeaseEnd, LeasePhase
from controlplane.model.node import Device, DeviceKind
from nodeagent.cages import Cages, find_cages
from nodeagent.devicefiles import Host, nvidia_minors, nvidia_nodes
from nodeagent.devices.rocm import RocmGpus
from nodeagent.devices.tpu import Tpus
from nodeagent.folders import LeaseKey
from nodeagent.plan import CagePlan, Identity
from nodeagent.spawning import Spawner
from nodeagent.supervision import bpf
from nodeagent.supervision.cage import Cage, own_groups, remove_group
from tests.support.launches import launch, members
from tests.support.supervised import Lease, gone, shell, step, until
from tests.support.sysfs import accel_chip, amd_gpu, vfio_chip

MIB = 1 << 20


def agents(version: int) -> Cages | None:
    """What an agent finds of a version."""
    found = find_cages(f"test-{uuid.uuid4()}", 0, tuple)
    if isinstance(found, Cages) and found.version != version:
        found.close()
        return None
    return found if isinstance(found, Cages) else None


def beside_the_first() -> dict[str, str]:
    """What there is of version 2 where version 1 has the controllers: one folder, with none."""
    unified = own_groups().get("")
    if unified is None:
        return {}
    folder = f"{unified}/test-{uuid.uuid4()}"
    try:
        os.mkdir(folder)
    except OSError:
        return {}
    own = Path(f"{unified}/cgroup.subtree_control").read_text().split()
    try:
        os.close(bpf.load(()))
        own.append("devices")
    except OSError:
        pass
    return dict.fromkeys([*own, "members"], folder)


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def base(request: pytest.FixtureRequest) -> Iterator[tuple[int, dict[str, str]]]:
    found = agents(request.param)
    folders = found.base if found is not None else {}
    if not folders and request.param == 2:
        folders = beside_the_first()
    if not folders:
        pytest.skip(f"this host gives no control groups of version {request.param}")
    yield request.param, folders
    if found is not None:
        found.clean(())
        found.close()
    for folder in dict.fromkeys(folders.values()):
        assert remove_group(folder), "something is left in it"


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()


def plan(base: tuple[int, dict[str, str]], **fields: object) -> CagePlan:
    version, folders = base
    groups = {name: f"{folder}/7.3" for name, folder in folders.items()}
    return CagePlan(version=version, groups=groups, **fields)  # type: ignore[arg-type]


def needs(base: tuple[int, dict[str, str]], controller: str) -> None:
    if controller not in base[1]:
        pytest.skip(f"version {base[0]} does not control {controller} on this host")


def groups_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


# --- the contract ---------------------------------------------------------------------------------


def test_workers_and_all_they_start_are_in_it_and_the_supervisor_is_not(
    base: tuple[int, dict[str, str]], tmp_path: Path, spawner: Spawner
) -> None:
    script = "setsid sh -c 'setsid sleep 600 & echo $!; wait' & echo $$; wait"
    caged = plan(base)
    lease = Lease(tmp_path, step(shell(script), cage=caged)).spawn(spawner)
    until(lambda: len(lease.printed().split()) == 2, "two processes to tell of themselves")
    pids = [int(word) for word in lease.printed().split()]
    assert all("/7.3" in groups_of(pid) for pid in pids)
    assert "/7.3" not in groups_of(lease.supervisor())
    assert set(pids) <= set(Cage(caged).members())
    assert lease.stop(0)
    lease.ended()
    assert all(map(gone, pids))
    until(lambda: not any(map(os.path.exists, caged.groups.values())), "its groups to go")


def test_memory_over_the_limit_ends_the_worker_that_used_it_and_is_told(
    base: tuple[int, dict[str, str]], tmp_path: Path, spawner: Spawner
) -> None:
    needs(base, "memory")
    eat = "exec python3 -c 'b = bytearray(300 << 20)'"
    workers = [shell(eat if rank == 2 else "sleep 30", rank=rank) for rank in range(4)]
    caged = plan(base, memory_bytes=64 * MIB)
    over = Lease(tmp_path, step(*workers, cage=caged, failure_grace_ms=0)).spawn(spawner).ended()
    dry = [w for w in over.workers if w.oom_limit_bytes is not None]
    assert [w.rank for w in dry] == [2]
    assert dry[0].signal == signal.SIGKILL
    assert dry[0].oom_limit_bytes == 64 * MIB
    assert dry[0].oom_peak_bytes is not None
    assert 60 * MIB < dry[0].oom_peak_bytes <= 64 * MIB


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize("identity", [None, Identity(uid=65534, gid=65534, groups=())])
def test_less_memory_than_any_process_needs_is_told_of_the_worker_and_spares_its_supervisor(
    base: tuple[int, dict[str, str]], tmp_path: Path, spawner: Spawner, identity: Identity | None
) -> None:
    needs(base, "memory")
    caged = plan(base, memory_bytes=64 << 10)
    plans = step(shell("exit 0"), cage=caged, identity=identity)
    over = Lease(tmp_path, plans).spawn(spawner).ended()
    (worker,) = over.workers
    assert (over.end, over.message) == (LeaseEnd.NATURAL, "")
    assert (worker.signal, worker.oom_limit_bytes) == (signal.SIGKILL, 64 << 10)


def test_a_group_that_cannot_be_entered_is_told(
    base: tuple[int, dict[str, str]], tmp_path: Path, spawner: Spawner
) -> None:
    version, _ = base
    (tmp_path / "groups").mkdir()
    groups = {"members": str(tmp_path / "groups/7.3")}
    caged = CagePlan(version=version, groups=groups, memory_bytes=1)
    over = Lease(tmp_path, step(shell("exit 0"), cage=caged)).spawn(spawner).ended()
    assert over.end is LeaseEnd.LAUNCH_FAILED
    assert over.message.startswith("rank 0: cannot enter its control group ")


def test_a_bomb_that_heeds_nothing_is_ended(
    base: tuple[int, dict[str, str]], tmp_path: Path, spawner: Spawner
) -> None:
    needs(base, "pids")
    (tmp_path / "bomb.py").write_text(
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    )
    caged = plan(base, pids=100)
    bomb = shell(f"exec python3 -S {tmp_path}/bomb.py")
    lease = Lease(tmp_path, step(bomb, cage=caged)).spawn(spawner)
    until(lambda: len(Cage(caged).members()) >= 80, "it to fill its cage")
    assert lease.stop(0)
    lease.ended()
    assert Cage(caged).members() == []


def test_a_child_that_runs_out_of_memory_is_told_of_its_worker(
    base: tuple[int, dict[str, str]], tmp_path: Path, spawner: Spawner
) -> None:
    needs(base, "memory")
    script = "python3 -c 'b = bytearray(300 << 20)'; echo the child: $?; exit 5"
    lease = Lease(tmp_path, step(shell(script), cage=plan(base, memory_bytes=64 * MIB)))
    (worker,) = lease.spawn(spawner).ended().workers
    assert lease.printed() == b"the child: 137\n"
    assert (worker.exit_code, worker.oom_limit_bytes) == (5, 64 * MIB)


def test_a_fork_bomb_hurts_itself_alone(
    base: tuple[int, dict[str, str]], tmp_path: Path, spawner: Spawner
) -> None:
    needs(base, "pids")
    script = (
        "import os\n"
        "n = 0\n"
        "try:\n"
        "    while n < 500:\n"
        "        if not os.fork(): os.execvp('sleep', ['sleep', '60'])\n"
        "        n += 1\n"
        "except OSError as error:\n"
        "    print(n, error.strerror, flush=True)\n"
    )
    (tmp_path / "bomb.py").write_text(script)
    bomb = shell(f"exec python3 {tmp_path}/bomb.py")
    lease = Lease(tmp_path, step(bomb, cage=plan(base, pids=20))).spawn(spawner)
    lease.ended()
    count, words = lease.printed().decode().split(" ", 1)
    assert int(count) < 20
    assert words == "Resource temporarily unavailable\n"


def test_shares_of_cores_are_as_leased(base: tuple[int, dict[str, str]]) -> None:
    needs(base, "cpu")
    caged = plan(base, cpu_millicores=2500)
    cage = Cage(caged)
    cage.make([])
    name = "cpu.shares" if base[0] == 1 else "cpu.weight"
    told = int(Path(f"{caged.groups['cpu']}/{name}").read_text())
    cage.remove()
    assert told == (2560 if base[0] == 1 else 250)


def test_a_device_of_others_cannot_be_opened(
    base: tuple[int, dict[str, str]], tmp_path: Path, spawner: Spawner
) -> None:
    """/dev/full stands for another's GPU."""
    needs(base, "devices")
    script = "echo x > /dev/null && echo null; (echo x > /dev/full) 2>&1 | grep -o 'not permitted'"
    lease = Lease(tmp_path, step(shell(script), cage=plan(base, denied_devices=("c 1:7",))))
    lease.spawn(spawner).ended()
    assert lease.printed() == b"null\nnot permitted\n"


def test_what_outlives_supervisor_and_spawner_is_found_by_its_cage(
    base: tuple[int, dict[str, str]], tmp_path: Path
) -> None:
    """It has left its process group and its session, and wiped its environment."""
    spawner = Spawner()
    (tmp_path / "daemon.py").write_text(
        "import os\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "print(os.getpid(), flush=True)\n"
        "os.execve('/bin/sleep', ['sleep', '600'], {})\n"
    )
    script = f"python3 {tmp_path}/daemon.py; sleep 600"
    caged = plan(base)
    lease = Lease(tmp_path, step(shell(script), cage=caged)).spawn(spawner)
    until(lambda: lease.printed().endswith(b"\n"), "it to tell its number")
    pid = int(lease.printed())
    supervisor = lease.supervisor()
    os.kill(spawner.pid, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    os.kill(spawner.pid, signal.SIGKILL)
    assert not gone(pid)
    over = lease.reader()
    until(lambda: over.look().phase is LeasePhase.ENDED, "the lease to be over")
    assert over.read().end is LeaseEnd.SUPERVISOR_LOST
    until(lambda: gone(pid), "it to be gone")
    assert not any(map(os.path.exists, caged.groups.values()))


def test_a_cage_that_cannot_be_made_is_told_and_nothing_runs(
    tmp_path: Path, spawner: Spawner
) -> None:
    caged = CagePlan(version=1, groups={"pids": "/proc/none/7.3"}, pids=5)
    over = Lease(tmp_path, step(shell("exit 0"), cage=caged)).spawn(spawner).ended()
    assert over.end is LeaseEnd.LAUNCH_FAILED
    assert over.message.startswith("cannot make its control groups: ")
    assert over.workers[0].pid == 0


def test_the_next_supervisors_groups_are_none_of_the_last_leases(
    base: tuple[int, dict[str, str]], tmp_path: Path, spawner: Spawner
) -> None:
    for number in (1, 2):
        version, folders = base
        groups = {name: f"{folder}/{number}" for name, folder in folders.items()}
        caged = CagePlan(version=version, groups=groups)
        lease = Lease(tmp_path, step(shell("cat /proc/self/cgroup"), cage=caged, lease_id=number))
        lease.spawn(spawner).ended()
        assert f"/{number}" in lease.printed().decode()
        until(lambda lease=lease: not lease.held(), "the supervisor to let go")  # type: ignore[misc]


# --- what the agent decides -----------------------------------------------------------------------


def test_leftover_groups_are_removed_unless_a_lease_holds_them(
    base: tuple[int, dict[str, str]],
) -> None:
    version, folders = base
    cages = Cages(version=version, base=folders, pids=0, devices=tuple)
    for folder in folders.values():
        for name in ("1.1", "2.2"):
            os.makedirs(f"{folder}/{name}", exist_ok=True)
    cages.clean({"2.2"})
    for folder in folders.values():
        assert not os.path.exists(f"{folder}/1.1")
        assert os.path.exists(f"{folder}/2.2")


def test_an_agents_own_group_goes_with_it_unless_a_lease_is_in_it(
    base: tuple[int, dict[str, str]],
) -> None:
    version, folders = base
    cages = Cages(version=version, base=folders, pids=0, devices=tuple)
    kept = [f"{folder}/1.1" for folder in dict.fromkeys(folders.values())]
    for folder in kept:
        os.mkdir(folder)
    cages.close()
    assert all(map(os.path.exists, kept))
    for folder in kept:
        os.rmdir(folder)
    cages.close()
    assert not any(map(os.path.exists, folders.values()))


def gpu(index: int) -> Device:
    return Device(
        device_id=f"GPU-{index}",
        kind=DeviceKind.GPU,
        model="H100",
        memory_bytes=1,
        index=index,
        pci_bus_id=f"0000:{index:02x}:00.0",
    )


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make device nodes")
def test_the_gpus_of_others_are_closed_by_their_device_nodes(tmp_path: Path) -> None:
    dev, proc = tmp_path / "dev", tmp_path / "proc"
    dev.mkdir()
    for minor in range(3):
        try:
            os.mknod(dev / f"nvidia{minor}", stat.S_IFCHR | 0o600, os.makedev(195, minor))
        except PermissionError:
            pytest.skip("this host lets nobody make device nodes")
        # The driver counts in another order than PCI does.
        told = proc / "driver/nvidia/gpus" / f"0000:{2 - minor:02X}:00.0"
        told.mkdir(parents=True)
        (told / "information").write_text(f"Model: \t\t H100\nDevice Minor: \t {minor}\n")
    (dev / "nvidiactl").touch()
    assert nvidia_nodes(dev) == {0: "c 195:0", 1: "c 195:1", 2: "c 195:2"}
    assert nvidia_minors(proc) == {"0000:02:00.0": 0, "0000:01:00.0": 1, "0000:00:00.0": 2}
    cages = Cages(
        version=1,
        base={"devices": "/x"},
        pids=0,
        devices=lambda: [gpu(i) for i in range(3)],
        host=Host(dev=dev, proc=proc, sysfs=tmp_path / "sys"),
    )

    def denied(*device_ids: str) -> tuple[str, ...]:
        order = launch("command", members([1]), device_ids=device_ids)
        return cages.plan(LeaseKey(1, 1), order, 1).denied_devices

    assert denied("GPU-0") == ("c 195:0", "c 195:1")
    assert denied() == ("c 195:0", "c 195:1", "c 195:2")
    assert denied("GPU-0", "GPU-1", "GPU-2") == ()
    (proc / "driver/nvidia/gpus/0000:02:00.0/information").unlink()
    assert denied("GPU-2") == (), "a job must not be kept from its own"


def denied_of(devices: tuple[Device, ...], sysfs: Path, *own: Device) -> set[str]:
    """What is closed to a lease of some of the host's devices."""
    nowhere = sysfs / "nowhere"
    cages = Cages(
        version=2,
        base={"devices": "/x"},
        pids=0,
        devices=lambda: devices,
        host=Host(dev=nowhere, proc=nowhere, sysfs=sysfs),
    )
    order = launch("command", members([1]), device_ids=tuple(d.device_id for d in own))
    return set(cages.plan(LeaseKey(1, 1), order, 1).denied_devices)


def test_amd_gpus_of_others_are_closed_by_render_node_and_card_and_kfd_stays_open(
    tmp_path: Path,
) -> None:
    for place in range(3):
        amd_gpu(tmp_path, place, unique_id=0 if place == 2 else 0xABC0 + place)
    (tmp_path / "class/kfd/kfd/dev").write_text("235:0\n")
    found = tuple(RocmGpus(sysfs=tmp_path).scan())
    assert len(found) == 2, "one is not offered, and is closed to all"
    files = [{f"c 226:{128 + place}", f"c 226:{place}"} for place in range(3)]
    assert denied_of(found, tmp_path, found[0]) == files[1] | files[2]
    assert denied_of(found, tmp_path, *found) == files[2]
    assert denied_of(found, tmp_path) == files[0] | files[1] | files[2]


def test_a_gpu_whose_render_node_is_not_told_is_not_kept_from_its_job(tmp_path: Path) -> None:
    for place in range(2):
        amd_gpu(tmp_path, place, unique_id=0xABC0 + place)
    found = tuple(RocmGpus(sysfs=tmp_path).scan())
    shutil.rmtree(tmp_path / "class/drm/renderD129")
    shutil.rmtree(tmp_path / "bus/pci/devices/0000:2b:00.0/drm")
    assert denied_of(found, tmp_path, found[1]) == set()
    assert denied_of(found, tmp_path, found[0]) == set()


@pytest.mark.parametrize("make", [accel_chip, vfio_chip])
def test_tpu_chips_of_others_are_closed_in_either_kind_of_device_node(
    tmp_path: Path, make: Callable[[Path, int], set[str]]
) -> None:
    files = [make(tmp_path, place) for place in range(4)]
    found = tuple(Tpus(node_uuid=str(uuid.uuid4()), sysfs=tmp_path).scan())
    assert denied_of(found, tmp_path, found[1], found[2]) == files[0] | files[3]
    assert denied_of(found, tmp_path) == set().union(*files)
    assert denied_of(found, tmp_path, *found) == set()


def test_a_simulated_device_opens_no_real_one(tmp_path: Path) -> None:
    amd_gpu(tmp_path, 0, unique_id=0xABC0)
    real = tuple(RocmGpus(sysfs=tmp_path).scan())
    own = replace(gpu(0), device_id="SIM-0", kind=DeviceKind.SIMULATED, pci_bus_id="")
    assert denied_of((*real, own), tmp_path, own) == {"c 226:0", "c 226:128"}
