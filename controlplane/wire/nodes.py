"""Nodes and their devices on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.blackhole import suspicion
from controlplane.model.node import Device, DeviceKind, Node, NodeFacts, NodeState
from controlplane.v1 import node_pb2
from controlplane.wire.basics import EnumWire, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable

DEVICE_KINDS = EnumWire(DeviceKind, node_pb2.DeviceKind, "DEVICE_KIND")
NODE_STATES = EnumWire(NodeState, node_pb2.NodeState, "NODE_STATE")


def facts_message(facts: NodeFacts) -> node_pb2.NodeFacts:
    """What a host has."""
    return node_pb2.NodeFacts(
        display_name=facts.display_name,
        address=facts.address,
        kernel=facts.kernel,
        os=facts.os,
        agent_version=facts.agent_version,
        cpus=facts.cpus,
        memory_bytes=facts.memory_bytes,
        devices=[_device(device) for device in facts.devices],
        port_first=facts.port_first,
        port_last=facts.port_last,
        labels=dict(facts.labels),
        cpu_model=facts.cpu_model,
        only_owner=facts.only_owner,
        trouble=facts.trouble,
        cages=facts.cages,
    )


def facts_value(message: node_pb2.NodeFacts) -> NodeFacts:
    """What a host has. ValueError for a kind of device that this release does not know."""
    return NodeFacts(
        display_name=message.display_name,
        address=message.address,
        kernel=message.kernel,
        os=message.os,
        agent_version=message.agent_version,
        cpus=message.cpus,
        memory_bytes=message.memory_bytes,
        devices=tuple(_device_value(device) for device in message.devices),
        port_first=message.port_first,
        port_last=message.port_last,
        labels=tuple(sorted(message.labels.items())),
        cpu_model=message.cpu_model,
        only_owner=message.only_owner,
        trouble=message.trouble,
        cages=message.cages,
    )


def _device(device: Device) -> node_pb2.Device:
    return node_pb2.Device(
        device_id=device.device_id,
        kind=DEVICE_KINDS.out(device.kind),
        model=device.model,
        memory_bytes=device.memory_bytes,
        index=device.index,
        pci_bus_id=device.pci_bus_id,
        numa_node=device.numa_node,
        nvlinks=device.nvlinks,
        fault=device.fault,
    )


def _device_value(message: node_pb2.Device) -> Device:
    return Device(
        device_id=message.device_id,
        kind=DEVICE_KINDS.into(message.kind),
        model=message.model,
        memory_bytes=message.memory_bytes,
        index=message.index,
        pci_bus_id=message.pci_bus_id,
        numa_node=message.numa_node if message.HasField("numa_node") else None,
        nvlinks=message.nvlinks,
        fault=message.fault,
    )


def node_message(
    node: Node,
    *,
    reason: str,
    heard_us: int | None,
    busy: bool,
    attempts: Iterable[str],
    leased: tuple[int, int, tuple[str, ...]],
) -> node_pb2.Node:
    """A node. `busy`: some lease holds it. `attempts`: those of its attempts that may be shown.
    `leased`: millicores, bytes of memory and devices that leases hold."""
    return node_pb2.Node(
        name=node.name,
        facts=facts_message(node.facts),
        state=NODE_STATES.out(node.state(busy=busy)),
        reason=reason,
        boot_id=node.boot_id,
        heartbeat_time=timestamp(heard_us),
        create_time=timestamp(node.created_us),
        leased_millicores=leased[0],
        leased_memory_bytes=leased[1],
        leased_device_ids=leased[2],
        attempts=attempts,
        enrolled_by=node.enrolled_by,
        suspicion=suspicion(node.quick_failures),
        labels=dict(node.labels),
    )
