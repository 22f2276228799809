"""What people and programs rely on, word for word: help, JSON, tables, and every error."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from controlplane.cli.main import ccctl as root
from tests.cli.golden import check

if TYPE_CHECKING:
    from tests.cli.conftest import Ccctl
    from tests.cli.fake_server import World


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def test_help_of_every_command(ccctl: Ccctl) -> None:
    pages = []
    for path in commands(root):
        told = ccctl(*path, "--help")
        assert (told.code, told.err) == (0, "")
        pages.append(f"$ ccctl {' '.join((*path, '--help'))}\n{told.out}")
    check("help.txt", "\n".join(pages))


JSON = (
    ("list", "-o", "json"),
    ("show", "2", "-o", "json"),
    ("node", "list", "-o", "json"),
    ("node", "show", "gpu-0", "-o", "yaml"),
    ("history", "2", "-o", "json"),
    ("cancel", "1", "2", "-o", "json"),
    ("signal", "1", "USR1", "-o", "json"),
    ("version", "--remote", "-o", "json"),
    ("usage", "-o", "json"),
    ("usage", "-o", "csv"),
    ("account", "show", "vision", "-o", "json"),
    ("account", "shares", "-o", "json"),
)


@pytest.mark.parametrize("arguments", JSON, ids=" ".join)
def test_what_programs_read(ccctl: Ccctl, served: World, arguments: tuple[str, ...]) -> None:
    told = ccctl(*arguments)
    assert (told.code, told.err) == (0, "")
    if "json" in arguments:
        json.loads(told.out)
    text = told.out.replace(os.environ["CCCTL_SERVER"], "SERVER")
    check(f"{'-'.join(word.strip('-') for word in arguments)}.txt", text)


TABLES = (
    ("list",),
    ("list", "--limit", "2"),
    ("show", "1"),
    ("show", "jobs/2"),
    ("node", "list"),
    ("node", "show", "gpu-1"),
    ("node", "label", "gpu-1", "tier-", "fast=yes"),
    ("node", "drain", "gpu-0", "--reason", "a fan"),
    ("node", "undrain", "gpu-1"),
    ("node", "release", "gpu-1"),
    ("history", "2"),
    ("denials",),
    ("cancel", "1", "2"),
    ("cancel", "--state", "failed", "--yes"),
    ("signal", "1", "USR1"),
    ("signal", "1", "sigusr2", "--rank", "1"),
    ("version", "--remote"),
    ("usage",),
    ("usage", "--by", "model", "--from", "2026-02-01T00:00+00:00"),
    ("account", "list"),
    ("account", "show", "vision"),
    ("account", "show", "default"),
    ("account", "create", "speech", "--parent", "science", "--shares", "2"),
    ("account", "update", "vision", "--gpus", "8", "--borrow-gpus", "all", "--running", "none"),
    ("account", "delete", "speech"),
    ("account", "shares"),
    ("account", "member", "set", "vision", "ada", "--default", "--gpus", "16"),
    ("account", "member", "remove", "vision", "bob"),
    ("account", "member", "list", "vision"),
)


def test_what_people_read(ccctl: Ccctl, served: World) -> None:
    pages = []
    for arguments in TABLES:
        told = ccctl(*arguments)
        assert told.code == 0, told.err
        pages.append(f"$ ccctl {' '.join(arguments)}\n{told.out}{told.err}")
    check("tables.txt", "\n".join(pages).replace(os.environ["CCCTL_SERVER"], "SERVER"))


def test_configuration_tells_where_each_setting_came_from(
    ccctl: Ccctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = Path(os.environ["XDG_CONFIG_HOME"]) / "ccctl" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('server = "a:1"\ntoken_file = "/token"\n')
    monkeypatch.setenv("CCCTL_SERVER", "b:2")
    table = ccctl("config", "show", "--timeout", "3").out
    plain = ccctl("-o", "json", "config", "show").out
    check(
        "config.txt", f"{table}{plain}".replace(str(config), "FILE").replace(str(tmp_path), "TMP")
    )


def job(**fields: object) -> str:
    return json.dumps({"command": ["hostname"], **fields})


TEXTS = {
    "not-json": '{"command": ["hostname"],}',
    "not-an-object": "[1, 2]",
    "a-field-twice": '{"command": ["a"], "command": ["b"]}',
    "nan": '{"command": ["a"], "workers": NaN}',
    "nested-too-deeply": "[" * 100_000,
    "wrong-type-at-depth-three": job(
        resources={"gpus": {"count": 2}},
        labels={"a": {"b": 1}},
        working_dir={"ship": ".", "exclude": ["*.pt", 5]},
    ),
    "unknown-launcher": job(launcher="horovid"),
    "unknown-field": job(worker=3),
    "no-workers": job(workers=0),
    "too-many-workers": job(workers=10**9),
    "negative-limit": job(time_limit=-5),
    "empty-command": job(command=[]),
    "nul-in-an-argument": job(command=["echo", "a\0b"]),
    "equals-in-an-env-name": job(env={"A=B": "1"}),
    "several-faults": job(workers=0, launcher="x", resources={"memory": "8GBB"}, colour="red"),
    "working-dir-relative": job(working_dir="src"),
    "working-dir-path-climbs": job(working_dir="/data/../etc"),
    "working-dir-nowhere": job(working_dir={"ship": "nowhere"}),
    "working-dir-a-file": job(working_dir={"ship": "not-json.json"}),
    "working-dir-climbs": job(working_dir={"ship": ".."}),
    "working-dir-link-out": job(working_dir={"ship": "out"}),
    "working-dir-link-inside-out": job(working_dir={"ship": "inner"}),
    "working-dir-a-pipe": job(working_dir={"ship": "pipes"}),
}


FILES = {name: text.encode() for name, text in TEXTS.items()} | {"not-utf8": b'{"name": "\xff"}'}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every wrong file; it is where commands run."""
    made = tmp_path / "work"
    (made / "inner").mkdir(parents=True)
    (made / "pipes").mkdir()
    (made / "out").symlink_to("/")
    (made / "inner" / "link").symlink_to("/etc/hostname")
    os.mkfifo(made / "pipes" / "fifo")
    for name, content in FILES.items():
        (made / f"{name}.json").write_bytes(content)
    monkeypatch.chdir(made)
    return made


