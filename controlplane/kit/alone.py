"""One process at a time: locks on files, which the kernel gives back when their process ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class InUse(RuntimeError):
    """Another process holds the folder."""


@contextmanager
def alone(folder: Path, program: str) -> Iterator[None]:
    """Hold a folder alone, by a lock that the kernel gives back when this process ends.

    `program`: who we are, for the words of InUse when another process holds it.
    """
    try:
        fd = lock_file(folder / "lock")
    except BlockingIOError:
        raise InUse(
            f"state_dir: another {program} already runs on {folder};"
            " stop it, or give this one a folder of its own"
        ) from None
    try:
        yield
    finally:
        os.close(fd)


def lock_file(path: Path, who: str = "") -> int:
    """Lock a file until the descriptor is closed. BlockingIOError when another process has.

    `who`: we, in words for `holder_of`.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if who:
            os.truncate(fd, 0)
            os.pwrite(fd, f"{who}\n".encode(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def holder_of(path: Path) -> str:
    """Who has locked a file, in their own words; empty: nobody."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, 1000, 0).decode(errors="replace").strip() or "another process"
    finally:
        os.close(fd)
    return ""
