"""What the registry can bear, in a real daemon with callers of their own processes:
``python -m benchmarks.registry``.

Prints durable submits per second, events listed, cancels, the start-up and the memory of a full
queue, and how soon a thousand agents are back after a restart; beside them, from the same run, what
an rpc that does nothing and a bare fdatasync come to. No figure is of a warm-up: each is of a run
against a daemon that answers already.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.callers import EMPTY, SUBMIT, Called, Door, call, spec
from benchmarks.limits import empty_server, syncs_per_s
from benchmarks.throughput import cpu_s, rss_mib
from controlplane.client.errors import ClientError
from controlplane.v1 import job_pb2
from controlplane.v1 import job_service_pb2 as pb
from controlplane.v1.job_service_pb2_grpc import JobServiceStub
from controlplane.wire.basics import struct
from tests.support.cluster import Cluster, cluster

BATCH = 10_000
PAGE = 1000
LIVE = pb.JobFilter(states=[job_pb2.JOB_STATE_PENDING, job_pb2.JOB_STATE_ACTIVE])
JOB = {"command": ["true"], "resources": {"cpus": 1, "memory": "64MiB"}}
Row = tuple[str, str, str]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url", help="an empty database of the registry; else SQLite")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a run of submits")
    parser.add_argument("--rounds", type=int, default=3, help="runs, of which the best counts")
    parser.add_argument("--queued", type=int, default=100_000, help="jobs of a full queue")
    parser.add_argument("--agents", type=int, default=1000, help="agents that come back")
    parser.add_argument("--only", default="tls,submits,batches,queue,agents", help="which parts")
    asked = parser.parse_args()
    serve = {"database-url": asked.database_url} if asked.database_url else {}
    parts = {
        "tls": lambda made: submits(made, asked.seconds, asked.rounds),
        "submits": lambda made: submits(made, asked.seconds, asked.rounds),
        "batches": lambda made: batches(made, asked.rounds),
        "queue": lambda made: queue(made, asked.queued, asked.seconds),
        "agents": lambda made: agents(made, asked.agents),
    }
    table = Table("figure", "value", "beside it", title=asked.database_url or "SQLite")
    for part in asked.only.split(","):
        plain = {} if part == "tls" else {"plaintext": ""}
        with (
            tempfile.TemporaryDirectory() as folder,
            cluster(Path(folder), serve={**plain, **serve}) as made,
        ):
            for row in parts[part](made):
                table.add_row(*row)
            table.add_section()
    Console(highlight=False, width=150).print(table)


def door(made: Cluster) -> Door:
    """How callers reach the daemon."""
    return Door(
        target=made.server, token_file=str(made.token_file), ca_file=str(made.ca_file or "")
    )


def submits(made: Cluster, seconds: float, rounds: int) -> Iterator[Row]:
    """One submit after the other, by one caller and by 64."""
    how = "TLS" if made.ca_file is not None else "plaintext"
    best: dict[str, list[tuple[Called, float]]] = {}
    kinds = {"alike": True, "all different": False}
    pki = made.ca_file.parent if made.ca_file is not None else None
    with empty_server(pki) as (empty, empty_pid):
        for _ in range(rounds):
            for callers in (1, 64):
                spent = cpu_s(empty_pid)
                done = call(empty, EMPTY, callers=callers, seconds=seconds)
                cpu = (cpu_s(empty_pid) - spent) / seconds
                best.setdefault(f"an rpc that does nothing, {callers}", []).append((done, cpu))
                for kind, alike in kinds.items():
                    spent = cpu_s(made.control.pid)
                    done = call(door(made), SUBMIT, callers=callers, seconds=seconds, alike=alike)
                    # The callers' own start is not long, and the daemon rests meanwhile.
                    cpu = (cpu_s(made.control.pid) - spent) / seconds
                    best.setdefault(f"submits, {kind}, {callers}", []).append((done, cpu))
                    empty_queue(made)
            best.setdefault("syncs", []).append(
                (Called(rate=syncs_per_s(made.folder), median_ms=0, worst_ms=0, cpu=0), 0)
            )
    syncs = max(done.rate for done, _ in best.pop("syncs"))
    yield "fdatasync of a page on the same disk", f"{syncs:.0f}/s", ""
    limit = {}
    for name, runs in sorted(best.items(), key=lambda pair: pair[0].rpartition(" ")[2]):
        callers = name.rpartition(" ")[2]
        done, cpu = max(runs, key=lambda run: run[0].rate)
        told = f"median {done.median_ms:.1f} ms, longest {done.worst_ms:.0f} ms; server"
        told += f" {cpu:.2f} cores ({cpu / done.rate * 1e6:.0f} µs each), callers {done.cpu:.2f}"
        if name.startswith("an rpc"):
            limit[callers] = done.rate
        else:
            told = f"{done.rate / limit[callers]:.2f} × such an rpc; {told}"
        yield f"{name} callers, {how}", f"{done.rate:.0f}/s", told


def batches(made: Cluster, rounds: int) -> Iterator[Row]:
    """Many jobs in one call, and what else is done to many at once."""
    stub = JobServiceStub(made.client._connection.channel)  # as bare as may be
    metadata = door(made).metadata
    took: dict[str, list[float]] = {"alike": [], "all different": [], "cancel": [], "array": []}
    for number in range(rounds):
        for kind in ("alike", "all different"):
            specs = [struct(spec(n if kind == "all different" else 0)) for n in range(BATCH)]
            request = pb.SubmitJobsRequest(specs=specs, request_id=f"{kind} {number}")
            began = time.monotonic()
            answer = stub.SubmitJobs(request, metadata=metadata, timeout=60)
            took[kind].append(time.monotonic() - began)
            cancel = pb.CancelJobsRequest(names=answer.names, request_id=f"{kind} {number} over")
            began = time.monotonic()
            stub.CancelJobs(cancel, metadata=metadata, timeout=60)
            took["cancel"].append(time.monotonic() - began)
        array = {**spec(0), "tasks": f"0-{BATCH - 1}"}
        before = sum(1 for _ in made.client.events())
        began = time.monotonic()
        name = made.submit(array)
        took["array"].append(time.monotonic() - began)
        events = sum(1 for _ in made.client.events()) - before
        made.client.cancel([name])
    for kind in ("alike", "all different"):
        rate, wanted = BATCH / min(took[kind]), "expected: ≥ 30,000"
        yield f"jobs in a batch of {BATCH}, {kind}", f"{rate:.0f}/s", wanted
    yield f"cancel of {BATCH} waiting jobs", f"{min(took['cancel']):.2f} s", "expected: ≤ 2 s"
    told = f"{events} event"
    yield f"an array of {BATCH}", f"{min(took['array']) * 1000:.1f} ms", told
    began, listed, after = time.monotonic(), 0, 0
    while page := stub.ListEvents(
        pb.ListEventsRequest(after_seq=after, page_size=PAGE), metadata=metadata, timeout=60
    ).events:
        listed, after = listed + len(page), page[-1].seq
    yield f"events listed, pages of {PAGE}", f"{listed / (time.monotonic() - began):.0f}/s", ""


def queue(made: Cluster, jobs: int, seconds: float) -> Iterator[Row]:
    """A daemon with many jobs that wait."""
    stub = JobServiceStub(made.client._connection.channel)
    metadata = door(made).metadata
    for kind in ("alike", "all different"):
        made.control.stop()
        bare_s, bare_mib = started(made)
        for start in range(0, jobs, BATCH):
            numbers = range(start, min(start + BATCH, jobs))
            specs = [struct(spec(n if kind == "all different" else 0)) for n in numbers]
            request = pb.SubmitJobsRequest(specs=specs)
            stub.SubmitJobs(request, metadata=metadata, timeout=120, wait_for_ready=True)
        grown_mib = rss_mib(made.control.pid) - bare_mib
        made.control.stop()
        ready_s, full_mib = started(made)
        many = f"{jobs} waiting jobs, {kind}"
        beside = f"{bare_s:.1f} s with none; expected: < 5 s"
        yield f"start until it answers, {many}", f"{ready_s:.1f} s", beside
        told = f"{grown_mib:.0f} MiB before the restart; expected: ≤ 250 MB"
        yield f"resident memory, {many}", f"{full_mib - bare_mib:.0f} MiB", told
        spent = cpu_s(made.control.pid)
        time.sleep(seconds)
        idle = (cpu_s(made.control.pid) - spent) / seconds
        done = call(door(made), SUBMIT, callers=64, seconds=seconds)
        told = f"median {done.median_ms:.1f} ms, longest {done.worst_ms:.0f} ms;"
        told += f" {idle:.2f} cores while nothing is asked"
        yield f"submits, alike, 64 callers, beside {many}", f"{done.rate:.0f}/s", told
        began = time.monotonic()
        gone = empty_queue(made)
        told = f"{gone} jobs, by a filter"
        yield f"cancel of {many}", f"{time.monotonic() - began:.1f} s", told


def started(made: Cluster) -> tuple[float, float]:
    """Start the daemon; seconds until it answers, and its resident memory then, in MiB."""
    began = time.monotonic()
    made.control.start()
    while True:
        try:
            made.client.server_info()
            break
        except ClientError:
            time.sleep(0.01)
    took = time.monotonic() - began
    time.sleep(2)  # the first cycle of the scheduler counts too
    return took, rss_mib(made.control.pid)


def empty_queue(made: Cluster) -> int:
    """Cancel all that waits; how many jobs that was."""
    return len(made.client.cancel(filter=LIVE).cancelled)


def agents(made: Cluster, count: int) -> Iterator[Row]:
    """Agents, a job on each, that lose their control plane for a moment."""
    with herd(made, count) as lines:
        began = time.monotonic()
        made.client.submit_many([JOB] * count)
        first = json.loads(next(lines))
        placed = first["at"] - began
        made.control.kill()
        began = time.monotonic()
        made.control.start()
        back = json.loads(next(lines))
        assert back["epoch"] > first["epoch"]
        took = back["at"] - began
        time.sleep(1)
        live = sum(1 for _ in made.client.list(LIVE, page_size=PAGE))
    told = f"{count} jobs placed within {placed:.1f} s"
    yield f"{count} agents back after a restart", f"{took:.1f} s", f"expected: ≤ 10 s; {told}"
    yield "… of their jobs still running", f"{live}", f"of {count}"


@contextmanager
def herd(made: Cluster, count: int) -> Iterator[Iterator[str]]:
    """Agents in a process of their own; what it says."""
    token = made.folder / "controlplane" / "agent.token"
    where = ["--target", made.server, "--token_file", str(token)]
    sizes = ["--agents", str(count), "--leases", str(count)]
    command = [sys.executable, "-m", "benchmarks.herd", *where, *sizes]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield iter(process.stdout)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
