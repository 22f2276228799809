"""The agent's eyes.

One contract for every way of finding devices, then the bad days of a driver.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from controlplane.model.node import Device, DeviceKind
from nodeagent.devices import Devices, DevicesUnavailable, choose, open_devices
from nodeagent.devices.nvml import kernel_pci_address, single_node
from tests.support.nvml import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    NO_NUMA_NODE,
    ChildError,
    DevicesInChild,
    ShimState,
    build_shim,
    create_state,
    shim_environment,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NODE = "6f1d1c6e-3c1b-4a53-9d8e-2f3b0f6f0a11"
COUNT = 4
MEMORY = 80 << 30


def simulated(*, node_uuid: str = NODE, count: int = COUNT, memory_bytes: int = MEMORY) -> Devices:
    """Simulated devices with the defaults of these tests."""
    return open_devices(
        "simulated",
        simulated_count=count,
        simulated_model="H100",
        simulated_memory_bytes=memory_bytes,
        node_uuid=node_uuid,
    )


def test_an_operator_offers_some_of_the_devices_by_id_or_index() -> None:
    found = simulated().discover()

    assert choose(found, ()) == found
    assert choose(found, (found[2].device_id, "0")) == (found[0], found[2])
    with pytest.raises(DevicesUnavailable, match=r"offered_devices: '4': .* there are: 0 \(SIM-"):
        choose(found, ("4",))
    with pytest.raises(DevicesUnavailable, match="there are: none"):
        choose((), ("0",))


def cannot_load() -> dict[str, str]:
    """An environment in which no NVML library is found, be the host's own there or not."""
    return {**os.environ, "NVML_SHIM_STATE": ""}


