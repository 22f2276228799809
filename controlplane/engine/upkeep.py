"""Upkeep: which nodes have fallen silent, whose lease is over, and which old records may go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from controlplane.model.event import CONTROL_PLANE
from controlplane.registry import jobs, nodes, site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from controlplane.registry.draft import Draft
    from controlplane.registry.registry import Registry
    from controlplane.registry.which import Which

COMMIT_S = 60.0
"""The longest to wait for a commit."""
KEEP_ANSWERS_US = 7 * 24 * 3600 * 1_000_000
"""Answers to requests are kept for a repeat for so long."""


@dataclass(slots=True)
class Liveness:
    """When each node was last heard, on boot time. Kept in memory alone: a new control plane gives
    every node a fresh lease."""

    lease_us: int
    """A node's lease: silent for longer, it is unknown."""
    margin_us: int
    """After the lease and this, its supervisors have ended what ran there, by their own clocks."""
    heard_us: dict[str, int] = field(default_factory=dict)
    """Node → boot time in microseconds."""

    def hear(self, node_uuid: str, boot_us: int) -> None:
        """A node has called."""
        self.heard_us[node_uuid] = boot_us

    def fresh(self, node_uuids: Iterable[str], boot_us: int) -> None:
        """Give every node a fresh lease."""
        for node_uuid in node_uuids:
            self.heard_us[node_uuid] = boot_us

    def silent(self, boot_us: int) -> dict[str, int]:
        """Nodes past their lease, and for how long each has been silent, in microseconds."""
        ages = {node: boot_us - heard for node, heard in self.heard_us.items()}
        return {node: age for node, age in ages.items() if age > self.lease_us}


def check_nodes(registry: Registry, liveness: Liveness, boot_us: int, now_us: int) -> list[str]:
    """Mark nodes past their lease as unknown, and take their leases back after the margin. Says
    what it did."""
    said = []
    for node_uuid, age_us in liveness.silent(boot_us).items():
        node = registry.node(node_uuid)
        if node is None:
            continue
        if node.silent_since_us is None:
            registry.submit(_silence(node_uuid, now_us - age_us), CONTROL_PLANE).result(COMMIT_S)
            said.append(f"{node.facts.display_name} is silent past its lease")
        over = age_us > liveness.lease_us + liveness.margin_us
        if (
            over
            and registry.desire(node_uuid).orders
            and registry.submit(_expire(node_uuid), CONTROL_PLANE).result(COMMIT_S)
        ):
            said.append(f"took back the leases of {node.facts.display_name}")
    return said


def _silence(node_uuid: str, since_us: int) -> Callable[[Draft], None]:
    return lambda draft: nodes.silence(draft, node_uuid, since_us)


def _expire(node_uuid: str) -> Callable[[Draft], bool]:
    return lambda draft: nodes.expire(draft, node_uuid)


def forget_reservations(registry: Registry, now_us: int) -> int:
    """Forget reservations that are over; how many there were."""
    over = [each.name for each, _ in registry.reservations() if each.end_us <= now_us]
    if over:
        registry.submit(_forget(over), CONTROL_PLANE).result(COMMIT_S)
    return len(over)


def _forget(names: list[str]) -> Callable[[Draft], None]:
    return lambda draft: site.forget_reservations(draft, names)


def end_unmet(registry: Registry) -> int:
    """End jobs and tasks that can never run, since what they wait for can never come; and then
    those that wait for these. How many there were."""
    ended = 0
    while unmet := registry.unmet():
        registry.submit(_cancel(unmet), CONTROL_PLANE).result(COMMIT_S)
        ended += len(unmet)
    return ended


def _cancel(which: list[Which]) -> Callable[[Draft], object]:
    return lambda draft: jobs.cancel(draft, which)


def forget(registry: Registry, now_us: int) -> int:
    """Drop answers that no repeat will ask for any more; how many there were."""
    return registry.store.forget_answers(now_us - KEEP_ANSWERS_US)
