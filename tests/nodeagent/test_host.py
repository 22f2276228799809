"""Host facts from files made by hand; addresses, names and ports of the host that runs the test."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nodeagent import host

GIB = 1 << 30

CPUINFO = (
    "processor\t: 0\nmodel\t: 85\nmodel name\t: Intel(R)  Xeon(R)   CPU @ 2.20GHz\nflags\t: x\n"
)
MEMINFO = f"MemTotal:       {64 * GIB // 1024} kB\nMemFree:        1 kB\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host of 64 GiB without memory limits."""
    files = {
        "proc/sys/kernel/hostname": "node7\n",
        "proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
        "proc/sys/kernel/random/boot_id": "0f4c9b3e-1111-4222-8333-444455556666\n",
        "proc/cpuinfo": CPUINFO,
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/system.slice/nodeagent.service\n",
        "etc/os-release": 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    }
    for name, text in files.items():
        write(tmp_path / name, text)
    return tmp_path


def write(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# --- facts ----------------------------------------------------------------------------------------


def test_all_facts(root: Path) -> None:
    """One host, field by field."""
    assert host.read_host_facts(root=root, cpu_ids=(5, 1, 3)) == host.HostFacts(
        hostname="node7",
        boot_id="0f4c9b3e-1111-4222-8333-444455556666",
        kernel="6.1.0-18-amd64",
        os_name="Debian GNU/Linux 12 (bookworm)",
        cpu_model="Intel(R) Xeon(R) CPU @ 2.20GHz",
        cpu_ids=(1, 3, 5),
        memory_bytes=64 * GIB,
    )


def test_facts_of_this_host() -> None:
    """The real files can be read, and agree with what the system says by other ways."""
    facts = host.read_host_facts()
    assert facts.hostname == socket.gethostname()
    assert facts.kernel == os.uname().release
    assert facts.cpu_ids == tuple(sorted(os.sched_getaffinity(0)))
    assert 0 < facts.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert len(facts.boot_id) == 36


@pytest.mark.parametrize(
    ("cgroup", "limits", "memory"),
    [
        ("0::/a/b\n", {}, 64),
        ("0::/a/b\n", {"a/b/memory.max": "max"}, 64),
        ("0::/a/b\n", {"a/b/memory.max": f"{8 * GIB}"}, 8),
        ("0::/a/b\n", {"a/b/memory.max": f"{8 * GIB}", "a/memory.max": f"{4 * GIB}"}, 4),
        ("0::/\n", {"memory.max": f"{2 * GIB}"}, 2),
        ("0::/a/b\n", {"a/b/memory.max": f"{999 * GIB}"}, 64),
        ("4:memory:/j\n", {"memory/j/memory.limit_in_bytes": f"{8 * GIB}"}, 8),
        ("4:memory:/j\n", {"memory/j/memory.limit_in_bytes": "9223372036854771712"}, 64),
        ("4:memory:/docker/1f\n0::/\n", {"memory/memory.limit_in_bytes": f"{3 * GIB}"}, 3),
        ("5:cpu,cpuacct:/j\n0::/j\n", {"unified/j/memory.max": f"{6 * GIB}"}, 6),
        ("6:hugetlb:/j\n", {"memory/j/memory.limit_in_bytes": f"{8 * GIB}"}, 64),
    ],
)
def test_memory_is_the_smallest_of_host_and_cgroups(
    root: Path, cgroup: str, limits: dict[str, str], memory: int
) -> None:
    """Version 2, version 1, both, a container's path that is not mounted, limits of parents."""
    write(root / "proc/self/cgroup", cgroup)
    for name, text in limits.items():
        write(root / "sys/fs/cgroup" / name, text + "\n")
    assert host.read_host_facts(root=root, cpu_ids=(0,)).memory_bytes == memory * GIB


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("PRETTY_NAME='Rocky Linux 9'\n", "Rocky Linux 9"),
        ("PRETTY_NAME=Alpine\n", "Alpine"),
        ('PRETTY_NAME="Half\n', '"Half'),
        ('PRETTY_NAME=""\n', "Linux"),
        ("ID=x\n", "Linux"),
        ("", "Linux"),
    ],
)
def test_os_name(text: str, name: str) -> None:
    """Shell quoting, and the default that the manual names."""
    assert host.parse_os_name(text) == name


