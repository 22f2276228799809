"""Programs that choose their device by local rank, on two nodes with four ranks each: they are
written for a machine that is theirs alone, and find it so."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.v1 import job_pb2
from tests.support.cluster import cluster
from tests.support.nvml import build_shim, create_state

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

NODES, RANKS = 2, 4
GPUS = NODES * RANKS
DRIVER = """
def name_of(device):
    import pynvml
    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByUUID(device))
"""
NO_DRIVER = """
def name_of(device):
    return device
"""
"""Of a simulated device there is nothing but its name."""
STYLES = {
    "horovod": """
import json, os
import horovod.torch as hvd
import torch
hvd.init()
assert hvd.allreduce(torch.ones(1), op=hvd.Sum).item() == hvd.size()
gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
mine = gpus[hvd.local_rank()]
""",
    "command": """
import json, os
gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
mine = gpus[int(os.environ["CC_LOCAL_RANK"])]
""",
}
"""The first lines of a program of each launcher."""
FIRST = """
mine = gpus[0]
"""
SAY = """
print(json.dumps({"sees": gpus, "mine": name_of(mine)}), flush=True)
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with cluster(tmp_path_factory.mktemp("simulated")) as made:
        for name in ("a", "b"):
            made.agent(name, cpus=RANKS, gpus=RANKS)
        yield made, NO_DRIVER, {}


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Both agents see the same eight GPUs through the driver, and offer four of them each."""
    folder = tmp_path_factory.mktemp("nvml")
    library = build_shim(folder / "shim")
    create_state(folder / "state", count=GPUS)
    found = {"LD_LIBRARY_PATH": str(library.parent), "NVML_SHIM_STATE": str(folder / "state")}
    with cluster(folder) as made, pytest.MonkeyPatch.context() as patch:
        for variable, value in found.items():
            patch.setenv(variable, value)
        for place, name in enumerate(("a", "b")):
            offered = ",".join(str(place * RANKS + each) for each in range(RANKS))
            patch.setenv("NODEAGENT_OFFERED_DEVICES", offered)
            made.agent(name, cpus=RANKS, devices="nvml")
        yield made, DRIVER, found


@pytest.fixture(scope="module", params=["simulated", "nvml"])
def centre(request: pytest.FixtureRequest) -> Any:
    """A cluster, the lines by which a program asks for a device, and what a job needs for that."""
    return request.getfixturevalue(request.param)


def said(centre: Any, folder: Path, launcher: str, visibility: str) -> list[list[dict[str, Any]]]:
    """What the ranks of each lease of a job say of their devices, behind what the lease holds."""
    made, name_of, env = centre
    if launcher == "horovod" and importlib.util.find_spec("horovod") is None:
        pytest.skip("Horovod is not installed: make horovod")
    # A program that is to see its own alone takes the first; as it stands, it would find no other.
    lines = STYLES[launcher]
    if visibility == "rank":
        lines = lines.rpartition("mine = ")[0] + FIRST
    program = folder / "program.py"
    program.write_text(lines + name_of + SAY)
    name = made.submit(
        {
            "launcher": launcher,
            "command": ["python", str(program)],
            # Eight programs that begin at once on a small machine meet late.
            "env": {"HOROVOD_GLOO_TIMEOUT_SECONDS": "120", **env},
            "workers": GPUS,
            "workers_per_node": RANKS,
            "resources": {"gpus": 1, "memory": "512MiB"},
            "device_visibility": visibility,
        }
    )
    job = made.ended(name, 200)
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job.reason
    told = [json.loads(made.output(name, rank)) for rank in range(GPUS)]
    attempt = job.attempts[-1]
    return [
        [
            {"sees": list(lease.device_ids)},
            *(told[worker.rank] for worker in attempt.workers if worker.node == lease.node),
        ]
        for lease in attempt.leases
    ]


@pytest.mark.parametrize("launcher", STYLES)
def test_a_rank_finds_a_device_of_its_own_by_its_local_rank(
    centre: Any, tmp_path: Path, launcher: str
) -> None:
    leases = said(centre, tmp_path, launcher, "job")
    assert len(leases) == NODES
    for held, *ranks in leases:
        assert len(held["sees"]) == RANKS
        assert [rank["sees"] for rank in ranks] == [held["sees"]] * RANKS
        assert [rank["mine"] for rank in ranks] == held["sees"]
    everything = {rank["mine"] for _, *ranks in leases for rank in ranks}
    assert len(everything) == GPUS


def test_a_rank_that_sees_its_own_alone_has_it_as_number_0(centre: Any, tmp_path: Path) -> None:
    leases = said(centre, tmp_path, "command", "rank")
    assert len(leases) == NODES
    for held, *ranks in leases:
        assert [rank["sees"] for rank in ranks] == [[device] for device in held["sees"]]
        assert [rank["mine"] for rank in ranks] == held["sees"]
