"""By which variables a worker's libraries find its devices and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.node import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from controlplane.model.node import Device

SHAPES: Mapping[int, str] = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1"}
"""How some of a host's TPU chips hang together, by their number. A whole host's its library knows,
and others it cannot use."""


def visibility(own: Collection[str], host: Sequence[Device]) -> dict[str, str]:
    """The variables of a worker that holds the devices `own` of all that its host has.

    A kind that the host has and the worker has not is named too, with nothing behind it. HIP reads
    CUDA_VISIBLE_DEVICES as well as CUDA does, and takes an empty one for none at all.
    """
    amd = [d.device_id for d in host if d.kind is DeviceKind.AMD_GPU]
    chips = {d.device_id: str(d.index) for d in host if d.kind is DeviceKind.TPU}
    found = {"CUDA_VISIBLE_DEVICES": ",".join(d for d in own if d not in amd and d not in chips)}
    if amd:
        found["ROCR_VISIBLE_DEVICES"] = ",".join(d for d in own if d in amd)
    if chips:
        seen = [chips[d] for d in own if d in chips]
        found["TPU_VISIBLE_CHIPS"] = ",".join(seen)
        if len(seen) < len(chips) and len(seen) in SHAPES:
            found["TPU_CHIPS_PER_PROCESS_BOUNDS"] = SHAPES[len(seen)]
            found["TPU_PROCESS_BOUNDS"] = "1,1,1"
    return found
