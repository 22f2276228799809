"""`make demo`: trains a real model through a control plane and two agents on this machine.

Everything lies in .demo. The daemons are stopped at the end; their state stays, so that a second
run takes seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from controlplane.client import Client
from controlplane.client.errors import ClientError
from controlplane.v1 import job_pb2, node_pb2

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
BIN = Path(sys.executable).parent
START_S = 30.0
JOB_S = 300.0
console = Console(highlight=False)


def main() -> int:
    """Run the demonstration; the exit code is the job's."""
    step(1, "setting up .demo: tokens for an administrator and for two agents (1 second)")
    control = DEMO / "controlplane"
    tokens = Path(control)
    quiet([BIN / "controlplane", "init", "--state-dir", control])
    port = free_port()
    server = f"127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        step(2, f"starting the control plane on {server}, with SQLite in .demo (2 seconds)")
        stack.enter_context(
            daemon(
                "controlplane",
                [BIN / "controlplane", "serve", "--state-dir", control, "--listen", server],
            )
        )
        client = stack.enter_context(
            Client(server, token=(tokens / "admin.token").read_text().strip())
        )
        until("the control plane to answer", lambda: bool(client.server_info().epoch))
        step(3, "starting two agents that stand for two hosts (2 seconds)")
        for index, name in enumerate(("host-a", "host-b")):
            stack.enter_context(daemon(name, agent(name, index, server, tokens / "agent.token")))
        until("both agents to join", lambda: len(ready(client)) == 2)
        console.print(nodes(ready(client)))
        step(4, "training: examples/digits/job.json, two hosts × one rank (15 seconds)")
        began = time.monotonic()
        follow = subprocess.run(
            [
                BIN / "ccctl",
                "--server",
                server,
                "--token-file",
                tokens / "admin.token",
                "submit",
                ROOT / "examples/digits/job.json",
                "--follow",
            ],
            timeout=JOB_S,
            check=False,
        )
        job = client.get(next(iter(client.list())).name)
        step(5, f"what came of it ({time.monotonic() - began:.1f} s)")
        summary(job)
        step(6, "stopping the agents and the control plane; .demo keeps their state")
    told_next(port)
    return follow.returncode


def agent(name: str, index: int, server: str, token: Path) -> list[str | Path]:
    """The command of one agent. Without a GPU it offers a simulated one, labelled so."""
    first = 21000 + 500 * index
    gpu = shutil.which("nvidia-smi") is not None
    return [
        BIN / "nodeagent",
        "run",
        *("--state-dir", DEMO / name, "--server", server, "--token-file", token, "--name", name),
        *("--address", "127.0.0.1", "--cpus", "2"),
        *("--port-first", str(first), "--port-last", str(first + 499)),
        *("--devices", "auto" if gpu else "simulated", "--simulated-count", "1"),
        *("--path", f"{BIN}:{os.environ.get('PATH', '/usr/bin:/bin')}"),
    ]


@contextlib.contextmanager
def daemon(name: str, command: list[str | Path]) -> Iterator[None]:
    """A daemon that is ended with the block; its log lies in .demo."""
    log = DEMO / f"{name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=DEMO)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(what: str, condition: object) -> None:
    """Wait for something; tell where the logs lie when it does not come."""
    assert callable(condition)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ClientError):
            if condition():
                return
        time.sleep(0.05)
    sys.exit(f"demo: waited {START_S:g} s for {what}; the daemons' logs are {DEMO}/*.log")


def ready(client: Client) -> list[node_pb2.Node]:
    """Nodes of this demonstration that take work."""
    return [n for n in client.nodes() if n.state == node_pb2.NODE_STATE_READY]


def nodes(found: list[node_pb2.Node]) -> Table:
    """The nodes as a table."""
    table = Table("node", "cores", "memory", "devices")
    for node in found:
        facts = node.facts
        devices = ", ".join(d.model for d in facts.devices) or "CPU only"
        table.add_row(
            facts.display_name, str(facts.cpus), f"{facts.memory_bytes / 2**30:.1f} GiB", devices
        )
    return table


def summary(job: job_pb2.Job) -> None:
    """State, accuracy, phases, ranks and the model's place."""
    state = job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
    console.print(f"job {job.job_id} {job.display_name!r}: [bold]{state}[/bold] – {job.reason}")
    if not job.attempts:
        return
    last = job.attempts[-1]
    phases = (
        ("waited for a place", job.create_time, last.create_time),
        ("started", last.create_time, last.running_time),
        ("ran", last.running_time, last.end_time),
    )
    for words, begin, end in phases:
        if end.seconds:
            console.print(
                f"  {words:<20} {(end.ToNanoseconds() - begin.ToNanoseconds()) / 1e9:7.3f} s"
            )
    held = {lease.node: lease for lease in last.leases}
    for worker in last.workers:
        devices = ", ".join(held[worker.node].device_ids) or "CPU only"
        console.print(f"  rank {worker.rank} ran on {worker.node_display_name} with {devices}")
    for result in DEMO.glob(f"host-*/jobs/{job.job_id}/result.json"):
        told = json.loads(result.read_text())
        console.print(f"  test accuracy        {told['test_accuracy']:.4f}")
        console.print(f"  model                {told['model']}", soft_wrap=True)


def told_next(port: int) -> None:
    """Three commands to go on with."""
    control = DEMO / "controlplane"
    node = agent("host-a", 0, f"127.0.0.1:{port}", control / "agent.token")
    shown = " ".join(str(word) for word in node[: node.index("--devices")])
    console.print("\nTo go on, each in a terminal of its own:")
    for command in (
        f"{BIN}/controlplane serve --state-dir {control} --listen 127.0.0.1:{port}",
        shown,
        f"{BIN}/ccctl --server 127.0.0.1:{port} --token-file {control}/admin.token"
        f" submit {ROOT}/examples/hello/job.json --follow",
    ):
        console.print(f"  {command}", soft_wrap=True)


def step(number: int, words: str) -> None:
    """Say what comes, and how long it may take."""
    console.print(f"\n[bold]{number}.[/bold] {words}")


def quiet(command: list[str | Path]) -> None:
    """Run a command that should have nothing to say."""
    DEMO.mkdir(mode=0o700, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        sys.exit(f"demo: {done.stdout}{done.stderr}")


def free_port() -> int:
    """A TCP port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
