"""What may keep the agent from starting: looked for before the start, all of it at once, and told
with the setting that mends it."""

from __future__ import annotations

import datetime
import errno
import ipaddress
import os
from typing import TYPE_CHECKING

from controlplane.kit.address import parse_address
from controlplane.kit.clock import SystemClock
from controlplane.kit.pki import read_certificate
from nodeagent import host
from nodeagent.credential import load
from nodeagent.limits import parse_limits, why_not

if TYPE_CHECKING:
    from pathlib import Path

    from nodeagent.settings import Settings


class CannotStart(Exception):
    """The agent cannot start; `faults` has a line for each reason, with what to change."""

    def __init__(self, *faults: str) -> None:
        """Hold the reasons."""
        self.faults = faults
        super().__init__("\n".join(faults))


def check(settings: Settings) -> None:
    """CannotStart when a file, an address or a program that the settings name cannot be used."""
    looks = (_state_dir, _credential, _server, _address, _mpirun, _limits, _site)
    faults = [fault for look in looks if (fault := look(settings)) is not None]
    if faults:
        raise CannotStart(*faults)


def _state_dir(settings: Settings) -> str | None:
    folder = settings.state_dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileExistsError:
        return f"state_dir: {folder} is no folder; name another"
    except OSError as error:
        return (
            f"state_dir: {folder} cannot be used: {error.strerror};"
            " name a folder that this user may write to"
        )
    return None


def _credential(settings: Settings) -> str | None:
    if settings.token_file is not None:
        return _token(settings.token_file)
    try:
        held = load(settings.state_dir)
    except OSError as error:
        return f"state_dir: {error.filename} cannot be read: {error.strerror}"
    except ValueError as error:
        return f"state_dir: {error}"
    if held is None:
        return (
            f"state_dir: {settings.state_dir} holds no certificate: run `nodeagent join` with what"
            " `ccctl node token create` gives"
        )
    until_us = read_certificate(held.certificate.encode()).until_us
    if until_us <= SystemClock().now_us():
        ended = datetime.datetime.fromtimestamp(until_us / 1e6).astimezone()
        return (
            f"state_dir: the certificate in {settings.state_dir} ended on {ended:%Y-%m-%d %H:%M}:"
            " run `nodeagent join` with what `ccctl node token create --node` gives for this node"
        )
    return None


def _token(path: Path) -> str | None:
    try:
        mode, data = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        return (
            f"token_file: {path} cannot be read: {error.strerror};"
            " put agent.token there, which `controlplane init --plaintext` makes"
        )
    if mode & 0o077:
        return f"token_file: {path}: others can read it; run: chmod 600 {path}"
    token = data.strip()
    if not token:
        return f"token_file: {path} is empty; it must hold the agent's token"
    if not all(0x20 < byte < 0x7F for byte in token):
        return f"token_file: {path} holds no token: it must be one word of printable ASCII"
    return None


def _server(settings: Settings) -> str | None:
    text = settings.server
    if not text:
        return None
    try:
        address = parse_address(text)
    except ValueError as error:
        return f"server: {text!r} {error}"
    if settings.token_file is not None and not address.local:
        return (
            f"token_file: cannot be used towards {text!r}, which is another host: run"
            " `nodeagent join` with what `ccctl node token create` gives, and unset token_file"
        )
    return None


def _address(settings: Settings) -> str | None:
    text = settings.address
    if not text:
        return None
    try:
        wanted = ipaddress.ip_address(text)
    except ValueError:
        return (
            f"address: {text!r} is no IP address; write it in numbers, or nothing to have it found"
        )
    if host.interface_of(text) is None:
        ours = {held.address.ip for held in host.held_addresses()}
        there = ", ".join(str(ip) for ip in sorted(ours, key=str) if ip.version == wanted.version)
        return (
            f"address: {text} is no address of this host, which has {there or 'none of its kind'}"
        )
    return None


def _limits(settings: Settings) -> str | None:
    try:
        return why_not(parse_limits(settings.limits))
    except ValueError as error:
        return str(error)


def _site(settings: Settings) -> str | None:
    for name in ("prolog", "epilog"):
        path = getattr(settings, name)
        if path is not None and not (path.is_file() and os.access(path, os.X_OK)):
            return f"{name}: {path} is no program; name an executable file, or nothing"
    return None


def _mpirun(settings: Settings) -> str | None:
    path = settings.mpirun
    if path and not (os.path.isfile(path) and os.access(path, os.X_OK)):
        return f"mpirun: {path} is no program; name Open MPI's mpirun, or nothing to look on PATH"
    return None
