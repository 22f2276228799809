"""What this host is and how others reach it: facts from /proc and sysfs, addresses, names, ports.

Parsers are pure and take text or bytes; the functions that read, ask or bind are thin. Nothing here
sends a packet, except that resolving a name may ask the site's name servers, always with a
deadline.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import socket
import struct
import threading
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Address = IPv4Address | IPv6Address

RESOLVE_TIMEOUT_MS = 5_000
"""How long a name may take to resolve, by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a host is, apart from its devices."""

    hostname: str
    """Its name: a label, not an identity."""
    boot_id: str
    """A UUID that changes with every boot."""
    kernel: str
    """Kernel release."""
    os_name: str
    """Operating system, as os-release PRETTY_NAME tells it."""
    cpu_model: str
    """CPU model name; empty where the kernel tells none."""
    cpu_ids: tuple[int, ...]
    """Cores that this process may use, by the kernel's numbers, ascending."""
    memory_bytes: int
    """Memory that this process may use: the host's, or less where a cgroup limits it."""


def read_host_facts(*, root: Path = Path("/"), cpu_ids: Sequence[int] | None = None) -> HostFacts:
    """Read the facts of the host whose files lie under `root`; `cpu_ids` default to our own cores.

    Raises `OSError` where /proc lacks what every Linux has, and `ValueError` where it can't be
    understood.
    """
    kernel = root / "proc/sys/kernel"
    return HostFacts(
        hostname=(kernel / "hostname").read_text().strip(),
        boot_id=(kernel / "random/boot_id").read_text().strip(),
        kernel=(kernel / "osrelease").read_text().strip(),
        os_name=parse_os_name(_first_text(root / "etc/os-release", root / "usr/lib/os-release")),
        cpu_model=parse_cpu_model((root / "proc/cpuinfo").read_text()),
        cpu_ids=tuple(sorted(os.sched_getaffinity(0) if cpu_ids is None else cpu_ids)),
        memory_bytes=min(
            [parse_memory_total((root / "proc/meminfo").read_text()), *_memory_limits(root)]
        ),
    )


def parse_os_name(os_release: str) -> str:
    """PRETTY_NAME of an os-release file; "Linux" where it has none, as its manual says."""
    for line in os_release.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "PRETTY_NAME":
            try:
                return " ".join(shlex.split(value)) or "Linux"
            except ValueError:
                return value.strip()
    return "Linux"


def parse_cpu_model(cpuinfo: str) -> str:
    """Model name of the first processor that has one; its key differs between architectures."""
    found = re.search(r"^(?:model name|Processor|cpu)\s*:\s*(\S.*)$", cpuinfo, re.MULTILINE)
    return " ".join(found.group(1).split()) if found else ""


def parse_memory_total(meminfo: str) -> int:
    """MemTotal in bytes."""
    found = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    if not found:
        raise ValueError("/proc/meminfo: no line `MemTotal: … kB`")
    return int(found.group(1)) * 1024


def memory_limit_files(cgroups: str) -> list[str]:
    """Files under /sys/fs/cgroup that may limit our memory, from the text of /proc/self/cgroup.

    A limit anywhere above binds too. In a container the path may be one of the host's, with only
    our own part mounted: walking up to the root meets it all the same.
    """
    files: list[str] = []
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        folders = [folder.relative_to("/") for folder in _with_parents(PurePosixPath(path))]
        if not controllers:
            files += [str(base / f / "memory.max") for base in _UNIFIED for f in folders]
        elif "memory" in controllers.split(","):
            files += [str("memory" / f / "memory.limit_in_bytes") for f in folders]
    return files


_UNIFIED = (
    PurePosixPath(),
    PurePosixPath("unified"),
)  # The second where versions 1 and 2 are mixed.


def _with_parents(path: PurePosixPath) -> Iterator[PurePosixPath]:
    yield path
    yield from path.parents


def _memory_limits(root: Path) -> Iterator[int]:
    for name in memory_limit_files(_first_text(root / "proc/self/cgroup")):
        limit = _first_text(root / "sys/fs/cgroup" / name).strip()
        if limit.isdecimal():  # Not `max`.
            yield int(limit)


def _first_text(*paths: Path) -> str:
    """Text of the first file that can be read; empty where none can."""
    for path in paths:
        try:
            return path.read_text()
        except OSError:
            continue
    return ""


# --- addresses ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAddress:
    """An address that an interface of this host holds."""

    interface_index: int
    """The kernel's number of the interface."""
    address: IPv4Interface | IPv6Interface
    """The address with the length of its network's prefix."""


_RTM_NEWADDR, _RTM_GETADDR, _NLMSG_ERROR, _NLMSG_DONE = 20, 22, 2, 3
_NLM_F_REQUEST_DUMP = 0x001 | 0x300
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_MESSAGE = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface index
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_NETLINK_TIMEOUT_S = 5.0


