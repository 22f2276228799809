"""Failpoints: nothing without the variable, once with it; and each name stands for a step."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.kit import failpoints

ROOT = Path(__file__).resolve().parents[2]
REACH = "import sys; from controlplane.kit.failpoints import reach; reach(sys.argv[1])"


def reach(folder: Path | None, name: str = "agent.ordered") -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != failpoints.VARIABLE}
    if folder is not None:
        env[failpoints.VARIABLE] = str(folder)
    return subprocess.run(
        [sys.executable, "-c", REACH, name],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_nothing_happens_unless_the_environment_says(tmp_path: Path) -> None:
    (tmp_path / "agent.ordered").write_text("kill")
    assert reach(None).returncode == 0
    assert failpoints.armed() is None, "no test runs with failpoints"
    assert reach(tmp_path, "agent.spawned").returncode == 0, "another one"
    assert (tmp_path / "agent.ordered").exists()


def test_it_happens_once(tmp_path: Path) -> None:
    (tmp_path / "agent.ordered").write_text("kill")
    assert reach(tmp_path).returncode == -signal.SIGKILL
    assert int((tmp_path / "agent.ordered.reached").read_text()) > 1
    assert reach(tmp_path).returncode == 0


def test_it_happens_at_the_time_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "agent.ordered").write_text("error@3\n")
    assert [reach(tmp_path).returncode for _ in range(2)] == [0, 0]
    last = reach(tmp_path)
    assert last.returncode == 1
    assert "OSError: the failpoint agent.ordered was told to fail here" in last.stderr


@pytest.mark.parametrize("words", ["explode", ""])
def test_what_is_no_action_is_told(tmp_path: Path, words: str) -> None:
    (tmp_path / "agent.ordered").write_text(words)
    assert "must be kill, stop, sleep:MILLISECONDS or error" in reach(tmp_path).stderr


def test_every_step_of_the_table_is_in_the_code_and_none_else() -> None:
    sources = [p for room in ("controlplane", "nodeagent") for p in (ROOT / room).rglob("*.py")]
    text = "".join(path.read_text() for path in sources if path.name != "failpoints.py")
    named = set(re.findall(r'failpoints\.reach\(\s*"([a-z_.]+)"', text))
    built = {f"synchronize.{verb}_answered" for verb in ("start", "stop")}
    built |= {"agent.reports_running", "agent.reports_ended", "agent.told_ended"}
    assert named | built == set(failpoints.POINTS)
