"""By which variables workers find their devices, on hosts of each kind."""

from __future__ import annotations

import pytest

from controlplane.model.node import Device, DeviceKind
from nodeagent.launchers import plan_step
from nodeagent.launchers.mpi_rank import rank_env
from nodeagent.launchers.visibility import visibility
from tests.support.launches import launch, members, node


def host(kind: DeviceKind, prefix: str, count: int) -> tuple[Device, ...]:
    return tuple(
        Device(device_id=f"{prefix}{i}", kind=kind, model="a model", memory_bytes=0, index=i)
        for i in range(count)
    )


NVIDIA = host(DeviceKind.GPU, "GPU-n", 4)
SIMULATED = host(DeviceKind.SIMULATED, "SIM-", 4)
AMD = host(DeviceKind.AMD_GPU, "GPU-a", 4)
TPU = host(DeviceKind.TPU, "TPU-", 4)


@pytest.mark.parametrize("devices", [NVIDIA, SIMULATED])
def test_cuda_is_told_by_uuid_and_nothing_else_is_said(devices: tuple[Device, ...]) -> None:
    ids = [device.device_id for device in devices[1:3]]
    assert visibility(ids, devices) == {"CUDA_VISIBLE_DEVICES": ",".join(ids)}
    assert visibility([], devices) == {"CUDA_VISIBLE_DEVICES": ""}


def test_rocm_is_told_by_uuid_and_cuda_of_nothing() -> None:
    assert visibility(["GPU-a2", "GPU-a1"], AMD) == {
        "CUDA_VISIBLE_DEVICES": "",
        "ROCR_VISIBLE_DEVICES": "GPU-a2,GPU-a1",
    }
    assert visibility([], AMD) == {"CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize(
    ("own", "shape"),
    [
        (("TPU-3",), "1,1,1"),
        (("TPU-2", "TPU-3"), "1,2,1"),
        (("TPU-1", "TPU-2", "TPU-3"), None),
        (("TPU-0", "TPU-1", "TPU-2", "TPU-3"), None),
        ((), None),
    ],
)
def test_libtpu_is_told_by_number_and_of_a_part_the_shape(
    own: tuple[str, ...], shape: str | None
) -> None:
    """It knows the shape of a whole host, and none for three chips."""
    wanted = {"TPU_CHIPS_PER_PROCESS_BOUNDS": shape, "TPU_PROCESS_BOUNDS": "1,1,1"} if shape else {}
    numbers = ",".join(each[-1] for each in own)
    assert visibility(own, TPU) == {
        "CUDA_VISIBLE_DEVICES": "",
        "TPU_VISIBLE_CHIPS": numbers,
        **wanted,
    }


def test_on_a_mixed_host_each_library_hears_of_its_own() -> None:
    assert visibility(["GPU-a0", "GPU-n1"], NVIDIA + AMD + TPU) == {
        "CUDA_VISIBLE_DEVICES": "GPU-n1",
        "ROCR_VISIBLE_DEVICES": "GPU-a0",
        "TPU_VISIBLE_CHIPS": "",
    }


@pytest.mark.parametrize("launcher", ["command", "horovod", "torchrun"])
def test_a_job_cannot_say_otherwise(launcher: str) -> None:
    lies = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS", "CC_DEVICES")
    gang = members([2])
    asked = launch(
        launcher,
        gang,
        device_ids=("GPU-a0", "GPU-a1"),
        own_devices_only=True,
        env=tuple((name, "0,1,2,3") for name in lies),
    )
    for worker in plan_step(asked, node(gang, devices=AMD + TPU)).workers:
        own = f"GPU-a{worker.local_rank}"
        assert [worker.env[name] for name in lies] == ["", own, "", own]


@pytest.mark.parametrize(("own_only", "seen"), [(True, "GPU-a1"), (False, "GPU-a0,GPU-a1")])
def test_ranks_of_mpi_are_told_as_others(own_only: bool, seen: str) -> None:
    gang = members([2])
    asked = launch("mpi", gang, device_ids=("GPU-a0", "GPU-a1"), own_devices_only=own_only)
    (worker,) = plan_step(asked, node(gang, devices=AMD)).workers

    def rank(number: int) -> dict[str, str]:
        names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")
        return rank_env(worker.env | dict.fromkeys(names, str(number)))

    assert rank(1)["ROCR_VISIBLE_DEVICES"] == rank(1)["CC_DEVICES"] == seen
    assert rank(1)["CUDA_VISIBLE_DEVICES"] == ""
    assert rank(2)["ROCR_VISIBLE_DEVICES"] == rank(2)["CC_DEVICES"] == "", "not asked for"
