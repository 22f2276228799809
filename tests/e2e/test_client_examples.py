"""What examples/client/README.md tells other clients to do works as it is written there."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.cluster import ROOT, Cluster, cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

PAGE = (ROOT / "examples" / "client" / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.M | re.S)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("clients"), "a") as made:
        yield made


def run(one: Cluster, script: str) -> subprocess.CompletedProcess[str]:
    told = {
        "CCCTL_SERVER": one.server,
        "CCCTL_TOKEN_FILE": str(one.token_file),
        "CCCTL_CA_FILE": str(one.ca_file),
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_buf_curl_submits_watches_and_reads(one: Cluster) -> None:
    done = run(one, BLOCKS[2])
    assert done.returncode == 0, done.stderr
    assert '"state": "JOB_STATE_SUCCEEDED"' in done.stdout
    data = re.findall(r'"data": "(.*)"', done.stdout)
    assert base64.b64decode("".join(data)).decode().strip() == os.uname().nodename
    assert '"kind": "job.submitted"' in done.stdout


def test_buf_curl_tells_every_wrong_field(one: Cluster) -> None:
    call = BLOCKS[2][: BLOCKS[2].index("# Submit")]
    done = run(one, call + BLOCKS[3])
    assert done.returncode == 24
    assert '\\"horovid\\": must be one of' in done.stderr
    assert "workers: 0: must be a whole number" in done.stderr


def test_buf_curl_finds_the_methods_by_reflection(one: Cluster) -> None:
    done = run(one, "PATH=$PWD/.venv/bin:$PATH\n" + BLOCKS[4])
    assert done.returncode == 0, done.stderr
    assert "controlplane.v1.JobService/SubmitJob\n" in done.stdout


def test_the_python_client_exits_with_its_jobs_exit_code(one: Cluster) -> None:
    done = run(one, BLOCKS[1].replace("python ", f"{ROOT}/.venv/bin/python "))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == os.uname().nodename
