"""What all commands of `controlplane` share: where settings come from, and how faults are told."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controlplane.daemon.settings import ENV_PREFIX, Settings
from controlplane.kit.config import ConfigError, Loaded, load
from controlplane.model.errors import ControlPlaneError

if TYPE_CHECKING:
    from collections.abc import Iterator

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with settings; flags and environment variables override it.",
)


@contextmanager
def told() -> Iterator[None]:
    """Tell a fault in one line, and end with code 1."""
    try:
        yield
    except ControlPlaneError as error:
        click.echo(f"controlplane: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"controlplane: {error.filename}: {error.strerror}", err=True)
        sys.exit(1)


def load_settings(config: Path | None, flags: dict[str, Any]) -> Loaded[Settings]:
    """The effective settings; ends with code 2 when they are wrong."""
    try:
        return load(Settings, file=config, environ=os.environ, flags=flags, env_prefix=ENV_PREFIX)
    except ConfigError as error:
        for line in error.lines:
            click.echo(f"controlplane: {line}", err=True)
        sys.exit(2)
