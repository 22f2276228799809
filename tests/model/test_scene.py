"""A view as a file: read again it is the same, and decides the same."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controlplane.model.document import BadDocument
from controlplane.model.policy import Policy
from controlplane.model.scene import Scene, digest, read_scene, write_scene
from controlplane.model.selector import parse_selector
from controlplane.model.view import (
    Account,
    Member,
    Promise,
    Queue,
    Quota,
    View,
    Window,
)
from controlplane.scheduling.policy import plan
from tests.scheduling.test_explain import ran
from tests.scheduling.test_policy import NOW, gang, node


def scene() -> Scene:
    picky = gang(3, gpus=1)
    picky = replace(
        picky, shape=replace(picky.shape, selector=parse_selector("rack in (a,b),!old"))
    )
    window = Window(
        name="w", begin_us=1, end_us=9, nodes=frozenset({"b"}), users=frozenset({"ada"})
    )
    view = View(
        now_us=NOW,
        seq=7,
        nodes=(node("a", gpus=2), node("b", gpus=1)),
        waiting=(gang(1, gpus=2, limit_us=3_600_000_000), gang(2, gpus=2), picky),
        accounts=(Account(name="x", parent="", quota=Quota(gpus=4, borrow_gpus=None)),),
        members=(Member(account="x", user="ada", usage=5),),
        queues=(Queue(name="q", selector=parse_selector("tier=prod")),),
        windows=(window,),
    )
    view = ran(view, 1, NOW + 3_600_000_000)
    promised = Promise(job_id=2, task_index=0, start_us=NOW + 5)
    return Scene(view=replace(view, promises=(promised,)), policy=Policy(backfill_depth=9))


def test_what_is_read_again_is_the_same_and_decides_the_same() -> None:
    one = scene()
    text = write_scene(one)
    again = read_scene(text)
    assert again == one
    assert write_scene(again) == text
    assert len(digest(text)) == 64
    assert repr(plan(again.view, again.policy)) == repr(plan(one.view, one.policy))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "x"}, 'is no view: "format" must be "controlplane-view"'),
        ({"version": 2}, "version 2 is not known here; this reads 1"),
        ({"view": {}}, "view.nodes: is missing"),
        ({"waiting": [{"shape": 99}]}, "waiting[0].shape: must be the place of one of shapes"),
        ({"policy": {"order": "x"}}, "policy.order: 'x': must be one of multifactor, fifo"),
    ],
)
def test_another_file_is_refused_in_words(change: dict[str, object], told: str) -> None:
    document = json.loads(write_scene(scene())) | change
    with pytest.raises(BadDocument) as caught:
        read_scene(json.dumps(document))
    assert str(caught.value).startswith(told)
