"""Files of output with real daemons: where they lie, what is in them, and what `ccctl` says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        for name in ("n1", "n2"):
            made.agent(name)
        yield made


def test_ranks_on_two_nodes_write_where_the_pattern_says(two: Cluster, tmp_path: Path) -> None:
    name = two.submit(
        {
            "command": ["sh", "-c", "echo out $CC_RANK; echo err $CC_RANK >&2"],
            "name": "hello",
            "workers": 2,
            "workers_per_node": 1,
            "working_dir": str(tmp_path),
            "output": "logs/%x-%j-%2t@%N.out",
            "error": "logs/%j.%t.err",
        }
    )
    job = two.ended(name)
    number, nodes = job.job_id, [worker.node_display_name for worker in job.attempts[0].workers]
    assert sorted(nodes) == ["n1", "n2"]

    expected = {}
    for rank, node in enumerate(nodes):
        expected[f"hello-{number}-0{rank}@{node}.out"] = f"out {rank}\n"
        expected[f"{number}.{rank}.err"] = f"err {rank}\n"
    found = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert found == expected

    shown = json.loads(two.ccctl("show", name, "-o", "json").stdout)
    told = {
        path
        for worker in shown["attempts"][0]["workers"]
        for path in (worker["output_path"], worker["error_path"])
    }
    assert told == {str(tmp_path / "logs" / name) for name in expected}
    assert f"Output: {tmp_path}/logs/hello-{number}-00@" in two.ccctl("show", name).stdout
    assert two.output(name, 1) == b"out 1\n"


def test_attempts_follow_one_another_in_the_jobs_own_folder(two: Cluster) -> None:
    script = 'echo "attempt $CC_ATTEMPT in $CC_JOB_DIR"; [ $CC_ATTEMPT = 2 ] || exit 75'
    name = two.submit({"command": ["sh", "-c", script], "requeue_exit_codes": [75]})
    first, second = two.ended(name).attempts
    assert first.leases[0].job_dir.endswith(f"/jobs/{name.removeprefix('jobs/')}")

    path = Path(second.workers[0].output_path)
    assert path.parent == Path(second.leases[0].job_dir)
    lines = path.read_text().splitlines()
    assert lines[-1] == f"attempt 2 in {path.parent}"
    if first.leases[0].node == second.leases[0].node:
        assert lines[0].startswith("attempt 1 in ")


def test_what_cannot_be_written_is_told_while_the_job_runs(two: Cluster, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    name = two.submit(
        {
            "command": ["sh", "-c", "echo 12345; while ! [ -e go ]; do sleep 0.05; done"],
            "working_dir": str(tmp_path),
            "output": "taken/%j",
        }
    )
    words = f"{tmp_path}/taken/{name.removeprefix('jobs/')}: Not a directory"

    def fault() -> str:
        leases = [lease for a in two.client.get(name).attempts for lease in a.leases]
        return leases[0].output_fault if leases else ""

    until(lambda: fault() == words, "the fault to be told")
    (tmp_path / "go").touch()
    job = two.ended(name)
    assert job.exit_code == 0
    assert fault() == f"{words}; 6 bytes of output are not in it"
    assert words in two.ccctl("show", name).stdout
    assert "attempt.output_missing" in [event.kind for event in two.client.events(name)]
    assert two.output(name) == b"12345\n"


def test_a_pattern_that_leads_outside_is_refused(two: Cluster, tmp_path: Path) -> None:
    document = tmp_path / "job.json"
    document.write_text(json.dumps({"command": ["true"], "output": "/etc/cron.d/%j"}))
    done = two.ccctl("submit", document)
    assert done.returncode == 2
    assert 'output: "/etc/cron.d/%j": an absolute path must lie below working_dir' in done.stderr
