"""docs/nomenclature.md names every state, every legal move and every variable, and no other."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

from controlplane.model.identity import Role
from controlplane.model.job import ATTEMPT_MOVES, AttemptState, CauseKind, JobState
from controlplane.model.lease import WorkerState
from controlplane.model.node import NodeState
from nodeagent.launchers import LAUNCHERS, plan_step
from tests.support.launches import launch, members, node

PAGE = (Path(__file__).parents[1] / "docs" / "nomenclature.md").read_text()


def section(title: str) -> str:
    """What stands under a heading, down to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", PAGE, flags=re.M | re.S)
    assert found, f"no section {title!r}"
    return found[1]


LIFECYCLES: dict[str, type[StrEnum]] = {
    "Job, and its task": JobState,
    "Attempt": AttemptState,
    "Node": NodeState,
    "Worker": WorkerState,
}


@pytest.mark.parametrize("title", LIFECYCLES)
def test_every_state_has_a_sentence_and_a_place_in_the_diagram(title: str) -> None:
    text = section(title)
    assert re.findall(r"^\| `(\w+)` \| .+\. \|$", text, flags=re.M) == list(LIFECYCLES[title])
    drawn = {state for move in moves(text) for state in move} - {"[*]"}
    assert drawn == set(LIFECYCLES[title])


def moves(text: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^  (\S+) --> ([^\s:]+)", text, flags=re.M))


def test_the_diagram_of_attempts_has_the_moves_of_the_table() -> None:
    final = {state for state in AttemptState if state.final}
    legal: set[tuple[str, str]] = {("[*]", AttemptState.STAGING)}
    for (state, _), to in ATTEMPT_MOVES.items():
        if to is not None:
            legal.add((state, to))
        elif state is AttemptState.RUNNING:  # without a fault: none was set on the way
            legal.add((state, AttemptState.SUCCEEDED))
        else:
            legal |= {(state, outcome) for outcome in final - {AttemptState.SUCCEEDED}}
    assert moves(section("Attempt")) == legal


def test_every_variable_of_a_worker_is_named() -> None:
    text = section("What a worker finds in its environment")
    gang = members([2, 2])
    for name in LAUNCHERS:
        plan = plan_step(launch(name, gang), node(gang))
        for variable in plan.workers[0].env:
            private = variable.startswith(("CC_MPI_", "OMPI_MCA_"))
            assert private or f"`{variable}`" in text, f"{name}: {variable}"
    told = set(re.findall(r"^\| `(CC_\w+)` \|", text, flags=re.M))
    plan = plan_step(launch("command", gang), node(gang))
    assert told == {name for name in plan.workers[0].env if name.startswith("CC_")}


def test_words_of_closed_lists_are_all_there() -> None:
    for word in (*CauseKind, *Role, *LAUNCHERS):
        assert f"`{word}`" in section("What people ask for") + section("How it is decided")
