"""A folder for each job, a thousand of them in a folder: what the stores of files share."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


GONE = ".gone-"
"""Begin of the name of a job's folder that is being removed."""


class JobFolders:
    """Folders of jobs under a folder."""

    def __init__(self, folder: Path) -> None:
        """`folder`: made with the first job's."""
        self._folder = folder

    def of(self, job_id: int) -> Path:
        """A job's folder, whether it is there or not."""
        return self._folder / f"{job_id // 1000:06d}" / str(job_id)

    def numbers(self) -> Iterator[list[int]]:
        """Numbers of jobs that have a folder, at most a thousand at a time."""
        for thousand in sorted(_names(self._folder)):
            if thousand.startswith(GONE):
                discard(self._folder / thousand)
                continue
            found = sorted(int(n) for n in _names(self._folder / thousand) if n.isdecimal())
            # What somebody else put there is none of ours.
            yield [number for number in found if self.of(number).parent.name == thousand]

    def newest_us(self, job_id: int) -> int:
        """When anything in a job's folder changed last, UTC in microseconds; 0 without a folder."""
        newest = 0
        for path, _, names in os.walk(self.of(job_id)):
            for name in (path, *(os.path.join(path, name) for name in names)):
                with suppress(FileNotFoundError):
                    newest = max(newest, os.lstat(name).st_mtime_ns // 1000)
        return newest

    def take(self, job_id: int) -> Path | None:
        """Move a job's folder out of the way, at once, to be given to `discard`; None when there is
        none."""
        folder, gone = self.of(job_id), self._folder / f"{GONE}{job_id}"
        discard(gone)  # a crash may have left it
        try:
            folder.rename(gone)
        except FileNotFoundError:
            return None
        with suppress(OSError):  # It holds other jobs' folders.
            folder.parent.rmdir()
        return gone


def discard(folder: Path | None) -> None:
    """Remove a folder that was taken, with all that is in it; that may take its time."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
