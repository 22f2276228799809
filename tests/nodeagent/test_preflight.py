"""What is looked at before a lease starts, and the site's own programs, with real processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nodeagent.launchers import LaunchError
from nodeagent.preflight import RELEASE_S, Preflight, run
from tests.support.supervised import gone, step, until, worker

if TYPE_CHECKING:
    from nodeagent.plan import StepPlan

PLAN = step(worker("true", env={"CC_JOB_ID": "12", "CC_OWNER": "ada", "KEY": "s3cret"}))


def preflight(folder: Path, **fields: Any) -> Preflight:
    values: dict[str, Any] = {
        "users": lambda ids: {},
        "prolog": None,
        "epilog": None,
        "deadline_s": 5.0,
        **fields,
    }
    return Preflight(**values)


def program(folder: Path, script: str) -> Path:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_device_that_is_let_go_in_time_is_waited_for(tmp_path: Path) -> None:
    """A driver cleans up behind the processes of the job before."""
    looks: list[Sequence[str]] = []

    def users(ids: Sequence[str]) -> Mapping[str, str]:
        looks.append(ids)
        return {} if len(looks) > 2 else {"GPU-1": "is in use"}

    asyncio.run(preflight(tmp_path, users=users).check_devices(["GPU-1"]))
    assert looks == [["GPU-1"]] * 3


def test_a_device_that_is_not_let_go_is_told(tmp_path: Path) -> None:
    checks = preflight(tmp_path, users=lambda ids: {"GPU-1": "is in use by process 7"})
    began = time.monotonic()
    with pytest.raises(LaunchError, match=r"^GPU-1: is in use by process 7$"):
        asyncio.run(checks.check_devices(["GPU-1"]))
    assert time.monotonic() - began >= RELEASE_S


def test_a_lease_without_devices_and_prolog_waits_for_nothing(tmp_path: Path) -> None:
    assert not preflight(tmp_path).takes_time([])
    assert preflight(tmp_path).takes_time(["GPU-1"])
    assert preflight(tmp_path, prolog=Path("/bin/true")).takes_time([])


def said(folder: Path, script: str, deadline_s: float = 5.0, plan: StepPlan = PLAN) -> str:
    return asyncio.run(run(program(folder, script), plan, deadline_s))


def test_a_program_of_the_sites_is_told_of_the_lease_and_of_no_secret(tmp_path: Path) -> None:
    assert said(tmp_path, f"env > {tmp_path}/env") == ""
    env = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert (env["CC_JOB_ID"], env["CC_OWNER"], env["CC_UID"]) == ("12", "ada", str(os.geteuid()))
    assert "KEY" not in env


def test_what_it_says_is_told_when_it_fails(tmp_path: Path) -> None:
    assert said(tmp_path, "echo the fan is loud; exit 3") == (
        "ended with exit code 3: the fan is loud"
    )
    assert said(tmp_path, "kill -9 $$") == "was ended by signal 9"
    assert (
        asyncio.run(run(tmp_path / "none", PLAN, 1)) == "cannot be run: No such file or directory"
    )


def test_one_that_takes_too_long_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path}/pid; wait"
    assert said(tmp_path, script, 0.5) == "had not ended after 0.5 s"
    pid = int((tmp_path / "pid").read_text())
    until(lambda: gone(pid), "its child to go")


def test_what_one_leaves_behind_is_ended(tmp_path: Path) -> None:
    script = f"sleep 600 > /dev/null 2>&1 & echo $! > {tmp_path}/pid"
    assert said(tmp_path, script) == ""
    pid = int((tmp_path / "pid").read_text())
    until(lambda: gone(pid), "its child to go")
