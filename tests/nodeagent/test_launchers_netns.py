"""The hosts that other tests stand on: they are apart, they can be cut off, they leave nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import netns

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not netns.available(), reason="needs root, to make hosts"),
]

KNOCK = "import socket, sys; socket.create_connection((sys.argv[1], 7000), timeout=0.5)"
LISTEN = (
    "import socket; s = socket.create_server(('', 7000)); print('up', flush=True)\n"
    "while True: s.accept()"
)
LINGER = (
    "import os, sys, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid(); sys.stdout.write(str(os.getpid())); sys.stdout.flush()\n"
    "    os.closerange(0, 3)\n"
    "    time.sleep(600)\n"
)


def knock(host: netns.Host, address: str) -> bool:
    return not host.run([sys.executable, "-c", KNOCK, address], check=False).returncode


def test_hosts_reach_each_other_until_the_cable_is_pulled() -> None:
    with netns.hosts(2) as (a, b):
        server = a.popen([sys.executable, "-c", LISTEN], stdout=subprocess.PIPE)
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"

        assert knock(b, a.address)
        a.link_down()
        assert not knock(b, a.address)
        assert knock(a, a.address)
        a.link_up()
        assert knock(b, a.address)


def test_two_networks_have_the_same_addresses_and_know_nothing_of_each_other() -> None:
    with netns.hosts(1) as (a,), netns.hosts(2) as (b, _):
        assert a.address == b.address
        assert a.name != b.name
        server = a.popen([sys.executable, "-c", LISTEN], stdout=subprocess.PIPE)
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"

        assert not knock(b, a.address)


def test_nothing_remains_though_a_process_has_left_its_session() -> None:
    with netns.hosts(1) as (a,):
        pid = int(a.run([sys.executable, "-c", LINGER]).stdout)
        assert a.pids() == [pid]

    found = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert a.name not in found.stdout
    assert a.switch not in found.stdout
    command = Path(f"/proc/{pid}/cmdline")
    assert not command.exists() or not command.read_bytes()  # gone, or waits for its parent
