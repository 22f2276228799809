"""What real jobs used is written down with their end, and told to those who ask."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.v1 import usage_service_pb2
from tests.support.cluster import Cluster, cluster, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
HUNGRY = "import time; kept = bytearray(150 << 20); print('x' * 99); time.sleep(1)"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("one")) as made:
        made.agent("a", gpus=2)
        for account in ("vision", "cut"):
            assert made.ccctl("account", "create", account, "--open").returncode == 0
        yield made


def told(one: Cluster, *words: str) -> Any:
    done = one.ccctl("usage", "-o", "json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_usage_of_a_job_is_told_while_it_runs_and_kept_when_it_has_ended(one: Cluster) -> None:
    document = {"command": [sys.executable, "-c", HUNGRY], "account": "vision"}
    name = one.submit({**document, "resources": {"gpus": 2, "cpus": 0.5}})
    one.running(name)
    asked = usage_service_pb2.GetUsageRequest(group_by=usage_service_pb2.USAGE_GROUP_JOB)
    (row,) = one.client.usage(asked).rows
    assert (row.key, row.living_attempts, row.failed_attempts) == (name, 1, 0)
    first = row.device_times[0].time.ToMicroseconds()
    until(
        lambda: one.client.usage(asked).rows[0].device_times[0].time.ToMicroseconds() > first,
        "usage to grow",
    )

    (attempt,) = one.ended(name).attempts
    used = attempt.usage
    (devices,) = used.device_times
    (lease,) = attempt.leases
    held_us = lease.removed_time.ToMicroseconds() - lease.added_time.ToMicroseconds()
    assert devices.model.startswith("Simulated")
    assert devices.time.ToMicroseconds() == 2 * held_us
    assert used.core_time.ToNanoseconds() == 500 * held_us
    assert 150 << 20 <= used.peak_memory_bytes < 250 << 20
    assert (used.stdout_bytes, used.stderr_bytes) == (100, 0)
    phases = (used.staging_time, used.starting_time, used.running_time, used.stopping_time)
    assert sum(phase.ToMicroseconds() for phase in phases) == held_us
    assert used.running_time.ToMicroseconds() > 900_000
    assert "Used: 0.00" in one.ccctl("show", name).stdout

    one.control.kill()
    one.control.start()
    by_account = told(one, "--by", "account", "--account", "vision")
    (row,) = by_account["rows"]
    assert (row["key"], row["jobs"], row["attempts"]) == ("vision", 1, 1)
    assert row["device_times"] == [{"model": devices.model, "time": 2 * held_us / 1e6}]
    assert row["peak_memory_bytes"] == used.peak_memory_bytes
    assert told(one, "--account", "speech")["rows"] == []


def test_windows_that_follow_one_another_add_up_and_csv_says_the_same(one: Cluster) -> None:
    name = one.submit({"command": ["sleep", "1"], "resources": {"gpus": 1}, "account": "cut"})
    one.running(name)
    edge = time.time_ns() // 1000
    one.ended(name)

    def device_us(**window: int) -> int:
        asked = usage_service_pb2.GetUsageRequest(account="cut")
        for field, moment_us in window.items():
            getattr(asked, field).FromMicroseconds(moment_us)
        total = one.client.usage(asked).total
        return sum(each.time.ToMicroseconds() for each in total.device_times)

    before, after = device_us(to_time=edge), device_us(from_time=edge)
    assert min(before, after) > 0
    assert before + after == device_us()

    done = one.ccctl("usage", "--account", "cut", "--by", "job", "--output", "csv")
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert (row["job"], row["attempts"], row["failed_share"]) == (name, "1", "0.0000")
    assert round(float(row["gpu_seconds"]) * 1e6) == device_us()


def test_a_window_without_time_is_refused_in_words(one: Cluster) -> None:
    done = one.ccctl("usage", "--from", "2026-03-02", "--to", "2026-03-01")
    assert done.returncode == 2
    assert "from_time must lie before to_time" in done.stderr
