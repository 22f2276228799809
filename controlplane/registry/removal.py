"""The command that lets go of what is over: jobs, their output, what attempts used, events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.registry.draft import Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """What one turn lets go of: of each kind with the moment that all of it is older than, which
    is 0 where there is none of the kind."""

    jobs: tuple[int, ...] = ()
    """Numbers of jobs that have ended."""
    jobs_before_us: int = 0
    """All of them ended before this, UTC in microseconds."""
    outputs: tuple[int, ...] = ()
    """Numbers of ended jobs that stay, and whose output goes."""
    outputs_before_us: int = 0
    """All of them ended before this."""
    usages: tuple[tuple[int, int, int], ...] = ()
    """Attempts of removed jobs, by key."""
    usages_before_us: int = 0
    """All of them ended before this."""
    events: tuple[int, ...] = ()
    """Numbers of events that belong to no kept job."""
    events_before_us: int = 0
    """All of them happened before this."""
    events_seq: int = 0
    """Every event that goes, those of the jobs included, has a number up to this; 0: none goes."""
    blobs: int = 0
    """How many blobs went: these are files, and have no rows."""
    blobs_before_us: int = 0
    """None of them was used since."""

    @property
    def told(self) -> dict[str, int]:
        """How many of each kind, and the moment they are older than, for the event and the log."""
        kinds = {
            "jobs": (len(self.jobs), self.jobs_before_us),
            "outputs": (len(self.outputs), self.outputs_before_us),
            "usages": (len(self.usages), self.usages_before_us),
            "events": (len(self.events), self.events_before_us),
            "blobs": (self.blobs, self.blobs_before_us),
        }
        counts = {kind: count for kind, (count, _) in kinds.items() if count}
        return counts | {f"{kind}_before_us": kinds[kind][1] for kind in counts}


def remove(draft: Draft, doomed: Doomed) -> None:
    """Remove it, and write one event that tells how much it was. Its files follow the commit.

    What has ended never lives again, so what was found in the store is over for good.
    """
    for number in (*doomed.jobs, *doomed.outputs):
        if draft.jobs.get(number) is not None:
            raise AssertionError(f"jobs/{number} lives, and was to be removed")
    draft.removed.jobs += doomed.jobs
    draft.removed.usages += doomed.usages
    draft.removed.events += doomed.events
    c = draft.cluster
    draft.cluster = replace(
        c,
        jobs_removed_us=max(c.jobs_removed_us, doomed.jobs_before_us),
        logs_removed_us=max(c.logs_removed_us, doomed.outputs_before_us),
        usage_removed_us=max(c.usage_removed_us, doomed.usages_before_us),
        events_removed_seq=max(c.events_removed_seq, doomed.events_seq),
    )
    draft.emit("records.removed", "records", doomed.told)
