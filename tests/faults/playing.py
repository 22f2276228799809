"""Plays scenarios one after another and judges each: what was told, what ran, and what is left."""

from __future__ import annotations

import contextlib
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.check import faults
from tests.faults.stage import Stage, stage
from tests.support import netns
from tests.support.disk import small_disk
from tests.support.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.faults.scenarios import Scenario

KINDS = ("sqlite", "postgresql", "small-disk", "hosts")
"""Of centres."""
AGENTS = {name: {"cpus": 8} for name in "abc"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a scenario went."""

    scenario: Scenario
    """Which one."""
    faults: tuple[str, ...]
    """What was not as it must be."""
    seconds: float
    """How long it took."""

    def __str__(self) -> str:
        """A row of the table, and a line for each fault."""
        word = "FAILED" if self.faults else "ok"
        row = f"{word:6} {self.seconds:5.1f} s  {self.scenario.name:40} {self.scenario.prose}"
        return "\n".join([row, *(f"         {fault}" for fault in self.faults)])


@contextlib.contextmanager
def centre(on: str, folder: Path) -> Iterator[Stage]:
    """A centre of the kind that a scenario takes."""
    with contextlib.ExitStack() as stack:
        serve: dict[str, str] = {}
        server = None
        if on == "postgresql":
            server = stack.enter_context(postgres())
            serve["database-url"] = server.fresh()
        if on == "small-disk":
            stack.enter_context(small_disk(folder / "controlplane", "size=48m"))
        hosts = stack.enter_context(netns.hosts(1 + len(AGENTS))) if on == "hosts" else ()
        made = stack.enter_context(stage(folder, AGENTS, serve, hosts))
        made.postgres, made.small_disk = server, on == "small-disk"
        yield made


def perform(made: Stage, scenario: Scenario) -> Outcome:
    """Play one, heal, wait until every job has ended, and judge."""
    began = time.monotonic()
    found: Sequence[str]
    try:
        scenario.play(made)
        made.heal()
        made.settle()
        found = faults(made.accounts())
    except Exception as error:
        words = "".join(traceback.format_exception(error, limit=-3)).strip()
        found = [line for line in words.splitlines() if line.strip()]
    return Outcome(scenario=scenario, faults=tuple(found), seconds=time.monotonic() - began)


def play(
    scenarios: Sequence[Scenario], folder: Path, tell: Callable[[Outcome], object]
) -> list[Outcome]:
    """Play all, those that take the same kind of centre in one; after a fault in another one."""
    outcomes = []
    for on in dict.fromkeys(scenario.on for scenario in scenarios):
        left = [scenario for scenario in scenarios if scenario.on == on]
        for number in range(len(left)):
            if not left:
                break
            below = folder / f"{on}-{number}"
            below.mkdir(parents=True)
            with centre(on, below) as made:
                while left:
                    outcome = perform(made, left.pop(0))
                    outcomes.append(outcome)
                    tell(outcome)
                    if outcome.faults:
                        break
    return outcomes
