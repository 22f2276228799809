"""Google's TPU chips, as PCI devices. Their library would take them, so it is not asked."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.model.node import Device, DeviceKind
from nodeagent.devices.sysfs import device_number, names, numa_node, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GOOGLE = "0x1ae0"
MODELS = {
    "0x005e": "TPU v4",
    "0x0062": "TPU v5p",
    "0x0063": "TPU v5e",
    "0x006f": "TPU v6e",
    "0x0076": "TPU7x",
}
"""By PCI device id; and before these were told apart by their subsystem:"""
FIRST, FIRST_MODELS = "0x0027", {"0x004e": "TPU v2", "0x004f": "TPU v3"}
_ACCEL = re.compile(r"accel(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One chip: a PCI device, of which the newest generations show two functions."""

    pci_bus_id: str
    """Address of its first function."""
    model: str
    """Its generation."""
    accel: int | None
    """Number of its `/dev/accelN`; None where it has none."""
    groups: tuple[int, ...]
    """IOMMU groups whose `/dev/vfio/N` it has instead."""
    numbers: tuple[str, ...]
    """Its device nodes, as a control group's list names them."""


class Tpus:
    """All chips of the host."""

    setting = "tpu"
    missing = (
        "the kernel shows no TPU chip (PCI vendor 0x1ae0) below /sys/bus/pci/devices; check "
        "`lspci -nn`"
    )

    def __init__(
        self, *, node_uuid: str, sysfs: Path = Path("/sys"), proc: Path = Path("/proc")
    ) -> None:
        """`node_uuid`: a chip has no id of its own, so its node's stands before its address."""
        self._node = uuid.UUID(node_uuid)
        self._sysfs, self._proc = sysfs, proc

    def scan(self) -> Sequence[Device]:
        """Every chip, by the number that its library gives it."""
        fault = "no driver has made a device node for this chip; see `lspci -k` and `dmesg`"
        return [
            Device(
                device_id=self._id(chip),
                kind=DeviceKind.TPU,
                model=chip.model,
                memory_bytes=0,
                index=place if chip.accel is None else chip.accel,
                pci_bus_id=chip.pci_bus_id,
                numa_node=numa_node(self._sysfs / "bus/pci/devices" / chip.pci_bus_id),
                fault="" if chip.numbers else fault,
            )
            for place, chip in enumerate(chips(self._sysfs))
        ]

    def _id(self, chip: Chip) -> str:
        return f"TPU-{uuid.uuid5(self._node, chip.pci_bus_id)}"

    def pids(self, device: Device) -> Sequence[int]:
        """Processes that have a device node of the chip open."""
        files = {
            name
            for chip in chips(self._sysfs)
            if chip.pci_bus_id == device.pci_bus_id
            for name in (f"/dev/accel{chip.accel}", *(f"/dev/vfio/{n}" for n in chip.groups))
        }
        return [
            int(pid)
            for pid in names(self._proc)
            if pid.isdigit() and any(link in files for link in _opened(self._proc / pid / "fd"))
        ]


def chips(sysfs: Path) -> list[Chip]:
    """All chips, in the order of their device nodes, which is that of their library."""
    functions: dict[str, list[str]] = {}
    pci = sysfs / "bus/pci/devices"
    for address in names(pci):
        if text(pci / address / "vendor") == GOOGLE and _model(pci / address):
            functions.setdefault(address.rpartition(".")[0], []).append(address)
    accels = {
        (sysfs / "class/accel" / name / "device").resolve().name: int(match[1])
        for name in names(sysfs / "class/accel")
        if (match := _ACCEL.fullmatch(name))
    }
    found = [_chip(sysfs, addresses, accels.get(addresses[0])) for addresses in functions.values()]
    return sorted(found, key=lambda chip: (chip.accel or 0, chip.groups, chip.pci_bus_id))


def chip_files(sysfs: Path) -> Iterator[tuple[str, str]]:
    """As `gpu_files`, for chips. `/dev/vfio/vfio` belongs to all, and gives nobody a chip."""
    for chip in chips(sysfs):
        for each in chip.numbers:
            yield each, chip.pci_bus_id


def _chip(sysfs: Path, addresses: list[str], accel: int | None) -> Chip:
    pci = sysfs / "bus/pci/devices"
    linked = [(pci / address / "iommu_group").resolve().name for address in addresses]
    groups = [int(name) for name in linked if (sysfs / "class/vfio" / name / "dev").is_file()]
    ways = [sysfs / f"class/vfio/{group}" for group in groups]
    for address in addresses:
        opened = pci / address / "vfio-dev"  # Newer kernels let one open a device past its group.
        ways += [opened / name for name in names(opened)]
    if accel is not None:
        ways.append(sysfs / f"class/accel/accel{accel}")
    return Chip(
        pci_bus_id=addresses[0],
        model=_model(pci / addresses[0]),
        accel=accel,
        groups=tuple(groups),
        numbers=tuple(filter(None, (device_number(way / "dev") for way in ways))),
    )


def _model(pci_device: Path) -> str:
    device = text(pci_device / "device")
    if device == FIRST:
        return FIRST_MODELS.get(text(pci_device / "subsystem_device"), "")
    return MODELS.get(device, "")


def _opened(folder: Path) -> Iterator[str]:
    for name in names(folder):
        try:
            yield str((folder / name).readlink())
        except OSError:  # It was closed meanwhile.
            continue
