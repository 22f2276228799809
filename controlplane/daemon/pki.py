"""The authority's files on the control plane's host: `pki/` in its state folder.

`ca.crt` and `ca.key` are made once; `server.crt` and `server.key` anew before they end, and when
the names by which the server is reached have changed.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

import grpc

from controlplane.kit import pki
from controlplane.kit.private import replace_private
from controlplane.model.errors import WrongState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SERVER_DAYS = 365
"""The server's own certificate lasts so long."""


class PkiFiles:
    """Where the authority and the server's certificate lie."""

    def __init__(self, state_dir: Path) -> None:
        """`state_dir`: the control plane's."""
        self._folder = state_dir / "pki"
        self.authority_file = self._folder / "ca.crt"
        self.certificate = self._folder / "server.crt"
        self.key = self._folder / "server.key"
        self._hosts = self._folder / "hosts"

    @property
    def there(self) -> bool:
        """Whether there is an authority."""
        return self.authority_file.exists()

    def make(self, name: str, hosts: Iterable[str], now_us: int) -> bool:
        """Make an authority and the server's certificate; whether anything was made.

        `hosts`: names and addresses by which the server is reached, beside those that are known.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        made = not self.there
        if made:
            authority = pki.make_authority(name, now_us)
            replace_private(self._folder / "ca.key", authority.key.decode())
            replace_private(self.authority_file, authority.certificate.decode())
        wanted = list(dict.fromkeys([*self._known_hosts(), *hosts]))
        if not self._serves(wanted):
            self._issue(wanted, now_us)
            replace_private(self._hosts, "".join(f"{host}\n" for host in wanted))
            made = True
        return made

    def _serves(self, hosts: Iterable[str]) -> bool:
        """Whether the server's certificate is whole, and good for all of these."""
        try:
            pair = pki.KeyPair(certificate=self.certificate.read_bytes(), key=self.key.read_bytes())
            pki.check_pair(pair)
            return set(hosts) <= set(pki.names_of(pair.certificate))
        except (OSError, ValueError):
            return False

    def authority(self) -> pki.Authority:
        """The authority. WrongState when its files cannot be used."""
        try:
            pair = pki.KeyPair(
                certificate=self.authority_file.read_bytes(),
                key=(self._folder / "ca.key").read_bytes(),
            )
            return pki.Authority(pair)
        except OSError as error:
            raise WrongState(
                f"{error.filename} cannot be read: {error.strerror}; restore it from a backup"
            ) from error
        except pki.PkiError as error:
            raise WrongState(
                f"{self._folder}: ca.crt and ca.key: {error}; restore both from a backup"
            ) from error

    def renew(self, now_us: int) -> bool:
        """Issue the server's certificate anew when that is due, or it is not whole; whether it
        was."""
        hosts = self._known_hosts()
        due = not self._serves(hosts)
        if not due:
            due = pki.read_certificate(self.certificate.read_bytes()).due(now_us)
        if due:
            self._issue(hosts or own_hosts(()), now_us)
        return due

    def _issue(self, hosts: list[str], now_us: int) -> None:
        pair = self.authority().server(hosts, now_us, SERVER_DAYS)
        # Whoever reads between the two finds a key that does not fit, and tries again.
        replace_private(self.key, pair.key.decode())
        replace_private(self.certificate, pair.certificate.decode())

    def _known_hosts(self) -> list[str]:
        try:
            return self._hosts.read_text().split()
        except FileNotFoundError:
            return []


def own_hosts(listen: Iterable[str]) -> list[str]:
    """Names and addresses of this host that clients may use: its hostname, where it listens, and
    loopback."""
    found = ["localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn()]
    for host in listen:
        try:
            if ipaddress.ip_address(host).is_unspecified:
                continue
        except ValueError:
            pass
        found.append(host)
    return [host for host in dict.fromkeys(found) if host]


class ReloadedCertificate:
    """A server's certificate and key, read anew when their files have changed: a new connection
    gets the new one."""

    def __init__(self, certificate: Path, key: Path, clients: bytes | None) -> None:
        """`clients`: the authority that must have signed the certificate of every client, PEM;
        None: clients need none."""
        self._files = (certificate, key)
        self._clients = clients
        self._stamp = self._now()
        self._pair = self._read()

    def credentials(self) -> Any:
        """For a server's port."""
        return grpc.dynamic_ssl_server_credentials(
            grpc.ssl_server_certificate_configuration([self._pair], self._clients),
            self._fresh,
            require_client_authentication=self._clients is not None,
        )

    def _fresh(self) -> Any:
        """Called by gRPC before each handshake; None: as before."""
        try:
            stamp = self._now()
            if stamp == self._stamp:
                return None
            pair = self._read()
            _check_pair(*pair)
        except (OSError, ValueError, TypeError):
            return None  # in the middle of being written
        self._stamp, self._pair = stamp, pair
        return grpc.ssl_server_certificate_configuration([pair], self._clients)

    def _now(self) -> tuple[tuple[int, int], ...]:
        found = (path.stat() for path in self._files)
        return tuple((status.st_mtime_ns, status.st_ino) for status in found)

    def _read(self) -> tuple[bytes, bytes]:
        certificate, key = self._files
        return key.read_bytes(), certificate.read_bytes()


def _check_pair(key: bytes, certificate: bytes) -> None:
    pki.check_pair(pki.KeyPair(certificate=certificate, key=key))
