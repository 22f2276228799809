"""Which processes there are, as /proc tells it, and how to end them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Process(NamedTuple):
    """One line of /proc/<pid>/stat, as far as we need it."""

    pid: int
    """Process id."""
    state: str
    """One letter; Z for a zombie."""
    parent: int
    """Process id of its parent."""
    group: int
    """Its process group."""
    session: int
    """Its session."""
    ticks: int
    """When it was started, in clock ticks since boot: with the pid it names the process."""
    name: str = ""
    """The first 15 bytes of its program's name."""


def look(pid: int) -> Process | None:
    """The process of that id; None if there is none."""
    data = _read(f"/proc/{pid}/stat")
    if not data:
        return None
    # The name in parentheses may hold spaces and parentheses itself.
    fields = data[data.rfind(b")") + 2 :].split(None, 20)
    name = data[data.find(b"(") + 1 : data.rfind(b")")].decode(errors="replace")
    return Process(
        pid,
        fields[0].decode(),
        int(fields[1]),
        int(fields[2]),
        int(fields[3]),
        int(fields[19]),
        name,
    )


def everything() -> list[Process]:
    """Every process that this one may see, zombies left out."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None and process.state not in "ZX"]


def descendants(pid: int) -> list[int]:
    """Children of `pid`, their children and so on, zombies included; a moment's picture."""
    found: list[int] = []
    seen = {pid}
    todo = [pid]
    while todo:
        for child in children(todo.pop()):
            if child not in seen:
                seen.add(child)
                found.append(child)
                todo.append(child)
    return found


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to each; one that is gone is no error.

    After SIGTERM comes SIGCONT, so that one that was stopped can heed it.
    """
    for pid in pids:
        try:
            os.kill(pid, number)
            if number == signal.SIGTERM:
                os.kill(pid, signal.SIGCONT)
        except (ProcessLookupError, PermissionError):
            continue


def signal_groups(groups: Iterable[int], number: int) -> None:
    """As `signal_all`, for whole process groups."""
    signal_all((-group for group in groups), number)


def children(pid: int) -> list[int]:
    """The children of `pid`, zombies included; a moment's picture."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return found


def environment(pid: int) -> set[bytes]:
    """`NAME=value` for each variable that a process was started with; none of another user's."""
    return set(_read(f"/proc/{pid}/environ").split(b"\0"))


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = b""
        while chunk := os.read(fd, 65536):
            data += chunk
        return data
    except OSError:
        return b""
    finally:
        os.close(fd)
