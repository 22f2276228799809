"""The units before anything starts: systemd's own checks, and what jobs must not inherit."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "systemd"
DAEMONS = ("controlplane", "nodeagent")

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze: apt-get install systemd"
)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=30, check=False
    )


def settings(daemon: str) -> dict[str, str]:
    """The unit's settings; of one that is set twice, the last."""
    text = (UNITS / f"{daemon}.service").read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The root of a host on which both units and their programs are installed."""
    units = tmp_path / "etc" / "systemd" / "system"
    units.mkdir(parents=True)
    for daemon in DAEMONS:
        shutil.copy(UNITS / f"{daemon}.service", units)
        program = tmp_path / settings(daemon)["ExecStart"].split()[0].lstrip("/")
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch(mode=0o755)
    return tmp_path


@pytest.mark.parametrize("daemon", DAEMONS)
def test_systemd_understands_the_unit(installed: Path, daemon: str) -> None:
    done = analyze("verify", "--recursive-errors=no", f"--root={installed}", f"{daemon}.service")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_misspelt_setting_would_be_noticed(installed: Path) -> None:
    unit = installed / "etc" / "systemd" / "system" / "nodeagent.service"
    unit.write_text(unit.read_text(encoding="utf-8").replace("KillMode=", "KillMood="))

    done = analyze("verify", "--recursive-errors=no", f"--root={installed}", "nodeagent.service")

    assert "KillMood" in done.stderr


def test_the_control_plane_is_confined() -> None:
    # In tenths: 10 is "almost nothing left", 100 is "everything open".
    unit = str(UNITS / "controlplane.service")

    done = analyze("security", "--offline=true", "--threshold=15", unit)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_tells_systemd_how_it_is(daemon: str) -> None:
    unit = settings(daemon)

    assert unit["Type"] == "notify"
    assert unit["NotifyAccess"] == "main"
    assert unit["WatchdogSec"] == "30s"
    assert unit["Restart"] == "on-failure"
    assert unit["StateDirectory"] == daemon


def test_jobs_outlive_the_agent_and_inherit_no_cage() -> None:
    unit = settings("nodeagent")

    assert unit["KillMode"] == "process"
    assert unit["OOMPolicy"] == "continue"
    assert unit["Delegate"] == "yes"
    cages = re.compile(
        r"(Private|Protect|Restrict|SystemCall|Device|Mount|Bind|ReadOnly|ReadWrite|Inaccessible)\w*"
        r"|NoNewPrivileges|MemoryDenyWriteExecute|LockPersonality|OOMScoreAdjust|Nice|UMask"
        r"|User|DynamicUser|RootDirectory|RootImage|RuntimeMaxSec|MemoryMax|CPUQuota"
    )
    assert [name for name in unit if cages.fullmatch(name)] == []
