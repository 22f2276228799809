"""Device nodes closed to a control group of version 2, which has no list of them: the kernel asks a
small program instead (BPF_PROG_TYPE_CGROUP_DEVICE, bpf(2)). It goes with its group."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _PROG_ATTACH = 5, 8
_CGROUP_DEVICE = 15
_ATTACH_DEVICE = 6
_ALLOW_MULTI = 2
"""Programs of groups above, systemd's for one, are asked too, and each may deny."""
_ATTR_BYTES = 128
_TYPES = {"b": 1, "c": 2}

# Opcodes, and the registers that they are used with here.
_LOAD, _AND, _SET, _UNLESS, _EXIT = 0x61, 0x57, 0xB7, 0x55, 0x95
_ANSWER, _CONTEXT, _TYPE, _MAJOR, _MINOR = range(5)

_libc = ctypes.CDLL(None, use_errno=True)


def deny_devices(folder: str, devices: Iterable[str]) -> None:
    """Close device nodes such as `c 195:3` to a group and those below it, for any access. OSError
    when the kernel refuses."""
    program = load(devices)
    try:
        group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            attach = struct.pack("<IIII", group, program, _ATTACH_DEVICE, _ALLOW_MULTI)
            _bpf(_PROG_ATTACH, attach, folder)
        finally:
            os.close(group)
    finally:
        os.close(program)


def load(devices: Iterable[str]) -> int:
    """A descriptor of the program that denies these and allows all others."""
    code = instructions(devices)
    text = ctypes.create_string_buffer(code)
    licence = ctypes.create_string_buffer(b"GPL")
    return _bpf(
        _PROG_LOAD,
        struct.pack(
            "<IIQQ",
            _CGROUP_DEVICE,
            len(code) // 8,
            ctypes.addressof(text),
            ctypes.addressof(licence),
        ),
        "bpf(2)",
    )


def instructions(devices: Iterable[str]) -> bytes:
    """The program: 0 for a device of the list, 1 for any other."""
    code = [
        _instruction(_LOAD, _TYPE, _CONTEXT, offset=0),
        _instruction(_AND, _TYPE, value=0xFFFF),  # above it is the access that is wanted
        _instruction(_LOAD, _MAJOR, _CONTEXT, offset=4),
        _instruction(_LOAD, _MINOR, _CONTEXT, offset=8),
    ]
    for device in devices:
        kind, _, numbers = device.partition(" ")
        major, _, minor = numbers.partition(":")
        code += [
            _instruction(_UNLESS, _TYPE, offset=4, value=_TYPES[kind]),
            _instruction(_UNLESS, _MAJOR, offset=3, value=int(major)),
            _instruction(_UNLESS, _MINOR, offset=2, value=int(minor)),
            _instruction(_SET, _ANSWER, value=0),
            _instruction(_EXIT),
        ]
    code += [_instruction(_SET, _ANSWER, value=1), _instruction(_EXIT)]
    return b"".join(code)


def _instruction(
    code: int, target: int = 0, source: int = 0, *, offset: int = 0, value: int = 0
) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | target, offset, value)


def _bpf(command: int, attributes: bytes, what: str) -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(0, f"no known number of bpf(2) on {platform.machine()}", what)
    buffer = ctypes.create_string_buffer(attributes, _ATTR_BYTES)
    result = int(_libc.syscall(number, command, buffer, _ATTR_BYTES))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result