def test_os_name_from_the_vendor_folder(root: Path) -> None:
    """Minimal images have no /etc/os-release."""
    (root / "etc/os-release").unlink()
    write(root / "usr/lib/os-release", "PRETTY_NAME=Vendor\n")
    assert host.read_host_facts(root=root).os_name == "Vendor"


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (CPUINFO, "Intel(R) Xeon(R) CPU @ 2.20GHz"),
        ("processor\t: 0\ncpu\t\t: POWER9, altivec supported\n", "POWER9, altivec supported"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nCPU part\t: 0xd4f\n", ""),
    ],
)
def test_cpu_model(text: str, model: str) -> None:
    """x86, POWER, and an ARM kernel that tells no name."""
    assert host.parse_cpu_model(text) == model


def test_meminfo_without_a_total_is_an_error() -> None:
    """Nothing sensible could be offered."""
    with pytest.raises(ValueError, match="MemTotal"):
        host.parse_memory_total("MemFree: 1 kB\n")


# --- addresses ------------------------------------------------------------------------------------


def message(kind: int, body: bytes) -> bytes:
    """One netlink message."""
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def test_addresses_are_read_from_the_kernels_answer() -> None:
    """IPv4 with a label, a point-to-point link, IPv6, a foreign message, the end."""
    ethernet = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 2)
    ethernet += attribute(1, bytes([10, 0, 0, 5])) + attribute(2, bytes([10, 0, 0, 5]))
    ethernet += attribute(3, b"eth0\0")
    tunnel = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 7)
    tunnel += attribute(1, bytes([10, 9, 0, 1])) + attribute(2, bytes([10, 9, 0, 2]))
    sixth = struct.pack("=BBBBI", socket.AF_INET6, 64, 0, 0, 2) + attribute(
        1, socket.inet_pton(socket.AF_INET6, "fd00::5")
    )
    data = b"".join(message(20, body) for body in (ethernet, tunnel, sixth)) + message(16, b"link")
    held, done = host.parse_addresses(data)
    assert [(h.interface_index, str(h.address)) for h in held] == [
        (2, "10.0.0.5/24"),
        (7, "10.9.0.2/32"),
        (2, "fd00::5/64"),
    ]
    assert not done
    assert host.parse_addresses(message(3, bytes(4))) == ([], True)


def test_a_refusal_of_the_kernel_is_an_error() -> None:
    """The reason is in the kernel's words."""
    with pytest.raises(OSError, match="did not list addresses: Operation not permitted"):
        host.parse_addresses(message(2, struct.pack("=i", -1)))


def test_a_message_of_length_nought_does_not_loop() -> None:
    """Garbage ends the reading."""
    assert host.parse_addresses(bytes(64)) == ([], False)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1", "127.200.3.4"])
def test_all_of_127_is_the_loopback_interface(address: str) -> None:
    """Also what no one has configured."""
    assert host.interface_of(address) == "lo"


def test_interface_of_foreign_and_impossible_addresses() -> None:
    """A documentation address is nobody's; a name is a mistake."""
    assert host.interface_of("203.0.113.77") is None
    assert host.interface_of("2001:db8::77") is None
    with pytest.raises(ValueError, match="node7"):
        host.interface_of("node7")


