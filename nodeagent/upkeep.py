"""Removes what is kept for a while: folders of jobs that have ended, and fetched archives.

A folder counts as used when anything directly in it has changed; what a lease of this node belongs
to is never touched. Clocks of files are the host's own wall clock.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

DAY_S = 86_400


def used_s(path: Path) -> float:
    """When a file, or a folder with what lies directly in it, changed last: seconds since 1970."""
    moments = [path.stat().st_mtime]
    if path.is_dir():
        moments += [entry.lstat().st_mtime for entry in path.iterdir()]
    return max(moments)


def stale(folder: Path, before_s: float, kept: Collection[str]) -> list[Path]:
    """What lies in a folder, is not to be kept, and was not used since."""
    found = []
    for path in sorted(folder.iterdir()):
        try:
            if path.name not in kept and used_s(path) < before_s:
                found.append(path)
        except OSError:  # It has gone meanwhile, or is not ours to look into.
            continue
    return found


def remove(paths: Collection[Path]) -> None:
    """Remove files and folders, as far as that goes."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
