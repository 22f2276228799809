"""What is removed after a while, and what never is."""

from __future__ import annotations

import os
from pathlib import Path

from nodeagent.upkeep import remove, stale

NOW = 1_800_000_000.0


def aged(path: Path, age_s: float) -> None:
    os.utime(path, (NOW - age_s, NOW - age_s), follow_symlinks=False)


def job(folder: Path, name: str, *, checkpoint_age_s: float, age_s: float) -> None:
    (folder / name / "deep").mkdir(parents=True)
    (folder / name / "model.pt").write_text("x")
    for path, age in (("model.pt", checkpoint_age_s), ("deep", age_s), (".", age_s)):
        aged(folder / name / path, age)


def test_what_changed_lately_or_is_leased_stays(tmp_path: Path) -> None:
    job(tmp_path, "1", checkpoint_age_s=1000, age_s=1000)
    job(tmp_path, "2", checkpoint_age_s=10, age_s=1000)
    job(tmp_path, "3", checkpoint_age_s=1000, age_s=1000)
    assert [path.name for path in stale(tmp_path, NOW - 100, {"3"})] == ["1"]


def test_removing_follows_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "deep").mkdir(parents=True)
    jobs = tmp_path / "jobs"
    job(jobs, "1", checkpoint_age_s=1000, age_s=1000)
    (jobs / "1" / "link").symlink_to(victim)
    (jobs / "2").symlink_to(victim)
    (jobs / "blob").write_text("x")
    remove([jobs / "1", jobs / "2", jobs / "blob", jobs / "gone"])
    assert list(jobs.iterdir()) == []
    assert (victim / "deep").is_dir()
