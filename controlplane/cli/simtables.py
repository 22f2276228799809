"""What a simulation has shown, as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.cli import text
from controlplane.cli.jobtables import cell, table
from controlplane.model.words import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from controlplane.sim.simulate import Result
    from controlplane.sim.summary import Group

ACCOUNTS_SHOWN = 20


def draw(console: Console, result: Result) -> None:
    """Times by size and by account, then the figures of the whole."""
    summary = result.summary
    console.print(
        cell(
            f"{result.policy} on {count(result.nodes, 'node')} with {count(result.gpus, 'GPU')}:"
            f" {count(summary.overall.jobs, 'job')} of {result.trace or 'the trace'}"
        )
    )
    console.print()
    _groups(console, "GPUS", (*summary.by_size, summary.overall))
    if len(summary.by_account) > 1:
        console.print()
        largest = sorted(summary.by_account, key=lambda group: -group.gpu_hours)
        _groups(console, "ACCOUNT", largest[:ACCOUNTS_SHOWN])
        if len(largest) > ACCOUNTS_SHOWN:
            console.print(cell(f"and {len(largest) - ACCOUNTS_SHOWN} more; -o json tells all"))
        console.print()
        _shares(console, result)
    console.print()
    made = table("FIGURE", "VALUE")
    rows = [
        ("makespan", _time(summary.makespan_s)),
        ("GPU utilisation", f"{summary.gpu_utilization:.2%}"),
        ("fragmentation: idle GPU time on nodes partly in use", f"{summary.fragmentation:.2%}"),
        ("fairness while somebody waited: Jain's index", f"{summary.jain_index:.4f}"),
        ("the largest share error of an account", f"{summary.share_error:.2%}"),
        ("preemptions", summary.preemptions),
        ("GPU-hours lost to them", f"{summary.lost_gpu_hours:.2f}"),
    ]
    if summary.never:
        rows.append(("jobs that can never run", len(summary.never)))
    if result.broken_promises is not None:
        rows.append(("promised starts that were broken", result.broken_promises))
    for name, value in rows:
        made.add_row(cell(name), cell(value))
    console.print(made)


def _groups(console: Console, what: str, groups: Sequence[Group]) -> None:
    made = table(
        what, "JOBS", "GPU-HOURS", "JCT MEAN", "P50", "P99", "WAIT MEAN", "WAIT P50", "WAIT P99"
    )
    for group in groups:
        made.add_row(
            cell(group.name or "(none)"),
            cell(group.jobs),
            cell(f"{group.gpu_hours:.1f}"),
            *(
                cell(_time(value))
                for value in (
                    *(group.avg_jct_s, group.p50_jct_s, group.p99_jct_s),
                    *(group.avg_wait_s, group.p50_wait_s, group.p99_wait_s),
                )
            ),
            style="bold" if group.name == "all" and what == "GPUS" else "",
        )
    console.print(made)


def _shares(console: Console, result: Result) -> None:
    shares = sorted(result.summary.shares, key=lambda share: -abs(share.error))
    made = table("ACCOUNT", "SHARE WHILE SOMEBODY WAITED", "FAIR", "ERROR")
    for share in shares[:ACCOUNTS_SHOWN]:
        made.add_row(
            cell(share.account or "(none)"),
            cell(f"{share.used:.2%}"),
            cell(f"{share.fair:.2%}"),
            cell(f"{share.error:+.2%}"),
        )
    console.print(made)


def _time(length_s: float) -> str:
    return text.duration(round(length_s * 1_000_000))
