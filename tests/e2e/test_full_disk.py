"""The control plane's disk is full: nothing that runs is harmed, and what was told is kept."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from controlplane.client.errors import ClientError
from tests.support.cluster import Cluster, alive, cluster, until
from tests.support.disk import small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a small disk"),
]
LEASE_S = 2
SHORT = {"node-lease-s": str(LEASE_S), "node-lease-margin-s": "1", "hold-s": "0.5"}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Cluster]:
    """A centre whose control plane has a disk of 24 MiB."""
    with (
        small_disk(tmp_path / "controlplane", "size=24m"),
        cluster(tmp_path, "a", serve=SHORT) as made,
    ):
        yield made


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


def submit_many(made: Cluster) -> None:
    """Submit until it is refused: what the database has set aside may take some."""
    for _ in range(1000):
        made.submit({"command": ["true"]})


def test_a_full_disk_of_the_control_plane_ends_no_job(small: Cluster) -> None:
    go = small.folder / "go"
    script = f"echo begin; sleep {2 * LEASE_S + 1}; echo end"
    name = small.submit({"command": ["sh", "-c", script]})
    (worker,) = small.running(name).attempts[0].workers
    # Its end cannot be written down while the disk is full: the node's reports differ from then on.
    short = small.submit(
        {"command": ["sh", "-c", "while [ ! -e $0 ]; do sleep 0.05; done", str(go)]}
    )
    small.running(short)
    kept = small.submit({"command": ["true"], "workers": 1000})
    ballast = fill(small.folder / "controlplane")
    full = time.monotonic()

    with pytest.raises(ClientError, match="no room on the disk"):
        submit_many(small)
    go.touch()
    until(lambda: not alive(worker.pid), "the worker to end by itself")
    assert time.monotonic() - full > LEASE_S + 1, "it ran on past its node's lease"
    ballast.unlink()

    job = small.ended(name)
    assert (job.exit_code, len(job.attempts)) == (0, 1)
    assert (small.ended(short).exit_code, len(small.ended(short).attempts)) == (0, 1)
    assert small.output(name) == b"begin\nend\n"
    assert small.client.get(kept).reason.startswith("can never run"), "what was accepted is there"
    assert small.ended(small.submit({"command": ["true"]})).exit_code == 0
