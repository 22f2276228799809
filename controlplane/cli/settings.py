"""Which server, with which token: `ccctl`'s configuration, from file, environment and options."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controlplane.kit.config import Loaded, load, setting

if TYPE_CHECKING:
    from collections.abc import Mapping

ENV_PREFIX: Final = "CCCTL_"
"""Variables that begin so are settings, and must be known."""

_TOKEN_FILE_LIMIT_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `ccctl` must know before it asks anything."""

    server: str = setting(
        "127.0.0.1:7600",
        help="The control plane: host:port, https://host:port or unix:/path.",
    )
    """The control plane's address."""
    token_file: Path | None = setting(
        None, help="File that holds your token.", example="~/.config/ccctl/token"
    )
    """File that holds the token; None to ask without one."""
    ca_file: Path | None = setting(
        None, help="PEM certificates to trust instead of the system's.", example="~/ca.pem"
    )
    """PEM certificates to trust; None for the system's."""
    timeout: float = setting(
        15.0,
        help="How long a call may take, tries while the server is away included.",
        unit="s",
        minimum=0.1,
        maximum=3600,
    )
    """Seconds that a call may take."""
    output: str = setting("table", help="Form of what is shown.", choices=("table", "json", "yaml"))
    """Form of what is shown."""


class TokenFileError(ValueError):
    """The token's file can't be used; the text says why."""


def config_file(environ: Mapping[str, str]) -> Path:
    """Where the configuration file is, if there is one."""
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "~"), ".config")
    return Path(base).expanduser() / "ccctl" / "config.toml"


def load_settings(environ: Mapping[str, str], flags: Mapping[str, object]) -> Loaded[Settings]:
    """Put the settings together; raise `ConfigError` with every fault."""
    file = config_file(environ)
    return load(
        Settings,
        file=file if file.exists() else None,
        environ=environ,
        flags=flags,
        env_prefix=ENV_PREFIX,
    )


def read_token(file: Path) -> str:
    """Give the token that a file holds; raise `TokenFileError`, which never repeats it."""
    path = file.expanduser()
    try:
        with path.open("rb") as opened:
            content = opened.read(_TOKEN_FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise TokenFileError(f"The token file {path} can't be read: {error.strerror}.") from None
    token = content.strip()
    if not token:
        raise TokenFileError(f"The token file {path} is empty; it must hold your token.")
    if len(content) > _TOKEN_FILE_LIMIT_BYTES or not all(0x20 < byte < 0x7F for byte in token):
        raise TokenFileError(
            f"The token file {path} holds no token: it must be one line of printable ASCII."
        )
    return token.decode("ascii")


def is_private(file: Path) -> bool:
    """Whether only its owner can read a file."""
    return file.expanduser().stat().st_mode & 0o077 == 0
