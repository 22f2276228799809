"""Where a node keeps what belongs to its leases.

Each lease has folders that are named `<lease id>.<token>`:

* in the **runtime folder**, its control files: the plan, what its supervisor wrote down, the socket
  for orders. They mean nothing after a reboot, and are made and removed for each lease, so the
  runtime folder belongs on a tmpfs;
* in the **state folder**, what may be large and should outlive a reboot: under `tmp` the workers'
  temporary files, and under `leases` their output and the folder that was shipped for them, where
  there is any.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from controlplane.kit import failpoints
from nodeagent.supervision import record

if TYPE_CHECKING:
    from collections.abc import Iterator


class LeaseKey(NamedTuple):
    """What a lease's folders are named after."""

    lease_id: int
    """Which lease."""
    token: int
    """Its fencing token."""

    def __str__(self) -> str:
        """The folders' name."""
        return f"{self.lease_id}.{self.token}"

    @staticmethod
    def parse(name: str) -> LeaseKey | None:
        """The lease of a folder's name; None when it is none."""
        lease_id, _, token = name.partition(".")
        if lease_id.isdecimal() and token.isdecimal():
            return LeaseKey(int(lease_id), int(token))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """The folders of one node."""

    state: Path
    """Outlives a reboot."""
    runtime: Path
    """Holds until the next boot."""
    shared: bool = False
    """Whether workers run as other users, who must get through to what is theirs."""

    def prepare(self, boot_id: str) -> None:
        """Make what is missing, and remove what held until the last boot only."""
        for folder in (self.state, self.runtime, self.data, self.tmp, self.jobs, self.blobs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.state, self.data, self.tmp, self.jobs):
            folder.chmod(self._mode)
        note = self.runtime / "boot_id"
        noted = note.read_bytes().decode(errors="replace") if note.exists() else ""
        if noted != boot_id:
            # A note that is damaged says nothing, and what somebody holds is of this boot: it is
            # adopted, for workers may run.
            if len(noted) == len(boot_id) and not self._is_held():
                self.deadline.unlink(missing_ok=True)
                shutil.rmtree(self.control, ignore_errors=True)
            fresh = note.with_name(f"{note.name}.new")
            fresh.write_text(boot_id)
            fresh.replace(note)
        self.control.mkdir(exist_ok=True, mode=0o700)

    def _is_held(self) -> bool:
        """Whether any lease has a supervisor."""
        return any(is_locked(plan) for plan in self.control.glob(f"*/{record.PLAN}"))

    @property
    def _mode(self) -> int:
        """Of folders on the way to a worker's own: others may pass through, and list nothing."""
        return 0o711 if self.shared else 0o700

    def make_control(self, key: LeaseKey) -> None:
        """Make a lease's control folder. OSError when that cannot be done, or was done already."""
        (self.control / str(key)).mkdir(mode=0o700)

    def make_data(self, key: LeaseKey) -> Path:
        """Make a lease's folder for data. Where only output will lie in it, its supervisor does."""
        data = self.data / str(key)
        data.mkdir()
        data.chmod(self._mode)
        return data

    def remove(self, key: LeaseKey) -> None:
        """Remove a lease's folders."""
        # The control folder goes last: data without one is taken for what a reboot has left.
        for folder in (self.data, self.tmp, self.control):
            if folder == self.control:
                failpoints.reach("agent.half_dropped")
            shutil.rmtree(folder / str(key), ignore_errors=True)

    def leftovers(self) -> set[LeaseKey]:
        """Leases that have data or temporary files."""
        return {*leases_in(self.data), *leases_in(self.tmp)}

    @property
    def control(self) -> Path:
        """Control files, a folder for each lease."""
        return self.runtime / "leases"

    @property
    def data(self) -> Path:
        """Output and shipped folders, a folder for each lease."""
        return self.state / "leases"

    @property
    def tmp(self) -> Path:
        """Temporary files, a folder for each lease."""
        return self.state / "tmp"

    @property
    def jobs(self) -> Path:
        """Folders of jobs, the same for all their attempts."""
        return self.state / "jobs"

    @property
    def blobs(self) -> Path:
        """Archives of working directories that were fetched."""
        return self.state / "blobs"

    @property
    def deadline(self) -> Path:
        """The moment, on this boot's clock, at which the node's lease ends."""
        return self.runtime / "deadline"

    @property
    def nudges(self) -> Path:
        """The socket by which supervisors say that there is news."""
        return self.runtime / "agent.sock"


def is_locked(plan: Path) -> bool:
    """Whether a supervisor lives that was given this plan."""
    try:
        fd = os.open(plan, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def leases_in(folder: Path) -> Iterator[LeaseKey]:
    """The leases that have a folder here, by number."""
    found = (LeaseKey.parse(path.name) for path in folder.iterdir())
    yield from sorted(key for key in found if key is not None)
