"""The agent's eyes: which accelerators this host has, and which of them can't be used.

Every way of finding devices answers the same two calls, `discover` and `close`, so that nothing
else in the agent knows where a device was seen. This room never decides who gets a device, never
hides one that it has seen before (a lost GPU is reported with its fault), and never changes a
device.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal, Protocol, assert_never

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from controlplane.model.node import Device

DevicesSource = Literal["auto", "nvml", "cpu", "simulated"]
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

    `DevicesUnavailable` for a name that no device has.
    """
    names = {name for device in found for name in (device.device_id, str(device.index))}
    for name in wanted:
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


class Shared:
    """Devices for several callers, one after another."""

    def __init__(self, devices: Devices) -> None:
        """`devices`: for one caller at a time."""
        self._devices = devices
        self._lock = threading.Lock()

    def discover(self) -> tuple[Device, ...]:
        """As theirs."""
        with self._lock:
            return self._devices.discover()

    def users(self, device_ids: Sequence[str]) -> Mapping[str, str]:
        """As theirs."""
        with self._lock:
            return self._devices.users(device_ids)

    def close(self) -> None:
        """As theirs."""
        with self._lock:
            self._devices.close()


def open_devices(
    kind: DevicesSource,
    *,
    simulated_count: int,
    simulated_model: str,
    simulated_memory_bytes: int,
    node_uuid: str,
) -> Devices:
    """Open the configured way of finding devices.

    `nvml` insists on NVIDIA's library and driver and raises `DevicesUnavailable` without them.
    `auto` offers what NVML shows and nothing where it does not answer; it logs the reason once and
    keeps trying, because at boot a driver may come up after the agent. `cpu` offers none.
    `simulated` offers `simulated_count` devices whose ids are derived from `node_uuid`; it raises
    `ValueError` for a negative count or no memory.
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
        case "auto" | "nvml":
            from nodeagent.devices.nvml import NvmlDevices

            devices = NvmlDevices()
            if kind == "nvml":
                devices.start()
            return devices
    assert_never(kind)
