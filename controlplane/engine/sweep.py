"""The sweep: goes through folders of jobs and blobs, for files that are kept no longer.

It removes output whose time is over, blobs that nobody needs, and what a crash between a commit and
its files left behind. It is careful with a job that the registry does not know: the database may be
an older backup. Its folder goes only if its number was given out, and if nothing in it has changed
for as long as jobs are kept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from controlplane.engine.retention import JobFiles, commit
from controlplane.registry.removal import Doomed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from controlplane.registry.registry import Registry

log = logging.getLogger(__name__)

LEAST_BLOB_AGE_US = 2 * 3600 * 1_000_000
"""No blob goes that was used within this: a submit that found it may not be committed yet. Far more
than a commit may take, though the clock be set on by an hour meanwhile."""
TURN_BLOBS = 500
"""At most so many blobs are looked at in one turn."""


class JobFolders(JobFiles, Protocol):
    """Files of jobs that can be gone through."""

    def numbers(self) -> Iterator[Sequence[int]]:
        """Numbers of jobs that have a folder, some at a time."""

    def newest_us(self, job_id: int) -> int:
        """When anything in a job's folder changed last, UTC in microseconds; 0 without a folder."""


class Blobs(Protocol):
    """Blobs that can be gone through."""

    def unused(self, before_us: int) -> Sequence[str]:
        """Blobs that nobody has uploaded or used since, by SHA-256."""

    def remove(self, sha256: str, before_us: int) -> bool:
        """Remove a blob, unless somebody has used it since after all; whether it went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The stores of files beside the registry."""

    logs: JobFolders
    """Output of workers."""
    series: JobFolders
    """What they reported of their progress."""
    blobs: Blobs
    """Working directories that travelled."""


def steps(registry: Registry, files: Files, now_us: int) -> Iterator[bool]:
    """Go through everything once, in small steps; each says that there may be more."""
    keep = registry.keep
    for folders in (files.logs, files.series) if keep.jobs_us or keep.logs_us else ():
        for numbers in folders.numbers():
            _folders(registry, files, folders, numbers, now_us)
            yield True
    if keep.blobs_us:
        before_us = now_us - max(keep.blobs_us, LEAST_BLOB_AGE_US)
        unused = files.blobs.unused(before_us)
        for i in range(0, len(unused), TURN_BLOBS):
            _blobs(registry, files.blobs, unused[i : i + TURN_BLOBS], before_us)
            yield True


def _folders(
    registry: Registry, files: Files, folders: JobFolders, numbers: Sequence[int], now_us: int
) -> None:
    keep, ends = registry.keep, registry.store.ends(numbers)
    lost = [
        number
        for number in numbers
        if number not in ends
        and keep.jobs_us
        and number <= registry.last_job_id
        and folders.newest_us(number) < now_us - keep.jobs_us
    ]
    for number in lost:
        folders.remove(number)
    if lost:
        log.info("removed files of jobs that were removed before", extra={"jobs": len(lost)})
    if folders is files.logs and keep.logs_us:
        doomed = outputs(ends, now_us - keep.logs_us)
        if doomed.outputs:
            commit(registry, doomed)
            for number in doomed.outputs:
                folders.remove(number)


def outputs(ends: Mapping[int, int | None], before_us: int) -> Doomed:
    """The output that goes, of jobs with output and their ends."""
    over = tuple(n for n, ended_us in ends.items() if ended_us is not None and ended_us < before_us)
    return Doomed(outputs=over, outputs_before_us=before_us if over else 0)


def _blobs(registry: Registry, blobs: Blobs, unused: Sequence[str], before_us: int) -> None:
    # Asked after `before_us` by far more than a commit takes: a submit that saw one of these blobs
    # before that is in the store by now, and one that saw it since has marked it as used.
    needed = registry.store.blobs_used(unused)
    gone = sum(blobs.remove(sha256, before_us) for sha256 in unused if sha256 not in needed)
    if gone:
        commit(registry, Doomed(blobs=gone, blobs_before_us=before_us))
