"""The tiny programs of docs/job.md run as they stand there, by each launcher."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.model.specvalues import Launcher
from tests.support.cluster import ROOT, Cluster, cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PAGE = (ROOT / "docs" / "job.md").read_text()
SUMS = ["rank 0 of 2: the sum is 3", "rank 1 of 2: the sum is 3"]
SAID = {
    Launcher.COMMAND: [f"{n} {n * n}" for n in range(10)],
    Launcher.HOROVOD: SUMS,
    Launcher.TORCHRUN: SUMS,
    Launcher.MPI: SUMS,
    Launcher.SCRIPT: ["rank 0 of 2", "rank 1 of 2"],
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("launchers"), "a", "b") as made:
        yield made


def write_down(launcher: str, folder: Path) -> None:
    """The files of a launcher's section."""
    section = PAGE.split(f"### `{launcher}`\n")[1].split("\n##")[0]
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section, flags=re.M | re.S)
    names = re.findall(r"^`(\w+\.(?:py|c|sh))`", section, flags=re.M)
    assert len(blocks) == 2
    (folder / "job.json").write_text(blocks[0][1])
    (folder / names[0]).write_text(blocks[1][1])


@pytest.mark.parametrize("launcher", Launcher)
@pytest.mark.parametrize("spread", [(), ("--set", "workers_per_node=1")], ids=["together", "apart"])
def test_the_example_of_each_launcher_runs(
    two: Cluster, tmp_path: Path, launcher: str, spread: tuple[str, ...]
) -> None:
    write_down(launcher, tmp_path)
    if launcher == Launcher.MPI:
        if not shutil.which("mpicc") or not shutil.which("mpirun"):
            pytest.skip("needs Open MPI with its compiler")
        command = ["mpicc", "sum_mpi.c", "-o", "sum_mpi"]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    done = two.ccctl("submit", tmp_path / "job.json", "--follow", *spread)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {re.sub(r"^\[\d+\] ", "", line) for line in done.stdout.splitlines()}
    assert lines >= set(SAID[Launcher(launcher)])
