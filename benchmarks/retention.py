"""What retention costs beside submits: ``python -m benchmarks.retention``.

Fills an SQLite database with ended jobs, whose rows are those of a real one, lets go of them turn
after turn as the daemon does, and submits jobs meanwhile, one after the other.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from controlplane.daemon.retiring import REST_S
from controlplane.engine import retention
from controlplane.kit.clock import SystemClock
from controlplane.model.event import Actor
from controlplane.model.keep import Keep
from controlplane.model.spec import parse_spec, spec_sha256
from controlplane.registry import jobs, tables
from controlplane.registry.migrate import upgrade
from controlplane.registry.registry import Registry
from controlplane.registry.sql import SqlStore, connect
from tests.support.world import World

COPIED = (
    *(tables.job, tables.task, tables.attempt, tables.lease, tables.worker),
    *(tables.usage, tables.usage_device),
)
BULK = 5_000
SPEC = parse_spec({"command": ["true"]})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000, help="ended jobs")
    parser.add_argument("--turns", type=int, default=60, help="turns that are measured")
    parser.add_argument("--folder", type=Path, help="where the database lies")
    asked = parser.parse_args()
    table = Table("figure", "median", "99 of 100", "longest")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        url = f"sqlite:///{folder}/registry.db"
        upgrade(url)
        fill(url, asked.jobs)
        size = Path(folder, "registry.db").stat().st_size / 2**20
        keep = Keep(jobs_us=1)
        registry = Registry(SqlStore(url), SystemClock().now_us, keep)
        registry.start()
        table.add_row("submit, nothing beside it", *shown(submits(registry, 300)))
        for rest_s in (REST_S, 0.0):
            took: list[float] = []
            stop = threading.Event()
            turning = threading.Thread(target=turns, args=(registry, took, stop, rest_s))
            turning.start()
            beside: list[float] = []
            while len(took) < asked.turns and turning.is_alive():
                beside += submits(registry, 20)
            stop.set()
            turning.join()
            words = f"resting {rest_s:g} s between"
            table.add_row(f"turn of {retention.TURN_JOBS} jobs, {words}", *shown(took))
            table.add_row(f"submit beside turns, {words}", *shown(beside))
        registry.close()
    Console(highlight=False).print(f"{asked.jobs} ended jobs, {size:.0f} MiB", table)


def fill(url: str, count: int) -> None:
    """Run one job in the registry, and copy its rows as those of many."""
    world = World(SqlStore(url))
    node = world.join("a", gpus=4)
    world.submit(resources={"gpus": 1})
    world.tick()
    world.report(node, world.statuses(1)[node])
    world.report(node, world.ended(world.statuses(1)[node]))
    world.registry.close()
    engine = connect(url)
    with engine.begin() as connection:
        rows = {t: _of_job(connection, t, t.c.job_id == 1) for t in COPIED}
        told = tables.event.c.resource.like("jobs/1%")
        events = _of_job(connection, tables.event, told)
        last = connection.execute(sa.select(tables.cluster.c.seq)).scalar_one()
    for start in range(2, count + 1, BULK):
        numbers = range(start, min(start + BULK, count + 1))
        with engine.begin() as connection:
            for table, found in rows.items():
                copies = [_copy(row, number) for number in numbers for row in found]
                connection.execute(table.insert(), copies)
            copies = []
            for number in numbers:
                for row in events:
                    last += 1
                    name = row["resource"].replace("jobs/1", f"jobs/{number}", 1)
                    copies.append({**row, "seq": last, "resource": name})
            connection.execute(tables.event.insert(), copies)
    with engine.begin() as connection:
        change = tables.cluster.update()
        connection.execute(change.values(seq=last, last_job_id=count, last_lease_id=count))
    engine.dispose()


def _of_job(connection: Any, table: sa.Table, which: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sa.select(table).where(which)).mappings()]


def _copy(row: dict[str, Any], number: int) -> dict[str, Any]:
    lease = {"lease_id": number, "token": number} if "lease_id" in row else {}
    return {**row, "job_id": number, **lease}


def turns(registry: Registry, took: list[float], stop: threading.Event, rest_s: float) -> None:
    """Take turns, and write down how long each took, in seconds."""
    reached = retention.Reached()
    while not stop.is_set():
        began = time.monotonic()
        more = retention.turn(registry, (), reached, SystemClock().now_us())
        took.append(time.monotonic() - began)
        if not more:
            return
        stop.wait(rest_s)


def submits(registry: Registry, count: int) -> list[float]:
    """Submit jobs one after the other; how long each waited for its commit, in seconds."""
    sha256, waited = spec_sha256(SPEC), []
    for _ in range(count):
        began = time.monotonic()
        registry.submit(
            lambda draft: jobs.submit(draft, [jobs.Wanted(SPEC, sha256, 1000)]),
            Actor(principal="ada"),
        ).result()
        waited.append(time.monotonic() - began)
    return waited


def shown(times_s: list[float]) -> tuple[str, str, str]:
    """Median, 99th percentile and maximum, in milliseconds."""
    hundredths = statistics.quantiles(times_s, n=100)
    return tuple(f"{s * 1000:.1f} ms" for s in (hundredths[49], hundredths[98], max(times_s)))  # type: ignore[return-value]


if __name__ == "__main__":
    main()
