"""The scheduling cycle: look once, decide once, commit once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.model.event import CONTROL_PLANE
from controlplane.model.words import count
from controlplane.registry.placing import Refusal, commit_places
from controlplane.scheduling.policy import plan

if TYPE_CHECKING:
    from controlplane.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a cycle."""

    placed: int
    """Gangs that were started."""
    held: int
    """Tasks that wait on."""
    refused: tuple[Refusal, ...]
    """Placements that were no longer possible at the commit; the next cycle looks again."""

    def __str__(self) -> str:
        """The cycle in one sentence."""
        sentence = f"placed {count(self.placed, 'gang')}, {self.held} wait"
        if self.refused:
            sentence += f", {len(self.refused)} refused at the commit"
        return sentence


def cycle(registry: Registry, now_us: int, deadline_s: float = 60) -> Outcome:
    """One decision over everything that waits. `deadline_s`: the longest to wait for the commit."""
    view = registry.view(now_us)
    decided = plan(view)
    refused: tuple[Refusal, ...] = ()
    if decided.places:
        future = registry.submit(lambda draft: commit_places(draft, decided.places), CONTROL_PLANE)
        refused = future.result(timeout=deadline_s)
    registry.hold(decided.holds)
    return Outcome(
        placed=len(decided.places) - len(refused), held=len(decided.holds), refused=refused
    )
