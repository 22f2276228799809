"""One process at a time on a folder."""

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
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(
                f"state_dir: another {program} already runs on {folder};"
                " stop it, or give this one a folder of its own"
            ) from None
        yield
    finally:
        os.close(fd)
