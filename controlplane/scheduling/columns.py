"""Nodes and tasks as columns: what a decision over ten thousand of the one and a hundred thousand
of the other can afford to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from controlplane.scheduling.devices import model_matches, will_do
from controlplane.scheduling.ranked import BARE, MIXED, Ranked, rank_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from controlplane.model.node import Device
    from controlplane.model.view import NodeView, Shape, Waiting

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MILLI = 1000
FOREVER_US = 365 * 86_400_000_000
"""So long whatever has no time limit is taken to run, as with Slurm's unlimited partitions: it can
be passed by what has a limit, and passes nothing that waits before it."""


V = TypeVar("V", bound="Hashable")


class Names(Generic[V]):
    """Small numbers for values, in order of first sight. Never forgets."""

    def __init__(self, *first: V) -> None:
        """`first`: those that get the first numbers."""
        self.values: list[V] = []
        """The values, by number."""
        self._numbers: dict[V, int] = {}
        for value in first:
            self.number(value)

    def number(self, value: V) -> int:
        """Its number."""
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
        return number

    def __len__(self) -> int:
        return len(self.values)


class Nodes:
    """One row for each node, in order of their UUIDs; what is free of each as the view found it."""

    def __init__(self, views: Iterable[NodeView]) -> None:
        """`views`: all nodes, in any order."""
        self.views = sorted(views, key=lambda node: node.uuid)
        self.row = {view.uuid: i for i, view in enumerate(self.views)}
        count = len(self.views)
        self.kinds: dict[tuple[str, str, int], int] = {}
        self._samples: list[Device] = []
        self.group: Ints = np.full(count, BARE, np.int64)
        """The kind of a node's devices; `BARE` or `MIXED`."""
        self.takes: Bools = np.zeros(count, np.bool_)
        self.owned: Bools = np.zeros(count, np.bool_)
        self.millicores: Ints = np.zeros(count, np.int64)
        self.memory: Ints = np.zeros(count, np.int64)
        self.cores: Ints = np.zeros(count, np.int64)
        self.ports: Ints = np.zeros(count, np.int64)
        self.gpus: Ints = np.zeros((count, 0), np.int64)
        self.has_millicores: Ints = np.zeros(count, np.int64)
        self.has_memory: Ints = np.zeros(count, np.int64)
        self.has_gpus: Ints = np.zeros((count, 0), np.int64)
        for view in self.views:
            for device in view.devices:
                self._kind(device)
        self._widen()
        for i in range(count):
            self._set(i)
        self.rank: Ints = np.array([self._rank_of(view) for view in self.views], np.int64)
        """The less is free of a node, the lower."""
        rows = np.flatnonzero(self.takes)
        self.ranked = Ranked(self.group[rows], self.rank[rows], rows)
        """Those that take work, in that order."""

    def put(self, view: NodeView) -> bool:
        """Replace a node that is there; False when it is not, and the rows must be made anew."""
        i = self.row.get(view.uuid)
        if i is None:
            return False
        if self.takes[i]:
            self.ranked.remove(int(self.group[i]), i, int(self.rank[i]))
        self.views[i] = view
        known = len(self.kinds)
        for device in view.devices:
            self._kind(device)
        if len(self.kinds) > known:
            self._widen()
        self._set(i)
        self.rank[i] = self._rank_of(view)
        if self.takes[i]:
            self.ranked.add(int(self.group[i]), i, int(self.rank[i]))
        return True

    @staticmethod
    def _rank_of(view: NodeView) -> int:
        return rank_of(len(view.free_devices), view.free_millicores, view.free_memory_bytes)

    def _kind(self, device: Device) -> int:
        key = (device.kind, device.model, device.memory_bytes)
        if key not in self.kinds:
            self.kinds[key] = len(self.kinds)
            self._samples.append(device)
        return self.kinds[key]

    def _widen(self) -> None:
        missing = len(self.kinds) - self.gpus.shape[1]
        self.gpus = np.pad(self.gpus, ((0, 0), (0, missing)))
        self.has_gpus = np.pad(self.has_gpus, ((0, 0), (0, missing)))

    def _set(self, i: int) -> None:
        view = self.views[i]
        self.takes[i] = view.takes_work
        self.owned[i] = bool(view.only_owner)
        self.millicores[i] = view.free_millicores
        self.memory[i] = view.free_memory_bytes
        self.cores[i] = len(view.free_cpu_ids)
        self.ports[i] = len(view.free_ports)
        self.has_millicores[i] = view.cpus * MILLI
        self.has_memory[i] = view.memory_bytes
        self._count(self.has_gpus[i], view.devices)
        kinds = np.flatnonzero(self.has_gpus[i])
        self.group[i] = BARE if not len(kinds) else int(kinds[0]) if len(kinds) == 1 else MIXED
        if view.free_devices is view.devices:
            self.gpus[i] = self.has_gpus[i]
        else:
            self._count(self.gpus[i], view.free_devices)

    def _count(self, row: Ints, devices: Sequence[Device]) -> None:
        row[:] = 0
        kinds = self.kinds
        if devices and len({(d.model, d.memory_bytes) for d in devices}) == 1:
            first = devices[0]
            row[kinds[first.kind, first.model, first.memory_bytes]] = len(devices)
            return
        for device in devices:
            row[kinds[device.kind, device.model, device.memory_bytes]] += 1

    def columns(self, shape: Shape) -> tuple[int, ...]:
        """The columns of `gpus` that hold devices of the kind that a shape asks for."""
        if not shape.resources.gpus:
            return ()
        return tuple(i for i, device in enumerate(self._samples) if will_do(shape, device))

    def gpu_count(self) -> Ints:
        """Devices that each node has, TPUs aside."""
        gpus = [i for i, device in enumerate(self._samples) if model_matches(None, device)]
        count: Ints = self.has_gpus[:, gpus].sum(axis=1)
        return count

    def kinds_of(self, row: int, device_ids: Iterable[str]) -> list[int]:
        """The kinds of some of a node's devices; those that it has no more are left out."""
        held = set(device_ids)
        return [
            self.kinds[d.kind, d.model, d.memory_bytes]
            for d in self.views[row].devices
            if d.device_id in held
        ]

    def label(self, key: str) -> Ints:
        """Numbers for the nodes' values of a label: equal values, equal numbers; -1 without it."""
        names: Names[str] = Names()
        found = (dict(view.labels).get(key) for view in self.views)
        return np.array([-1 if v is None else names.number(v) for v in found], np.int64)


