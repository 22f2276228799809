"""The things themselves that a node has free: which devices, which cores, which ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.view import Part
from controlplane.scheduling.devices import will_do

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.model.node import Device
    from controlplane.model.view import NodeView
    from controlplane.scheduling.ask import Ask


class Stock:
    """What is still free of one node, thing by thing. Changed by `take` alone."""

    __slots__ = ("cores", "devices", "memory", "millicores", "mixed", "ports", "view")

    def __init__(self, view: NodeView, *, mixed: bool) -> None:
        """`view`: the node as the decision found it. `mixed`: whether its devices are of several
        kinds."""
        self.view = view
        self.mixed = mixed
        self.millicores = view.free_millicores
        self.memory = view.free_memory_bytes
        self.devices = view.free_devices
        self.cores = view.free_cpu_ids
        self.ports = view.free_ports

    def take(self, ask: Ask, workers: int, ports: int) -> tuple[Part, Sequence[Device]]:
        """Claim things for so many workers, and tell the devices; the caller has seen that they
        are there."""
        devices = self._devices(ask, ask.gpus * workers) if ask.gpus else ()
        if ask.shape.exclusive:
            millicores, memory, cores = self.millicores, self.memory, self.cores
        else:
            millicores, memory = ask.millicores * workers, ask.memory * workers
            cores = self.cores[: ask.cores * workers]
        self.cores = self.cores[len(cores) :]
        self.millicores -= millicores
        self.memory -= memory
        given, self.ports = self.ports[:ports], self.ports[ports:]
        part = Part(
            node_uuid=self.view.uuid,
            workers=workers,
            device_ids=tuple([d.device_id for d in devices]),
            cpu_ids=cores,
            cpu_millicores=millicores,
            memory_bytes=memory,
            ports=given,
        )
        return part, devices

    def _devices(self, ask: Ask, count: int) -> Sequence[Device]:
        """Devices that will do, close to each other: of one NUMA node where one has enough."""
        fitting = self.devices
        if not ask.all_kinds and self.mixed:
            shape = ask.shape
            fitting = tuple(d for d in fitting if will_do(shape, d))
        chosen = fitting if count == len(fitting) else _close(fitting, count)[:count]
        if len(chosen) == len(self.devices):
            self.devices = ()
        else:
            gone = {device.device_id for device in chosen}
            self.devices = tuple([d for d in self.devices if d.device_id not in gone])
        return chosen


def _close(devices: Sequence[Device], count: int) -> Sequence[Device]:
    """The devices, in their order, but first those of the NUMA node that just has enough; without
    one, those of the fullest."""
    groups: dict[int | None, list[Device]] = {}
    for device in devices:
        groups.setdefault(device.numa_node, []).append(device)
    if len(groups) == 1:
        return devices
    wide = sorted(groups.values(), key=len)  # of equals, that of the first device
    enough = next((group for group in wide if len(group) >= count), None)
    if enough is not None:
        return enough
    return [device for group in reversed(wide) for device in group]
