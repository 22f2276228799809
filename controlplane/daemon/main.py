"""`controlplane`: the command of operators on the control plane's host."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from controlplane import __version__
from controlplane.daemon.settings import ENV_PREFIX, Settings
from controlplane.kit.alone import InUse
from controlplane.kit.config import ConfigError, Loaded, document, load, render
from controlplane.kit.logs import configure
from controlplane.kit.options import settings_options
from controlplane.model.errors import ControlPlaneError
from controlplane.service.auth import Role, TokenFile, write_private

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with settings; flags and environment variables override it.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="controlplane")
def main() -> None:
    """Run the control plane of a compute centre.

    \b
    First steps:
      controlplane init --state-dir /var/lib/controlplane
      controlplane serve --state-dir /var/lib/controlplane
    """


@main.command()
@config_option
@settings_options(Settings)
def serve(config: Path | None, flags: dict[str, Any]) -> None:
    """Serve in the foreground until SIGTERM.

    Brings the database's schema up to date first. Running jobs are not touched by a start, a stop
    or a restart.
    """
    from controlplane.daemon import serve as daemon

    loaded = _load(config, flags)
    configure(loaded.value.log_level, loaded.value.log_format)  # type: ignore[arg-type]
    try:
        asyncio.run(daemon.serve(loaded.value))
    except (ControlPlaneError, InUse) as error:
        logging.getLogger(__name__).error("%s", error)
        sys.exit(1)


@main.command()
@config_option
@settings_options(Settings)
def init(config: Path | None, flags: dict[str, Any]) -> None:
    """Make the state folder, and tokens for an administrator and for agents.

    Writes admin.token and agent.token there, readable by you alone. A repeat keeps what is there.
    """
    settings = _load(config, flags).value
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, role in (("admin", Role.ADMIN), ("agent", Role.AGENT)):
        path = settings.state_dir / f"{name}.token"
        if path.exists():
            click.echo(f"{path}: kept")
            continue
        write_private(path, TokenFile(settings.tokens).add(name, role) + "\n")
        click.echo(f"{path}: made for {name}")


@main.group()
def token() -> None:
    """Make tokens for principals."""


@token.command("create")
@click.argument("principal")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.USER.value,
    show_default=True,
    help="What the principal may do.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write the token to, readable by you alone; it is shown nowhere else.",
)
@config_option
@settings_options(Settings)
def token_create(
    principal: str, role: str, out: Path, config: Path | None, flags: dict[str, Any]
) -> None:
    """Make a token for PRINCIPAL. A running daemon knows it at once."""
    settings = _load(config, flags).value
    write_private(out, TokenFile(settings.tokens).add(principal, Role(role)) + "\n")
    click.echo(f"{out}: a token for {principal}, with the role {role}")


@main.group("config")
def config_group() -> None:
    """Show settings."""


@config_group.command("show")
@config_option
@settings_options(Settings)
def config_show(config: Path | None, flags: dict[str, Any]) -> None:
    """Print the effective settings as TOML, each with where it came from."""
    click.echo(render(_load(config, flags)), nl=False)


@config_group.command("example")
def config_example() -> None:
    """Print a commented configuration file with every setting."""
    click.echo(document(Settings), nl=False)


def _load(config: Path | None, flags: dict[str, Any]) -> Loaded[Settings]:
    try:
        return load(Settings, file=config, environ=os.environ, flags=flags, env_prefix=ENV_PREFIX)
    except ConfigError as error:
        for line in error.lines:
            click.echo(f"controlplane: {line}", err=True)
        sys.exit(2)
