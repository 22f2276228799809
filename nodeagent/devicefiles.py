"""Which device nodes are whose, as far as drivers and the kernel tell."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from nodeagent.devices.rocm import gpu_files
from nodeagent.devices.sysfs import names
from nodeagent.devices.tpu import chip_files

_NVIDIA = re.compile(r"nvidia(\d+)")
_MINOR = re.compile(r"^Device Minor:\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where the kernel's file systems are."""

    dev: Path = Path("/dev")
    """Device nodes."""
    proc: Path = Path("/proc")
    """NVIDIA's driver tells there which is whose."""
    sysfs: Path = Path("/sys")
    """And the kernel here."""


def device_files(host: Host) -> dict[str, str]:
    """Each device node of the host's accelerators, as a control group's list names it → the PCI
    address of its device; empty where the driver does not tell."""
    whose = {minor: address for address, minor in nvidia_minors(host.proc).items()}
    nvidia = {node: whose.get(minor, "") for minor, node in nvidia_nodes(host.dev).items()}
    return nvidia | dict(gpu_files(host.sysfs)) | dict(chip_files(host.sysfs))


def nvidia_nodes(dev: Path) -> dict[int, str]:
    """Device nodes of NVIDIA's GPUs: minor number → as a control group's list names it."""
    found = {}
    for name in names(dev):
        if _NVIDIA.fullmatch(name):
            status = (dev / name).stat()
            if stat.S_ISCHR(status.st_mode):
                minor = os.minor(status.st_rdev)
                found[minor] = f"c {os.major(status.st_rdev)}:{minor}"
    return found


def nvidia_minors(proc: Path) -> dict[str, int]:
    """PCI address of each GPU → minor number of its node, as NVIDIA's driver tells."""
    found = {}
    for address in names(proc / "driver/nvidia/gpus"):
        try:
            text = (proc / "driver/nvidia/gpus" / address / "information").read_text()
        except OSError:
            continue
        if told := _MINOR.search(text):
            found[address.lower()] = int(told[1])
    return found
