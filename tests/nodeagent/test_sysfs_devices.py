"""AMD GPUs and TPU chips as the kernel shows them, in trees that mirror real hosts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from controlplane.model.node import Device, DeviceKind
from nodeagent.devices import AllOf, Devices, DevicesUnavailable, choose, open_devices
from nodeagent.devices.rocm import RocmGpus
from nodeagent.devices.sysfs import SysfsDevices
from nodeagent.devices.tpu import Tpus
from tests.support.sysfs import HBM, accel_chip, amd_gpu, cpus, pci_chip, put, vfio_chip

NODE = "6f1d1c6e-3c1b-4a53-9d8e-2f3b0f6f0a11"
OTHER = "6f1d1c6e-3c1b-4a53-9d8e-2f3b0f6f0a12"


def insist(kind: Any, sysfs: Path, node_uuid: str = NODE) -> Devices:
    """As an agent with this setting."""
    return open_devices(
        kind,
        simulated_count=0,
        simulated_model="",
        simulated_memory_bytes=1,
        node_uuid=node_uuid,
        sysfs=sysfs,
    )


# --- AMD ------------------------------------------------------------------------------------------


def test_an_amd_gpu_has_all_that_the_kernel_tells(tmp_path: Path) -> None:
    cpus(tmp_path, 2)
    amd_gpu(tmp_path, 0, unique_id=7_809_984_429_061_111_111)
    amd_gpu(tmp_path, 1, unique_id=0xABC, domain=1, product="", numa=-1)
    first, second = insist("rocm", tmp_path).discover()
    assert first == Device(
        device_id="GPU-6c62a3758b84fd47",
        kind=DeviceKind.AMD_GPU,
        model="AMD Instinct MI300X OAM",
        memory_bytes=HBM,
        index=0,
        pci_bus_id="0000:1b:00.0",
        numa_node=0,
    )
    assert (second.device_id, second.model) == ("GPU-0000000000000abc", "AMD GPU gfx942")
    assert (second.pci_bus_id, second.numa_node) == ("0001:2b:00.0", None)


def test_ten_gpus_are_counted_in_the_order_of_numbers(tmp_path: Path) -> None:
    for place in range(10):
        amd_gpu(tmp_path, place, unique_id=1 + place)
    assert [d.device_id[-1] for d in RocmGpus(sysfs=tmp_path).scan()] == list("123456789a")


def test_a_gpu_without_an_id_of_its_own_is_not_offered_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ROCm could be told of it only by a number, which changes with what a cage closes."""
    amd_gpu(tmp_path, 0, unique_id=0)
    amd_gpu(tmp_path, 1, unique_id=5)
    for place in (2, 3):
        amd_gpu(tmp_path, place, unique_id=6, function=place)
    found = RocmGpus(sysfs=tmp_path)
    assert [d.index for d in found.scan()] == [1]
    assert [d.index for d in found.scan()] == [1]
    assert [record.getMessage() for record in caplog.records] == [
        "the AMD GPU 0000:1b:00.0 is not offered: it has no unique id",
        "the AMD GPU 0000:3b:00.2 is not offered: it has the unique id of another",
        "the AMD GPU 0000:4b:00.3 is not offered: it has the unique id of another",
    ]


def test_an_apus_memory_is_the_hosts(tmp_path: Path) -> None:
    amd_gpu(tmp_path, 0, unique_id=5)
    bank = "class/kfd/kfd/topology/nodes/2/mem_banks/0/properties"
    put(tmp_path, {bank: f"heap_type 0\nsize_in_bytes {HBM}"})
    assert [d.memory_bytes for d in RocmGpus(sysfs=tmp_path).scan()] == [0]


def test_who_has_memory_of_an_amd_gpu_uses_it(tmp_path: Path) -> None:
    amd_gpu(tmp_path, 0, unique_id=5)
    amd_gpu(tmp_path, 1, unique_id=6)
    proc = "class/kfd/kfd/proc/999999999"
    put(tmp_path, {f"{proc}/vram_28851": "0", f"{proc}/vram_28852": "4096", f"{proc}/pasid": "1"})
    devices = insist("rocm", tmp_path)
    first, second = (device.device_id for device in devices.discover())
    assert devices.users([first, second]) == {
        second: "is in use by process 999999999, outside of this lease"
    }
    assert devices.users(["GPU-0"]) == {"GPU-0": "the kernel shows no such device"}


# --- TPU ------------------------------------------------------------------------------------------


def test_chips_of_tpu_v4_go_by_the_numbers_of_their_device_nodes(tmp_path: Path) -> None:
    for place in range(4):
        accel_chip(tmp_path, place)
    pci_chip(tmp_path, "0000:00:08.0", "0x001f")  # Google's network card is no chip.
    found = insist("tpu", tmp_path).discover()
    assert [(d.index, d.pci_bus_id) for d in found] == [
        (place, f"0000:00:{7 - place:02x}.0") for place in range(4)
    ]
    assert {(d.kind, d.model, d.memory_bytes, d.numa_node, d.fault) for d in found} == {
        (DeviceKind.TPU, "TPU v4", 0, None, "")
    }


def test_chips_of_tpu_v6e_go_by_their_groups(tmp_path: Path) -> None:
    for place in range(8):
        vfio_chip(tmp_path, place)
    found = insist("tpu", tmp_path).discover()
    assert [d.index for d in found] == list(range(8))
    assert {d.model for d in found} == {"TPU v6e"}


