"""A board that is kept, and told what changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from controlplane.model.view import Changes, View
from controlplane.scheduling import board
from controlplane.scheduling.board import Board
from controlplane.scheduling.policy import decide, plan
from tests.scheduling.test_policy import NOW, gang, node

if TYPE_CHECKING:
    import pytest


def test_what_has_gone_is_forgotten_by_making_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "FORGETTING", 20)
    kept = Board(View(now_us=NOW, seq=1, nodes=(node("a"),), waiting=()))
    for job in range(1, 30):
        held = gang(job, held=f"held by somebody; `ccctl release {job}` lets it go on")
        assert not kept.overgrown or job > 15
        kept.change(Changes(whole=False, nodes={}, waiting={job: (held,)}, running={}))
        kept.change(Changes(whole=False, nodes={}, waiting={job: ()}, running={}))
    assert kept.overgrown


def test_nodes_that_come_go_and_change_decide_as_new_ones() -> None:
    waiting = tuple(gang(i, gpus=1) for i in range(1, 9))
    view = View(now_us=NOW, seq=1, nodes=(node("b", gpus=1),), waiting=waiting)
    kept = Board(view)
    a, b, c = node("a", gpus=2), replace(node("b", gpus=1), takes_work=False), node("c", gpus=3)
    for nodes in ((a, b), (a, b, c), (b, c), (node("b", gpus=1), c), (c,)):
        known = {view.uuid for view in kept.nodes.views}
        changed = {each.uuid: each for each in nodes}
        gone = dict.fromkeys(known - changed.keys())
        kept.change(Changes(whole=False, nodes={**changed, **gone}, waiting={}, running={}))
        whole = replace(view, nodes=nodes)
        assert decide(kept, whole) == plan(whole)
