"""Progress of attempts on the wire."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from controlplane.model.progress import (
    LONGEST_FAULT,
    LONGEST_NAME,
    LONGEST_PATH,
    MOST_FAULTS,
    MOST_METRICS,
    MOST_POINTS,
    Checkpoint,
    LeaseProgress,
    Point,
)
from controlplane.v1 import agent_service_pb2, progress_pb2
from controlplane.wire.basics import from_timestamp, timestamp

if TYPE_CHECKING:
    from controlplane.model.progress import Progress


def progress_message(progress: Progress, *, lives: bool) -> progress_pb2.Progress:
    """How far an attempt is. `lives`: whether its end is still to come."""
    last, saved = progress.last, progress.checkpoint
    return progress_pb2.Progress(
        rank=progress.rank,
        time=timestamp(last.time_us) if last is not None else None,
        step=last.step if last is not None else None,
        fraction=last.fraction if last is not None else None,
        metrics=dict(last.metrics) if last is not None else None,
        checkpoint=checkpoint_message(saved) if saved is not None else None,
        predicted_end_time=timestamp(progress.end_us) if lives else None,
        faults=[words for _, several in progress.faults for words in several],
    )


def checkpoint_message(saved: Checkpoint) -> progress_pb2.Checkpoint:
    """What was saved."""
    return progress_pb2.Checkpoint(
        time=timestamp(saved.time_us), rank=saved.rank, path=saved.path, step=saved.step
    )


def point_message(point: Point) -> progress_pb2.ProgressPoint:
    """One point."""
    return progress_pb2.ProgressPoint(
        time=timestamp(point.time_us),
        step=point.step,
        fraction=point.fraction,
        metrics=dict(point.metrics),
    )


def lease_progress_message(told: LeaseProgress) -> agent_service_pb2.LeaseProgress:
    """What the workers of a lease reported."""
    return agent_service_pb2.LeaseProgress(
        lease_id=told.lease_id,
        token=told.token,
        rank=told.rank,
        points=[point_message(point) for point in told.points],
        checkpoint=checkpoint_message(told.checkpoint) if told.checkpoint is not None else None,
        faults=told.faults,
    )


def lease_progress_value(message: agent_service_pb2.LeaseProgress) -> LeaseProgress:
    """What the workers of a lease reported. ValueError for what no agent would send."""
    _at_most(len(message.points), MOST_POINTS, "points")
    _at_most(len(message.faults), MOST_FAULTS, "faults")
    for words in message.faults:
        _at_most(len(words), LONGEST_FAULT, "characters of a fault")
    points = tuple(map(_point, message.points))
    if list(points) != sorted(points, key=lambda point: point.time_us):
        raise ValueError("points: must be in order of time")
    return LeaseProgress(
        lease_id=message.lease_id,
        token=message.token,
        rank=message.rank if message.HasField("rank") else None,
        points=points,
        checkpoint=_checkpoint(message.checkpoint) if message.HasField("checkpoint") else None,
        faults=tuple(message.faults),
    )


def _point(message: progress_pb2.ProgressPoint) -> Point:
    _at_most(len(message.metrics), MOST_METRICS, "metrics")
    for name, value in message.metrics.items():
        _at_most(len(name), LONGEST_NAME, "characters of a metric's name")
        if not math.isfinite(value):
            raise ValueError("metrics: must be finite numbers")
    fraction = message.fraction if message.HasField("fraction") else None
    if fraction is not None and not 0 <= fraction <= 1:
        raise ValueError(f"fraction: {fraction}: must be 0 to 1")
    return Point(
        time_us=_moment(message),
        step=_step(message),
        fraction=fraction,
        metrics=tuple(sorted(message.metrics.items())),
    )


def _checkpoint(message: progress_pb2.Checkpoint) -> Checkpoint:
    _at_most(len(message.path.encode()), LONGEST_PATH, "bytes of a checkpoint's path")
    return Checkpoint(
        time_us=_moment(message), rank=message.rank, path=message.path, step=_step(message)
    )


def _moment(message: progress_pb2.ProgressPoint | progress_pb2.Checkpoint) -> int:
    found = from_timestamp(message, "time")
    if found is None:
        raise ValueError("time: is required")
    return found


def _step(message: progress_pb2.ProgressPoint | progress_pb2.Checkpoint) -> int | None:
    if not message.HasField("step"):
        return None
    if message.step < 0:
        raise ValueError(f"step: {message.step}: must not be negative")
    return message.step


def _at_most(found: int, most: int, what: str) -> None:
    if found > most:
        raise ValueError(f"{found} {what}; at most {most} are allowed")
