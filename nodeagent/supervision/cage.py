"""A lease's control groups: what its workers may use of memory, processes, cores and devices, and
who belongs to it, whatever session or parent it has taken.

A group for the lease, and in it one for each worker's memory, so that who ran out of it can be
named. Version 1 has a tree for each controller (Documentation/admin-guide/cgroup-v1), version 2 one
for all (Documentation/admin-guide/cgroup-v2.rst). A worker enters them by itself before it becomes
anything of its job's, which takes a fork. Where `posix_spawn` will do, which costs a third, its
supervisor is in them for that moment: a child is where its parent is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nodeagent.supervision import bpf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nodeagent.plan import CagePlan

ROOMY_BYTES = 64 << 20
"""Several times what a supervisor has resident."""
_TRIES, _PAUSE_S = 50, 0.002
"""A group can be removed a moment after its last process has been waited for."""


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """A worker, or what it started, was ended because its memory had run out."""

    limit_bytes: int
    """What it might use."""
    peak_bytes: int
    """What it had used."""


class Cage:
    """The groups of one lease, as its supervisor and its agent see them."""

    def __init__(self, plan: CagePlan) -> None:
        """Make nothing yet."""
        self._plan = plan
        self._v2 = plan.version == 2
        self._folders = tuple(dict.fromkeys(plan.groups.values()))

    def make(self, ranks: list[int]) -> None:
        """Make the groups, and set their limits. OSError names what cannot be done."""
        plan, groups = self._plan, self._plan.groups
        for folder in self._folders:
            os.makedirs(folder, exist_ok=True)
        if plan.pids and "pids" in groups:
            _write(f"{groups['pids']}/pids.max", plan.pids)
        if plan.cpu_millicores and "cpu" in groups:
            self._share_cores(groups["cpu"], plan.cpu_millicores)
        if plan.denied_devices and self._v2:
            bpf.deny_devices(self._folders[0], plan.denied_devices)
        elif plan.denied_devices:
            for device in plan.denied_devices:
                _write(f"{groups['devices']}/devices.deny", f"{device} rwm")
        if "memory" not in groups:
            return
        if self._v2:
            _write(f"{groups['memory']}/cgroup.subtree_control", "+memory")
        for rank in ranks:
            folder = self._of_worker(rank)
            os.makedirs(folder, exist_ok=True)
            if plan.memory_bytes:
                self._limit_memory(folder, plan.memory_bytes)

    def _limit_memory(self, folder: str, limit: int) -> None:
        _write(f"{folder}/{'memory.max' if self._v2 else 'memory.limit_in_bytes'}", limit)
        # Swapping would be slower than ending: no more of both together than of memory alone.
        swap = "memory.swap.max" if self._v2 else "memory.memsw.limit_in_bytes"
        if os.path.exists(f"{folder}/{swap}"):
            _write(f"{folder}/{swap}", 0 if self._v2 else limit)

    def _share_cores(self, folder: str, millicores: int) -> None:
        if self._v2:
            _write(f"{folder}/cpu.weight", min(10_000, max(1, millicores // 10)))
        else:
            _write(f"{folder}/cpu.shares", min(262_144, max(2, millicores * 1024 // 1000)))

    def places(self, rank: int) -> tuple[str, ...]:
        """The groups that a worker belongs to, for `enter`."""
        return tuple(dict.fromkeys(self._places(rank).values()))

    def is_roomy(self) -> bool:
        """Whether a supervisor may be where a worker belongs, as long as no other process is: it
        is smaller than what would have to run out of memory there."""
        return not 0 < self._plan.memory_bytes < ROOMY_BYTES

    @contextlib.contextmanager
    def entered(self, rank: int) -> Iterator[None]:
        """Be where a worker belongs, so that what is started then is there too."""
        own, places = own_groups(), self._places(rank)
        home = [own[""]] if self._v2 else [own[name] for name in places]
        try:
            for folder in dict.fromkeys(places.values()):
                enter(folder)
            yield
        finally:
            for folder in dict.fromkeys(home):
                enter(folder)

    def _places(self, rank: int) -> dict[str, str]:
        """Controller → where a worker's processes belong."""
        groups = dict(self._plan.groups)
        if "memory" in groups:
            inner = self._of_worker(rank)
            groups = dict.fromkeys(groups, inner) if self._v2 else {**groups, "memory": inner}
        return groups

    def _of_worker(self, rank: int) -> str:
        return f"{self._plan.groups['memory']}/{rank}"

    def out_of_memory(self, rank: int) -> OutOfMemory | None:
        """Whether the kernel has ended anything of a worker's for want of memory."""
        if "memory" not in self._plan.groups or not self._plan.memory_bytes:
            return None
        folder = self._of_worker(rank)
        events = "memory.events" if self._v2 else "memory.oom_control"
        peak = "memory.peak" if self._v2 else "memory.max_usage_in_bytes"
        told = dict(line.split() for line in _read(f"{folder}/{events}").splitlines())
        if not int(told.get("oom_kill", 0)):
            return None
        limit = self._plan.memory_bytes
        return OutOfMemory(limit, int(_read(f"{folder}/{peak}") or limit))

    def members(self) -> list[int]:
        """Every process in it, once each."""
        found: dict[int, None] = {}
        for folder in self._folders:
            for path, _, _ in os.walk(folder):
                found.update(dict.fromkeys(map(int, _read(f"{path}/cgroup.procs").split())))
        return list(found)

    def kill(self) -> bool:
        """SIGKILL to every process in it; whether it was empty."""
        pids = self.members()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    def remove(self) -> None:
        """Remove the groups, which must be empty. One that stays is removed by the next agent."""
        for folder in self._folders:
            remove_group(folder)


def enter(folder: str) -> None:
    """Be a member of a group from now on, and all that this process starts with it."""
    _write(f"{folder}/cgroup.procs", 0)


def own_groups() -> dict[str, str]:
    """Controller → folder of the group that this process is in; "" is that of version 2."""
    trees = mounts()
    found = {}
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in trees:
                found[controller] = f"{trees[controller]}{path.rstrip('/')}"
    if "" in found:  # version 2: every controller that it has is there
        for controller in _read(f"{found['']}/cgroup.controllers").split():
            found.setdefault(controller, found[""])
    return found


def remove_group(folder: str) -> bool:
    """Remove a group and those below it; False when some process is in one."""
    for path, _, _ in os.walk(folder, topdown=False):
        for _ in range(_TRIES):
            try:
                os.rmdir(path)
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(_PAUSE_S)
            else:
                break
        else:
            return False
    return True


def mounts() -> dict[str, str]:
    """Controller → where its tree is mounted, of version 1; "" → that of version 2."""
    found: dict[str, str] = {}
    for line in _read("/proc/self/mountinfo").splitlines():
        fields = line.split()
        where = fields[4]
        kind, _, options = fields[fields.index("-") + 1 :]
        if kind == "cgroup2":
            found.setdefault("", where)
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, where)
    return found


def _write(path: str, value: object) -> None:
    # Not by a buffered file: its fault would come at its end, without the path.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
