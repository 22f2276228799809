"""Hosts of our own on one machine: network namespaces on a bridge, made and removed by a test.

    with hosts(2) as (a, b):
        server = a.popen([sys.executable, "-m", "controlplane", "serve"])
        b.run(["ping", "-c1", a.address])
        b.link_down()

Each host has `eth0` with an address of 10.77.0.0/24, `lo`, and nothing else: it reaches its
neighbours and never the machine or the world outside. The bridge lives in a namespace of its own,
so nothing is seen from outside, and any number of tests may do this at once. A host has the
machine's files, processes and hostname. Commands enter by `nsenter`, because `ip netns exec` would
give them a /sys of their own. Needs root and iproute2: mark the test with `pytest.mark.root`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

NETWORK = "10.77.0"
"""First three bytes of every host's address; the namespaces keep tests apart."""
_DEADLINE_S = 20.0


def available() -> bool:
    """Whether this process may make hosts."""
    return os.geteuid() == 0 and all(map(shutil.which, ("ip", "nsenter")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host of the network."""

    name: str
    """Name of its network namespace."""
    address: str
    """Address of its `eth0`."""
    interface: str = "eth0"
    """Interface that holds the address."""
    switch: str
    """Namespace of the bridge."""
    port: str
    """Its port on the bridge."""
    started: list[subprocess.Popen[Any]] = field(default_factory=list)
    """What `popen` has started."""

    @property
    def prefix(self) -> list[str]:
        """What goes before a command to run it on this host."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--"]

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = _DEADLINE_S,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with its output as text.

        CalledProcessError when it fails, unless `check` is off; TimeoutExpired after `timeout_s`.
        """
        return subprocess.run(
            [*self.prefix, *argv],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=check,
            env=env,
            cwd=cwd,
        )

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
    ) -> subprocess.Popen[Any]:
        """Start a command. It is killed when the network goes, if it still runs then."""
        process = subprocess.Popen(
            [*self.prefix, *argv], env=env, cwd=cwd, stdout=stdout, stderr=stderr
        )
        self.started.append(process)
        return process

    def link_down(self) -> None:
        """Pull the cable at the switch: the host keeps its address and hears no more of anyone."""
        _ip("-n", self.switch, "link", "set", self.port, "nomaster")

    def link_up(self) -> None:
        """Plug it in again."""
        _ip("-n", self.switch, "link", "set", self.port, "master", "br0")

    def pids(self) -> list[int]:
        """Every process on this host, whoever started it."""
        found = _ip("netns", "pids", self.name)
        return [int(pid) for pid in found.split()]


@contextlib.contextmanager
def hosts(count: int) -> Iterator[tuple[Host, ...]]:
    """Make so many hosts; remove them in the end, with every process that still runs on them."""
    token = secrets.token_hex(3)
    switch = f"cc-{token}-sw"
    made: list[Host] = []
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        _ip("-n", switch, "link", "set", "br0", "up")
        for index in range(count):
            host = Host(
                name=f"cc-{token}-{index}",
                address=f"{NETWORK}.{index + 11}",
                switch=switch,
                port=f"v{index}",
            )
            _ip("netns", "add", host.name)
            made.append(host)
            _connect(host)
        yield tuple(made)
    finally:
        for host in made:
            _clear(host)
        for name in [*(host.name for host in made), switch]:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)


def _connect(host: Host) -> None:
    inside, bridge = ("-n", host.name), ("-n", host.switch)
    veth = ("type", "veth", "peer", "name", host.interface, "netns", host.name)
    _ip(*bridge, "link", "add", host.port, *veth)
    _ip(*bridge, "link", "set", host.port, "master", "br0", "up")
    _ip(*inside, "link", "set", "lo", "up")
    _ip(*inside, "addr", "add", f"{host.address}/24", "dev", host.interface)
    _ip(*inside, "link", "set", host.interface, "up")


def _clear(host: Host) -> None:
    """End what runs on the host. The namespace is ours, so whatever is in it is ours."""
    deadline = time.monotonic() + _DEADLINE_S
    while pids := host.pids():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in host.started:
            process.poll()
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {pids} on host {host.name} do not end")
        time.sleep(0.01)
    for process in host.started:
        process.wait(_DEADLINE_S)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _ip(*arguments: str) -> str:
    done = subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, timeout=_DEADLINE_S, check=False
    )
    if done.returncode:
        raise subprocess.CalledProcessError(
            done.returncode, done.args, done.stdout, done.stderr
        ) from RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
