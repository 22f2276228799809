"""The test's side of the NVML shim.

Build it, make its state, change its state while an agent looks.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controlplane.model.node import Device, DeviceKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

SOURCE = Path(__file__).parent / "nvml_shim" / "nvml_shim.c"
LIBRARY = "libnvidia-ml.so.1"
MAGIC = 0x4D485356
MAX_DEVICES = 16
NO_NUMA_NODE = 0xFFFFFFFF

DRIVER_NOT_LOADED = 9
GPU_IS_LOST = 15

_ROOT = Path(__file__).parents[2]
_ANSWER_TIMEOUT_S = 30.0


class ShimDevice(ctypes.Structure):
    """One device as the shim tells it; the layout of `device_t` in nvml_shim.c."""

    _fields_ = (
        ("memory_total", ctypes.c_uint64),
        ("memory_used", ctypes.c_uint64),
        ("error", ctypes.c_uint32),
        ("numa_node", ctypes.c_uint32),
        ("nvlinks", ctypes.c_uint32),
        ("temperature", ctypes.c_uint32),
        ("power_usage", ctypes.c_uint32),
        ("power_limit", ctypes.c_uint32),
        ("power_default", ctypes.c_uint32),
        ("power_min", ctypes.c_uint32),
        ("power_max", ctypes.c_uint32),
        ("compute_pid", ctypes.c_uint32),
        ("name", ctypes.c_char * 96),
        ("uuid", ctypes.c_char * 80),
        ("pci_bus_id", ctypes.c_char * 32),
    )


class ShimState(ctypes.Structure):
    """Everything that the shim tells; the layout of `state_t` in nvml_shim.c."""

    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("layout", ctypes.c_uint32),
        ("init_error", ctypes.c_uint32),
        ("set_error", ctypes.c_uint32),
        ("driver_generation", ctypes.c_uint32),
        ("device_count", ctypes.c_uint32),
        ("open_sessions", ctypes.c_uint32),
        ("spare", ctypes.c_uint32),
        ("device", ShimDevice * MAX_DEVICES),
    )


def build_shim(directory: Path, *, without: Sequence[str] = ()) -> Path:
    """Compile the shim into `directory`.

    Functions named in `without` are absent, as in an older driver.
    """
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / LIBRARY
    subprocess.run(
        [
            *("gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
            *(f"-D{name}={name}_absent" for name in without),
            *(f"-Wl,-soname,{LIBRARY}", "-o", str(target), str(SOURCE)),
        ],
        check=True,
        timeout=60,
    )
    return target


def create_state(path: Path, *, count: int) -> ShimState:
    """Make a state file with `count` healthy GPUs and return it as a view.

    What is written there is seen at once.
    """
    with path.open("w+b") as file:
        file.truncate(ctypes.sizeof(ShimState))
        state = ShimState.from_buffer(mmap.mmap(file.fileno(), ctypes.sizeof(ShimState)))
    state.device_count = count
    for index in range(count):
        device = state.device[index]
        device.name = b"NVIDIA H100 80GB HBM3"
        device.uuid = f"GPU-00000000-0000-4000-8000-{index:012x}".encode()
        device.pci_bus_id = f"00000000:{0x19 + 0x11 * index:02X}:00.0".encode()
        device.memory_total = 80 << 30
        device.numa_node, device.nvlinks, device.temperature = index // 4, 18, 33 + index
        device.power_usage, device.power_limit = 72_000, 700_000
        device.power_default, device.power_min, device.power_max = 700_000, 200_000, 700_000
    state.layout = ctypes.sizeof(ShimDevice)
    state.magic = MAGIC  # Last: a half-made file is refused.
    return state


def shim_environment(library: Path, state: Path) -> dict[str, str]:
    """Environment in which a new process finds the shim as its NVML."""
    return {**os.environ, "LD_LIBRARY_PATH": str(library.parent), "NVML_SHIM_STATE": str(state)}


_CHILD = """
import dataclasses, json, logging, sys, uuid
from pathlib import Path
from nodeagent.devices import open_devices

class Keep(logging.Handler):
    def emit(self, record):
        logged.append(record.getMessage())

logged = []
logging.basicConfig(level=logging.INFO, handlers=[Keep()])
{prelude}
devices = None
for line in sys.stdin:
    try:
        match json.loads(line):
            case ["open", kind, sysfs]:
                devices = open_devices(
                    kind,
                    simulated_count=0,
                    simulated_model="",
                    simulated_memory_bytes=0,
                    node_uuid=str(uuid.UUID(int=0)),
                    sysfs=Path(sysfs),
                )
                answer = None
            case ["users", *ids]:
                answer = dict(devices.users(ids))
            case ["discover"]:
                answer = [dataclasses.asdict(device) for device in devices.discover()]
            case ["close"]:
                answer = devices.close()
            case ["logged"]:
                answer = logged
        reply = {{"answer": answer}}
    except Exception as error:
        reply = {{"error": f"{{type(error).__name__}}: {{error}}"}}
    print(json.dumps(reply), flush=True)
"""


class ChildError(RuntimeError):
    """What the child's call raised: type name and message."""


class DevicesInChild:
    """A `Devices` that works in a process of its own: NVML is looked for at a process's start."""

    def __init__(
        self,
        environment: dict[str, str],
        *,
        kind: str,
        prelude: str = "",
        sysfs: Path = Path("/nowhere"),
    ) -> None:
        """Start the child, run `prelude` in it, then open devices of `kind`.

        Raises `ChildError` if that fails.
        """
        self._child = subprocess.Popen(
            [sys.executable, "-c", _CHILD.format(prelude=prelude)],
            env=environment,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self._call("open", kind, str(sysfs))
        except BaseException:
            self.stop()
            raise

    def discover(self) -> tuple[Device, ...]:
        """As the child's devices answer."""
        return tuple(
            Device(**{**fields, "kind": DeviceKind(fields["kind"])})
            for fields in self._call("discover")
        )

    def users(self, device_ids: Sequence[str]) -> Mapping[str, str]:
        """As the child's devices answer."""
        found: dict[str, str] = self._call("users", *device_ids)
        return found

    def close(self) -> None:
        """Close the child's devices; the child lives on, so that they can be opened again."""
        self._call("close")

    def logged(self) -> list[str]:
        """Every message that the child logged so far."""
        return list(self._call("logged"))

    def stop(self) -> None:
        """End the child."""
        with self._child as child:
            child.kill()

    def __enter__(self) -> DevicesInChild:
        """Nothing more to do: the child runs."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child."""
        self.stop()

    def _call(self, *request: str) -> Any:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        if not select.select([self._child.stdout], [], [], _ANSWER_TIMEOUT_S)[0]:
            raise TimeoutError(f"the child did not answer {request} in {_ANSWER_TIMEOUT_S} s")
        line = self._child.stdout.readline()
        if not line:
            raise ChildError(f"the child ended with {self._child.wait(timeout=5)}")
        reply = json.loads(line)
        if "error" in reply:
            raise ChildError(reply["error"])
        return reply["answer"]
