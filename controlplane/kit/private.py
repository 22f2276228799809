"""Files that only their owner can read, whole or not there, and in the place of no other's."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from controlplane.kit.durable import put_in_place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def replace_private(path: Path, text: str) -> None:
    """Put a file of mode 0600 in the place of what is there, durably. A link that lies there, or
    where it is written first, is replaced and never followed."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
        put_in_place(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


@contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """Where root works in a folder of somebody else's: be that one meanwhile. What is written is
    theirs, and no link that they have laid leads to what is root's."""
    status = folder.stat()
    if os.geteuid() != 0 or status.st_uid == 0:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(status.st_gid)
    os.seteuid(status.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process changes this file."""
    fd = os.open(
        path.with_name(f"{path.name}.lock"),
        os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
        0o600,
    )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