def parse_addresses(data: bytes) -> tuple[list[HeldAddress], bool]:
    """Read one datagram of an answer to RTM_GETADDR, and whether the answer ends with it."""
    held: list[HeldAddress] = []
    for kind, body in _chunks(data, _MESSAGE):
        if kind == _NLMSG_DONE:
            return held, True
        if kind == _NLMSG_ERROR:
            code = -int(struct.unpack_from("=i", body)[0])
            raise OSError(code, f"the kernel did not list addresses: {os.strerror(code)}")
        if kind != _RTM_NEWADDR:
            continue
        _, prefix, _, _, index = _ADDRESS.unpack_from(body)
        found = dict(_chunks(body[_ADDRESS.size :], _ATTRIBUTE))
        # On point-to-point links IFA_ADDRESS is the peer's, and IFA_LOCAL ours.
        packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
        if packed:
            address = ip_interface(f"{ip_address(packed)}/{prefix}")
            held.append(HeldAddress(interface_index=index, address=address))
    return held, False


def _chunks(data: bytes, header: struct.Struct) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each netlink message or attribute.

    Each begins with its length and its type.
    """
    at = 0
    while at + header.size <= len(data):
        length, kind = header.unpack_from(data, at)[:2]
        if length < header.size:
            return
        yield kind, data[at + header.size : at + length]
        at += (length + 3) & ~3


def held_addresses() -> list[HeldAddress]:
    """Every address of every interface in our network namespace, as the kernel tells them.

    Raises `OSError`.
    """
    held: list[HeldAddress] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_NETLINK_TIMEOUT_S)
        size = _MESSAGE.size + _ADDRESS.size
        header = _MESSAGE.pack(size, _RTM_GETADDR, _NLM_F_REQUEST_DUMP, 1, 0)
        kernel.send(header + _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
        done = False
        while not done:
            some, done = parse_addresses(kernel.recv(1 << 16))
            held += some
    return held


def interface_of(address: str) -> str | None:
    """Name of the interface that holds an IPv4 or IPv6 address; None where no interface does.

    All of 127.0.0.0/8 is the loopback interface's. Raises `ValueError` where `address` is no
    address.
    """
    wanted = ip_address(address)
    for held in held_addresses():
        ours = held.address
        within = wanted.is_loopback and ours.is_loopback and wanted in ours.network
        if within or ours.ip.packed == wanted.packed:
            return socket.if_indextoname(held.interface_index)
    return None


def address_towards(host: str, port: int, *, timeout_ms: int = RESOLVE_TIMEOUT_MS) -> str:
    """The address of this host from which `host` would be called; nothing is sent to it.

    Raises `OSError` with what was tried where the name does not resolve or no route leads there.
    """
    reason: OSError | None = None
    for target in resolve(host, timeout_ms=timeout_ms):
        family = socket.AF_INET if target.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((str(target), port))
                return str(probe.getsockname()[0])
            except OSError as error:
                reason = error
    raise OSError(errno.EHOSTUNREACH, f"no route leads from this host to {host!r}: {reason}")


# --- names and ports ------------------------------------------------------------------------------


def resolve(
    name: str,
    *,
    timeout_ms: int = RESOLVE_TIMEOUT_MS,
    lookup: Callable[[str], list[str]] | None = None,
) -> list[Address]:
    """Addresses of a name in the resolver's order, each once; an address is its own name.

    Raises `TimeoutError` after `timeout_ms`, and `OSError` where the name does not resolve.
    `lookup` stands in for the system's resolver, which has no deadline of its own: a lookup that
    hangs keeps its thread, and nothing else.
    """
    try:
        return [ip_address(name)]
    except ValueError:
        pass
    answers: list[str] = []
    failures: list[Exception] = []
    ask = lookup or _system_lookup

    def work() -> None:
        try:
            answers.extend(ask(name))
        except Exception as error:  # Handed over to the caller's thread below.
            failures.append(error)

    worker = threading.Thread(target=work, name=f"resolve {name}", daemon=True)
    worker.start()
    worker.join(timeout_ms / 1000)
    if worker.is_alive():
        raise TimeoutError(
            f"{name!r} did not resolve within {timeout_ms} ms; check the name servers"
        )
    if failures:
        raise OSError(f"{name!r} does not resolve: {failures[0]}") from failures[0]
    return [ip_address(answer) for answer in dict.fromkeys(answers)]


def _system_lookup(name: str) -> list[str]:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(where[0]) for *_, where in found]


def hostname_address(
    *,
    hostname: str | None = None,
    timeout_ms: int = RESOLVE_TIMEOUT_MS,
    lookup: Callable[[str], list[str]] | None = None,
) -> str:
    """The address that a program gets which binds to what its hostname resolves to; empty for none.

    Some libraries (Gloo inside Horovod) do so whatever interface they are told to use, and take the
    first address that can be bound. Debian's 127.0.1.1 is one that no other host can reach; and
    where the name does not resolve in time, such a program does not even start. `hostname` defaults
    to this process's.
    """
    try:
        found = resolve(hostname or socket.gethostname(), timeout_ms=timeout_ms, lookup=lookup)
    except OSError:
        return ""
    return next((str(candidate) for candidate in found if _can_bind(candidate)), "")


def _can_bind(address: Address) -> bool:
    try:
        return free_port(str(address), 0)
    except OSError:
        return False


def free_port(address: str, port: int) -> bool:
    """Whether a server could listen on `port` at `address` now; `0.0.0.0` or `::` asks for all.

    Raises `OSError` where the reason is not the port: an address that is not this host's, a
    privileged port.
    """
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: connections that linger after their end do not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
