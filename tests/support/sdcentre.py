"""A whole centre on one host of its own, installed as the units' comments say: systemd, both
daemons, and users."""

from __future__ import annotations

import json
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def install(host: Host) -> None:
    """What the units' comments say, with this tree and its packages in place of an index."""
    python = f"/opt/python/bin/python{sysconfig.get_python_version()}"
    host.run(python, "-m", "venv", "--without-pip", HERE)
    site = f"{HERE}/lib/python{sysconfig.get_python_version()}/site-packages"
    packages = Path(sysconfig.get_path("purelib")).relative_to(ROOT)
    host.path(f"{site}/controlplane.pth").write_text(f"/opt/src\n/opt/src/{packages}\n")
    for program, module in PROGRAMS.items():
        script = host.path(f"{BIN}/{program}")
        script.write_text(
            f"#!{BIN}/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
        )
        script.chmod(0o755)
    host.path("/etc/sysusers.d").mkdir(exist_ok=True)
    shutil.copy(
        ROOT / "systemd/controlplane.sysusers", host.path("/etc/sysusers.d/controlplane.conf")
    )
    host.run("systemd-sysusers")
    for user in USERS:
        host.run("useradd", "--create-home", "--shell", "/bin/bash", user)
    for daemon in ("controlplane", "nodeagent"):
        shutil.copy(ROOT / f"systemd/{daemon}.service", host.path("/etc/systemd/system"))
        group, mode = ("controlplane", "0750") if daemon == "controlplane" else ("root", "0700")
        host.run("install", "-d", "-m", mode, "-g", group, f"/etc/{daemon}")
        host.path(f"/etc/{daemon}/{daemon}.toml").write_text(
            host.run(f"{BIN}/{daemon}", "config", "example")
        )
    # Half a minute is right for an operator, and long for a test.
    drop_in = host.path("/etc/systemd/system/controlplane.service.d")
    drop_in.mkdir()
    (drop_in / "watchdog.conf").write_text("[Service]\nWatchdogSec=4s\n")
    host.run("systemctl", "daemon-reload")


@contextmanager
def installed(folder: Path) -> Iterator[Host]:
    """A host with everything installed and nothing started."""
    # Python too may lie in a home folder, which the control plane's unit rightly hides.
    binds = {"/opt/src": ROOT, "/opt/python": Path(sys.base_prefix)}
    with sdbox.booted("head", folder / "box", binds=binds) as host:
        install(host)
        yield host


def start(host: Host, unit: str) -> int:
    """Start a unit, which returns when it says READY=1; give its process id."""
    try:
        host.run("systemctl", "start", unit)
    except AssertionError as error:
        error.add_note(journal(host, unit))
        raise
    return int(host.show(unit, "MainPID"))


def journal(host: Host, unit: str) -> str:
    return host.run("journalctl", "--no-pager", "-o", "cat", "-u", unit, check=False)


def ccctl(host: Host, *arguments: str) -> str:
    return host.run(f"{BIN}/ccctl", "--ca-file", CA, "--token-file", TOKEN, *arguments)


def serve(host: Host) -> None:
    """Start both daemons, and wait until the node is ready."""
    start(host, "controlplane")
    if not host.path("/var/lib/nodeagent/credential.json").exists():
        ccctl(host, "node", "token", "create", "--out", "/root/node.join")
        host.run(f"{BIN}/nodeagent", "join", "/root/node.join")
    start(host, "nodeagent")
    until("the node is ready", lambda: nodes(host) == ["ready"], within_s=20)


def nodes(host: Host) -> list[str]:
    answer = json.loads(ccctl(host, "--output", "json", "node", "list"))
    return [node["state"] for node in answer["nodes"]]


def job(host: Host, name: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(ccctl(host, "--output", "json", "show", name))
    return answer
