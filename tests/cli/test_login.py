"""`ccctl login` and the configuration that it finds: what it did not write stays, and what cannot
be changed is not touched."""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.kit.credential import Credential
from tests.cli.fake_server import FakeServer, World
from tests.support.cluster import BIN


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Path]:
    with FakeServer(World()) as server:
        path = tmp_path / "ada.login"
        path.write_text(
            Credential(kind="login", server=server.address, authority=b"", secret="secret").write()
        )
        yield path


def ccctl(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("CCCTL_")}
    return subprocess.run(
        [BIN / "ccctl", *words],
        env={**env, "XDG_CONFIG_HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def config(folder: Path, text: str) -> Path:
    path = folder / "ccctl" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "before",
    [
        "",
        'output = "json"\n',
        '# mine \u2028 \x0b 😀\nserver = "old:1"  # so\ntimeout = 20\n',
        '"server" = "old:1"\noutput = "yaml"',
    ],
    ids=["none", "others", "comments and odd characters", "a quoted key, no end of line"],
)
def test_what_is_not_ours_stays_as_it_is(tmp_path: Path, line: Path, before: str) -> None:
    if "\x0b" in before:
        before = before.replace("\x0b", "")  # no TOML
    path = config(tmp_path, before)
    others = {k: v for k, v in tomllib.loads(before).items() if k != "server"}
    done = ccctl(tmp_path, "login", line)
    assert done.returncode == 0, done.stderr
    after = tomllib.loads(path.read_text())
    assert {k: v for k, v in after.items() if k not in ("server", "token_file")} == others
    assert (tmp_path / "ccctl" / "token").read_text() == "secret\n"
    assert ccctl(tmp_path, "whoami").returncode == 0
    assert ccctl(tmp_path, "logout").returncode == 0
    assert tomllib.loads(path.read_text()) == others


@pytest.mark.parametrize(
    "before",
    ["output = \n", 'token_file = """\\\n  /a"""\n', "\xff\n"],
    ids=["no TOML", "over several lines", "no UTF-8"],
)
def test_a_file_that_cannot_be_changed_is_not_touched(
    tmp_path: Path, line: Path, before: str
) -> None:
    path = config(tmp_path, "")
    data = before.encode("latin-1")
    path.write_bytes(data)
    done = ccctl(tmp_path, "login", line)
    assert done.returncode == 1
    assert "fault of ccctl" not in done.stderr
    assert path.read_bytes() == data
    assert not (tmp_path / "ccctl" / "token").exists()


def test_a_link_in_the_way_is_not_followed(tmp_path: Path, line: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    config(tmp_path, "")
    (tmp_path / "ccctl" / "token.new").symlink_to(victim)
    assert ccctl(tmp_path, "login", line).returncode == 0
    assert victim.read_text() == "mine"
    assert not (tmp_path / "ccctl" / "token").is_symlink()


def test_who_is_not_let_in_keeps_what_was_there(tmp_path: Path, line: Path) -> None:
    path = config(tmp_path, 'server = "old:1"\n')
    damaged = tmp_path / "x"
    damaged.write_text(line.read_text()[:-6])
    done = ccctl(tmp_path, "login", damaged)
    assert done.returncode == 2
    assert "is damaged; was all of it copied?" in done.stderr
    assert path.read_text() == 'server = "old:1"\n'
