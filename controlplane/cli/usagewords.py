"""What was used, in words for people: hours of GPUs and cores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.cli import text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.duration_pb2 import Duration

    from controlplane.v1.usage_pb2 import AttemptUsage, DeviceTime


def seconds(length: Duration) -> float:
    """Give a duration in seconds: the float nearest to it, which prints as it was written."""
    return length.ToNanoseconds() / 1_000_000_000


def device_seconds(times: Iterable[DeviceTime]) -> float:
    """Give the device time of all models together, in seconds."""
    return sum(seconds(one.time) for one in times)


def hours(length_s: float) -> str:
    """Write seconds as hours: `0.025`, `12.500`; what is there but too little to show, `<0.001`."""
    written = f"{length_s / 3600:.3f}"
    return "<0.001" if written == "0.000" and length_s > 0 else written


def usage_words(usage: AttemptUsage) -> str:
    """Say on one line what an attempt used: `1.667 GPU-hours (H100), 0.833 core-hours, …`."""
    parts = []
    if usage.device_times:
        models = ", ".join(one.model for one in usage.device_times)
        parts.append(f"{hours(device_seconds(usage.device_times))} GPU-hours ({models})")
    parts.append(f"{hours(seconds(usage.core_time))} core-hours")
    if usage.HasField("peak_memory_bytes"):
        parts.append(f"at most {text.size(usage.peak_memory_bytes)} in memory by one worker")
    waited_us = usage.waiting_time.ToMicroseconds()
    return text.visible_line(f"{', '.join(parts)}; waited {text.duration(waited_us)} before")
