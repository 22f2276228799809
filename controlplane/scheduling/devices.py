"""Which devices will do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.node import DeviceKind

if TYPE_CHECKING:
    from controlplane.model.node import Device
    from controlplane.model.view import Shape

TPU = "tpu"
"""Is in the name of every TPU's model."""


def model_matches(wanted: str | None, device: Device) -> bool:
    """Whether a device is of the wanted model: the wanted words are a part of its name (`H100` in
    `NVIDIA H100 80GB`). A TPU chip is no GPU: it must be wanted by that name (`TPU v4`, `TPU`)."""
    words = "" if wanted is None else wanted.casefold()
    if device.kind is DeviceKind.TPU and TPU not in words:
        return False
    return words in device.model.casefold()


def will_do(shape: Shape, device: Device) -> bool:
    """Whether a device is of the kind that a shape asks for."""
    return (
        model_matches(shape.resources.gpu_model, device)
        and device.memory_bytes >= shape.gpu_memory_bytes
    )
