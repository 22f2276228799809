"""Sums of usage as a table for people and as CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from controlplane.cli import text
from controlplane.cli.jobtables import cell, table
from controlplane.cli.usagewords import device_seconds, hours, seconds

if TYPE_CHECKING:
    from rich.console import Console

    from controlplane.v1.usage_service_pb2 import GetUsageResponse, UsageRow


def draw_usage(console: Console, answer: GetUsageResponse, by: str) -> None:
    """One line for each key, one for all of them, and which window it is."""
    models = [] if by == "model" else _models(answer)
    if len(models) < 2:
        models = []
    made = table(
        by.upper(),
        "GPU-HOURS",
        *map(text.visible_line, models),
        *("CORE-HOURS", "JOBS", "ATTEMPTS", "RUNNING", "FAILED", "PEAK MEMORY"),
    )
    lines = [(row.key or "(none)", row) for row in answer.rows]
    for name, row in (*lines, ("total", answer.total)):
        share = _failed_share(row)
        made.add_row(
            cell(name),
            cell(hours(device_seconds(row.device_times))),
            *(cell(hours(_of_model(row, model))) for model in models),
            cell(hours(seconds(row.core_time))),
            cell(row.jobs),
            cell(row.attempts),
            cell(row.living_attempts),
            cell("" if share is None else f"{share:.0%}"),
            cell(text.size(row.peak_memory_bytes) if row.HasField("peak_memory_bytes") else ""),
            style="bold" if row is answer.total else "",
        )
    console.print(made)
    begin = "the first record"
    if answer.HasField("from_time"):
        begin = text.local_time(text.micros(answer.from_time))
    console.print()
    console.print(cell(f"From {begin} to {text.local_time(text.micros(answer.to_time))}."))
    if answer.total.living_attempts:
        console.print(cell("What runs counts up to the end of that time; it goes on."))


def csv_text(answer: GetUsageResponse, by: str) -> str:
    """One line for each key, without a total; times in seconds."""
    models = [] if by == "model" else _models(answer)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *(by, "gpu_seconds", "core_seconds", "jobs", "attempts", "living_attempts"),
            *("failed_attempts", "failed_share", "peak_memory_bytes"),
            *(text.visible_line(f"gpu_seconds of {model}") for model in models),
        ]
    )
    for row in answer.rows:
        share = _failed_share(row)
        writer.writerow(
            [
                text.visible_line(row.key),
                _number(device_seconds(row.device_times)),
                _number(seconds(row.core_time)),
                *(row.jobs, row.attempts, row.living_attempts, row.failed_attempts),
                "" if share is None else f"{share:.4f}",
                row.peak_memory_bytes if row.HasField("peak_memory_bytes") else "",
                *(_number(_of_model(row, model)) for model in models),
            ]
        )
    return out.getvalue().rstrip("\n")


def _models(answer: GetUsageResponse) -> list[str]:
    return sorted({one.model for row in answer.rows for one in row.device_times})


def _of_model(row: UsageRow, model: str) -> float:
    return device_seconds(one for one in row.device_times if one.model == model)


def _failed_share(row: UsageRow) -> float | None:
    ended = row.attempts - row.living_attempts
    return row.failed_attempts / ended if ended else None


def _number(length_s: float) -> str:
    return f"{length_s:.6f}"
