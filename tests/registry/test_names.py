"""Names with characters of every plane of Unicode, on every store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controlplane.model.spec import InvalidSpec
from tests.support.words import EVERY_PLANE

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.registry.store import Store

from tests.support.world import World


def test_a_name_is_kept_as_it_is(connected: Callable[[], Store]) -> None:
    world = World(connected())
    job_id = world.submit(name=EVERY_PLANE, comment=EVERY_PLANE, env={"WORDS": EVERY_PLANE})
    world.registry.close()
    again = World(connected())
    spec = again.job(job_id).spec
    assert (spec.name, spec.comment, dict(spec.env)["WORDS"]) == (EVERY_PLANE,) * 3
    (event,) = again.store.events(f"jobs/{job_id}", after=0, limit=1)
    assert event.changed["name"] == EVERY_PLANE


@pytest.mark.parametrize("name", ["\ud800", "a\udfff", "\ud83d\ude00"])
def test_half_a_character_is_none(world: World, name: str) -> None:
    with pytest.raises(InvalidSpec, match="must be valid Unicode; it contains a lone surrogate"):
        world.submit(name=name)
