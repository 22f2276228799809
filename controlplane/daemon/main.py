"""`controlplane`: the command of operators on the control plane's host."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from controlplane import __version__
from controlplane.daemon import starting
from controlplane.daemon.databases import db
from controlplane.daemon.options import config_option, load_settings, told
from controlplane.daemon.pki import PkiFiles, own_hosts
from controlplane.daemon.settings import Settings
from controlplane.kit.address import Address, parse_address
from controlplane.kit.alone import InUse
from controlplane.kit.clock import SystemClock
from controlplane.kit.config import document, render
from controlplane.kit.credential import Credential
from controlplane.kit.durable import sync
from controlplane.kit.logs import configure
from controlplane.kit.options import settings_options
from controlplane.kit.private import as_owner_of, one_at_a_time, replace_private
from controlplane.model.errors import ControlPlaneError, WrongState
from controlplane.model.event import CONTROL_PLANE
from controlplane.model.identity import PEOPLE, USER_NAME, Role
from controlplane.service.auth import TokenFile


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

    loaded = load_settings(config, flags)
    configure(loaded.value.log_level, loaded.value.log_format)  # type: ignore[arg-type]
    try:
        asyncio.run(daemon.serve(loaded.value))
    except (ControlPlaneError, InUse) as error:
        logging.getLogger(__name__).error("%s", error)
        sys.exit(1)


@main.command()
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="Name or address by which clients reach this server, for its certificate; the hostname,"
    " localhost and where it listens are in it anyhow. May be repeated.",
)
@config_option
@settings_options(Settings)
def init(hosts: tuple[str, ...], config: Path | None, flags: dict[str, Any]) -> None:
    """Make the state folder, the certificate authority, and an administrator's credential.

    Writes admin.token and admin.login there, readable by you alone: `ccctl login admin.login` is
    the first thing to do. A repeat keeps what is there, and adds hosts to the server's certificate.
    """
    settings = load_settings(config, flags).value
    folder = settings.state_dir
    with told():
        starting.make_state_dir(folder)
        names = [*hosts, *_own_hosts(settings)]
        with as_owner_of(folder), one_at_a_time(folder / "init"):
            starting.check_tokens(settings.tokens)
            if settings.plaintext:
                _make_kept(settings, "agent", Role.AGENT)
            else:
                _make_pki(settings, names)
            fresh = _make_kept(settings, "admin", Role.ADMIN)
            _make_login(settings, hosts, fresh=fresh)


def _make_login(settings: Settings, hosts: tuple[str, ...], *, fresh: bool) -> None:
    """The admin's token once more, as the line that `ccctl login` takes. One that is there stays,
    unless token or hosts are new."""
    token, path = settings.state_dir / "admin.token", settings.state_dir / "admin.login"
    if not token.exists() or (path.exists() and not fresh and not hosts):
        return
    server = _reached_at(settings, hosts)
    ours = PkiFiles(settings.state_dir).authority_file
    line = Credential(
        kind="login",
        server=server,
        authority=ours.read_bytes() if _certified(settings) else b"",
        secret=token.read_text().strip(),
    ).write()
    replace_private(path, f"{line}\n")
    click.echo(f"{path}: to log in at {server}: ccctl login {path}")


def _own_hosts(settings: Settings) -> list[str]:
    return own_hosts([_address(text).host for text in (settings.listen, settings.agents)])


def _make_pki(settings: Settings, hosts: list[str]) -> None:
    files = PkiFiles(settings.state_dir)
    name = f"control plane on {socket.gethostname()}"
    made = files.make(name, hosts, SystemClock().now_us())
    click.echo(f"{files.authority_file}: {'made' if made else 'kept'}")


def _address(text: str) -> Address:
    try:
        return parse_address(text, least_port=0)
    except ValueError as error:
        raise WrongState(f"listen: {text!r} {error}") from None


def _certified(settings: Settings) -> bool:
    local = settings.listen.startswith("unix:")
    return not (settings.plaintext or local or settings.tls_certificate is not None)


def _reached_at(settings: Settings, hosts: tuple[str, ...]) -> str:
    """The address for an administrator's login: the first host that was named, or where the server
    listens."""
    address = _address(settings.listen)
    if address.path:
        return settings.listen
    host = hosts[0] if hosts else address.host
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def _make_kept(settings: Settings, name: str, role: Role) -> bool:
    """Make a principal's first token and keep it in the state folder; whether that was needed."""
    path, file = settings.state_dir / f"{name}.token", TokenFile(settings.tokens)
    if path.exists() and file.principal(path.read_text().strip()) is not None:
        click.echo(f"{path}: kept")
        return False
    if not path.exists() and any(
        (each.name, each.role) == (name, role) for each in file.read().values()
    ):
        click.echo(f"{path}: was made before, and moved")
        return False
    replace_private(path, f"{file.add(name, role, _account())}\n")
    click.echo(f"{path}: made for {name}")
    return True


main.add_command(db)


@main.group()
def token() -> None:
    """Make tokens on the control plane's host, without the daemon.

    People get theirs by `ccctl token create`; these are for the first steps, and for a day on which
    nobody can log in.
    """


@token.command("create")
@click.argument("principal")
@click.option(
    "--role",
    type=click.Choice([role.value for role in (*PEOPLE, Role.AGENT)]),
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
    settings = load_settings(config, flags).value
    with told():
        _make_token(settings, principal, Role(role), out)
    click.echo(f"{out}: a token for {principal}, with the role {role}")


@main.group("config")
def config_group() -> None:
    """Show settings."""


@config_group.command("show")
@config_option
@settings_options(Settings)
def config_show(config: Path | None, flags: dict[str, Any]) -> None:
    """Print the effective settings as TOML, each with where it came from."""
    click.echo(render(load_settings(config, flags)), nl=False)


@config_group.command("example")
def config_example() -> None:
    """Print a commented configuration file with every setting."""
    click.echo(document(Settings), nl=False)


def _make_token(settings: Settings, principal: str, role: Role, out: Path) -> None:
    """Put a token into a file of its own, which must be new: an old one may be open to others.

    WrongState when that cannot be done; then no token was made.
    """
    if not USER_NAME.fullmatch(principal) or principal == CONTROL_PLANE.principal:
        raise WrongState(
            f"PRINCIPAL: {principal!r}: must be 1 to 100 of A-Z, a-z, 0-9 and . _ @ -,"
            f" and not {CONTROL_PLANE.principal!r}"
        )
    starting.check_tokens(settings.tokens)
    if not settings.tokens.parent.is_dir():
        raise WrongState(
            f"tokens_file: there is no folder {settings.tokens.parent};"
            " run `controlplane init` first, or name its state folder with --state-dir"
        )
    maker = _account()
    try:
        with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            with as_owner_of(settings.tokens.parent):
                token = TokenFile(settings.tokens).add(principal, role, maker)
            file.write(f"{token}\n")
        sync(out)  # nobody else has it
        sync(out.absolute().parent)
    except FileExistsError:
        raise WrongState(f"{out}: is there already; remove it, or name another file") from None
    except OSError as error:
        with suppress(OSError):
            out.unlink()
        raise WrongState(f"{error.filename or out}: cannot be written: {error.strerror}") from error


def _account() -> str:
    """Whose doing this is, for the log of events: the account that has become root, if one has."""
    try:
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
