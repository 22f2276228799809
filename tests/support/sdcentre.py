"""A whole centre on one host of its own, installed as the units' comments say: systemd, both
daemons, and users."""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tests.support import sdbox
from tests.support.sdbox import Host, until

ROOT = Path(__file__).resolve().parents[2]
HERE = "/opt/controlplane"
BIN = f"{HERE}/bin"
PROGRAMS = {
    "controlplane": "controlplane.daemon.main",
    "nodeagent": "nodeagent.main",
    "ccctl": "controlplane.cli.main",
}
TOKEN = "/var/lib/controlplane/admin.token"
CA = "/var/lib/controlplane/pki/ca.crt"
USERS = ("admin", "alice", "bob")
"""Accounts of the host: jobs run as their owners."""


class Machine(Protocol):
    """Where it is installed: `sdbox.Host`, or `guest.Guest`."""

    def run(self, *command: str, check: bool = True, timeout_s: float = ...) -> str:
        """Run a command there as root, and give what it prints."""
        ...

    def write(self, path: str, text: str, mode: int = ...) -> None:
        """Put a file there."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        ...

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        ...


def install(host: Machine) -> None:
    """What the units' comments say, with this tree and its packages in place of an index."""
    python = f"/opt/python/bin/python{sysconfig.get_python_version()}"
    host.run(python, "-m", "venv", "--without-pip", HERE)
    site = f"{HERE}/lib/python{sysconfig.get_python_version()}/site-packages"
    host.write(f"{site}/controlplane.pth", "/opt/src\n/opt/packages\n")
    for program, module in PROGRAMS.items():
        text = f"#!{BIN}/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
        host.write(f"{BIN}/{program}", text, 0o755)
    users = (ROOT / "systemd/controlplane.sysusers").read_text()
    host.write("/etc/sysusers.d/controlplane.conf", users)
    host.run("systemd-sysusers")
    for user in USERS:
        host.run("useradd", "--create-home", "--shell", "/bin/bash", user)
    for daemon in ("controlplane", "nodeagent"):
        unit = (ROOT / f"systemd/{daemon}.service").read_text()
        host.write(f"/etc/systemd/system/{daemon}.service", unit)
        group, mode = ("controlplane", "0750") if daemon == "controlplane" else ("root", "0700")
        host.run("install", "-d", "-m", mode, "-g", group, f"/etc/{daemon}")
        example = host.run(f"{BIN}/{daemon}", "config", "example")
        host.write(f"/etc/{daemon}/{daemon}.toml", example)
    host.run("systemctl", "daemon-reload")


@contextmanager
def installed(folder: Path) -> Iterator[Host]:
    """A host with everything installed and nothing started."""
    # Python too may lie in a home folder, which the control plane's unit rightly hides.
    binds = {
        "/opt/src": ROOT,
        "/opt/packages": Path(sysconfig.get_path("purelib")).resolve(),
        "/opt/python": Path(sys.base_prefix),
    }
    with sdbox.booted("head", folder / "box", binds=binds) as host:
        install(host)
        # Half a minute is right for an operator, and long for a test.
        drop_in = "/etc/systemd/system/controlplane.service.d/watchdog.conf"
        host.write(drop_in, "[Service]\nWatchdogSec=4s\n")
        host.run("systemctl", "daemon-reload")
        yield host


def start(host: Machine, unit: str) -> int:
    """Start a unit, which returns when it says READY=1; give its process id."""
    try:
        host.run("systemctl", "start", unit)
    except AssertionError as error:
        error.add_note(journal(host, unit))
        raise
    return int(host.show(unit, "MainPID"))


def journal(host: Machine, unit: str) -> str:
    return host.run("journalctl", "--no-pager", "-o", "cat", "-u", unit, check=False)


def ccctl(host: Machine, *arguments: str) -> str:
    return host.run(f"{BIN}/ccctl", "--ca-file", CA, "--token-file", TOKEN, *arguments)


def serve(host: Machine, within_s: float = 20) -> None:
    """Start both daemons, and wait until the node is ready."""
    start(host, "controlplane")
    if not host.exists("/var/lib/nodeagent/credential.json"):
        ccctl(host, "node", "token", "create", "--out", "/root/node.join")
        host.run(f"{BIN}/nodeagent", "join", "/root/node.join")
    start(host, "nodeagent")
    until("the node is ready", lambda: nodes(host) == ["ready"], within_s=within_s)


def nodes(host: Machine) -> list[str]:
    answer = json.loads(ccctl(host, "--output", "json", "node", "list"))
    return [node["state"] for node in answer["nodes"]]


def submit(host: Machine, document: Mapping[str, Any]) -> str:
    """Submit a job; its number."""
    host.write("/run/job.json", json.dumps(document))
    answer = json.loads(ccctl(host, "--output", "json", "submit", "/run/job.json"))
    return str(answer["job_id"])


def job(host: Machine, name: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(ccctl(host, "--output", "json", "show", name))
    return answer
