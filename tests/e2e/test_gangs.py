"""Gangs that each want everything: one runs after the other, none in part, none for ever."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from controlplane.client import Client
from controlplane.v1 import job_pb2
from tests.support.cluster import Cluster, cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
ROUNDS, GANGS, GPUS = 20, 6, 2
SHAPES: list[dict[str, Any]] = [
    {"workers": 2 * GPUS, "resources": {"gpus": 1, "memory": "64MiB"}},
    {"workers": 2, "workers_per_node": 1, "resources": {"gpus": GPUS, "memory": "64MiB"}},
    {"workers": 2 * GPUS, "workers_per_node": GPUS, "resources": {"gpus": 1, "memory": "64MiB"}},
]
"""Ways to ask for every device of both nodes."""
HOLD = """
test "$CC_LOCAL_RANK" = 0 || exec sleep 0.1
devices=$(echo "$CUDA_VISIBLE_DEVICES" | tr , ' ')
for device in $devices; do mkdir "$HELD/$device" || exit 9; done
sleep 0.1
for device in $devices; do rmdir "$HELD/$device"; done
"""
"""A node's workers see all that their gang has there; the first fails when another holds it."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("two")) as made:
        made.agent("a", cpus=16, gpus=GPUS)
        made.agent("b", cpus=16, gpus=GPUS)
        yield made


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_gangs_that_each_want_all_devices_run_one_after_another(
    two: Cluster, tmp_path: Path, turn: int
) -> None:
    devices = {d.device_id for node in two.client.nodes() for d in node.facts.devices}
    assert len(devices) == 2 * GPUS
    token = two.token_file.read_text().strip()

    def submit(number: int) -> str:
        document = {
            "command": ["sh", "-c", HOLD],
            "env": {"HELD": str(tmp_path)},
            **SHAPES[(turn + number) % len(SHAPES)],
        }
        with Client(two.server, token=token, ca_file=two.ca_file) as caller:
            return caller.submit(document).name

    with ThreadPoolExecutor(GANGS) as callers:
        names = list(callers.map(submit, range(GANGS)))
    assert len(set(names)) == GANGS
    jobs = sorted((two.ended(name) for name in names), key=lambda job: job.job_id)

    for job in jobs:
        assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job.reason
        (attempt,) = job.attempts
        assert {d for lease in attempt.leases for d in lease.device_ids} == devices
        assert sorted({lease.node_display_name for lease in attempt.leases}) == ["a", "b"]
        assert len(attempt.leases) == 2
    for one, next_one in itertools.pairwise(jobs):  # who came first goes first
        freed = max(lease.removed_time.ToNanoseconds() for lease in one.attempts[0].leases)
        taken = min(lease.added_time.ToNanoseconds() for lease in next_one.attempts[0].leases)
        assert freed <= taken
    assert not any(node.leased_device_ids for node in two.client.nodes())
