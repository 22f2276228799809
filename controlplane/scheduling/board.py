"""A view as columns, which can be kept from one decision to the next and told what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from controlplane.model.fairtree import fair_tree
from controlplane.model.selector import EVERYWHERE
from controlplane.scheduling.ask import Ask, ask
from controlplane.scheduling.columns import Bools, Nodes, Tasks
from controlplane.scheduling.leases import Held
from controlplane.scheduling.placement import Fabric, fabric_of
from controlplane.scheduling.reasons import impossible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.model.selector import Selector
    from controlplane.model.view import Changes, NodeView, Queue, Shape, View
    from controlplane.scheduling.backfill import Reservation


FORGETTING = 50_000
"""Words, names and shapes that a board may remember of what has gone."""


class Board:
    """Nodes, what waits and what runs, ready to be decided over.

    A board that was told of every change decides as one that is made of the whole view.
    """

    def __init__(self, view: View) -> None:
        """`view`: everything."""
        self.nodes = Nodes(view.nodes)
        self.tasks = Tasks(view.waiting)
        self.running = {(task.job_id, task.task_index): task for task in view.running}
        self.held = Held(self.nodes, self.running)
        self._shares: tuple[object, object, Mapping[tuple[str, str], int]] | None = None
        self._fabrics: dict[tuple[str, ...], Fabric] = {}
        self._masks: dict[tuple[Selector, Selector, str], Bools] = {}
        self._never: dict[tuple[Shape, int, str], tuple[str | None, Bools]] = {}

    def change(self, changes: Changes) -> None:
        """Take over what changed."""
        nodes = changes.nodes
        known = [(node, self.nodes.views[self.nodes.row[uuid]]) for uuid, node in nodes.items()
                 if node is not None and uuid in self.nodes.row]  # fmt: skip
        if any(_is_other(a, b) for a, b in known):
            self._forget()
        if rebuilt := len(known) < len(nodes):
            views = {view.uuid: view for view in self.nodes.views}
            for uuid, node in nodes.items():
                if node is None:
                    views.pop(uuid, None)
                else:
                    views[uuid] = node
            self.nodes = Nodes(views.values())
            self._forget()
        else:
            for node, _ in known:
                self.nodes.put(node)
        self.tasks.change(changes.waiting)
        for key, task in changes.running.items():
            if task is None:
                self.running.pop(key, None)
            else:
                self.running[key] = task
        if rebuilt:
            self.held = Held(self.nodes, self.running)
        else:
            self.held.change(changes.running)

    @property
    def overgrown(self) -> bool:
        """Whether it remembers so many words and shapes of what has gone that a new one is
        better."""
        return self.tasks.remembered > FORGETTING + 4 * len(self.tasks)

    def _forget(self) -> None:
        self._fabrics.clear()
        self._masks.clear()
        self._never.clear()

    def fabric(self, keys: tuple[str, ...]) -> Fabric:
        """How near nodes are to each other, by these labels."""
        found = self._fabrics.get(keys)
        if found is None:
            found = self._fabrics[keys] = fabric_of(self.nodes, keys)
        return found

    def ask(
        self,
        shape: Shape,
        owner: str,
        queue: Queue | None,
        exempt: frozenset[Reservation] = frozenset(),
    ) -> Ask:
        """A shape, ready to be looked for."""
        kinds = self.nodes.columns(shape)
        may = self._may(shape.selector, queue.selector if queue else EVERYWHERE, owner)
        return ask(shape, kinds, may, all_kinds=len(kinds) == len(self.nodes.kinds), exempt=exempt)

    def impossible(self, ask: Ask, owner: str) -> str | None:
        """Why a gang can never run; None when it could."""
        owner = owner if self.nodes.owned.any() else ""
        key = (ask.shape, id(ask.may), owner)
        if key not in self._never:
            # The mask is kept with its identity.
            self._never[key] = (impossible(self.nodes, ask, owner), ask.may)
        return self._never[key][0]

    def fair_shares(self, view: View) -> Mapping[tuple[str, str], int]:
        """The fair-share factor of each account and user; kept while nobody has used anything."""
        accounts, members = view.accounts, view.members
        if self._shares is None or not (accounts is self._shares[0] and members is self._shares[1]):
            self._shares = (accounts, members, fair_tree(accounts, members))
        return self._shares[2]

    def _may(self, selector: Selector, queue: Selector, owner: str) -> Bools:
        owner = owner if self.nodes.owned.any() else ""
        key = (selector, queue, owner)
        found = self._masks.get(key)
        if found is None:
            found = np.array([_serves(view, *key) for view in self.nodes.views], np.bool_)
            self._masks[key] = found
        return found


def _is_other(a: NodeView, b: NodeView) -> bool:
    """Whether a node has become another than it was, whatever is free of it."""
    return (
        a.labels != b.labels
        or a.only_owner != b.only_owner
        or a.devices != b.devices
        or (a.cpus, a.memory_bytes) != (b.cpus, b.memory_bytes)
    )


def _serves(view: NodeView, selector: Selector, queue: Selector, owner: str) -> bool:
    if view.only_owner and view.only_owner != owner:
        return False
    if not selector and not queue:
        return True
    labels = dict(view.labels)
    return selector.allows(labels) and queue.allows(labels)