class Tasks:
    """One row for each task that waits, the oldest first; shapes, people and words as numbers."""

    COLUMNS = (
        "created",
        "job",
        "task",
        "not_before",
        "not_yet",
        "priority",
        "limit",
        "shape",
        "owner",
        "account",
        "held",
        "gpus",
        "yields",
    )

    def __init__(self, waiting: Iterable[Waiting]) -> None:
        """`waiting`: all that wait, in any order."""
        self.shapes: Names[Shape] = Names()
        self.owners = Names("")
        self.accounts = Names("")
        self.words = Names("")
        self.entries: npt.NDArray[np.object_] = np.empty(0, object)
        for name in self.COLUMNS:
            setattr(self, name, np.empty(0, np.int64))
        self._known: dict[int, tuple[Shape, int, int]] = {}
        self._add(list(waiting))

    created: Ints
    """When its job was accepted."""
    job: Ints
    task: Ints
    not_before: Ints
    not_yet: Ints
    priority: Ints
    """Value of its class."""
    limit: Ints
    """The longest that it may run; `FOREVER_US` where nobody knows."""
    shape: Ints
    owner: Ints
    account: Ints
    held: Ints
    """Why it may not start; 0: it may."""
    gpus: Ints
    """GPUs of the whole gang."""
    yields: Ints
    """1: any other job may end it."""

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def remembered(self) -> int:
        """Values that have a number, whether a task still has them or not."""
        names = (self.shapes, self.owners, self.accounts, self.words)
        return sum(len(each) for each in names)

    def change(self, jobs: Mapping[int, Sequence[Waiting]]) -> None:
        """Take over what changed: by job, all of its tasks that wait now."""
        if not jobs:
            return
        gone = np.isin(self.job, np.fromiter(jobs, np.int64, len(jobs)))
        if gone.any():
            keep = ~gone
            self.entries = self.entries[keep]
            for name in self.COLUMNS:
                setattr(self, name, getattr(self, name)[keep])
        self._add([waiting for entries in jobs.values() for waiting in entries])

    def _add(self, new: list[Waiting]) -> None:
        n = len(new)
        if not n:
            return
        owners, accounts, words = self.owners.number, self.accounts.number, self.words.number
        shapes = [self._shape(w.shape) for w in new]
        columns = {
            "created": [w.created_us for w in new],
            "job": [w.job_id for w in new],
            "task": [w.task_index for w in new],
            "not_before": [w.not_before_us for w in new],
            "not_yet": [words(w.not_yet) for w in new],
            "priority": [w.priority for w in new],
            "limit": [FOREVER_US if w.limit_us is None else w.limit_us for w in new],
            "shape": [number for number, _ in shapes],
            "owner": [owners(w.owner) for w in new],
            "account": [accounts(w.account) for w in new],
            "held": [words(w.held) for w in new],
            "gpus": [gpus for _, gpus in shapes],
            "yields": [int(w.preemptible) for w in new],
        }
        entries = np.empty(n, object)
        entries[:] = new
        merged = {
            name: np.concatenate((getattr(self, name), np.array(values, np.int64)))
            for name, values in columns.items()
        }
        order = np.lexsort((merged["task"], merged["job"], merged["created"]))
        self.entries = np.concatenate((self.entries, entries))[order]
        for name, values in merged.items():
            setattr(self, name, values[order])

    def _shape(self, shape: Shape) -> tuple[int, int]:
        known = self._known.get(id(shape))
        if known is None:
            # The shape is kept with its identity, so that no other can come to have it.
            gpus = shape.workers * shape.resources.gpus
            known = self._known[id(shape)] = (shape, self.shapes.number(shape), gpus)
        return known[1], known[2]
