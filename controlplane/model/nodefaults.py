"""What may be wrong with what an agent tells of its host. An agent is believed within these limits
alone: what it tells is kept, and decisions go through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.errors import FieldFault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.model.node import Device, NodeFacts

LONGEST_TEXT = 255
MOST_CPUS = 65_536
MOST_BYTES = 1 << 60
MOST_DEVICES = 1024
MOST_LABELS = 256
LONGEST = {"device_id": 64, "model": 128, "pci_bus_id": 32, "fault": 1000}
"""Characters of a device's texts."""
LONGEST_TROUBLE = 4000
TEXTS = ("display_name", "address", "kernel", "os", "agent_version", "cpu_model", "cages")


def fact_faults(facts: NodeFacts) -> list[FieldFault]:
    """Every fault of a host's facts, with its path."""
    return list(_faults(facts))


def _faults(facts: NodeFacts) -> Iterator[FieldFault]:
    for name in TEXTS:
        yield from _text(f"facts.{name}", getattr(facts, name), LONGEST_TEXT)
    yield from _text("facts.trouble", facts.trouble, LONGEST_TROUBLE)
    if not facts.display_name:
        yield FieldFault(field="facts.display_name", description="must not be empty")
    yield from _range("facts.cpus", facts.cpus, 0, MOST_CPUS)
    yield from _range("facts.memory_bytes", facts.memory_bytes, 0, MOST_BYTES)
    yield from _range("facts.port_first", facts.port_first, 1, 65_535)
    yield from _range("facts.port_last", facts.port_last, 1, 65_535)
    yield from _range("facts.labels", len(facts.labels), 0, MOST_LABELS, "entries")
    yield from _range("facts.devices", len(facts.devices), 0, MOST_DEVICES, "entries")
    for key, value in facts.labels[:MOST_LABELS]:
        yield from _text("facts.labels", key, LONGEST_TEXT)
        yield from _text("facts.labels", value, LONGEST_TEXT)
    for number, device in enumerate(facts.devices[:MOST_DEVICES]):
        yield from _device(f"facts.devices[{number}]", device)


def _device(path: str, device: Device) -> Iterator[FieldFault]:
    for name, limit in LONGEST.items():
        yield from _text(f"{path}.{name}", getattr(device, name), limit)
    yield from _range(f"{path}.memory_bytes", device.memory_bytes, 0, MOST_BYTES)


def _text(field: str, value: str, limit: int) -> Iterator[FieldFault]:
    if len(value) > limit:
        words = f"has {len(value)} characters; at most {limit} are allowed"
        yield FieldFault(field=field, description=words)


def _range(field: str, value: int, least: int, most: int, unit: str = "") -> Iterator[FieldFault]:
    if not least <= value <= most:
        words = f"{value} {unit}".rstrip()
        yield FieldFault(field=field, description=f"{words}: must be from {least} to {most}")
