"""Cables that are pulled and plugged in again: what runs, where, and what is said of it."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support import netns
from tests.support.cluster import alive, until
from tests.support.house import House, house

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not netns.available(), reason="needs root, to make hosts"),
    pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl"),
]
PAIR = {"workers": 2, "workers_per_node": 1}
BOTH = ["host-a", "host-b"]
LEASE_S, MARGIN_S = 3, 2
FAST = {"node-lease-s": str(LEASE_S), "node-lease-margin-s": str(MARGIN_S), "hold-s": "0.5"}


def when(moment: str) -> float:
    """Seconds since 1970 of a moment that ccctl tells."""
    return datetime.fromisoformat(moment).timestamp()


def parent(pid: int) -> int:
    """The process that has started a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def holds_a_lease(supervisor: int) -> bool:
    """Whether a supervisor has not gone, nor waits for a next lease."""
    return alive(supervisor) and os.readlink(f"/proc/{supervisor}/cwd") != "/"


def facts(made: House, host: str) -> list[dict[str, Any]]:
    """What the supervisor of a host's only lease has written down."""
    (path,) = made.folder.glob(f"{host}/run/leases/*/status.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_pulled_cable_ends_the_workers_there_and_the_job_runs_elsewhere(tmp_path: Path) -> None:
    with (
        netns.hosts(5) as (centre, desk, a, b, c),
        house(tmp_path, centre, desk, FAST) as made,
    ):
        made.join(a, "host-a")
        agent = made.join(b, "host-b")
        name = made.submit({"command": ["sleep", "600"], **PAIR})
        job = made.running(name)
        on = {w["node_display_name"]: w["pid"] for w in job["attempts"][0]["workers"]}
        assert sorted(on) == BOTH
        supervisor = parent(on["host-b"])

        b.link_down()
        until(
            lambda: not alive(on["host-b"]) and not holds_a_lease(supervisor),
            "the supervisor to fence the worker and to let go",
            LEASE_S + MARGIN_S,
        )
        dead = time.time()
        assert alive(on["host-a"]), "its own host still holds its lease"
        assert facts(made, "host-b")[-1]["end"] == "fenced"

        job = made.job_when(name, "wait", lambda job: "waits for" in job["reason"], 20)
        (lost,) = job["attempts"]
        assert lost["state"] == "node_lost"
        assert lost["cause"]["kind"] == "infrastructure"
        assert lost["cause"]["node"] == "host-b"
        assert lost["cause"]["message"] == "host-b was silent past its lease"
        assert dead < when(lost["stop_time"]), "nothing may run twice"
        assert not alive(on["host-a"])
        assert "1 node take no work (draining, silent or in trouble)" in job["reason"]
        assert made.node_state("host-b") == "unknown"

        made.join(c, "host-c")
        again = made.running(name, 2)
        nodes = [w["node_display_name"] for w in again["attempts"][1]["workers"]]
        assert sorted(nodes) == ["host-a", "host-c"]

        b.link_up()
        until(lambda: made.node_state("host-b") == "ready", "host-b to come back by itself", 40)
        assert agent.process is not None
        assert agent.process.poll() is None
        until(lambda: not list(tmp_path.glob("host-b/leases/*")), "the old lease to be forgotten")
        assert made.running(name, 2)["attempts"][1] == again["attempts"][1]
        assert all(alive(w["pid"]) for w in again["attempts"][1]["workers"])


def test_a_job_that_waits_for_a_cut_off_host_runs_when_the_cable_is_back(tmp_path: Path) -> None:
    with netns.hosts(4) as (centre, desk, a, b), house(tmp_path, centre, desk, FAST) as made:
        made.join(a, "host-a")
        made.join(b, "host-b")
        name = made.submit({"command": ["sh", "-c", "echo up; sleep 600"], **PAIR})
        made.running(name)

        a.link_down()
        made.job_when(name, "wait", lambda job: "waits for" in job["reason"], 20)
        a.link_up()
        job = made.running(name, 2, 40)
        assert sorted(w["node_display_name"] for w in job["attempts"][1]["workers"]) == BOTH
        assert made.node_state("host-a") == "ready"
