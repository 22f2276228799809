"""The agent's eyes: which accelerators this host has, and which of them can't be used.

Every way of finding devices answers the same two calls, `discover` and `close`, so that nothing
else in the agent knows where a device was seen. This room never decides who gets a device, never
hides one that it has seen before (a lost GPU is reported with its fault), and never changes a
device.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, assert_never

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from controlplane.model.node import Device
    from nodeagent.devices.sysfs import SysfsDevices

DevicesSource = Literal["auto", "nvml", "rocm", "tpu", "cpu", "simulated"]
"""Where to look: see `open_devices`."""


class DevicesUnavailable(RuntimeError):
    """The configured way of finding devices does not work on this host.

    The message says why and what to do.
    """


class Devices(Protocol):
    """A way of finding the host's devices. One caller at a time: implementations hold no lock."""

    def discover(self) -> tuple[Device, ...]:
        """Look at every device now; the answer is ordered by index.

        Faults are told in `Device.fault`, never raised. It may block for as long as a driver does,
        so call it in a thread of its own, with a deadline.
        """
        ...

    def users(self, device_ids: Sequence[str]) -> Mapping[str, str]:
        """Those of these devices that cannot be used now, each with why, in words: broken, or in
        use by some process. It may block, as `discover` does."""
        ...

    def close(self) -> None:
        """Let go of the driver. A later `discover` takes it up again; closing twice is harmless."""
        ...


def choose(found: tuple[Device, ...], wanted: Sequence[str]) -> tuple[Device, ...]:
    """Those devices that an operator named by id or index; all of them where nothing is named.

    `DevicesUnavailable` for a name that no device has, and for an index that several have.
    """
    names = [name for device in found for name in (device.device_id, str(device.index))]
    for name in wanted:
        if names.count(name) > 1:
            raise DevicesUnavailable(
                f"offered_devices: {name!r}: devices of several kinds have this index; name each by"
                " its id, as `ccctl node show` does"
            )
        if name not in names:
            there = ", ".join(f"{d.index} ({d.device_id})" for d in found) or "none"
            raise DevicesUnavailable(
                f"offered_devices: {name!r}: this host has no such device; there are: {there}"
            )
    return tuple(d for d in found if not wanted or d.device_id in wanted or str(d.index) in wanted)


class CpuOnly:
    """A host that offers no devices."""

    def discover(self) -> tuple[Device, ...]:
        """Nothing, always."""
        return ()

    def users(self, device_ids: Sequence[str]) -> Mapping[str, str]:
        """There are none to be used."""
        return {}

    def close(self) -> None:
        """Nothing is held."""


class AllOf:
    """What several ways find, one after another."""

    def __init__(self, *ways: Devices) -> None:
        """`ways`: the first of them answers for devices that none has found."""
        self._ways = ways
        self._found: dict[str, Devices] = {}

    def discover(self) -> tuple[Device, ...]:
        """As theirs. An index is one way's own: devices of two kinds may have the same."""
        found = [(device, way) for way in self._ways for device in way.discover()]
        self._found = {device.device_id: way for device, way in found}
        return tuple(device for device, _ in found)

    def users(self, device_ids: Sequence[str]) -> Mapping[str, str]:
        """As theirs."""
        asked: dict[int, list[str]] = {}
        for device_id in device_ids:
            way = self._found.get(device_id, self._ways[0])
            asked.setdefault(self._ways.index(way), []).append(device_id)
        answers = [self._ways[place].users(ids) for place, ids in asked.items()]
        return {device_id: why for answer in answers for device_id, why in answer.items()}

    def close(self) -> None:
        """As theirs."""
        for way in self._ways:
            way.close()


class Shared:
    """Devices for several callers, one after another."""

    def __init__(self, devices: Devices) -> None:
        """`devices`: for one caller at a time."""
        self._devices = devices
        self._lock = threading.Lock()
        self.last: tuple[Device, ...] = ()
        """What was seen at the last look."""

    def discover(self) -> tuple[Device, ...]:
        """As theirs."""
        with self._lock:
            self.last = self._devices.discover()
            return self.last

    def users(self, device_ids: Sequence[str]) -> Mapping[str, str]:
        """As theirs."""
        with self._lock:
            return self._devices.users(device_ids)

    def close(self) -> None:
        """As theirs."""
        with self._lock:
            self._devices.close()


def process_words(pid: int) -> str:
    """A process, for people."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # It has gone, or lives in another namespace.
        return f"process {pid}"
    return f"process {pid} ({name})"


def open_devices(
    kind: DevicesSource,
    *,
    simulated_count: int,
    simulated_model: str,
    simulated_memory_bytes: int,
    node_uuid: str,
    sysfs: Path = Path("/sys"),
) -> Devices:
    """Open the configured way of finding devices.

    `nvml` insists on NVIDIA's library and driver, `rocm` on an AMD GPU and `tpu` on a TPU chip in
    `sysfs`; they raise `DevicesUnavailable` without. `auto` offers what all of these show; it logs
    once why NVML does not answer, and keeps trying, because at boot a driver may come up after the
    agent. `cpu` offers none. `simulated` offers `simulated_count` devices whose ids are derived
    from `node_uuid`; it raises `ValueError` for a negative count or no memory.
    """
    # Each way is imported only when it is used: an agent without GPUs should not carry the binding.
    match kind:
        case "cpu":
            return CpuOnly()
        case "simulated":
            from nodeagent.devices.simulated import SimulatedDevices

            return SimulatedDevices(
                count=simulated_count,
                model=simulated_model,
                memory_bytes=simulated_memory_bytes,
                node_uuid=node_uuid,
            )
        case "nvml":
            from nodeagent.devices.nvml import NvmlDevices

            nvidia = NvmlDevices(sysfs=sysfs)
            nvidia.start()
            return nvidia
        case "rocm" | "tpu":
            insisted = _in_sysfs(kind, node_uuid, sysfs)
            insisted.start()
            return insisted
        case "auto":
            from nodeagent.devices.nvml import NvmlDevices

            return AllOf(
                NvmlDevices(sysfs=sysfs),
                _in_sysfs("rocm", node_uuid, sysfs),
                _in_sysfs("tpu", node_uuid, sysfs),
            )
    assert_never(kind)


def _in_sysfs(kind: Literal["rocm", "tpu"], node_uuid: str, sysfs: Path) -> SysfsDevices:
    from nodeagent.devices.rocm import RocmGpus
    from nodeagent.devices.sysfs import SysfsDevices
    from nodeagent.devices.tpu import Tpus

    own = RocmGpus(sysfs=sysfs) if kind == "rocm" else Tpus(node_uuid=node_uuid, sysfs=sysfs)
    return SysfsDevices(own)