def test_a_chip_with_two_functions_is_one(tmp_path: Path) -> None:
    for place in range(4):
        vfio_chip(tmp_path, place, "0x0076", functions=2)
    found = insist("tpu", tmp_path).discover()
    assert [(d.index, d.model, d.pci_bus_id[-2:]) for d in found] == [
        (place, "TPU7x", ".0") for place in range(4)
    ]


@pytest.mark.parametrize(("subsystem", "model"), [("0x004e", "TPU v2"), ("0x004f", "TPU v3")])
def test_the_first_generations_are_told_apart(tmp_path: Path, subsystem: str, model: str) -> None:
    accel_chip(tmp_path, 0, "0x0027", subsystem_device=subsystem)
    assert [d.model for d in insist("tpu", tmp_path).discover()] == [model]


def test_a_chips_id_is_its_nodes_own_and_stays(tmp_path: Path) -> None:
    vfio_chip(tmp_path, 0)
    (first,) = insist("tpu", tmp_path).discover()
    assert insist("tpu", tmp_path).discover() == (first,)
    (other,) = insist("tpu", tmp_path, OTHER).discover()
    assert other.device_id != first.device_id


def test_a_chip_that_no_driver_has_taken_is_told(tmp_path: Path) -> None:
    pci_chip(tmp_path, "0000:00:04.0", "0x006f")
    devices = insist("tpu", tmp_path)
    (device,) = devices.discover()
    assert device.fault.startswith("no driver has made a device node")
    assert devices.users([device.device_id]) == {device.device_id: device.fault}


@pytest.mark.parametrize(
    ("make", "file"), [(accel_chip, "/dev/accel1"), (vfio_chip, "/dev/vfio/1")]
)
def test_who_has_a_chip_open_uses_it(tmp_path: Path, make: Any, file: str) -> None:
    sysfs, proc = tmp_path / "sys", tmp_path / "proc"
    for place in range(2):
        make(sysfs, place)
    for number, opened in enumerate(("/dev/null", file)):
        (proc / f"{999_999_990 + number}/fd").mkdir(parents=True)
        (proc / f"{999_999_990 + number}/fd/0").symlink_to(opened)
    devices = SysfsDevices(Tpus(node_uuid=NODE, sysfs=sysfs, proc=proc))
    first, second = devices.discover()
    assert devices.users([first.device_id, second.device_id]) == {
        second.device_id: "is in use by process 999999991, outside of this lease"
    }


# --- both, and several ----------------------------------------------------------------------------


def a_gpu(sysfs: Path) -> str:
    amd_gpu(sysfs, 0, unique_id=5)
    return "class/kfd"


def a_chip(sysfs: Path) -> str:
    vfio_chip(sysfs, 0)
    return "bus/pci"


@pytest.mark.parametrize(("kind", "make"), [("rocm", a_gpu), ("tpu", a_chip)])
def test_what_was_there_once_is_told_not_dropped(tmp_path: Path, kind: str, make: Any) -> None:
    folder = make(tmp_path)
    devices = insist(kind, tmp_path)
    (before,) = devices.discover()
    assert devices.discover() == (before,)
    (tmp_path / folder).rename(tmp_path / "away")
    (gone,) = devices.discover()
    assert gone.device_id == before.device_id
    assert gone.fault.startswith("the kernel no longer shows this device")
    (tmp_path / "away").rename(tmp_path / folder)
    assert devices.discover() == (before,)
    devices.close()


@pytest.mark.parametrize(
    ("kind", "words"),
    [("rocm", r"no AMD GPU with a unique id .*amdgpu"), ("tpu", r"no TPU chip .*lspci")],
)
def test_who_insists_does_not_start_without(tmp_path: Path, kind: str, words: str) -> None:
    with pytest.raises(DevicesUnavailable, match=f'devices: "{kind}" was asked for, but .*{words}'):
        insist(kind, tmp_path)


def test_auto_offers_all_that_there_is(tmp_path: Path) -> None:
    """Whatever NVML shows on this machine stands before."""
    amd_gpu(tmp_path, 0, unique_id=5)
    vfio_chip(tmp_path, 0)
    devices = insist("auto", tmp_path)
    found = [d.kind for d in devices.discover() if d.kind is not DeviceKind.GPU]
    assert found == [DeviceKind.AMD_GPU, DeviceKind.TPU]
    shutil.rmtree(tmp_path)
    assert [bool(d.fault) for d in devices.discover()[-2:]] == [True, True]


def test_several_ways_answer_each_for_its_own(tmp_path: Path) -> None:
    amd_gpu(tmp_path, 0, unique_id=5)
    pci_chip(tmp_path, "0000:00:04.0", "0x006f")
    both = AllOf(insist("rocm", tmp_path), insist("tpu", tmp_path))
    gpu, chip = both.discover()
    assert list(both.users([gpu.device_id, chip.device_id])) == [chip.device_id]
    assert both.users(["GPU-0"]) == {"GPU-0": "the kernel shows no such device"}
    assert choose((gpu, chip), (chip.device_id,)) == (chip,)
    with pytest.raises(DevicesUnavailable, match=r"offered_devices: '0': devices of several kinds"):
        choose((gpu, chip), ("0",))
