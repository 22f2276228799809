"""`ccctl login`, `logout` and `whoami`: which control plane, and who one is there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO

import click

from controlplane.cli.app import App, Command, pass_app

_OURS = re.compile(r"^\s*(server|token_file|ca_file)\s*=")


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
    folder = config_file(os.environ).parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = folder / "ca.crt"
    fresh = authority.with_name("ca.crt.new")
    fresh.write_bytes(handed.authority)
    trust = fresh if handed.authority else None
    try:
        with Client(handed.server, token=handed.secret, ca_file=trust, timeout_s=15) as client:
            info = client.server_info()
    except BaseException:
        fresh.unlink()
        raise
    fresh.replace(authority)
    token = folder / "token"
    _write_private(token, f"{handed.secret}\n")
    lines = {"server": handed.server, "token_file": str(token)}
    if handed.authority:
        lines["ca_file"] = str(authority)
    _keep(config_file(os.environ), lines)
    words = f"You are {info.principal} ({info.role}) at {handed.server}."
    app.emit(lambda: plain(info), lambda console: console.print(words))


@click.command(cls=Command, examples="ccctl logout")
@pass_app
def logout(app: App) -> None:
    """Forget server, certificate and token. The token itself counts on: `ccctl token revoke`."""
    from controlplane.cli.settings import config_file

    path = config_file(os.environ)
    for name in ("token", "ca.crt"):
        (path.parent / name).unlink(missing_ok=True)
    if path.exists():
        _keep(path, {})
    app.note("You are logged out here.")


@click.command(cls=Command, examples="ccctl whoami")
@pass_app
def whoami(app: App) -> None:
    """Tell who you are at the control plane."""
    from controlplane.cli.render import plain

    with app.client() as client:
        info = client.server_info()
    words = f"{info.principal} ({info.role}) at {app.settings.server}"
    app.emit(lambda: plain(info), lambda console: console.print(words))


def _keep(path: Path, lines: dict[str, str]) -> None:
    """Put these settings into the configuration file; what else is there stays as it is."""
    import json

    before = path.read_text().splitlines() if path.exists() else []
    # Settings of a table further down would be others'.
    kept = [line for line in before if not _OURS.match(line)]
    fresh = [f"{name} = {json.dumps(value)}" for name, value in lines.items()]
    _write_private(path, "\n".join([*fresh, *kept]) + "\n")


def _write_private(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    os.replace(fresh, path)
