"""The whole house over hosts of its own: a control plane that speaks TLS, agents on other hosts,
and a desk with `ccctl`.

    with netns.hosts(4) as (centre, desk, a, b), house(folder, centre, desk) as made:
        made.join(a, "host-a")
        made.ccctl("submit", "job.json", "--follow")

An agent's host has a hostname of its own, which resolves to 127.0.1.1 there, as Debian's installer
leaves it. Whoever asks the control plane does it from the desk, as users do.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.cluster import BIN, Daemon, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.support.netns import Host

PORT = 7600
PATH = f"{BIN}:/usr/local/bin:/usr/bin:/bin"
_until = partial(until, every_s=0.25)
"""Each look is a process of ccctl's."""
AS_HOST = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'
"""In a room of its own: give the host its name and its /etc/hosts, then be the command."""


class House:
    """A control plane on one host, its agents on others."""

    def __init__(self, folder: Path, centre: Host, desk: Host, serve: Mapping[str, str]) -> None:
        self.folder, self.desk = folder, desk
        self.server = f"{centre.address}:{PORT}"
        self.state = folder / "controlplane"
        self.ca_file = self.state / "pki" / "ca.crt"
        subprocess.run(
            [BIN / "controlplane", "init", "--state-dir", self.state, "--listen", self.server],
            check=True,
            capture_output=True,
            timeout=60,
        )
        settings = {
            "state-dir": self.state,
            "listen": self.server,
            **serve,
        }
        command: list[str | Path] = [*centre.prefix, BIN / "controlplane", "serve"]
        command += _flags(settings)
        self.daemons = {"controlplane": Daemon("controlplane", command, folder)}
        _until(lambda: self.ccctl("node", "list").returncode == 0, "the control plane to answer")

    def join(self, host: Host, name: str) -> Daemon:
        """Start an agent with one device on a host, which gets this hostname, and wait until it
        has joined."""
        line = self.ccctl("node", "token", "create")
        assert line.returncode == 0, line.stderr
        joining: list[str | Path] = [*host.prefix, BIN / "nodeagent", "join", "-"]
        joining += ["--state-dir", self.folder / name]
        subprocess.run(
            joining, input=line.stdout, text=True, capture_output=True, check=True, timeout=60
        )
        names = self.folder / f"{name}.hosts"
        names.write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        settings = {
            "state-dir": self.folder / name,
            "cpus": 4,
            "devices": "simulated",
            "simulated-count": 1,
            "run-as": "agent",
            "path": PATH,
        }
        room = ["unshare", "--uts", "--mount", "sh", "-c", AS_HOST, "sh", str(names), name]
        command: list[str | Path] = [*host.prefix, *room, BIN / "nodeagent", "run"]
        command += _flags(settings)
        daemon = self.daemons[name] = Daemon(name, command, self.folder)
        _until(lambda: self.node_state(name) == "ready", f"{name} to join")
        return daemon

    def ccctl(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run ccctl at the desk."""
        command: list[str | Path] = [*self.desk.prefix, BIN / "ccctl", "--server", self.server]
        command += ["--token-file", self.state / "admin.token", "--ca-file", self.ca_file]
        return subprocess.run(
            [*command, *words], capture_output=True, text=True, timeout=120, check=False
        )

    def ask(self, *words: str | Path) -> Any:
        """What ccctl answers, as a value."""
        done = self.ccctl(*words, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def submit(self, document: Mapping[str, Any]) -> str:
        """Submit a job; its name."""
        path = self.folder / "job.json"
        path.write_text(json.dumps(document))
        return str(self.ask("submit", path)["name"])

    def job(self, name: str) -> dict[str, Any]:
        """All about a job."""
        found: dict[str, Any] = self.ask("show", name)
        return found

    def job_when(
        self, name: str, what: str, condition: Callable[[dict[str, Any]], Any], within_s: float = 30
    ) -> dict[str, Any]:
        """The job once a condition holds."""
        last: list[dict[str, Any]] = []

        def look() -> dict[str, Any] | None:
            last[:] = [self.job(name)]
            return last[0] if condition(last[0]) else None

        try:
            found: dict[str, Any] = _until(look, f"{name} to {what}", within_s)
        except AssertionError as error:
            error.add_note(f"it was at last: {json.dumps(last, indent=1)}")
            raise
        return found

    def running(self, name: str, attempt: int = 1, within_s: float = 30) -> dict[str, Any]:
        """The job once an attempt's workers all run."""

        def runs(job: dict[str, Any]) -> bool:
            return [a["state"] for a in job["attempts"]][attempt - 1 :] == ["running"]

        return self.job_when(name, f"run in attempt {attempt}", runs, within_s)

    def node_state(self, name: str) -> str:
        """How a node stands; empty for one that never joined."""
        nodes = self.ask("node", "list")["nodes"]
        return next((n["state"] for n in nodes if n["facts"]["display_name"] == name), "")

    def close(self) -> None:
        """End all jobs, then all daemons."""
        jobs = self.ask("list")["jobs"]
        living = [job["name"] for job in jobs if job["exit_code"] is None]
        if living:
            self.ccctl("cancel", *living)
            for name in living:
                self.job_when(name, "end", lambda job: job["exit_code"] is not None)

    def stop(self) -> None:
        """End all daemons."""
        for daemon in reversed(self.daemons.values()):
            daemon.stop()


@contextlib.contextmanager
def house(
    folder: Path, centre: Host, desk: Host, serve: Mapping[str, str] | None = None
) -> Iterator[House]:
    """A house without agents. `serve`: more settings of the control plane."""
    made = House(folder, centre, desk, serve or {})
    try:
        yield made
        made.close()
    except BaseException:
        for log in sorted(folder.glob("*.log")):
            sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}\n")
        raise
    finally:
        made.stop()


def _flags(settings: Mapping[str, object]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]