def told_error(ccctl: Ccctl, folder: Path, *arguments: str) -> str:
    told = ccctl(*arguments)
    assert told.out == ""
    assert "Traceback (most" not in told.err
    text = told.err.replace(os.environ.get("CCCTL_SERVER", "\0"), "SERVER")
    text = text.replace(str(folder.resolve()), "FOLDER").replace(str(folder.parent), "TMP")
    return f"$ ccctl {' '.join(arguments)}\n{text}[exit code {told.code}]\n"


def test_every_wrong_file(ccctl: Ccctl, served: World, folder: Path) -> None:
    pages = [told_error(ccctl, folder, "submit", f"{name}.json") for name in FILES]
    pages.append(told_error(ccctl, folder, "submit", "none.json"))
    pages.append(told_error(ccctl, folder, "submit", "inner"))
    pages.append(told_error(ccctl, folder, "submit", "no-workers.json", "--set", "wrkrs=3"))
    pages.append(told_error(ccctl, folder, "submit", "no-workers.json", "--set", "workers=-1"))
    assert served.calls.total() == 0
    check("wrong-files.txt", "\n".join(pages))


def test_every_wrong_command_line(ccctl: Ccctl, served: World, folder: Path) -> None:
    lines = (
        ("sumbit", "job.json"),
        ("submit",),
        ("submit", "x.json", "--request-id", "a" * 129),
        ("show", "abc"),
        ("list", "--state", "running"),
        ("list", "--since", "yesterday"),
        ("list", "--label", "team"),
        ("list", "--limit", "0"),
        ("list", "--output", "xml"),
        ("list", "--timeout", "soon"),
        ("logs", "1", "--stdout", "--stderr"),
        ("logs", "1", "--tail", "lots"),
        ("logs", "1", "--since", "soon"),
        ("logs", "1", "--since", "10m", "--until", "2h"),
        ("logs", "1", "--follow", "--until", "10m"),
        ("usage", "--by", "node"),
        ("account", "update", "vision"),
        ("account", "create", "vision", "--gpus", "many"),
        ("account", "create", "vision", "--members-may", "dance"),
        ("usage", "--from", "yesterday"),
        ("usage", "-o", "xml"),
        ("usage", "--output", "csv", "extra"),
        ("list", "-o", "csv"),
        ("cancel",),
        ("cancel", "1", "--owner", "ada"),
        ("signal", "1"),
        ("signal", "1", "usr3"),
        ("signal", "1", "12"),
        ("signal", "1", "KILL"),
        ("signal", "1", "SIGSTOP"),
        ("signal", "1", "USR1", "--rank", "-1"),
        ("node", "drain", "gpu-0"),
        ("node", "show", "a/b"),
        ("exec", "1"),
        ("exec", "1", "ls", "-l"),
        ("exec", "1", "--rank", "0", "--node", "gpu-0", "--", "ls"),
        ("exec", "1", "-t", "--size", "0x0", "--", "ls"),
        ("exec", "1", "-t", "--size", "24", "--", "ls"),
        ("exec", "1", "--size", "24x80", "--", "ls"),
        ("exec", "1", "-e", "=x", "--", "ls"),
        ("exec", "1", "-t", "-d", "--", "ls"),
        ("shell", "one"),
        ("run",),
        ("run", "--gpus", "many", "--", "ls"),
        ("run", "--cpus", "-1", "--memory", "8GBB", "--", "ls"),
        ("run", "--working-dir", "/x", "--ship", ".", "--", "ls"),
        ("run", "--set", "colour=red", "--", "ls"),
    )
    check("wrong-lines.txt", "\n".join(told_error(ccctl, folder, *line) for line in lines))


