"""NVIDIA GPUs, as the driver tells of them through NVML. The only module that imports the binding.

A device that was seen once stays in the answer, with a fault in words when the driver can't reach
it any more: a GPU that silently disappears would look like a smaller host. Libraries and drivers of
several years are met in one centre, so facts that an older one can't tell are left at "unknown",
and only the id is indispensable.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pynvml  # type: ignore[import-untyped]

from controlplane.model.node import Device, DeviceKind
from nodeagent.devices import DevicesUnavailable, process_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

UNKNOWN_MODEL = "unknown GPU"

_WORDS: dict[int, str] = {
    pynvml.NVML_ERROR_UNINITIALIZED: "the session with the driver was lost; was it reloaded?",
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "the agent may not open this GPU; check its device cgroup and the modes of /dev/nvidia*"
    ),
    pynvml.NVML_ERROR_INSUFFICIENT_POWER: (
        "the GPU has too little power; check that its external power cables are connected"
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "the NVIDIA driver is not loaded; load it with `modprobe nvidia` and check `dmesg`"
    ),
    pynvml.NVML_ERROR_TIMEOUT: "the driver did not answer within its own time limit",
    pynvml.NVML_ERROR_IRQ_ISSUE: "the GPU's interrupts do not work; see `dmesg`",
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "the NVML library libnvidia-ml.so.1 was not found; it comes with the NVIDIA driver"
    ),
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: (
        "the NVML library is too old for this agent; install a newer NVIDIA driver"
    ),
    pynvml.NVML_ERROR_CORRUPTED_INFOROM: "the GPU's infoROM is corrupted; the board needs service",
    pynvml.NVML_ERROR_GPU_IS_LOST: (
        "GPU is lost: it has fallen off the bus; see `dmesg` for its Xid, "
        "then reset it or reboot the host"
    ),
    pynvml.NVML_ERROR_RESET_REQUIRED: "the GPU requires a reset before it can be used again",
    pynvml.NVML_ERROR_OPERATING_SYSTEM: "the operating system blocked the driver's request",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "the loaded NVML library and the kernel driver differ in version; "
        "restart the agent, or reboot the host if the driver was upgraded"
    ),
    pynvml.NVML_ERROR_IN_USE: "the GPU is held by a driver operation that is in progress",
    pynvml.NVML_ERROR_MEMORY: "the driver ran out of memory",
}

# These end the whole session, not one device's answer.
_SESSION_ERRORS = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
# "This library, driver or model can't tell": no fault of the device.
_CANNOT_TELL = frozenset(
    {
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    }
)
_NUMA_MASK_WORDS = 16  # 64 bits each: 1024 NUMA nodes, the most that Linux is built for.


def in_words(error: pynvml.NVMLError) -> str:
    """Say what an NVML error means for the operator; unlisted ones keep the driver's own words."""
    return _WORDS.get(error.value) or f"NVML error {error.value}: {error}"


def kernel_pci_address(bus_id: str) -> str:
    """Write NVML's `00000000:3B:00.0` as the kernel does in sysfs and `lspci -D`.

    `0000:3b:00.0`.
    """
    domain, colon, rest = bus_id.lower().partition(":")
    return f"{domain.lstrip('0'):0>4}{colon}{rest}" if colon else bus_id.lower()


def single_node(mask: list[int]) -> int | None:
    """The NUMA node in a mask of 64-bit words; None where it names none or several."""
    bits = sum(word << (64 * place) for place, word in enumerate(mask))
    return bits.bit_length() - 1 if bits.bit_count() == 1 else None


