"""`make demo`: trains a real model through a control plane and two agents on this machine.

Everything lies in .demo. The daemons are stopped at the end; their state stays, so that a second
run takes seconds. With --serve it trains nothing, and serves until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from controlplane.client import Client
from controlplane.client.errors import ClientError
from controlplane.kit.credential import Credential
from controlplane.model.node import DeviceKind
from controlplane.v1 import job_pb2, node_pb2
from nodeagent.devices import open_devices

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
CONTROL = DEMO / "controlplane"
CA = CONTROL / "pki" / "ca.crt"
BIN = Path(sys.executable).parent
HOSTS = ("host-a", "host-b")
START_S = 30.0
JOB_S = 300.0
console = Console(highlight=False)
_numbers = itertools.count(1)


def main() -> int:
    """Run the demonstration; the exit code is the job's."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--serve", action="store_true", help="no training: serve until Ctrl-C")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        server = f"127.0.0.1:{free_port()}"
        client = start(stack, server)
        pointer = point_at(server)
        if asked.serve:
            serve()
            return 0
        code = train(client, pointer)
        step("stopping the agents and the control plane; .demo keeps their state")
    told_next()
    return code


def start(stack: contextlib.ExitStack, server: str) -> Client:
    """Start a control plane and two agents, which end with the stack."""
    step("setting up .demo: certificates, and a token for an administrator (1 second)")
    quiet([BIN / "controlplane", "init", "--state-dir", CONTROL, "--listen", server])
    step(f"starting the control plane on {server}, with SQLite in .demo (2 seconds)")
    command: list[str | Path]
    command = [BIN / "controlplane", "serve", "--state-dir", CONTROL, "--listen", server]
    agents = f"127.0.0.1:{free_port()}"
    command += ["--listen-agents", agents]
    stack.enter_context(daemon("controlplane", command))
    token = (CONTROL / "admin.token").read_text().strip()
    client = stack.enter_context(Client(server, token=token, ca_file=CA))
    until("the control plane to answer", lambda: bool(client.server_info().epoch))
    step("starting two agents that stand for two hosts, each with a certificate (3 seconds)")
    for name in HOSTS:
        join(client, server, name)
    gpus = gpus_to_share()
    for index, name in enumerate(HOSTS):
        command = agent(name, index, agents, gpus[index :: len(HOSTS)])
        stack.enter_context(daemon(name, command))
    until("both agents to join", lambda: len(ready(client)) == len(HOSTS))
    console.print(nodes(ready(client)))
    return client


def train(client: Client, pointer: Mapping[str, str]) -> int:
    """Submit the example, follow it, and sum up; the job's exit code."""
    step("training: examples/digits/job.json, two hosts × one rank (15 seconds)")
    began = time.monotonic()
    follow = subprocess.run(
        [BIN / "ccctl", "submit", ROOT / "examples/digits/job.json", "--follow"],
        env={**os.environ, **pointer},
        timeout=JOB_S,
        check=False,
    )
    job = client.get(next(iter(client.list())).name)
    step(f"what came of it ({time.monotonic() - began:.1f} s)")
    summary(job)
    return follow.returncode


def serve() -> None:
    """Wait until somebody ends us."""
    console.print("\nServing until Ctrl-C. In another terminal:")
    console.print("  source .demo/env", "  ccctl node list", sep="\n")
    ends = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    signal.sigwait(ends)


def point_at(server: str) -> dict[str, str]:
    """The environment that points ccctl at a server; kept for a shell to source, too."""
    pointer = {
        "CCCTL_SERVER": server,
        "CCCTL_TOKEN_FILE": str(CONTROL / "admin.token"),
        "CCCTL_CA_FILE": str(CA),
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in pointer.items()]
    lines.append(f"export PATH={shlex.quote(str(BIN))}:$PATH")
    (DEMO / "env").write_text("\n".join(lines) + "\n")
    return pointer


def join(client: Client, server: str, name: str) -> None:
    """Get a host its certificate, unless it has one from an earlier run."""
    if (DEMO / name / "credential.json").exists():
        return
    _, secret = client.identities.create_join_token(lifetime_s=600)
    line = Credential(kind="join", server=server, authority=CA.read_bytes(), secret=secret).write()
    quiet([BIN / "nodeagent", "join", "-", "--state-dir", DEMO / name], line)


def agent(name: str, index: int, server: str, gpus: Sequence[str]) -> list[str | Path]:
    """The command of one agent. Without GPUs it offers a simulated one, labelled so."""
    first = 21000 + 500 * index
    offered = [word for gpu in gpus for word in ("--offered-devices", gpu)]
    return [
        BIN / "nodeagent",
        "run",
        *("--state-dir", DEMO / name, "--server", server, "--name", name),
        *("--address", "127.0.0.1", "--cpus", "2", "--run-as", "agent"),
        *("--port-first", str(first), "--port-last", str(first + 499)),
        *("--path", f"{BIN}:{os.environ.get('PATH', '/usr/bin:/bin')}"),
        *(offered or ("--devices", "simulated", "--simulated-count", "1")),
    ]


def gpus_to_share() -> list[str]:
    """Ids of this machine's GPUs where both agents can have some and Horovod can use them."""
    devices = open_devices(
        "auto",
        simulated_count=0,
        simulated_model="",
        simulated_memory_bytes=1,
        node_uuid=str(uuid.uuid4()),
    )
    usable = [d for d in devices.discover() if d.kind is DeviceKind.GPU and not d.fault]
    found = [device.device_id for device in usable]
    devices.close()
    if not found:
        return []
    asked = "import horovod.torch as hvd, sys; sys.exit(not hvd.nccl_built())"
    if subprocess.run([sys.executable, "-c", asked], timeout=60, check=False).returncode:
        console.print("   this machine has GPUs, and Horovod was built for CPUs: these are used;")
        console.print(
            "   with the CUDA toolkit and NCCL installed, `make clean demo` uses the GPUs"
        )
        return []
    if len(found) < 2:
        console.print("   one GPU cannot stand for two hosts: the CPUs are used")
        return []
    return found


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


def told_next() -> None:
    """Three commands to go on with."""
    console.print("\nTo go on, from this folder:")
    for command, words in (
        ("make serve", "the same control plane and agents, until Ctrl-C"),
        ("source .demo/env", "in another terminal: points ccctl at them"),
        ("ccctl submit examples/torchrun/job.json --follow", "or examples/hello, examples/mpi"),
    ):
        console.print(f"  {command:<50} # {words}", soft_wrap=True)


def step(words: str) -> None:
    """Say what comes, and how long it may take."""
    console.print(f"\n[bold]{next(_numbers)}.[/bold] {words}", soft_wrap=True)


def quiet(command: list[str | Path], said: str = "") -> None:
    """Run a command that should have nothing to say; it reads `said`."""
    DEMO.mkdir(mode=0o700, exist_ok=True)
    done = subprocess.run(
        command, input=said, capture_output=True, text=True, timeout=60, check=False
    )
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