@pytest.fixture
def second_host() -> str:
    """A network namespace of our own with a second address on its interface; needs root."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("needs root, ip and unshare")
    # A private namespace ends with its process, so nothing is left behind.
    return (
        "ip link set lo up && ip link add d0 type veth peer name d1 && "
        "ip link set d0 up && ip link set d1 up && "
        "ip addr add 10.77.0.1/24 dev d0 && ip addr add 10.77.0.2/24 dev d0 && "
        "ip addr add fd77::1/64 dev d0 nodad && exec "
    )


@pytest.mark.root
def test_second_addresses_and_ipv6_in_a_namespace(second_host: str) -> None:
    """The kernel's own answer, for an interface with several addresses."""
    code = (
        "from nodeagent import host as h\n"
        "asked = ('10.77.0.1', '10.77.0.2', 'fd77::1', '10.77.0.3', '::1')\n"
        "print([h.interface_of(address) for address in asked])\n"
        "print(h.address_towards('10.77.0.9', 7000), h.address_towards('fd77::9', 7000))\n"
        "try:\n    h.address_towards('203.0.113.1', 7000)\n"
        "except OSError as error:\n    print(error)\n"
    )
    shell = second_host + '"$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--net", "--", "sh", "-c", shell, sys.executable, code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
    )
    if "Operation not" in done.stderr:
        pytest.skip(f"no network namespaces or veth pairs here: {done.stderr.strip()}")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["['d0', 'd0', 'd0', None, 'lo']", "10.77.0.1 fd77::1"], done.stderr
    assert "no route leads from this host to '203.0.113.1'" in lines[2]


def test_address_towards_loopback() -> None:
    """A control plane on the same host is called from loopback."""
    assert host.address_towards("127.0.0.1", 7000) == "127.0.0.1"


# --- names and ports ------------------------------------------------------------------------------


def test_resolve_keeps_the_order_and_drops_repeats() -> None:
    """The first address is the one that programs take."""
    found = host.resolve("node7", lookup=lambda _: ["10.0.0.5", "fd00::5", "10.0.0.5"])
    assert [str(address) for address in found] == ["10.0.0.5", "fd00::5"]


def test_resolve_asks_the_system_for_names_only() -> None:
    """An address is answered at once; `localhost` is known everywhere."""
    assert any(address.is_loopback for address in host.resolve("localhost"))
    assert [str(address) for address in host.resolve("fd00::5", lookup=lambda _: [])] == ["fd00::5"]


def test_resolve_has_a_deadline() -> None:
    """A name server that never answers holds nobody up."""
    release = threading.Event()

    def hang(_: str) -> list[str]:
        release.wait(30)
        return []

    with pytest.raises(TimeoutError, match="'node7' did not resolve within 20 ms"):
        host.resolve("node7", timeout_ms=20, lookup=hang)
    assert host.hostname_address(hostname="node7", timeout_ms=20, lookup=hang) == ""
    release.set()


def test_resolve_tells_of_unknown_names() -> None:
    """`invalid` is reserved for names that never resolve."""

    def unknown(_: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(OSError, match=r"'no\.invalid' does not resolve: .*not known"):
        host.resolve("no.invalid", lookup=unknown)


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        (["127.0.0.1"], "127.0.0.1"),
        (["127.0.1.1", "127.0.0.1"], "127.0.1.1"),
        (["203.0.113.77", "127.0.0.1"], "127.0.0.1"),
        (["203.0.113.77"], ""),
        ([], ""),
    ],
)
def test_the_hostname_pitfall(answers: list[str], found: str) -> None:
    """What counts is the first address that can be bound here."""
    assert host.hostname_address(hostname="node7", lookup=lambda _: answers) == found


def test_own_hostname_is_the_default() -> None:
    """The name is this process's own, as programs ask for it."""
    asked: list[str] = []

    def lookup(name: str) -> list[str]:
        asked.append(name)
        return []

    host.hostname_address(lookup=lookup)
    assert asked == [socket.gethostname()]


def test_a_listening_port_is_not_free_and_a_closed_one_is() -> None:
    """Lingering connections do not count."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not host.free_port("127.0.0.1", port)
        assert not host.free_port("0.0.0.0", port)
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            accepted, _ = server.accept()
            accepted.close()
    assert host.free_port("127.0.0.1", port)


def test_a_port_of_another_host_is_an_error() -> None:
    """Neither free nor taken: the address is wrong."""
    with pytest.raises(OSError, match="Cannot assign"):
        host.free_port("203.0.113.77", 7000)
