"""Nodes as tables and pages for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from controlplane.cli import text
from controlplane.cli.jobtables import cell, state, table
from controlplane.cli.render import enum_word
from controlplane.v1 import node_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console


def node_state(node: node_pb2.Node) -> str:
    """Word for a node's state."""
    return enum_word(node_pb2.NodeState.DESCRIPTOR, node.state)


def draw_nodes(console: Console, nodes: Iterable[node_pb2.Node], now_us: int) -> None:
    """One line for each node, with what is leased of what it has."""
    made = table(
        "NODE", "STATE", "DEVICES", "CORES", "MEMORY", "JOBS", "HEARD", "REASON", wide="REASON"
    )
    for node in nodes:
        facts = node.facts
        made.add_row(
            cell(facts.display_name),
            state(node_state(node)),
            cell(f"{len(node.leased_device_ids)}/{len(facts.devices)}"),
            cell(f"{text.cores(node.leased_millicores)}/{facts.cpus}"),
            cell(f"{text.size(node.leased_memory_bytes)}/{text.size(facts.memory_bytes)}"),
            cell(len(node.attempts)),
            cell(_heard(node, now_us)),
            cell(node.reason or facts.trouble or (node.suspicion and f"suspect: {node.suspicion}")),
        )
    console.print(made)


def draw_node(console: Console, node: node_pb2.Node, now_us: int) -> None:
    """Everything about one node."""
    facts = node.facts
    console.print(cell(f"{facts.display_name}  {node.name}"), style="bold")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    leased = f"{text.cores(node.leased_millicores)} of {facts.cpus} leased"
    memory = f"{text.size(node.leased_memory_bytes)} of {text.size(facts.memory_bytes)} leased"
    grid.add_row(
        "State", Text.assemble(state(node_state(node)), f"  {text.visible_line(node.reason)}")
    )
    for name, value in (
        ("Heard", _heard(node, now_us) + " ago" if node.HasField("heartbeat_time") else "never"),
        ("Trouble", facts.trouble),
        ("Suspect", node.suspicion),
        ("Enrolled by", node.enrolled_by),
        ("Address", facts.address),
        ("System", f"{facts.os}, kernel {facts.kernel}, agent {facts.agent_version}"),
        ("Cores", f"{leased} ({facts.cpu_model})" if facts.cpu_model else leased),
        ("Memory", memory),
        ("Labels", ", ".join(f"{k}={v}" for k, v in sorted(node.labels.items()))),
        ("Cages", f"control groups {facts.cages}" if facts.cages else "none"),
        ("Only for", facts.only_owner and f"jobs of {facts.only_owner}"),
        ("Runs", ", ".join(node.attempts)),
    ):
        if value:
            grid.add_row(name, cell(value))
    console.print(Padding(grid, (0, 0, 0, 2)))
    if not facts.devices:
        return
    console.print()
    made = table("#", "DEVICE", "KIND", "MODEL", "MEMORY", "NUMA", "LEASED", "FAULT")
    for device in facts.devices:
        made.add_row(
            cell(device.index),
            cell(device.device_id),
            cell(enum_word(node_pb2.DeviceKind.DESCRIPTOR, device.kind)),
            cell(device.model),
            cell(text.size(device.memory_bytes) if device.memory_bytes else ""),
            cell(device.numa_node if device.HasField("numa_node") else ""),
            cell("yes" if device.device_id in node.leased_device_ids else ""),
            cell(device.fault),
        )
    console.print(Padding(made, (0, 0, 0, 2)))


def _heard(node: node_pb2.Node, now_us: int) -> str:
    if not node.HasField("heartbeat_time"):
        return "never"
    return text.duration(now_us - text.micros(node.heartbeat_time))
