"""Priority classes, queues and reservations as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table

from controlplane.cli import text
from controlplane.cli.jobtables import cell, table
from controlplane.cli.render import enum_word
from controlplane.model.quantity import format_duration
from controlplane.model.words import count
from controlplane.v1 import queue_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.duration_pb2 import Duration
    from rich.console import Console


def draw_classes(console: Console, classes: Iterable[pb.PriorityClass]) -> None:
    """One line for each."""
    made = table("NAME", "VALUE", "DEFAULT", "ENDS OTHERS", "DESCRIPTION", wide="DESCRIPTION")
    for one in classes:
        policy = enum_word(pb.PreemptionPolicy.DESCRIPTOR, one.preemption)
        made.add_row(
            cell(one.name.removeprefix("priorityClasses/")),
            cell(one.value),
            cell("yes" if one.global_default else ""),
            cell({"lower": "of lower priority"}.get(policy, policy)),
            cell(one.description),
        )
    console.print(made)


def draw_queues(console: Console, queues: Iterable[pb.Queue]) -> None:
    """One line for each."""
    made = table(
        "NAME", "STATE", "PRIORITY", "NODES", "TIME", "WORKERS", "GPUS", "FOR", "REASON",
        wide="REASON",
    )  # fmt: skip
    for one in queues:
        made.add_row(
            cell(one.name.removeprefix("queues/")),
            cell("closed" if one.closed else "open"),
            cell(one.priority),
            cell(one.node_selector or "all"),
            cell(_length(one.max_time_limit) if one.HasField("max_time_limit") else ""),
            cell(one.max_workers if one.HasField("max_workers") else ""),
            cell(one.max_gpus if one.HasField("max_gpus") else ""),
            cell(whom(one) or "everybody"),
            cell(one.closed),
        )
    console.print(made)


def draw_queue(console: Console, one: pb.Queue) -> None:
    """Everything about one queue."""
    console.print(cell(one.name), style="bold")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    default = _length(one.default_time_limit) if one.HasField("default_time_limit") else ""
    for name, value in (
        ("State", f"closed: {one.closed}" if one.closed else "open"),
        ("Description", one.description),
        ("Priority", one.priority),
        ("Nodes", one.node_selector or "all"),
        ("For", whom(one) or "everybody"),
        ("Default time limit", default),
        ("Longest", _length(one.max_time_limit) if one.HasField("max_time_limit") else ""),
        ("Most workers", one.max_workers if one.HasField("max_workers") else ""),
        ("Most GPUs", one.max_gpus if one.HasField("max_gpus") else ""),
    ):
        if value != "":
            grid.add_row(name, cell(value))
    console.print(Padding(grid, (0, 0, 0, 2)))


def draw_reservations(
    console: Console, reservations: Iterable[pb.Reservation], names: Mapping[str, str]
) -> None:
    """One line for each. `names`: display names of nodes."""
    made = table("NAME", "FROM", "TO", "FOR", "NODES", "DESCRIPTION", wide="DESCRIPTION")
    for one in reservations:
        nodes = ", ".join(sorted(names.get(node, node) for node in one.nodes)) or "none by now"
        made.add_row(
            cell(one.name.removeprefix("reservations/")),
            cell(text.local_time(text.micros(one.begin_time))),
            cell(text.local_time(text.micros(one.end_time))),
            cell("maintenance" if one.maintenance else whom(one)),
            cell(f"{one.node_selector}: {nodes}" if one.node_selector else nodes),
            cell(one.description),
        )
    console.print(made)


def kept_words(one: pb.Reservation) -> str:
    """What was reserved, in words."""
    begin, end = (text.local_time(text.micros(each)) for each in (one.begin_time, one.end_time))
    kept = "kept free" if one.maintenance else f"kept for {whom(one)}"
    verb = "is" if len(one.nodes) == 1 else "are"
    return f"{count(len(one.nodes), 'node')} {verb} {kept} from {begin} to {end}."


def whom(one: pb.Queue | pb.Reservation) -> str:
    """For whom it is; empty where it is for no one in particular."""
    return ", ".join([*(f"account {name}" for name in one.accounts), *one.users])


def _length(length: Duration) -> str:
    return format_duration(length.ToMicroseconds())
