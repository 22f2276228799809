"""Files that a power cut leaves as they were told to be."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk by the time this returns."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some network file systems know no such thing of a folder.
            raise
    finally:
        os.close(fd)


def put_in_place(fresh: Path, path: Path) -> None:
    """Put a file that is finished in the place of `path`, in the same folder: after a power cut the
    old one is there or the new one whole, and once this has returned, the new one."""
    sync(fresh)
    os.replace(fresh, path)
    sync(path.parent)
