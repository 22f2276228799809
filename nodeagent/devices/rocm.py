"""AMD GPUs, as the kernel's compute driver (KFD) tells of them. ROCm itself need not be there."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.model.node import Device, DeviceKind
from nodeagent.devices.sysfs import device_number, names, numa_node, number, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

log = logging.getLogger(__name__)

KFD = "class/kfd/kfd"
_VIDEO_MEMORY = (1, 2)
"""Types of memory banks that are a GPU's own: what the CPU sees of it, and what it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KfdGpu:
    """A node of KFD's topology that is a GPU, or a partition of one."""

    gpu_id: int
    """KFD's name for it; never 0, which says CPU."""
    unique_id: int
    """Burnt into the hardware; 0 where the driver tells none."""
    pci_bus_id: str
    """As the kernel writes it. The function of a partition tells which it is."""
    render_minor: int
    """Minor number of its render node."""
    target: str
    """What compilers call its instructions, as `gfx942`."""
    memory_bytes: int
    """Its own memory, in bytes; 0 where it has none."""


class RocmGpus:
    """Those with a UUID: the one thing by which ROCm finds the same GPU in and out of a cage."""

    setting = "rocm"
    missing = (
        "the kernel shows no AMD GPU with a unique id below /sys/class/kfd; load the driver with "
        "`modprobe amdgpu` and check `dmesg`"
    )

    def __init__(self, *, sysfs: Path = Path("/sys")) -> None:
        """`sysfs`: where it is mounted."""
        self._sysfs = sysfs
        self._told: set[int] = set()

    def scan(self) -> Sequence[Device]:
        """Every GPU that ROCm can be told of by UUID."""
        gpus = kfd_gpus(self._sysfs)
        same = Counter(gpu.unique_id for gpu in gpus)
        found = []
        for index, gpu in enumerate(gpus):
            if gpu.unique_id and same[gpu.unique_id] == 1:
                found.append(self._device(index, gpu))
            elif gpu.gpu_id not in self._told:
                self._told.add(gpu.gpu_id)
                words = "no unique id" if not gpu.unique_id else "the unique id of another"
                log.warning("the AMD GPU %s is not offered: it has %s", gpu.pci_bus_id, words)
        return found

    def _device(self, index: int, gpu: KfdGpu) -> Device:
        pci_device = self._sysfs / f"class/drm/renderD{gpu.render_minor}/device"
        return Device(
            device_id=uuid_of(gpu),
            kind=DeviceKind.AMD_GPU,
            model=text(pci_device / "product_name") or f"AMD GPU {gpu.target}",
            memory_bytes=gpu.memory_bytes,
            index=index,
            pci_bus_id=gpu.pci_bus_id,
            numa_node=numa_node(pci_device),
        )

    def pids(self, device: Device) -> Sequence[int]:
        """Processes that have memory of the GPU."""
        ids = [gpu.gpu_id for gpu in kfd_gpus(self._sysfs) if uuid_of(gpu) == device.device_id]
        processes = self._sysfs / KFD / "proc"
        return [
            int(pid)
            for pid in names(processes)
            if pid.isdigit() and any(number(processes / pid / f"vram_{each}") for each in ids)
        ]


def uuid_of(gpu: KfdGpu) -> str:
    """A GPU's name to ROCm."""
    return f"GPU-{gpu.unique_id:016x}"


def kfd_gpus(sysfs: Path) -> list[KfdGpu]:
    """All GPUs of KFD's topology, in its order. One that the agent may not see is left out."""
    topology = sysfs / KFD / "topology/nodes"
    return [
        _gpu(topology / name, gpu_id)
        for name in names(topology)
        if name.isdigit() and (gpu_id := number(topology / name / "gpu_id"))
    ]


def gpu_files(sysfs: Path) -> Iterator[tuple[str, str]]:
    """Device nodes of all GPUs: as a control group's list names them, and whose each is, by PCI
    address. `/dev/kfd` belongs to all: KFD itself looks whether a process may open the render node
    of a GPU before it lets the process use it."""
    for gpu in kfd_gpus(sysfs):
        render = f"class/drm/renderD{gpu.render_minor}"
        cards = sysfs / "bus/pci/devices" / gpu.pci_bus_id / "drm"
        ways = [sysfs / render, *(cards / name for name in names(cards) if name[:4] == "card")]
        for way in ways:
            if found := device_number(way / "dev"):
                yield found, gpu.pci_bus_id


def _gpu(node: Path, gpu_id: int) -> KfdGpu:
    told = _properties(node / "properties")
    banks = [_properties(node / "mem_banks" / n / "properties") for n in names(node / "mem_banks")]
    where, version = told.get("location_id", 0), told.get("gfx_target_version", 0)
    bus, slot, function = where >> 8 & 0xFF, where >> 3 & 0x1F, where & 7
    return KfdGpu(
        gpu_id=gpu_id,
        unique_id=told.get("unique_id", 0),
        pci_bus_id=f"{told.get('domain', 0):04x}:{bus:02x}:{slot:02x}.{function}",
        render_minor=told.get("drm_render_minor", -1),
        target=f"gfx{version // 10_000}{version // 100 % 100:x}{version % 100:x}",
        memory_bytes=sum(
            bank.get("size_in_bytes", 0) for bank in banks if bank.get("heap_type") in _VIDEO_MEMORY
        ),
    )


def _properties(path: Path) -> Mapping[str, int]:
    """A file of lines with a name and a number each."""
    pairs = (line.split() for line in text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
