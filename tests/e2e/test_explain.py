"""Why a job waits, on a real cluster: told by `ccctl`, true once the changes are made, and decided
again from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.model.scene import read_scene
from controlplane.scheduling.policy import plan
from tests.support.cluster import Cluster, cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("one")) as made:
        made.agent("a", cpus=8, gpus=2)
        until(lambda: made.node("a"), "the node to join")
        yield made


def waiting(made: Cluster, document: dict[str, Any]) -> str:
    name = made.submit({"command": ["sleep", "600"], **document})
    until(lambda: "waits for" in made.client.get(name).reason, "a reason to be told")
    return name.removeprefix("jobs/")


def test_explain_priority_and_dump(one: Cluster, tmp_path: Path) -> None:
    sleeps = ["sh", "-c", "sleep 600"]
    holds = one.submit({"command": sleeps, "resources": {"gpus": 2}, "time_limit": "2h"})
    one.running(holds)
    wants = {"resources": {"gpus": 1}, "time_limit": "1h"}
    first, second = waiting(one, {**wants, "workers": 2}), waiting(one, wants)

    told = one.ccctl("explain", first).stdout
    assert "waits for resources: room for 0 of 2 workers" in told
    assert "0 before it, 1 behind it" in told
    assert "promised" in told
    assert "Probably starts in 2h00m" in told
    assert f"{holds}/tasks/0" in told
    shown = json.loads(one.ccctl("explain", second, "-o", "json").stdout)
    assert (shown["ahead"], shown["behind"]) == (1, 0)
    assert [holder["task"] for holder in shown["holders"]] == [f"{holds}/tasks/0"]

    table = one.ccctl("priority", first, second).stdout
    assert "PRIORITY CLASS" in table.upper()
    assert table.count("1000000 (1000)") == 2

    refused = one.ccctl("explain", holds.removeprefix("jobs/"))
    assert refused.returncode != 0
    assert "does not wait: it is active" in refused.stderr

    file = tmp_path / "view.json"
    assert one.ccctl("dump", file).returncode == 0
    scene = read_scene(file.read_text())
    decided = plan(scene.view, scene.policy)
    assert not decided.places
    reasons = {f"jobs/{hold.job_id}": hold.reason for hold in decided.holds}
    assert reasons == {name: one.client.get(name).reason for name in reasons}
    assert set(reasons) == {f"jobs/{first}", f"jobs/{second}"}
    assert "sleep" not in file.read_text(), "no command is in it"


def test_what_is_suggested_starts_the_job(one: Cluster) -> None:
    with_one = one.submit({"command": ["sleep", "600"], "resources": {"gpus": 1}})
    until(lambda: one.client.get(with_one), "the job")
    for job in one.client.list():
        if job.name != with_one:
            one.client.cancel([job.name])
    one.running(with_one)
    name = waiting(one, {"resources": {"gpus": 2}})
    shown = json.loads(one.ccctl("explain", name, "-o", "json").stdout)
    changes = {change["field"]: change["value"] for change in shown["changes"]}
    assert changes["resources.gpus"] == "1"
    one.client.cancel([f"jobs/{name}"])
    one.running(one.submit({"command": ["sleep", "600"], "resources": {"gpus": 1}}))
