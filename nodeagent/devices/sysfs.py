"""Devices that the kernel tells of in sysfs, so that no vendor's library is needed.

What sysfs does not tell is left at "unknown", and a device that was seen once stays in the answer.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from nodeagent.devices import DevicesUnavailable, process_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from controlplane.model.node import Device


class Kind(Protocol):
    """One kind of devices in sysfs."""

    setting: str
    """The word in the agent's setting `devices` that insists on them."""
    missing: str
    """Said where there are none: what was looked for, and what to do."""

    def scan(self) -> Sequence[Device]:
        """Those that are there now."""
        ...

    def pids(self, device: Device) -> Sequence[int]:
        """Processes that use one, as far as the agent may know."""
        ...


class SysfsDevices:
    """The host's devices of one kind."""

    def __init__(self, kind: Kind) -> None:
        """Look at nothing yet."""
        self._kind = kind
        self._known: dict[str, Device] = {}

    def start(self) -> None:
        """Raises `DevicesUnavailable` where there are none."""
        if not self.discover():
            raise DevicesUnavailable(
                f'devices: "{self._kind.setting}" was asked for, but {self._kind.missing}. '
                'Use "auto" to offer what there is, or "cpu" to offer no devices.'
            )

    def discover(self) -> tuple[Device, ...]:
        """Those that are there, and with a fault those that were."""
        present = {device.device_id: device for device in self._kind.scan()}
        gone = "the kernel no longer shows this device; see `dmesg`, then reboot the host"
        known = {key: replace(old, fault=gone) for key, old in self._known.items()}
        self._known = known | present
        return tuple(sorted(self._known.values(), key=lambda d: (d.index, d.device_id)))

    def users(self, device_ids: Sequence[str]) -> Mapping[str, str]:
        """Those that are not there, or that some process uses."""
        present = {device.device_id: device for device in self._kind.scan()}
        found: dict[str, str] = {}
        for device_id in device_ids:
            device = present.get(device_id)
            if device is None:
                found[device_id] = "the kernel shows no such device"
            elif device.fault:
                found[device_id] = device.fault
            elif pids := self._kind.pids(device):
                words = ", ".join(map(process_words, pids))
                found[device_id] = f"is in use by {words}, outside of this lease"
        return found

    def close(self) -> None:
        """Nothing is held."""


def text(path: Path) -> str:
    """A file's one line; empty where there is none."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """A file's number, which may be `0x…`; None where there is none."""
    try:
        return int(text(path), 0)
    except ValueError:
        return None


def names(folder: Path) -> list[str]:
    """What is in a folder, numbers in their order; nothing where there is none."""
    try:
        found = os.listdir(folder)
    except OSError:
        return []
    return sorted(found, key=lambda name: (int(name) if name.isdigit() else -1, name))


def numa_node(pci_device: Path) -> int | None:
    """The NUMA node of a PCI device; None where the kernel knows none."""
    found = number(pci_device / "numa_node")
    return found if found is not None and found >= 0 else None


def device_number(path: Path) -> str:
    """What a control group's list calls a character device, by its file `dev`: `c 226:128`; empty
    where there is none."""
    found = text(path)
    return f"c {found}" if found else ""
