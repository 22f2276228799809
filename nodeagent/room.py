"""What folders must give before a lease begins: room above a floor, files that can be made, and a
way in."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nodeagent.launchers import LaunchError
from nodeagent.looking import NODE

if TYPE_CHECKING:
    from pathlib import Path

    from nodeagent.looking import Looks, Place

LONGEST = 500
"""Characters of a trouble; paths may be longer."""


@dataclass(slots=True, kw_only=True)
class Room:
    """The folders in which all leases of this node keep things."""

    folders: tuple[Path, ...]
    """Which; several may lie on one file system."""
    free_bytes: int
    """So much must be free in each."""
    free_inodes: int
    """So many files and folders more must have room in each."""
    trouble: str = ""
    """Why no lease can begin here, in words; empty when one can. As long as there is some, its
    words are kept: a node tells all that changes."""

    def look(self) -> str:
        """What is wrong now, in words; empty when nothing is. It may hang."""
        faults = {_device(folder): self._fault(folder) for folder in self.folders}
        found = "; ".join(filter(None, faults.values()))[:LONGEST]
        if not (found and self.trouble):
            self.trouble = found
        return found

    async def look_within(self, looks: Looks) -> bool:
        """Look, but no longer than a look may take; whether the trouble has changed."""
        before = self.trouble
        try:
            await looks.within(NODE, self._look_at)
        except LaunchError as error:
            self.trouble = before or str(error)
        return self.trouble != before

    def _look_at(self, place: Place) -> str:
        place.folder = self.folders[0]
        return self.look()

    def _fault(self, folder: Path) -> str:
        try:
            of = os.statvfs(folder)
        except OSError as error:
            return f"{folder} cannot be used: {error.strerror}; make it anew, or mount it"
        if of.f_flag & os.ST_RDONLY:
            return f"{folder} is mounted read-only; look why, and mount it for writing"
        free = of.f_bavail * of.f_frsize
        if free < self.free_bytes:
            return (
                f"{folder} has {free >> 20} MiB free, and {self.free_bytes >> 20} are needed; make"
                " room there, or lower min_free_mib"
            )
        # A file system that counts none has as many as one likes.
        if of.f_files and of.f_favail < self.free_inodes:
            return (
                f"{folder} has room for {of.f_favail} files more, and {self.free_inodes} are"
                " needed; remove some there, or lower min_free_inodes"
            )
        return ""


def _device(folder: Path) -> int | Path:
    """What file system a folder is of; itself when it does not tell."""
    try:
        return folder.stat().st_dev
    except OSError:
        return folder


def left(folder: Path) -> str:
    """What is free in a folder's file system, in words."""
    with contextlib.suppress(OSError):
        of = os.statvfs(folder)
        files = f" and room for {of.f_favail} files" if of.f_files else ""
        return f"{of.f_bavail * of.f_frsize >> 20} MiB{files} left there"
    return "nobody knows what is left there"


def make_a_file(folder: Path, name: str) -> None:
    """Make a file of one byte and remove it. OSError when that cannot be."""
    path = folder / name
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, b"x")
    finally:
        os.close(fd)
        path.unlink()


def enter(folder: Path) -> None:
    """OSError when one cannot be in a folder. By a look at the way through it, for to go there
    would move all threads."""
    os.stat(os.path.join(folder, "."))
