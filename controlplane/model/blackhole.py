"""Nodes that eat jobs: attempts fail there within seconds, and free the node for the next victim.

A node keeps the row of its quick failures since anything last went well there. Faults of the
infrastructure (no start, a failed prolog) count once for each job: a program cannot cause them.
What an owner may be to blame for (a program that fails by itself, a folder that is not there, a
supervisor that was killed) one owner may bring about a thousand times: it counts once for each
owner. The second failure makes the node suspect, the third has it drained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

QUICK_US = 10_000_000
"""An attempt whose workers ran for less has failed within seconds."""
WINDOW_US = 1_800_000_000
"""Failures that are older do not count any more."""
SUSPECT, DRAINED = 2, 3
"""So many failures in a row that count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickFailure:
    """One attempt that failed on a node within seconds."""

    job_id: int
    """Of which job."""
    owner: str
    """Whose."""
    infrastructure: bool
    """Whether a program cannot have caused it."""
    at_us: int
    """When it ended, UTC in microseconds."""
    message: str
    """What happened, in words."""


def noted(row: Iterable[QuickFailure], failure: QuickFailure) -> tuple[QuickFailure, ...]:
    """The row after one more failure: the last of each that counts, oldest first."""
    kept = {_key(each): each for each in (*row, failure) if failure.at_us - each.at_us <= WINDOW_US}
    return tuple(sorted(kept.values(), key=lambda each: each.at_us))[-DRAINED:]


def suspicion(row: tuple[QuickFailure, ...]) -> str:
    """Why a node is suspect, in words; empty when it is not."""
    return _told(row) if len(row) >= SUSPECT else ""


def drain_reason(row: tuple[QuickFailure, ...]) -> str:
    """Why a node must take no more work, in words; empty when it may."""
    return _told(row) if len(row) >= DRAINED else ""


def _told(row: tuple[QuickFailure, ...]) -> str:
    jobs = ", ".join(f"jobs/{each.job_id}" for each in row)
    seconds = QUICK_US // 1_000_000
    return (
        f"{len(row)} attempts in a row failed here within {seconds} s ({jobs}),"
        f" the last: {row[-1].message}"
    )


def _key(failure: QuickFailure) -> tuple[str, int | str]:
    if failure.infrastructure:
        return "job", failure.job_id
    return "owner", failure.owner
