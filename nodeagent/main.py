"""`nodeagent`: the command of operators on a node."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import IO, Any

import click

from controlplane import __version__
from controlplane.kit.alone import InUse, alone
from controlplane.kit.config import ConfigError, Loaded, document, load, render
from controlplane.kit.credential import LONGEST, read_credential
from controlplane.kit.logs import configure
from controlplane.kit.options import settings_options
from nodeagent.settings import ENV_PREFIX, Settings

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with settings; flags and environment variables override it.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nodeagent")
def main() -> None:
    """Run the agent of a node: it reports what the host has, and runs what the control plane
    decides.

    \b
    First steps, with what `ccctl node token create --out gpu-01.join` gives:
      nodeagent join gpu-01.join
      nodeagent run
    """


@main.command()
@config_option
@settings_options(Settings)
def run(config: Path | None, flags: dict[str, Any]) -> None:
    """Serve the node in the foreground until SIGTERM.

    Workers run on when the agent ends; the next agent on the same state folder adopts them.
    """
    from nodeagent import agent, starting
    from nodeagent.devices import DevicesUnavailable

    loaded = _load(config, flags)
    configure(loaded.value.log_level, loaded.value.log_format)  # type: ignore[arg-type]
    try:
        starting.check(loaded.value)
        asyncio.run(agent.run(loaded.value))
    except starting.CannotStart as error:
        for fault in error.faults:
            logging.getLogger(__name__).error("%s", fault)
        sys.exit(1)
    except (agent.AgentError, DevicesUnavailable, InUse, ValueError, OSError) as error:
        logging.getLogger(__name__).error("%s", error)
        sys.exit(1)


@main.command()
@click.argument("token", type=click.File("r"), metavar="FILE")
@config_option
@settings_options(Settings)
def join(token: IO[str], config: Path | None, flags: dict[str, Any]) -> None:
    """Let this host be a node, with what `ccctl node token create` has written into FILE.

    FILE is - for standard input. The host makes a key of its own and gets a certificate for it;
    the agent renews that by itself. Stop the agent first if it runs.

    \b
      nodeagent join gpu-01.join
      ssh desk ccctl node token create | nodeagent join -
    """
    from nodeagent import credential
    from nodeagent.identity import Identity

    settings = _load(config, flags).value
    folder = settings.state_dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with alone(folder, "agent"):
            try:
                handed = read_credential(token.read(LONGEST + 1), "join")
            except ValueError as error:
                raise click.ClickException(f"{token.name}: {error}") from None
            node_uuid = Identity(folder).uuid
            got = credential.join(handed, node_uuid, folder)
    except (credential.JoinError, InUse, ValueError) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        words = f"state_dir: {error.filename or folder} cannot be used: {error.strerror}"
        raise click.ClickException(words) from None
    click.echo(f"nodes/{node_uuid} may call {got.server}; start its agent with `nodeagent run`")


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
            click.echo(f"nodeagent: {line}", err=True)
        sys.exit(2)
