"""The command that takes in what workers reported of their progress.

It comes with no event: it is an observation that the next one replaces, told some times a minute by
every job that runs. What it changes is committed with its group all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.model.progress import LeaseProgress, Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from controlplane.registry.draft import Draft

Key = tuple[int, int, int]
"""Of an attempt: job, task, number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """An attempt that memory does not know any more, as the store has it."""

    progress: Progress | None
    """What it reported so far; None when that is nothing."""
    ended_us: int | None
    """When its job ended, UTC in microseconds; None while that lives."""


def take_in(
    draft: Draft, told: Iterable[tuple[Key, LeaseProgress]], past: Mapping[Key, Past]
) -> dict[Key, Progress]:
    """Add to the progress of attempts what their leases tell; the progress after it, without those
    whose jobs have been removed.

    `past`: attempts that memory did not know.
    """
    after: dict[Key, Progress] = {}
    for key, news in told:
        job_id, task_index, attempt = key
        before = draft.progress.get(key)
        if before is None and draft.attempts.get(key) is None:
            known = past.get(key)
            # It may have been removed since the store was asked.
            if known is None or _removed(draft, known):
                continue
            before = known.progress
        if before is None:
            before = Progress(job_id=job_id, task_index=task_index, attempt=attempt)
        found = before.after(news)
        if found is not before:
            draft.progress[key] = found
        after[key] = found
    return after


def _removed(draft: Draft, past: Past) -> bool:
    return past.ended_us is not None and past.ended_us < draft.cluster.jobs_removed_us
