"""The steps of a decision, in order: who goes next, where, when, at whose cost, and why the others
wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.policy import DEFAULT
from controlplane.scheduling.board import Board
from controlplane.scheduling.decision import Decision

if TYPE_CHECKING:
    from controlplane.model.plan import Plan
    from controlplane.model.policy import Policy
    from controlplane.model.view import View


def plan(view: View, policy: Policy = DEFAULT) -> Plan:
    """What to do with everything that waits."""
    return decide(Board(view), view, policy)


def decide(board: Board, view: View, policy: Policy = DEFAULT) -> Plan:
    """The same over a board that was kept. Of the view everything counts but nodes, and what waits
    and runs: those are on the board."""
    return Decision(board, view, policy).plan()
