"""A whole centre in a guest, installed as on any host; and what it is like after a power cut."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import guest
from tests.support.sdbox import until
from tests.support.sdcentre import BIN, ccctl, install, nodes, start

if TYPE_CHECKING:
    from tests.support.guest import Guest

STATE = "/var/lib/controlplane"
NODE = "/var/lib/nodeagent"
AGENT = """\
[Service]
# The guest has one core; jobs here need none.
Environment=NODEAGENT_CPUS=32 NODEAGENT_CAGES=required
"""
SOUND = f"""\
import sqlite3
print(sqlite3.connect("{STATE}/controlplane.db").execute("PRAGMA integrity_check").fetchall())
"""
UP_S = 180.0


@contextmanager
def centre(folder: Path, *, node: bool) -> Iterator[Guest]:
    """A guest with both daemons installed, and the control plane up, as at each boot. `node`:
    whether its agent is, too."""
    with guest.machine(folder) as machine:
        install(machine)
        machine.write("/etc/systemd/system/nodeagent.service.d/guest.conf", AGENT)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "enable", "controlplane")
        start(machine, "controlplane")
        if node:
            join(machine)
            machine.run("systemctl", "enable", "nodeagent")
            start(machine, "nodeagent")
            wait_for_node(machine)
        machine.run("sync")
        yield machine


def join(machine: Guest) -> None:
    """Make the guest a node of its centre."""
    ccctl(machine, "node", "token", "create", "--out", "/root/node.join")
    machine.run(f"{BIN}/nodeagent", "join", "/root/node.join")


def wait_for_node(machine: Guest) -> None:
    """Until the node takes work."""
    until("the node to be ready", lambda: nodes(machine) == ["ready"], within_s=UP_S)


def power_on(machine: Guest) -> None:
    """After a cut: the control plane comes up by itself, and its store is sound."""
    machine.boot()
    until(
        "the control plane to serve",
        lambda: machine.show("controlplane", "ActiveState") == "active",
        within_s=UP_S,
    )
    assert machine.run("python3", "-c", SOUND) == "[('ok',)]\n"


def tell(words: str) -> None:
    """A figure for whoever runs the tests: `make test-guest` shows what is printed."""
    print(f"\nguest: {words}", file=sys.stderr, flush=True)


def seconds(machine: Guest) -> str:
    """How long its boots took."""
    return ", ".join(f"{each:.0f}" for each in machine.boots) + " s"
