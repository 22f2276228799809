"""Progress of an attempt in words, and series of metrics as tables."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from controlplane.cli import text
from controlplane.cli.jobtables import cell, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

    from controlplane.v1.job_service_pb2 import GetMetricsResponse
    from controlplane.v1.progress_pb2 import Progress, ProgressPoint


def progress_words(progress: Progress, now_us: int) -> str:
    """How far it is, on one line: `42.0 %, step 1200, loss 0.3; ends in 12m00s (14:05:09)`."""
    parts = []
    if progress.HasField("fraction"):
        parts.append(f"{100 * progress.fraction:.1f} %")
    if progress.HasField("step"):
        parts.append(f"step {progress.step}")
    parts += metric_words(progress.metrics)
    told = ", ".join(parts)
    if progress.HasField("predicted_end_time"):
        end_us = text.micros(progress.predicted_end_time)
        left = f"in {text.duration(end_us - now_us)}" if end_us > now_us else "about now"
        told += f"; ends {left} ({text.local_time(end_us)})"
    return text.visible_line(told)


def metric_words(metrics: Mapping[str, float]) -> list[str]:
    """Each metric with its value."""
    return [f"{name} {metrics[name]:.6g}" for name in sorted(metrics)]


def checkpoint_words(progress: Progress) -> str:
    """What was saved last, when and where."""
    saved = progress.checkpoint
    step = f"step {saved.step} " if saved.HasField("step") else ""
    when = text.local_time(text.micros(saved.time))
    return text.visible_line(f"{step}by rank {saved.rank}, {when}: {saved.path}".rstrip(": "))


def progress_lines(progress: Progress, now_us: int) -> Iterator[str]:
    """What `show` tells of it."""
    if told := progress_words(progress, now_us):
        yield f"Progress: {told}"
    if progress.HasField("checkpoint"):
        yield f"Last checkpoint: {checkpoint_words(progress)}"
    for words in progress.faults:
        yield f"Passed over: {text.visible_line(words)}"


def draw_metrics(console: Console, answer: GetMetricsResponse) -> None:
    """One line for each point."""
    names = _names(answer)
    made = table("TIME", "STEP", "PROGRESS", *map(text.visible_line, names))
    for point in answer.points:
        made.add_row(
            cell(text.local_time(text.micros(point.time))),
            cell(point.step if point.HasField("step") else ""),
            cell(f"{100 * point.fraction:.1f} %" if point.HasField("fraction") else ""),
            *(
                cell(f"{point.metrics[name]:.6g}" if name in point.metrics else "")
                for name in names
            ),
        )
    console.print(made)


def csv_text(answer: GetMetricsResponse) -> str:
    """One line for each point."""
    names = _names(answer)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["time", "step", "progress", *map(text.visible_line, names)])
    for point in answer.points:
        writer.writerow([point.time.ToJsonString(), *_numbers(point, names)])
    return out.getvalue().rstrip("\n")


def _numbers(point: ProgressPoint, names: list[str]) -> Iterator[object]:
    yield point.step if point.HasField("step") else ""
    yield point.fraction if point.HasField("fraction") else ""
    for name in names:
        yield dict(point.metrics).get(name, "")


def _names(answer: GetMetricsResponse) -> list[str]:
    return sorted({name for point in answer.points for name in point.metrics})
