"""A node's free resources while a plan is being made: what earlier placements of the same plan
took is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.node import DeviceKind
from controlplane.model.view import Part

if TYPE_CHECKING:
    from controlplane.model.node import Device
    from controlplane.model.spec import Resources
    from controlplane.model.view import NodeView

MILLI = 1000
TPU = "tpu"
"""Is in the name of every TPU's model."""


def model_matches(wanted: str | None, device: Device) -> bool:
    """Whether a device is of the wanted model: the wanted words are a part of its name (`H100` in
    `NVIDIA H100 80GB`). A TPU chip is no GPU: it must be wanted by that name (`TPU v4`, `TPU`)."""
    words = "" if wanted is None else wanted.casefold()
    if device.kind is DeviceKind.TPU and TPU not in words:
        return False
    return words in device.model.casefold()


class ScratchNode:
    """What is still free of one node. Changed by `take` alone."""

    __slots__ = ("cores", "devices", "memory", "millicores", "ports", "view")

    def __init__(self, view: NodeView) -> None:
        """`view`: the node as the decision found it."""
        self.view = view
        self.millicores = view.free_millicores
        self.memory = view.free_memory_bytes
        self.devices = view.free_devices
        self.cores = view.free_cpu_ids
        self.ports = view.free_ports

    def serves(self, owner: str) -> bool:
        """Whether it takes work, and this owner's."""
        return self.view.takes_work and self.view.only_owner in ("", owner)

    def fits(self, need: Resources) -> int:
        """How many workers with this need would fit now."""
        most = self.millicores // need.cpu_millicores
        if need.cpu_millicores % MILLI == 0:
            most = min(most, len(self.cores) // (need.cpu_millicores // MILLI))
        if need.memory_bytes:
            most = min(most, self.memory // need.memory_bytes)
        if need.gpus and most > 0:
            most = min(most, len(self._matching(need)) // need.gpus)
        return max(most, 0)

    def _matching(self, need: Resources) -> tuple[Device, ...]:
        return tuple(d for d in self.devices if model_matches(need.gpu_model, d))

    def take(self, need: Resources, workers: int, ports: int) -> Part:
        """Claim room for so many workers; the caller has seen that they fit."""
        devices = self._matching(need)[: need.gpus * workers]
        taken = {d.device_id for d in devices}
        whole = need.cpu_millicores % MILLI == 0
        cores = self.cores[: need.cpu_millicores // MILLI * workers] if whole else ()
        part = Part(
            node_uuid=self.view.uuid,
            workers=workers,
            device_ids=tuple(d.device_id for d in devices),
            cpu_ids=cores,
            cpu_millicores=need.cpu_millicores * workers,
            memory_bytes=need.memory_bytes * workers,
            ports=self.ports[:ports],
        )
        self.devices = tuple(d for d in self.devices if d.device_id not in taken)
        self.cores = self.cores[len(cores) :]
        self.millicores -= part.cpu_millicores
        self.memory -= part.memory_bytes
        self.ports = self.ports[ports:]
        return part

    def leftover(self, need: Resources, workers: int) -> tuple[int, int, int, str]:
        """What would be left after so many workers: the less, the better the fit. Ends with the
        identity, for order."""
        return (
            len(self.devices) - need.gpus * workers,
            self.millicores - need.cpu_millicores * workers,
            self.memory - need.memory_bytes * workers,
            self.view.uuid,
        )
