"""What may keep the control plane from starting: each is looked for before the start, and told with
the setting that mends it."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

from controlplane.kit.address import parse_address
from controlplane.model.document import BadDocument
from controlplane.model.errors import StoreUnavailable, WrongState
from controlplane.model.policy import DEFAULT, Policy
from controlplane.model.policyfile import read_policy
from controlplane.service.auth import TokenFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONGEST_SOCKET_PATH = 107
"""Bytes of a unix socket's path, by the kernel's leave."""


def make_state_dir(folder: Path) -> None:
    """Make the state folder. WrongState when we cannot make it or write there."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileExistsError:
        raise WrongState(f"state_dir: {folder} is no folder; name another") from None
    except OSError as error:
        raise WrongState(
            f"state_dir: {folder} cannot be used: {error.strerror};"
            " name a folder that this user may write to"
        ) from error


def check_tokens(path: Path) -> bool:
    """Whether there are tokens at all. WrongState when their file cannot be used."""
    try:
        TokenFile(path).read()
    except WrongState as error:
        raise WrongState(f"tokens_file: {error}") from None
    except OSError as error:
        raise WrongState(f"tokens_file: {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise WrongState(
            f"tokens_file: {path} is damaged: {error!r}; restore it from a backup, or remove it"
            " with admin.token and agent.token, and run `controlplane init`"
        ) from error
    return path.exists()


def check_tls(certificate: Path | None, key: Path | None) -> None:
    """WrongState when the certificate or its key cannot be used."""
    if certificate is None or key is None:
        return
    import ssl  # only where TLS is: the daemon itself speaks it by gRPC's own library

    for name, path, mark in (
        ("tls_certificate", certificate, b"-----BEGIN CERTIFICATE-----"),
        ("tls_key", key, b"PRIVATE KEY-----"),
    ):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise WrongState(f"{name}: {path} cannot be read: {error.strerror}") from error
        if mark not in data:
            what = "certificate" if name == "tls_certificate" else "private key"
            raise WrongState(f"{name}: {path} holds no {what} in PEM form")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise WrongState(f"tls_key: {key} is not the key of {certificate}") from error
        raise WrongState(
            f"tls_certificate and tls_key: {certificate} and {key} cannot be used: {error};"
            " both must be whole, and the key without a password"
        ) from error


def read_policy_file(file: Path | None) -> Policy:
    """How jobs are scheduled. WrongState, which names the file and the key, when it says it
    wrong."""
    if file is None:
        return DEFAULT
    try:
        return read_policy(file.read_text())
    except (OSError, UnicodeDecodeError, BadDocument) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise WrongState(f"policy_file: {file}: {words}") from error


def check_listen(setting: str, text: str) -> None:
    """WrongState when an address is none, or is not free on this host."""
    try:
        address = parse_address(text, least_port=0)
    except ValueError as error:
        raise WrongState(f"{setting}: {text!r} {error}") from None
    if address.path:
        _check_socket(setting, text, address.path)
        return
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise WrongState(
            f"{setting}: {text!r}: the host {address.host!r} does not resolve: {error.strerror}"
        ) from error
    for family, kind, protocol, _, where in found:
        _check_free(setting, text, (family, kind, protocol), where)


def _check_free(
    setting: str, text: str, kind: tuple[int, int, int], where: tuple[object, ...]
) -> None:
    try:
        with socket.socket(*kind) as probe:
            # As gRPC does: what an earlier connection left behind is no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise WrongState(
                f"{setting}: port {where[1]} of {where[0]} is in use;"
                f" `ss -ltnp 'sport = :{where[1]}'` tells by whom; stop that, or name another port"
            ) from error
        if error.errno == errno.EADDRNOTAVAIL and where[0] == "::1":
            return  # localhost resolves to it on hosts without IPv6 too; gRPC does without
        if error.errno == errno.EAFNOSUPPORT:
            return
        why = "is no address of this host" if error.errno == errno.EADDRNOTAVAIL else error.strerror
        raise WrongState(f"{setting}: {text!r} cannot be listened on: {why}") from error


def _check_socket(setting: str, text: str, path: str) -> None:
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise WrongState(f"{setting}: {text!r}: there is no folder {folder}; make it first")
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise WrongState(
            f"{setting}: {text!r}: the path of a socket has at most {LONGEST_SOCKET_PATH} bytes"
        )


@contextmanager
def told_of_database(setting: str = "database_url") -> Iterator[None]:
    """Tell why a database cannot be used as WrongState.

    `setting`: what names the database; empty: the words name it by themselves.
    """
    prefix = f"{setting}: " if setting else ""
    try:
        yield
    except ImportError as error:
        raise WrongState(
            f"{prefix}the driver {error.name} is not installed; run: pip install"
            " 'psycopg[binary]', or install the package with [postgresql]"
        ) from error
    except (sa.exc.ArgumentError, ValueError) as error:
        raise WrongState(
            f"{prefix}is no URL of a database; write e.g. postgresql+psycopg://HOST/NAME,"
            " or nothing for SQLite in state_dir"
        ) from error
    except (WrongState, StoreUnavailable) as error:
        raise WrongState(f"{prefix}{error}") from error
