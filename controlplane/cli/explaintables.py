"""Explanations and priorities for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.cli import text
from controlplane.cli.jobtables import cell, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.console import Console

    from controlplane.v1.schedule_service_pb2 import Explanation, PriorityFactors

MILLION = 1_000_000


def draw_explanation(console: Console, job: str, told: Explanation, now_us: int) -> None:
    """Reason, place in line, times, holders and changes."""
    console.print(cell(told.reason or f"{job} starts now."), soft_wrap=True)
    if told.never:
        return
    line = f"{told.ahead} before it, {told.behind} behind it, of those that want the same nodes."
    console.print(cell(line))
    if told.HasField("promised_time"):
        console.print(cell(f"Starts {_when(told.promised_time, now_us)} at the latest: promised."))
    if told.HasField("estimate"):
        band = told.estimate
        times = (band.p10_time, band.p50_time, band.p90_time)
        early, usual, late = (_when(moment, now_us) for moment in times)
        words = f"Probably starts {usual}" + (f" (from {early} to {late})" if early != late else "")
        console.print(cell(f"{words}."))
    if told.holders:
        made = table("HELD BY", "OWNER", "GPUS", "UNTIL", "NODES")
        for holder in told.holders:
            until = _when(holder.until_time, now_us) if holder.HasField("until_time") else "unknown"
            nodes = ", ".join(holder.nodes)
            made.add_row(*map(cell, (holder.task, holder.owner, holder.gpus, until, nodes)))
        console.print()
        console.print(made)
    if told.changes:
        console.print()
        console.print("It would start now")
        for change in told.changes:
            how = change.words.removesuffix(" it would start now")
            setting = f"{change.field}: {change.value}" if change.value else f"no {change.field}"
            console.print(cell(f"  {how} ({setting})"), soft_wrap=True)


def draw_priorities(console: Console, told: Sequence[tuple[str, PriorityFactors]]) -> None:
    """One line for each job: the sum, and what each factor adds."""
    names = [factor.name for factor in told[0][1].factors]
    made = table("JOB", "PRIORITY", *(name.upper().replace("_", " ") for name in names))
    for job, priority in told:
        parts = (
            f"{factor.points} ({factor.value})"
            if factor.name == "priority_class"
            else f"{factor.points} ({factor.value / MILLION:.3f})"
            for factor in priority.factors
        )
        made.add_row(cell(job), cell(priority.score), *map(cell, parts))
    console.print(made)


def _when(moment: Timestamp, now_us: int) -> str:
    moment_us = text.micros(moment)
    if moment_us <= now_us:
        return "now"
    return f"in {text.duration(moment_us - now_us)} ({text.local_time(moment_us)})"
