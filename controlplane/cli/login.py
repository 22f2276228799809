"""`ccctl login`, `logout` and `whoami`: which control plane, and who one is there."""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from pathlib import Path
from typing import IO

import click

from controlplane.cli.app import App, Command, pass_app
from controlplane.cli.text import visible
from controlplane.kit.private import replace_private

_OURS = re.compile(r"""^\s*(["']?)(server|token_file|ca_file)\1\s*=""")


@click.command(
    cls=Command,
    examples="""
    ccctl login alice.login
    ssh desk cat alice.login | ccctl login -
    """,
)
@click.argument("file", type=click.File("r"))
@pass_app
def login(app: App, file: IO[str]) -> None:
    """Log in with what `ccctl token create` has written into FILE, or - for standard input.

    Asks the control plane who you are there, and keeps server, certificate and token under
    ~/.config/ccctl, readable by you alone. FILE is needed no more.
    """
    from controlplane.cli.render import plain
    from controlplane.cli.settings import config_file
    from controlplane.client import Client
    from controlplane.kit.credential import LONGEST, read_credential

    try:
        handed = read_credential(file.read(LONGEST + 1), "login")
    except ValueError as problem:
        raise click.BadParameter(f"{file.name} {problem}.", param_hint="FILE") from None
    file_of_settings = config_file(os.environ).absolute()
    folder = file_of_settings.parent
    before = _settings_text(file_of_settings)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".login-") as trial:
        trust = None
        if handed.authority:
            trust = Path(trial) / "ca.crt"
            trust.write_bytes(handed.authority)
        with Client(handed.server, token=handed.secret, ca_file=trust, timeout_s=15) as client:
            info = client.server_info()
    token, authority = folder / "token", folder / "ca.crt"
    ours = {"server": handed.server, "token_file": str(token)}
    if handed.authority:
        ours["ca_file"] = str(authority)
    text = _with(before, ours)
    # First what points to the old server goes, so that no token is ever shown to another one.
    replace_private(file_of_settings, _with(before, {}))
    replace_private(token, f"{handed.secret}\n")
    replace_private(authority, handed.authority.decode())
    replace_private(file_of_settings, text)
    words = f"You are {info.principal} ({info.role}) at {handed.server}."
    app.emit(lambda: plain(info), lambda console: console.print(visible(words)))


@click.command(cls=Command, examples="ccctl logout")
@pass_app
def logout(app: App) -> None:
    """Forget server, certificate and token. The token itself counts on: `ccctl token revoke`."""
    from controlplane.cli.settings import config_file

    path = config_file(os.environ).absolute()
    if path.exists():
        replace_private(path, _with(_settings_text(path), {}))
    for name in ("token", "ca.crt"):
        (path.parent / name).unlink(missing_ok=True)
    app.note("You are logged out here.")


@click.command(cls=Command, examples="ccctl whoami")
@pass_app
def whoami(app: App) -> None:
    """Tell who you are at the control plane."""
    from controlplane.cli.render import plain

    with app.client() as client:
        info = client.server_info()
    words = f"{info.principal} ({info.role}) at {app.settings.server}"
    app.emit(lambda: plain(info), lambda console: console.print(visible(words)))


def _settings_text(path: Path) -> str:
    """What is in the configuration file. BadParameter when that is no TOML: nothing is touched."""
    try:
        text = path.read_bytes().decode() if path.exists() else ""
        tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise click.ClickException(f"{path} is no TOML file: {problem}. Mend it first.") from None
    return text


def _with(text: str, ours: dict[str, str]) -> str:
    """The text with these settings in the place of ours of before, and all else as it is."""
    head, table, rest = _parted(text)
    kept = [line for line in head if not _OURS.match(line)]
    fresh = [f"{name} = {_quoted(value)}\n" for name, value in ours.items()]
    made = "".join([*fresh, *kept, table, *rest])
    known = {key for key in tomllib.loads(text) if key not in ("server", "token_file", "ca_file")}
    try:
        if set(tomllib.loads(made)) != known | ours.keys():
            raise ValueError
    except ValueError:
        raise click.ClickException(
            "the configuration file writes server, token_file or ca_file in a way that cannot be"
            " changed here; take them out of it, and log in again"
        ) from None
    return made


def _parted(text: str) -> tuple[list[str], str, list[str]]:
    """The lines before the first table, its own, and those after it."""
    lines = text.split("\n")
    lines = [f"{line}\n" for line in lines[:-1]] + ([lines[-1] + "\n"] if lines[-1] else [])
    for number, line in enumerate(lines):
        if line.lstrip().startswith("["):
            return lines[:number], line, lines[number + 1 :]
    return lines, "", []


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
