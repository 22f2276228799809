"""Devices that exist only in the agent's configuration, for trials without hardware."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from controlplane.model.node import Device, DeviceKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LABEL = "Simulated"
"""Begins every model name, so that nobody takes one of these for a real device."""


class SimulatedDevices:
    """A fixed set of healthy devices.

    The same node always has the same ids, across restarts of its agent.
    """

    def __init__(self, *, count: int, model: str, memory_bytes: int, node_uuid: str) -> None:
        """Make `count` devices of `memory_bytes` each.

        `model` is shown behind the label "Simulated".
        """
        if count < 0:
            raise ValueError(f"simulated_count: {count} is negative; give 0 or more")
        if memory_bytes <= 0:
            raise ValueError(
                f"simulated_memory_bytes: {memory_bytes} is no size; give the bytes of one device"
            )
        namespace = uuid.UUID(node_uuid)
        shown = model if model.startswith(LABEL) else f"{LABEL} {model}".rstrip()
        self._devices = tuple(
            Device(
                device_id=f"SIM-{uuid.uuid5(namespace, f'simulated-device-{index}')}",
                kind=DeviceKind.SIMULATED,
                model=shown,
                memory_bytes=memory_bytes,
                index=index,
            )
            for index in range(count)
        )

    def discover(self) -> tuple[Device, ...]:
        """All of them, always without fault."""
        return self._devices

    def users(self, device_ids: Sequence[str]) -> Mapping[str, str]:
        """Nobody can use what is not there."""
        return {}

    def close(self) -> None:
        """Nothing is held."""