class NvmlDevices:
    """The host's NVIDIA GPUs. Faulty ones stay in the answer for as long as this object lives.

    The session with the driver stays open between looks, because without the persistence daemon
    opening it takes seconds. After a look that found a fault it is closed: an operator can then
    reset the GPU, and the next look sees what came of it.
    """

    def __init__(self, *, sysfs: Path = Path("/sys")) -> None:
        """Open nothing yet; `sysfs` answers for NUMA nodes where the library can't."""
        self._sysfs = sysfs
        self._known: dict[str, Device] = {}
        self._open = False
        self._told: set[str] = set()

    def start(self) -> None:
        """Open the session now.

        Raises `DevicesUnavailable` where library or driver do not answer.
        """
        try:
            self._open_session()
        except pynvml.NVMLError as error:
            raise DevicesUnavailable(
                f'devices: "nvml" was asked for, but {in_words(error)}. '
                'Use "auto" to run with CPUs only until it answers, or "cpu" to offer no devices.'
            ) from error

    def discover(self) -> tuple[Device, ...]:
        """Look at every GPU.

        Where the driver does not answer at all, those known before have that as fault.
        """
        try:
            try:
                found, faults = self._scan()
            except pynvml.NVMLError:
                # The driver may have been reloaded since; one fresh session tells.
                self.close()
                found, faults = self._scan()
        except pynvml.NVMLError as error:
            self.close()
            reason = in_words(error)
            self._tell_once(logging.INFO, f"no NVIDIA GPUs are offered: {reason}")
            self._known = {key: replace(old, fault=reason) for key, old in self._known.items()}
        else:
            self._keep(found, faults)
        return tuple(
            sorted(self._known.values(), key=lambda device: (device.index, device.device_id))
        )

    def users(self, device_ids: Sequence[str]) -> Mapping[str, str]:
        """Those that the driver cannot reach, or that some process computes on."""
        found: dict[str, str] = {}
        for device_id in device_ids:
            try:
                self._open_session()
                handle = pynvml.nvmlDeviceGetHandleByUUID(device_id)
                running = _ask("nvmlDeviceGetComputeRunningProcesses", handle, default=())
            except pynvml.NVMLError as error:
                self.close()
                found[device_id] = in_words(error)
            else:
                if running:
                    pids = ", ".join(process_words(int(each.pid)) for each in running)
                    found[device_id] = f"is in use by {pids}, outside of this lease"
        return found

    def close(self) -> None:
        """End the session, so that the driver can be unloaded or a GPU reset."""
        if not self._open:
            return
        self._open = False
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            log.debug("the session with the driver did not end cleanly: %s", in_words(error))

    def _open_session(self) -> None:
        if not self._open:
            pynvml.nvmlInit()
            self._open = True

    def _scan(self) -> tuple[list[Device], dict[int, str]]:
        """All GPUs whose id can be read, and the fault at each index where it can't."""
        self._open_session()
        found: list[Device] = []
        faults: dict[int, str] = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                device_id = str(pynvml.nvmlDeviceGetUUID(handle))
            except pynvml.NVMLError as error:
                if error.value in _SESSION_ERRORS:
                    raise
                faults[index] = in_words(error)
            else:
                found.append(self._look(handle, device_id, index))
        return found, faults

    def _look(self, handle: Any, device_id: str, index: int) -> Device:
        try:
            pci_bus_id = _pci_bus_id(handle)
            return Device(
                device_id=device_id,
                kind=DeviceKind.GPU,
                model=str(_ask("nvmlDeviceGetName", handle, default=UNKNOWN_MODEL)),
                memory_bytes=_memory_bytes(handle),
                index=index,
                pci_bus_id=pci_bus_id,
                numa_node=self._numa_node(handle, pci_bus_id),
                nvlinks=_active_nvlinks(handle),
            )
        except pynvml.NVMLError as error:
            if error.value in _SESSION_ERRORS:
                raise
            known = self._known.get(device_id) or Device(
                device_id=device_id,
                kind=DeviceKind.GPU,
                model=UNKNOWN_MODEL,
                memory_bytes=0,
                index=index,
            )
            return replace(known, index=index, fault=in_words(error))

    def _numa_node(self, handle: Any, pci_bus_id: str) -> int | None:
        # Not nvmlDeviceGetNumaNodeId: that one tells of GPUs whose own memory is a NUMA node.
        scope = getattr(pynvml, "NVML_AFFINITY_SCOPE_NODE", 0)
        mask = _ask("nvmlDeviceGetMemoryAffinity", handle, _NUMA_MASK_WORDS, scope, default=())
        node = single_node([int(word) for word in mask])
        if node is not None:
            return node
        try:
            text = (self._sysfs / "bus/pci/devices" / pci_bus_id / "numa_node").read_text()
            return int(text) if int(text) >= 0 else None
        except (OSError, ValueError):
            return None

    def _keep(self, found: list[Device], faults: dict[int, str]) -> None:
        """Remember what was seen.

        Mark what was known and is not seen now; tell of what has no name.
        """
        present = {device.device_id: device for device in found}
        missing = {
            key: replace(
                old,
                fault=faults.get(old.index)
                or old.fault
                or "the driver no longer reports this GPU; see `dmesg`, then reboot the host",
            )
            for key, old in self._known.items()
            if key not in present
        }
        named = {device.index for device in missing.values()}
        for index in faults.keys() - named:
            self._tell_once(
                logging.WARNING,
                f"GPU {index} can't be named, so it is not offered: {faults[index]}",
            )
        self._known = missing | present
        if any(device.fault for device in self._known.values()) or faults:
            self.close()

    def _tell_once(self, level: int, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            log.log(level, "%s", message)


def _ask(function: str, *arguments: Any, default: Any) -> Any:
    """Call one NVML function by name.

    `default` where binding, library, driver or model don't have it.
    """
    call = getattr(pynvml, function, None)
    if call is None:
        return default
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _CANNOT_TELL:
            return default
        raise


def _pci_bus_id(handle: Any) -> str:
    info = _ask("nvmlDeviceGetPciInfo", handle, default=None)
    return "" if info is None else kernel_pci_address(str(info.busId))


def _memory_bytes(handle: Any) -> int:
    # GPUs that share the host's memory have none of their own to tell.
    info = _ask("nvmlDeviceGetMemoryInfo", handle, default=None)
    return 0 if info is None else int(info.total)


def _active_nvlinks(handle: Any) -> int:
    links = range(int(getattr(pynvml, "NVML_NVLINK_MAX_LINKS", 18)))
    return sum(_ask("nvmlDeviceGetNvLinkState", handle, link, default=0) == 1 for link in links)
