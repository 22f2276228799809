"""The rooms: each says what it is for, the linter's rules bite, and forks stay small."""

from __future__ import annotations

import ast
import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_WITH_AGENTS = {"model", "wire", "kit", "v1"}


def rooms() -> set[str]:
    return {path.parent.name for path in (ROOT / "controlplane").glob("*/__init__.py")}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("package", ["controlplane", "nodeagent"])
def test_each_room_says_what_it_is_for(package: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("__init__.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert silent == []


def test_no_room_is_open_to_agents_by_oversight() -> None:
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    closed = rules["importlinter:contract:agent"]["forbidden_modules"].split()

    assert {f"controlplane.{room}" for room in rooms() - SHARED_WITH_AGENTS} <= set(closed)


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("controlplane/model/job.py", "import time", "What decides touches no clock"),
        ("controlplane/model/job.py", "import controlplane.registry", "Rooms of the control plane"),
        (
            "controlplane/registry/jobs.py",
            "import nodeagent",
            "knows nothing of how an agent works",
        ),
        ("nodeagent/host.py", "import controlplane.registry", "shares with the control plane only"),
        ("nodeagent/supervisor.py", "import asyncio", "A supervisor is a fork of a small process"),
        ("controlplane/attic/__init__.py", "", "Rooms of the control plane"),
    ],
)
def test_a_forbidden_import_is_noticed(
    tmp_path: Path, module: str, line: str, contract: str
) -> None:
    shutil.copy(ROOT / ".importlinter", tmp_path)
    for package in ("controlplane", "nodeagent"):
        shutil.copytree(ROOT / package, tmp_path / package)
    planted = tmp_path / module
    planted.parent.mkdir(exist_ok=True)
    with planted.open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")

    done = lint(tmp_path)

    broken = [said for said in done.stdout.splitlines() if "BROKEN" in said]
    assert [said for said in broken if contract in said], done.stdout
    assert done.returncode != 0


@pytest.mark.parametrize("module", ["nodeagent.spawner", "nodeagent.supervisor"])
def test_a_fork_drags_nothing_along(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )

    heavy = {"asyncio", "google", "grpc", "logging", "pynvml", "rich", "sqlalchemy"}
    names = set(done.stdout.split())
    assert heavy & {name.split(".")[0] for name in names} == set()
    light = {"controlplane", "controlplane.kit", "controlplane.kit.failpoints"}
    assert {name for name in names if name.split(".")[0] == "controlplane"} <= light
