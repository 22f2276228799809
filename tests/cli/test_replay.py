"""`ccctl replay` and `ccctl policy plan`, over a view from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.model.scene import write_scene
from controlplane.sim.replay import replay
from tests.sim.test_replay import scene

if TYPE_CHECKING:
    from tests.cli.conftest import Ccctl


def test_decisions_made_again_and_under_another_policy(ccctl: Ccctl, tmp_path: Path) -> None:
    view, new, made = tmp_path / "view.json", tmp_path / "new.toml", tmp_path / "plan.json"
    view.write_text(write_scene(scene()))
    new.write_text('backfill = "skip"\n')
    sha256 = replay(scene()).plan_sha256
    told = ccctl("replay", str(view), "--plan", str(made), "--expect", sha256[:12])
    assert told.code == 0
    assert "Of event 1: 0 start, 0 are ended for others, 2 wait." in told.out
    assert f"plan {sha256}" in told.out
    assert made.read_text() == replay(scene()).text
    assert ccctl("replay", str(view), "--expect", "00").code == 2
    told = ccctl("policy", "plan", str(new), "--view", str(view))
    assert told.code == 0
    assert "jobs/3/tasks/0" in told.out
    assert "starts" in told.out
    new.write_text('backfill = "slow"\n')
    told = ccctl("policy", "plan", str(new), "--view", str(view))
    assert told.code == 2
    assert f"{new}: backfill: 'slow': must be one of" in told.err
    view.write_text("{}")
    assert 'is no view: "format" must be' in ccctl("replay", str(view)).err
