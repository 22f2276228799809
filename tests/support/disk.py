"""A disk without room, and one that loses its power."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: as on a full disk, what fits is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs at `folder`, with options of mount(8): `size=24m`. It takes root."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"{options},mode=0700", "small", str(folder)]
    subprocess.run(command, check=True, timeout=10)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=10)


class Synced:
    """What a power cut would leave: names and bytes as of the last sync of each, and no others.

    Stricter than most file systems, which bring some of the rest to the disk on the way.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watch every sync from now on."""
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, int]] = {}
        self._sync = os.fsync
        monkeypatch.setattr(os, "fsync", self._watched)

    def _watched(self, fd: int) -> None:
        self._sync(fd)
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(fd) as entries:
                self._folders[status.st_ino] = {entry.name: entry.inode() for entry in entries}
        else:
            self._files[status.st_ino] = Path(f"/proc/self/fd/{fd}").read_bytes()

    def has(self, path: Path, below: Path) -> bool:
        """Whether a file is there after a power cut, as it is now. `below`: a folder that was there
        before."""
        status, content = path.stat(), path.read_bytes()
        whole = self._files.get(status.st_ino, b"") == content
        while whole and path != below:
            names = self._folders.get(path.parent.stat().st_ino, {})
            whole = names.get(path.name) == path.stat().st_ino
            path = path.parent
        return whole