NO_LIBRARY = """
import ctypes, pynvml
def no_library(name):
    raise OSError(name)
pynvml.CDLL = no_library
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim with all that it can."""
    return build_shim(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def state(tmp_path: Path) -> ShimState:
    """What the shim tells: four healthy GPUs."""
    return create_state(tmp_path / "state", count=COUNT)


@pytest.fixture
def environment(library: Path, state: ShimState, tmp_path: Path) -> dict[str, str]:
    """Where the shim is NVML."""
    return shim_environment(library, tmp_path / "state")


@pytest.fixture
def gpus(environment: dict[str, str]) -> Iterator[DevicesInChild]:
    """An agent's eyes that insist on NVML, looking at the shim."""
    with DevicesInChild(environment, kind="nvml") as devices:
        yield devices


# --- one contract ---------------------------------------------------------------------------------


@pytest.fixture(params=["simulated", "nvml", "auto"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[], Devices]]:
    """Makes the same node's eyes as often as one likes, as restarts of an agent do."""
    if request.param == "simulated":
        yield simulated
        return
    environment = request.getfixturevalue("environment")
    children: list[DevicesInChild] = []

    def in_child() -> Devices:
        children.append(DevicesInChild(environment, kind=request.param))
        return children[-1]

    yield in_child
    for child in children:
        child.stop()


def test_contract_devices_are_whole_ordered_and_distinct(make: Callable[[], Devices]) -> None:
    """Every device has what a scheduler needs."""
    found = make().discover()
    assert [device.index for device in found] == list(range(COUNT))
    assert len({device.device_id for device in found}) == COUNT
    assert {device.memory_bytes for device in found} == {MEMORY}
    assert all(device.model and not device.fault for device in found)


def test_contract_looking_again_changes_nothing(make: Callable[[], Devices]) -> None:
    """Facts are stable, so their digest is."""
    devices = make()
    assert devices.discover() == devices.discover()


def test_contract_ids_survive_a_restart_of_the_agent(make: Callable[[], Devices]) -> None:
    """Leases name devices, and outlive agents."""
    assert make().discover() == make().discover()


def test_contract_closing_is_no_end(make: Callable[[], Devices]) -> None:
    """Closed eyes can be closed again, and opened again."""
    devices = make()
    before = devices.discover()
    devices.close()
    devices.close()
    assert devices.discover() == before


# --- simulated and none ---------------------------------------------------------------------------


def test_simulated_devices_can_not_be_mistaken_for_real_ones() -> None:
    """Kind, model and id say it."""
    for device in simulated().discover():
        assert device.kind is DeviceKind.SIMULATED
        assert device.model == "Simulated H100"
        assert device.device_id.startswith("SIM-")


def test_two_nodes_never_share_simulated_ids() -> None:
    """Ids come from the node's identity."""
    other = simulated(node_uuid=NODE[:-1] + "2").discover()
    assert not {d.device_id for d in other} & {d.device_id for d in simulated().discover()}


def test_impossible_simulations_are_refused() -> None:
    """Each refusal names the field and the value."""
    with pytest.raises(ValueError, match="simulated_count: -1"):
        simulated(count=-1)
    with pytest.raises(ValueError, match="simulated_memory_bytes: 0"):
        simulated(memory_bytes=0)


def test_cpu_offers_no_devices() -> None:
    """And needs no library for that."""
    devices = open_devices(
        "cpu",
        simulated_count=8,
        simulated_model="H100",
        simulated_memory_bytes=MEMORY,
        node_uuid=NODE,
    )
    assert devices.discover() == ()
    devices.close()


# --- NVML -----------------------------------------------------------------------------------------


def test_nvml_tells_all_facts(gpus: DevicesInChild, state: ShimState) -> None:
    """One GPU, field by field."""
    state.device[3].nvlinks = 12
    assert gpus.discover()[3] == Device(
        device_id="GPU-00000000-0000-4000-8000-000000000003",
        kind=DeviceKind.GPU,
        model="NVIDIA H100 80GB HBM3",
        memory_bytes=MEMORY,
        index=3,
        pci_bus_id="0000:4c:00.0",
        numa_node=0,
        nvlinks=12,
    )


def test_numa_node_comes_from_the_driver_and_may_be_unknown(
    gpus: DevicesInChild, state: ShimState
) -> None:
    """A node above 63 lies in the second word of the mask."""
    state.device[0].numa_node = 70
    state.device[1].numa_node = NO_NUMA_NODE
    state.device[1].pci_bus_id = b"0000FFFF:FF:1F.7"
    found = gpus.discover()
    assert (found[0].numa_node, found[1].numa_node) == (70, None)


def test_a_gpu_lost_in_the_middle_is_told_not_dropped(
    gpus: DevicesInChild, state: ShimState
) -> None:
    """It keeps its facts, says its fault, and is well again once the driver reaches it."""
    healthy = gpus.discover()
    state.device[2].error = GPU_IS_LOST
    found = gpus.discover()
    assert [device.fault[:12] for device in found] == ["", "", "GPU is lost:", ""]
    assert found[2].device_id == healthy[2].device_id
    assert (found[2].memory_bytes, found[2].nvlinks) == (MEMORY, 18)
    assert gpus.discover() == found
    state.device[2].error = 0
    assert gpus.discover() == healthy


def test_the_driver_is_held_between_looks_only_while_all_is_well(
    gpus: DevicesInChild, state: ShimState
) -> None:
    """A GPU can be reset, and a driver unloaded, only when nobody holds it."""
    gpus.discover()
    gpus.discover()
    assert state.open_sessions == 1
    state.device[2].error = GPU_IS_LOST
    gpus.discover()
    assert state.open_sessions == 0
    state.device[2].error = 0
    gpus.discover()
    assert state.open_sessions == 1
    gpus.close()
    assert state.open_sessions == 0


def test_a_gpu_that_the_driver_stops_listing_keeps_its_place(
    gpus: DevicesInChild, state: ShimState
) -> None:
    """After a reset of the others the driver may count one fewer."""
    healthy = gpus.discover()
    state.device_count = COUNT - 1
    found = gpus.discover()
    assert found[:3] == healthy[:3]
    assert found[3].device_id == healthy[3].device_id
    assert "no longer reports" in found[3].fault


def test_a_gpu_that_was_lost_before_it_is_left_out_keeps_the_first_reason(
    gpus: DevicesInChild, state: ShimState
) -> None:
    """The first reason says more than that it is gone."""
    gpus.discover()
    state.device[3].error = GPU_IS_LOST
    lost = gpus.discover()
    state.device_count = COUNT - 1
    assert gpus.discover() == lost
    assert lost[3].fault.startswith("GPU is lost")


def test_a_gpu_lost_before_the_start_is_logged_once(gpus: DevicesInChild, state: ShimState) -> None:
    """Its id was never known, so it can't be offered."""
    state.device[0].error = GPU_IS_LOST
    assert [device.index for device in gpus.discover()] == [1, 2, 3]
    gpus.discover()
    (message,) = gpus.logged()
    assert message.startswith("GPU 0 can't be named, so it is not offered: GPU is lost")


def test_a_reloaded_driver_is_taken_up_again(gpus: DevicesInChild, state: ShimState) -> None:
    """Old handles are void; nobody notices."""
    healthy = gpus.discover()
    state.driver_generation += 1
    assert gpus.discover() == healthy


def test_a_driver_that_goes_and_comes_back(gpus: DevicesInChild, state: ShimState) -> None:
    """Meanwhile every device says why it can't be used."""
    healthy = gpus.discover()
    state.driver_generation += 1
    state.init_error = DRIVER_NOT_LOADED
    found = gpus.discover()
    assert [device.device_id for device in found] == [device.device_id for device in healthy]
    assert all("driver is not loaded" in device.fault for device in found)
    state.init_error = 0
    assert gpus.discover() == healthy


def test_auto_runs_on_cpus_until_the_driver_answers(
    environment: dict[str, str], state: ShimState
) -> None:
    """The reason is logged once, however often it looks."""
    state.init_error = DRIVER_NOT_LOADED
    with DevicesInChild(environment, kind="auto") as devices:
        assert devices.discover() == ()
        assert devices.discover() == ()
        (message,) = devices.logged()
        assert "no NVIDIA GPUs are offered: the NVIDIA driver is not loaded" in message
        state.init_error = 0
        assert len(devices.discover()) == COUNT


def test_auto_runs_on_cpus_where_there_is_no_library() -> None:
    """The usual host without GPUs."""
    with DevicesInChild(cannot_load(), kind="auto", prelude=NO_LIBRARY) as devices:
        assert devices.discover() == ()
        assert "libnvidia-ml.so.1 was not found" in devices.logged()[0]


def test_nvml_insists(environment: dict[str, str], state: ShimState) -> None:
    """It refuses to start, and says what to do instead."""
    state.init_error = DRIVER_NOT_LOADED
    with pytest.raises(
        ChildError, match=r'DevicesUnavailable: devices: "nvml" .* not loaded.* Use "auto"'
    ):
        DevicesInChild(environment, kind="nvml")
    with pytest.raises(ChildError, match=r"DevicesUnavailable: .*libnvidia-ml.so.1 was not found"):
        DevicesInChild(cannot_load(), kind="nvml", prelude=NO_LIBRARY)


OPTIONAL = ("nvmlDeviceGetMemoryAffinity", "nvmlDeviceGetNvLinkState", "nvmlDeviceGetMemoryInfo")


def check_poorer_but_usable(devices: Devices) -> None:
    """Facts that nobody tells are unknown, and no device is at fault."""
    found = devices.discover()
    assert len(found) == COUNT
    assert {(d.numa_node, d.nvlinks, d.memory_bytes, d.fault) for d in found} == {(None, 0, 0, "")}


def hide_from_sysfs(state: ShimState) -> None:
    """Give the devices PCI addresses that the testing host surely does not have."""
    for index in range(COUNT):
        state.device[index].pci_bus_id = f"0000FFFF:FF:1F.{index}".encode()


def test_a_device_that_somebody_computes_on_is_told_with_the_process(
    environment: dict[str, str], state: ShimState
) -> None:
    with DevicesInChild(environment, kind="nvml") as devices:
        ids = [device.device_id for device in devices.discover()]
        assert devices.users(ids) == {}
        state.device[1].compute_pid = os.getpid()
        state.device[2].error = GPU_IS_LOST
        told = devices.users(ids)
    assert list(told) == ids[1:3]
    assert told[ids[1]].startswith(f"is in use by process {os.getpid()} (")
    assert "lost" in told[ids[2]].lower() or "bus" in told[ids[2]].lower()


def test_an_older_driver_lacks_functions(state: ShimState, tmp_path: Path) -> None:
    """Symbols that the library does not have."""
    hide_from_sysfs(state)
    older = build_shim(tmp_path / "older", without=OPTIONAL)
    with DevicesInChild(shim_environment(older, tmp_path / "state"), kind="nvml") as devices:
        check_poorer_but_usable(devices)


def test_an_older_binding_lacks_functions(environment: dict[str, str], state: ShimState) -> None:
    """Names that the Python module does not have."""
    hide_from_sysfs(state)
    prelude = "import pynvml\n" + "".join(f"del pynvml.{name}\n" for name in OPTIONAL)
    with DevicesInChild(environment, kind="nvml", prelude=prelude) as devices:
        check_poorer_but_usable(devices)


def test_a_library_without_the_indispensable_is_too_old(state: ShimState, tmp_path: Path) -> None:
    """Without ids nothing can be offered, and the reason says so."""
    ancient = build_shim(tmp_path / "ancient", without=("nvmlDeviceGetUUID",))
    with DevicesInChild(shim_environment(ancient, tmp_path / "state"), kind="auto") as devices:
        assert devices.discover() == ()
        assert "GPU 0 can't be named" in devices.logged()[0]
        assert "too old" in devices.logged()[0]


@pytest.mark.parametrize(
    ("driver", "kernel"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"),
        ("0000:3B:00.0", "0000:3b:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("", ""),
    ],
)
def test_pci_addresses_are_written_as_the_kernel_does(driver: str, kernel: str) -> None:
    """So that they can be looked up in sysfs."""
    assert kernel_pci_address(driver) == kernel


@pytest.mark.parametrize(
    ("mask", "node"), [([], None), ([0, 0], None), ([1, 0], 0), ([0, 2], 65), ([3, 0], None)]
)
def test_a_numa_mask_names_one_node_or_none(mask: list[int], node: int | None) -> None:
    """A mask of several nodes says nothing about where a device sits."""
    assert single_node(mask) == node


def test_sysfs_knows_the_numa_node_that_the_driver_does_not(
    environment: dict[str, str], state: ShimState, tmp_path: Path
) -> None:
    """-1 is the kernel's word for unknown."""
    for index, node in enumerate(("1", "-1")):
        state.device[index].numa_node = NO_NUMA_NODE
        folder = tmp_path / "sys/bus/pci/devices" / f"0000:{0x19 + 0x11 * index:02x}:00.0"
        folder.mkdir(parents=True)
        (folder / "numa_node").write_text(node + "\n")
    with DevicesInChild(environment, kind="nvml", sysfs=tmp_path / "sys") as devices:
        found = devices.discover()
    assert [device.numa_node for device in found] == [1, None, 0, 0]


def test_the_shim_keeps_power_limits_as_a_driver_does(
    environment: dict[str, str], state: ShimState
) -> None:
    """Read, set, refused out of range; through the real binding."""
    code = (
        "import pynvml as n\n"
        "n.nvmlInit()\n"
        "h = n.nvmlDeviceGetHandleByUUID('GPU-00000000-0000-4000-8000-000000000001')\n"
        "temperature = getattr(n, 'nvmlDeviceGetTemperatureV', n.nvmlDeviceGetTemperature)(h, 0)\n"
        "constraints = n.nvmlDeviceGetPowerManagementLimitConstraints(h)\n"
        "print(temperature, n.nvmlDeviceGetPowerUsage(h), constraints)\n"
        "n.nvmlDeviceSetPowerManagementLimit(h, 450_000)\n"
        "for limit in (199_999, 700_001):\n"
        "    try:\n"
        "        n.nvmlDeviceSetPowerManagementLimit(h, limit)\n"
        "    except n.NVMLError_InvalidArgument:\n"
        "        print(n.nvmlDeviceGetEnforcedPowerLimit(h))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.splitlines() == ["34 72000 [200000, 700000]", "450000", "450000"]
    assert (state.device[0].power_limit, state.device[1].power_limit) == (700_000, 450_000)
