"""Addresses of a gRPC server as people write them: `host:port`, `[v6]:port` or `unix:PATH`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is."""

    host: str = ""
    """Name or literal IP, without brackets; empty for a unix socket."""
    port: int = 0
    """TCP port; 0 for a unix socket, or for one that the kernel chooses."""
    path: str = ""
    """Path of a unix socket; empty for TCP."""

    @property
    def local(self) -> bool:
        """Whether nothing that is sent there leaves this host."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str, *, least_port: int = 1) -> Address:
    """Read an address. ValueError, with what should be written, when it is none.

    `least_port`: 0 where the kernel may choose.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise ValueError("is no address; name the socket: unix:PATH")
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    if "://" in text or "/" in text:
        raise ValueError(
            "is no address; write host:port alone, without https:// and without a path"
        )
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise ValueError("is no address; write host:port or unix:PATH")
    if host.startswith("[") == host.endswith("]") == (":" in host):
        bare = host.strip("[]")
    else:
        raise ValueError("is no address; write an IPv6 address as [::1]:7600")
    if not least_port <= int(port) <= 65535:
        raise ValueError(f"is no address; the port must be from {least_port} to 65535")
    return Address(host=bare, port=int(port))
