"""A real control plane lets go of what is over, while jobs come and go, and over a kill."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from controlplane.cli.render import plain
from controlplane.v1 import usage_service_pb2
from tests.support.cluster import Cluster, cluster, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
JOBS = 300
KEPT_DAYS = 10 / 86_400
JOB = {"command": ["echo", "hello"], "resources": {"cpus": 0.1, "memory": "16MiB"}}


def summed(one: Cluster) -> usage_service_pb2.UsageRow:
    return one.client.usage(usage_service_pb2.GetUsageRequest()).total


def folders(one: Cluster, store: str) -> set[str]:
    return {path.name for path in (one.folder / "controlplane" / store).glob("*/*")}


def test_ended_jobs_go_and_what_lives_stays(tmp_path: Path) -> None:
    serve = {"keep-jobs-days": f"{KEPT_DAYS:.9f}", "schedule-period-s": "0.1"}
    with cluster(tmp_path, serve=serve) as one:
        one.agent("a", cpus=16)
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "run.sh").write_text("echo shipped; exec sleep 600\n")
        lives = one.client.submit(
            {"command": ["sh", "run.sh"], "working_dir": {"ship": "src"}}, base=tmp_path
        ).name
        one.running(lives)
        names = [one.submit(JOB) for _ in range(JOBS)]
        until(lambda: summed(one).attempts == JOBS + 1, "all to be started", 90)
        until(lambda: [job.name for job in one.client.list()] == [lives], "all to be removed", 90)

        shown = one.ccctl("show", names[0])
        assert shown.returncode == 3
        assert f"{names[0]} was removed: ended jobs are kept for" in shown.stderr
        assert one.client.get(lives).name == lives
        assert summed(one).jobs == JOBS + 1
        until(lambda: folders(one, "logs") == {lives.removeprefix("jobs/")}, "output to go")
        events = list(one.client.events("records"))
        assert sum(plain(event)["changed"]["jobs"] for event in events) == JOBS
        assert {event.principal for event in events} == {"control-plane"}

        # Killed after the commit, and before the files went.
        one.control.kill()
        left = one.folder / "controlplane" / "logs" / "000000" / names[-1].removeprefix("jobs/")
        (left / "0.1").mkdir(parents=True)
        (left / "0.1" / "0.out.00000000000000000000").write_bytes(b"hello\n")
        for path in (left / "0.1" / "0.out.00000000000000000000", left / "0.1", left):
            os.utime(path, (1, 1))
        one.control.start()
        until(lambda: not left.exists(), "what was left behind to go")
        assert one.client.get(lives).name == lives
        blobs = one.folder / "controlplane" / "blobs"
        assert len([path for path in blobs.glob("*/*") if "." not in path.name]) == 1

        number = int(one.submit(JOB).removeprefix("jobs/"))
        assert number == JOBS + 2
        until(lambda: summed(one).jobs == JOBS + 2, "it to be started")
        until(lambda: summed(one).living_attempts == 1, "it to end")
        log = (tmp_path / "controlplane.log").read_text()
        assert "removed what is kept no longer  jobs=" in log
        told = json.loads(one.ccctl("usage", "-o", "json").stdout)
        assert int(told["total"]["jobs"]) == JOBS + 2
