"""`ccctl` in this process, with an empty home, a clock that stands, and no server yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from controlplane.cli.main import run
from controlplane.kit.clock import ManualClock
from tests.cli.fake_server import FakeServer, World
from tests.cli.worlds import NOW, world


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


Ccctl = Callable[..., Outcome]


@pytest.fixture
def ccctl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Ccctl]:
    """Run one command: `ccctl("list", "--all")`."""
    home = tmp_path / "home"
    home.mkdir()
    for name, value in {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "COLUMNS": "100",
        "TZ": "UTC",
        "GRPC_VERBOSITY": "NONE",
    }.items():
        monkeypatch.setenv(name, value)
    time.tzset()

    def call(*arguments: str) -> Outcome:
        capfdbinary.readouterr()
        clock = ManualClock(now_us=int(NOW.timestamp()) * 1_000_000)
        code = run(arguments, clock=clock)
        out, err = capfdbinary.readouterr()
        return Outcome(code=code, out=out.decode("latin-1"), err=err.decode())

    yield call
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, ccctl: Ccctl) -> Iterator[World]:
    """The world of the golden tests, behind the server that `ccctl` finds."""
    laid = world()
    with FakeServer(laid) as server:
        monkeypatch.setenv("CCCTL_SERVER", server.address)
        yield laid
