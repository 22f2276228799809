"""Usage on the wire: products of amounts and time become durations, exact to the nanosecond."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from controlplane.model.usage import Key, Usage, UsageGroup, UsageSum
from controlplane.v1 import usage_pb2, usage_service_pb2
from controlplane.wire.basics import EnumWire, duration

if TYPE_CHECKING:
    from collections.abc import Mapping

USAGE_GROUPS = EnumWire(UsageGroup, usage_service_pb2.UsageGroup, "USAGE_GROUP")
_NANO = 1_000_000_000
_GIB = 1 << 30


def usage_message(usage: Usage) -> usage_pb2.AttemptUsage:
    """What an attempt used."""
    held_us = usage.held_us
    return usage_pb2.AttemptUsage(
        device_times=_device_times({model: count * held_us for model, count in usage.devices}),
        core_time=_of_ns(usage.cpu_millicores * held_us),
        memory_gib_time=_of_ns(usage.memory_bytes * held_us * 1000 // _GIB),
        peak_memory_bytes=usage.peak_memory_bytes,
        stdout_bytes=usage.stdout_bytes,
        stderr_bytes=usage.stderr_bytes,
        waiting_time=duration(usage.waiting_us),
        staging_time=duration(usage.staging_us),
        starting_time=duration(usage.starting_us),
        running_time=duration(usage.running_us),
        stopping_time=duration(usage.stopping_us),
    )


def row_message(key: Key, total: UsageSum) -> usage_service_pb2.UsageRow:
    """The sum for one key; a job's key is its number."""
    return usage_service_pb2.UsageRow(
        key=f"jobs/{key}" if isinstance(key, int) else key,
        device_times=_device_times(total.device_us),
        core_time=_of_ns(total.core_ns),
        jobs=total.jobs,
        attempts=total.attempts,
        living_attempts=total.living_attempts,
        failed_attempts=total.failed_attempts,
        peak_memory_bytes=total.peak_memory_bytes,
    )


def _device_times(device_us: Mapping[str, int]) -> list[usage_pb2.DeviceTime]:
    return [
        usage_pb2.DeviceTime(model=model, time=duration(device_us[model]))
        for model in sorted(device_us)
    ]


def _of_ns(nanoseconds: int) -> Duration:
    return Duration(seconds=nanoseconds // _NANO, nanos=nanoseconds % _NANO)
