"""Accounts with real daemons: quotas that bind, shared jobs, usage that a restart keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.test_roles import ccctl, token
from tests.support.cluster import Cluster, cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    serve = {"plaintext": ""}
    with cluster(tmp_path_factory.mktemp("accounts"), serve=serve) as made:
        made.agent("a", gpus=4)
        yield made


def as_operator(made: Cluster, *words: str) -> str:
    done = ccctl(made, token(made, "olga", "operator"), *words)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def submitted(made: Cluster, who: str, **document: Any) -> str:
    path = made.folder / "job.json"
    path.write_text(json.dumps({"command": ["sleep", "600"], **document}))
    done = ccctl(made, token(made, who, "user"), "submit", path, "-o", "json")
    assert done.returncode == 0, done.stderr
    name: str = json.loads(done.stdout)["name"]
    return name


def test_an_account_from_its_making_to_its_end(one: Cluster) -> None:
    for user in ("alice", "bob", "eve"):
        token(one, user, "user")
    as_operator(one, "account", "create", "science", "--shares", "3")
    quota = ("--gpus", "2", "--queued", "1", "--members-may", "stop")
    as_operator(one, "account", "create", "vision", "--parent", "science", *quota)
    for user in ("alice", "bob"):
        as_operator(one, "account", "member", "set", "vision", user, "--default")

    runs = submitted(one, "alice", resources={"gpus": 2})
    one.running(runs)
    waits = submitted(one, "bob", resources={"gpus": 1})
    until(
        lambda: "account vision has 2 of 2 GPUs" in one.client.get(waits).reason,
        "the quota as a reason",
    )
    path = one.folder / "job.json"
    done = ccctl(one, token(one, "alice", "user"), "submit", path)
    assert done.returncode != 0
    assert "accounts/vision: 1 task waits, and 1 may (queued of its quota)" in done.stderr
    path.write_text(json.dumps({"command": ["true"], "account": "vision"}))
    done = ccctl(one, token(one, "eve", "user"), "submit", path)
    assert done.returncode == 4
    assert "accounts/vision: eve is no member of it; yours are: default" in done.stderr

    told = as_operator(one, "account", "update", "vision", "--queued", "0")
    assert "vision has 1 waiting task by now, above its quota of 0" in told
    listed = ccctl(one, token(one, "bob", "user"), "list", "--account", "vision", "-o", "json")
    assert {job["owner"] for job in json.loads(listed.stdout)["jobs"]} == {"alice", "bob"}
    done = ccctl(one, token(one, "bob", "user"), "cancel", runs.removeprefix("jobs/"))
    assert done.returncode == 0, done.stderr
    one.running(waits)
    one.client.cancel([waits])
    one.ended(waits)

    def shares() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            as_operator(one, "account", "shares", "science", "-o", "json")
        )["shares"]
        return [
            {key: row[key] for key in ("account", "user", "shares", "usage_us")} for row in found
        ]

    before = shares()
    assert [row["user"] for row in before] == ["", "", "users/alice", "users/bob"]
    assert all(row["usage_us"] > 0 for row in before)
    assert before[0]["usage_us"] == before[2]["usage_us"] + before[3]["usage_us"]
    one.control.kill()
    one.control.start()
    until(one.client.server_info, "the control plane to answer")
    after = shares()
    assert [row["user"] for row in after] == [row["user"] for row in before]
    for earlier, later in zip(before, after, strict=True):
        # The minute may have changed meanwhile: then a ten-thousandth of a week's half has gone.
        assert 0.999 * earlier["usage_us"] <= later["usage_us"] <= earlier["usage_us"]
    as_operator(one, "account", "delete", "vision")
    assert "account.deleted" in {event.kind for event in one.client.events("accounts/vision")}