def test_every_answer_that_is_a_no(
    ccctl: Ccctl, served: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [
        told_error(ccctl, folder, "show", "99"),
        told_error(ccctl, folder, "node", "show", "gpu-9"),
        told_error(ccctl, folder, "cancel", "--owner", "ada"),
        told_error(ccctl, folder, "signal", "3", "USR1"),
    ]
    served.denials["CancelJobs"] = (
        "jobs/2: not bob's own, and the role user may call JobService/CancelJobs for its own alone;"
        " operator and admin may for all"
    )
    pages.append(told_error(ccctl, folder, "cancel", "1", "2"))
    served.token = "secret"
    pages.append(told_error(ccctl, folder, "list"))
    (folder / "token").write_text("wrong\n")
    (folder / "token").chmod(0o600)
    pages.append(told_error(ccctl, folder, "list", "--token-file", "token"))
    (folder / "token").chmod(0o644)
    pages.append(told_error(ccctl, folder, "list", "--token-file", "token"))
    served.token, served.api_version = None, "v2"
    pages.append(told_error(ccctl, folder, "list"))
    pages.append(told_error(ccctl, folder, "watch", "1"))
    tls = ("list", "--server", f"https://{os.environ['CCCTL_SERVER']}", "--timeout", "0.2")
    said = told_error(ccctl, folder, *tls).replace(os.environ["CCCTL_SERVER"], "SERVER")
    # Without gRPC's own lines, which ccctl as a program of its own turns off before gRPC is there;
    # and whether there is time for another try depends on how long the first handshake takes.
    pages.append(re.sub(r"^([IWE]\d{4} |.* Trying again ).*\n", "", said, flags=re.M))
    monkeypatch.delenv("CCCTL_SERVER")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        page = told_error(ccctl, folder, "list", "--server", address, "--timeout", "0.5")
        pages.append(page.replace(address, "SILENT"))
    pages.append(told_error(ccctl, folder, "list", "--server", "127.0.0.1:1", "--timeout", "0.2"))
    pages.append(told_error(ccctl, folder, "list", "--server", "unix:none", "--timeout", "0.2"))
    pages.append(told_error(ccctl, folder, "list", "--server", "http://10.0.0.1:7600"))
    pages.append(told_error(ccctl, folder, "list", "--server", "127.0.0.1:99999"))
    check("noes.txt", "\n".join(pages))


def test_every_wrong_setting(ccctl: Ccctl, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = []
    for name, content in {
        "none": None,
        "empty": b"\n",
        "two-lines": b"one\ntwo\n",
        "binary": b"\x00\x01",
        "huge": b"a" * 100_000,
    }.items():
        if content is not None:
            (folder / name).write_bytes(content)
        pages.append(told_error(ccctl, folder, "list", "--token-file", name))
    pages.append(told_error(ccctl, folder, "list", "--token-file", "inner"))
    (folder / "empty.pem").touch()
    pages.append(told_error(ccctl, folder, "list", "--ca-file", "none.pem"))
    pages.append(told_error(ccctl, folder, "list", "--ca-file", "empty.pem"))
    config = Path(os.environ["XDG_CONFIG_HOME"]) / "ccctl" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('sever = "x"\ntimeout = "long"\n')
    pages.append(told_error(ccctl, folder, "config", "show"))
    config.write_text("server = \n")
    pages.append(told_error(ccctl, folder, "show", "1"))
    assert ccctl("version").code == 0
    config.unlink()
    monkeypatch.setenv("CCCTL_SEVER", "x")
    pages.append(told_error(ccctl, folder, "list"))
    check("wrong-settings.txt", "\n".join(pages))
