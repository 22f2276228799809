"""What a real cluster says of jobs that a file's check cannot refuse, word for word."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from controlplane.v1 import job_pb2
from tests.cli.golden import check
from tests.support.cluster import BIN, Cluster, cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TRUE = {"command": ["true"]}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("wrong")) as made:
        for name in ("a", "b"):
            made.agent(name, cpus=4, gpus=2, **{"memory-mib": "8192"})
        yield made


def page(documents: list[dict[str, object]], reasons: list[str]) -> str:
    pairs = zip(documents, reasons, strict=True)
    return "".join(f"{json.dumps(document)}\n  {reason}\n\n" for document, reason in pairs)


def test_a_gang_larger_than_the_cluster_waits_and_is_told_why_it_can_never_run(
    two: Cluster,
) -> None:
    documents: list[dict[str, object]] = [
        {**TRUE, "workers": 100},
        {**TRUE, "workers": 1_000_000},
        {**TRUE, "workers": 3, "workers_per_node": 1},
        {**TRUE, "workers": 10, "workers_per_node": 5},
        {**TRUE, "resources": {"gpus": 3}},
        {**TRUE, "workers": 5, "resources": {"gpus": 1}},
        {**TRUE, "resources": {"gpus": 1, "gpu_model": "B200"}},
        {**TRUE, "resources": {"cpus": 4.5}},
        {**TRUE, "resources": {"memory": "8GiB"}, "workers": 3},
        {**TRUE, "resources": {"memory": "1TiB"}},
    ]
    names = [two.submit(document) for document in documents]

    def reasons() -> list[str]:
        jobs = [two.client.get(name) for name in names]
        assert {job.state for job in jobs} == {job_pb2.JOB_STATE_PENDING}
        found = [job.reason for job in jobs]
        return found if all("never" in reason for reason in found) else []

    told: list[str] = until(reasons, "every job to be told that it can never run")
    check("never.txt", page(documents, told), room="daemons")


def test_what_only_a_node_can_know_is_told_in_the_jobs_reason(two: Cluster) -> None:
    documents: list[dict[str, object]] = [
        {**TRUE, "working_dir": "/nowhere"},
        {**TRUE, "working_dir": "/etc/hostname"},
        {"command": ["no-such-program"]},
        {"command": ["/etc/hostname"]},
        {**TRUE, "env": {"PATH": "/nowhere"}},
    ]
    pinned = [{**document, "workers": 2, "workers_per_node": 1} for document in documents]
    jobs = [two.ended(two.submit(document)) for document in pinned]
    told = [
        f"{job.reason} [exit code {job.exit_code}] {job.attempts[-1].cause.stderr_tail.strip()}"
        for job in jobs
    ]
    for name in ("a", "b"):
        told = [words.replace(f" on {name}", " on NODE") for words in told]
    said = page(pinned, [words.replace("rank 1 ", "rank 0 ") for words in told])
    path = f"{BIN}:/usr/local/bin:/usr/bin:/bin"
    check("at-the-node.txt", said.replace(path, "THEIR PATH"), room="daemons")


def test_names_that_this_cluster_does_not_know_are_told_with_those_that_it_does(
    two: Cluster,
) -> None:
    said = ""
    for field, value in (("queue", "nowhere"), ("priority_class", "urgent")):
        file = two.folder / "job.json"
        file.write_text(json.dumps({**TRUE, field: value}))
        done = two.ccctl("submit", file)
        said += (
            f"$ ccctl submit job.json\n{done.stdout}{done.stderr}[exit code {done.returncode}]\n"
        )
    check("unknown-names.txt", said.replace(str(two.folder), "FOLDER"), room="daemons")
