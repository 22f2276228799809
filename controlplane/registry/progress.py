"""The command that takes in what workers reported of their progress.

It comes with no event: it is an observation that the next one replaces, told some times a minute by
every job that runs. What it changes is committed with its group all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.progress import LeaseProgress, Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from controlplane.registry.draft import Draft

Key = tuple[int, int, int]
"""Of an attempt: job, task, number."""


def take_in(
    draft: Draft, told: Iterable[tuple[Key, LeaseProgress]], ended: Mapping[Key, Progress]
) -> dict[Key, Progress]:
    """Add to the progress of attempts what their leases tell; the progress after it.

    `ended`: as the store has it, of attempts that memory does not know any more.
    """
    after: dict[Key, Progress] = {}
    for key, news in told:
        job_id, task_index, attempt = key
        before = draft.progress.get(key) or ended.get(key)
        if before is None:
            before = Progress(job_id=job_id, task_index=task_index, attempt=attempt)
        found = before.after(news)
        if found is not before:
            draft.progress[key] = found
        after[key] = found
    return after
