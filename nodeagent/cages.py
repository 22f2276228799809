"""Where this node's leases are caged, if the host lets the agent make control groups, and how each
is: memory of its workers, processes, shares of cores, and the accelerators of others
closed to it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nodeagent import scope
from nodeagent.devicefiles import Host, device_files
from nodeagent.plan import CagePlan
from nodeagent.supervision import bpf
from nodeagent.supervision.cage import mounts, own_groups, remove_group

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from controlplane.model.launch import Launch
    from controlplane.model.node import Device
    from nodeagent.folders import LeaseKey

log = logging.getLogger(__name__)

WANTED = ("memory", "pids", "cpu", "devices")
"""Controllers that are used where the host has them."""
LEASES = "leases"
"""In the scope of version 2, the group below which they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cages:
    """All cages of a node."""

    version: int
    """Of the host's control groups: 1 or 2."""
    base: dict[str, str]
    """Controller → the folder below which each lease has its group."""
    pids: int
    """Processes and threads that a lease may have; 0 for no limit."""
    devices: Callable[[], Iterable[Device]]
    """What the host has now."""
    host: Host = field(default_factory=Host)
    """Where device nodes are, and who tells whose they are."""

    def plan(self, key: LeaseKey, launch: Launch, workers: int) -> CagePlan:
        """The cage of one lease with so many processes to start."""
        return CagePlan(
            version=self.version,
            groups={name: f"{folder}/{key}" for name, folder in self.base.items()},
            memory_bytes=launch.memory_bytes // max(1, workers),
            pids=self.pids,
            cpu_millicores=launch.cpu_millicores,
            denied_devices=self._denied(launch.device_ids) if "devices" in self.base else (),
        )

    def _denied(self, leased: Collection[str]) -> tuple[str, ...]:
        """The device nodes of all accelerators but those of the lease. None where nobody tells
        which are the lease's: a job must not be kept from its own."""
        files = device_files(self.host)
        own = {d.pci_bus_id for d in self.devices() if d.device_id in leased and d.pci_bus_id}
        if not own.issubset(files.values()):
            log.warning("nobody tells which device nodes are whose: none is closed to jobs")
            return ()
        return tuple(node for node, address in sorted(files.items()) if address not in own)

    def clean(self, held: Collection[str]) -> None:
        """Remove the groups of leases that are over, as far as nothing is in them. `held`: the
        names of those that are not."""
        for folder in dict.fromkeys(self.base.values()):
            for entry in _folders(folder):
                if entry not in held:
                    remove_group(f"{folder}/{entry}")

    def close(self) -> None:
        """Leave nothing behind but what holds leases."""
        for folder in dict.fromkeys(self.base.values()):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
                if self.version == 2:
                    scope.release(os.path.dirname(folder))


def find_cages(node_uuid: str, pids: int, devices: Callable[[], Iterable[Device]]) -> Cages | str:
    """The node's cages; or why there are none, in words."""
    own = own_groups()
    unified = own.get("", "")
    first = {name: own[name] for name in WANTED if name in own and own[name] != unified}
    try:
        if "memory" in first:
            base = {name: f"{folder}/nodeagent.{node_uuid}" for name, folder in first.items()}
            for folder in base.values():
                _make(folder)
            return Cages(version=1, base=base, pids=pids, devices=devices)
        return _second(node_uuid, own, pids, devices)
    except OSError as error:
        return f"{error.filename} cannot be made: {error.strerror}"


def _second(
    node_uuid: str, own: dict[str, str], pids: int, devices: Callable[[], Iterable[Device]]
) -> Cages | str:
    if "memory" not in own:
        return "this host gives the agent no control of memory"
    try:
        parent = scope.kept_scope(f"nodeagent-{node_uuid}", mounts()[""])
    except OSError as error:
        return str(error.strerror)
    there = Path(parent, "cgroup.controllers").read_text().split()
    names = [name for name in WANTED if name in there]
    base = f"{parent}/{LEASES}"
    _make(base)
    for folder in (parent, base):
        path = f"{folder}/cgroup.subtree_control"
        with open(path, "w") as file:
            file.write(" ".join(f"+{name}" for name in names))
    try:
        os.close(bpf.load(()))
        names.append("devices")
    except OSError as error:
        log.warning("the devices of others are not closed to jobs: %s: %s", error.filename, error)
    return Cages(version=2, base=dict.fromkeys(names, base), pids=pids, devices=devices)


def _make(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    if not os.access(folder, os.W_OK):  # It may be another agent's, of another user.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)


def _folders(folder: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []
