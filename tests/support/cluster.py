"""A real cluster on loopback: one control plane, agents that stand for hosts, and a client. All of
it ends with the test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from controlplane.client import Client
from controlplane.client.errors import ClientError
from controlplane.daemon.main import main as controlplane
from controlplane.kit.credential import Credential
from controlplane.v1 import job_pb2, node_pb2
from tests.support.ports import Ports, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.support.netns import Host

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
LONG = {"node-lease-s": "120"}
"""No daemon that a test restarts is away for longer, however busy the machine is. Tests of what
becomes of a lease say how long theirs is."""


def until(
    condition: Callable[[], Any], what: str, within_s: float = 30.0, every_s: float = 0.02
) -> Any:
    """Wait for a condition; its value. The test fails in words when it does not come.

    `every_s`: the pause between two looks; a look that starts a process takes others' time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(ClientError):
            if value := condition():
                return value
        time.sleep(every_s)
    raise AssertionError(f"waited {within_s:g} s for {what}")


class Daemon:
    """One process of ours; its log is in a file."""

    def __init__(
        self,
        name: str,
        command: list[str | Path],
        folder: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.env = {**os.environ, **env} if env is not None else None
        self.name, self.command, self.log = name, command, folder / f"{name}.log"
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd=self._folder,
                env=self.env,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


class Cluster:
    """A control plane and its agents."""

    def __init__(
        self,
        folder: Path,
        python: Path,
        serve: Mapping[str, str],
        env: Mapping[str, str] | None = None,
        hosts: Sequence[Host] = (),
        before: Sequence[str | Path] = (),
    ) -> None:
        self.folder, self._python, self._env = folder, python, env
        self._before = before
        self._centre: list[str | Path] = [*hosts[0].prefix] if hosts else []
        self._hosts = hosts[1:]
        self.plaintext = "plaintext" in serve
        self.port, agents = free_port(), free_port()
        self._ports: list[Ports] = []
        self.server = f"127.0.0.1:{self.port}"
        listen_agents, named = f"127.0.0.1:{agents}", []
        if hosts:  # we are on none of them, and share the files with all
            self.server = f"unix:{folder}/people.sock"
            listen_agents = f"{hosts[0].address}:{agents}"
            named = ["--host", hosts[0].address]
            serve = {**serve, "agents-address": listen_agents}
        state = folder / "controlplane"
        # In this process, which has loaded by now what another would have to.
        words = ["init", "--state-dir", str(state), "--listen", self.server]
        words += ["--plaintext"] if self.plaintext else named
        made = CliRunner().invoke(controlplane, words, catch_exceptions=False)
        assert made.exit_code == 0, made.output
        settings = {**LONG, **serve}
        flags = [word for name, value in settings.items() for word in (f"--{name}", value) if word]
        command = [*self._centre, *before, BIN / "controlplane", "serve", "--state-dir", state]
        command += ["--listen", self.server, "--listen-agents", listen_agents, *flags]
        self.control = Daemon("controlplane", command, folder, env)
        self.agents: dict[str, Daemon] = {}
        self.token_file = state / "admin.token"
        self.ca_file = None if self.plaintext or hosts else state / "pki" / "ca.crt"
        token = self.token_file.read_text().strip()
        self.client = Client(self.server, token=token, ca_file=self.ca_file)
        until(self.client.server_info, "the control plane to answer")

    def agent(self, name: str, *, cpus: int = 4, gpus: int = 0, **flags: str) -> Daemon:
        """Have a host join, start its agent and wait until it is ready."""
        if not self.plaintext:
            self.join(self.folder / name)
        self._ports.append(ports := Ports())
        host = self._hosts[len(self.agents)] if self._hosts else None
        settings = {
            "state-dir": str(self.folder / name),
            "name": name,
            "address": host.address if host is not None else "127.0.0.1",
            "cpus": str(cpus),
            "port-first": str(ports.first),
            "port-last": str(ports.last),
            "run-as": "agent",
            "devices": "simulated" if gpus else "cpu",
            "simulated-count": str(gpus),
            "path": f"{self._python.parent}:/usr/local/bin:/usr/bin:/bin",
            **(self._with_token() if self.plaintext else {}),
            **flags,
        }
        words = [word for key, value in settings.items() for word in (f"--{key}", value)]
        command: list[str | Path] = [*(host.prefix if host is not None else [])]
        command += [*self._before, BIN / "nodeagent", "run", *words]
        daemon = Daemon(name, command, self.folder, self._env)
        self.agents[name] = daemon
        until(lambda: self.node(name), f"{name} to join")
        return daemon

    def _with_token(self) -> dict[str, str]:
        token = self.folder / "controlplane" / "agent.token"
        return {"server": self.server, "token-file": str(token)}

    def join(self, state_dir: Path, *, node: str = "") -> subprocess.CompletedProcess[str]:
        """What `nodeagent join` says, with a new token."""
        _, secret = self.client.identities.create_join_token(lifetime_s=600, node=node)
        authority = self.ca_file.read_bytes() if self.ca_file is not None else b""
        line = Credential(
            kind="join", server=self.server, authority=authority, secret=secret
        ).write()
        return subprocess.run(
            [BIN / "nodeagent", "join", "-", "--state-dir", state_dir],
            input=line,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def node(self, name: str) -> node_pb2.Node | None:
        """A node that is ready, by name."""
        return next(
            (
                n
                for n in self.client.nodes()
                if n.facts.display_name == name and n.state == node_pb2.NODE_STATE_READY
            ),
            None,
        )

    def submit(self, document: Mapping[str, Any]) -> str:
        """Submit a job; its name."""
        return self.client.submit(dict(document)).name

    def ended(self, name: str, within_s: float = 60.0) -> job_pb2.Job:
        """The job once it has ended."""

        def look() -> job_pb2.Job | None:
            job = self.client.get(name)
            return job if job.HasField("exit_code") else None

        found: job_pb2.Job = until(look, f"{name} to end", within_s)
        return found

    def running(self, name: str, within_s: float = 30.0) -> job_pb2.Job:
        """The job once all its workers run."""

        def look() -> job_pb2.Job | None:
            job = self.client.get(name)
            runs = job.attempts and job.attempts[-1].state == job_pb2.ATTEMPT_STATE_RUNNING
            return job if runs else None

        found: job_pb2.Job = until(look, f"{name} to run", within_s)
        return found

    def output(self, name: str, rank: int = 0, stream: str = "stdout") -> bytes:
        """All that a worker writes until its job has ended."""
        pieces = self.client.logs(name, ranks=[rank], stream=stream, follow=True)
        return b"".join(piece.data for piece in pieces)

    def printed(self, name: str, rank: int = 0, stream: str = "stdout") -> bytes:
        """What a worker has written so far."""
        pieces = self.client.logs(name, ranks=[rank], stream=stream)
        return b"".join(piece.data for piece in pieces)

    def ccctl(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run ccctl as its user would."""
        command = [*self.as_admin, *words]
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    @property
    def as_admin(self) -> list[str | Path]:
        """The beginning of a command of ccctl's."""
        return [*self.ccctl_command, "--token-file", self.token_file]

    @property
    def ccctl_command(self) -> list[str | Path]:
        """As `as_admin`, without saying who one is."""
        trust: list[str | Path] = ["--ca-file", self.ca_file] if self.ca_file is not None else []
        return [BIN / "ccctl", "--server", self.server, *trust]

    def example(self, path: str, **changes: Any) -> dict[str, Any]:
        """A job.json of examples/, with changes."""
        document: dict[str, Any] = json.loads((ROOT / "examples" / path).read_text())
        return {**document, **changes}

    def close(self) -> None:
        """End all jobs, then all processes."""
        with contextlib.suppress(ClientError):
            names = [j.name for j in self.client.list() if not j.HasField("exit_code")]
            if names:
                self.client.cancel(names)
                for name in names:
                    with contextlib.suppress(AssertionError):
                        self.ended(name, 20)
        self.client.close()
        for daemon in (*self.agents.values(), self.control):
            daemon.stop()
        for ports in self._ports:
            ports.close()


@contextlib.contextmanager
def cluster(
    folder: Path,
    *names: str,
    python: Path | None = None,
    serve: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    hosts: Sequence[Host] = (),
    before: Sequence[str | Path] = (),
) -> Iterator[Cluster]:
    """A cluster with agents of these names. `python`: whose folder comes first in workers' PATH.
    `env`: more variables of its daemons. `hosts`: where they run instead of here: the first is the
    control plane's, and each agent gets one of the others. `before`: words before each
    daemon's command."""
    made = Cluster(folder, python or Path(sys.executable), serve or {}, env, hosts, before)
    try:
        for name in names:
            made.agent(name)
        yield made
    except BaseException:
        for log in sorted(folder.glob("*.log")):
            sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}\n")
        raise
    finally:
        made.close()


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with."""
    data = Path(f"/proc/{pid}/environ").read_bytes()
    pairs = (entry.partition(b"=") for entry in data.split(b"\0") if entry)
    return {os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs}
