"""The cluster that is simulated: nodes alike, a table of nodes, or a recipe of groups of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controlplane.model.node import Device, DeviceKind, NodeFacts
from controlplane.sim.faults import BadInput, at, decimal
from controlplane.sim.recipe import Section, load
from controlplane.sim.trace import GIB, rows

if TYPE_CHECKING:
    from collections.abc import Mapping

CPUS_PER_GPU: Final = 16
MEMORY_PER_GPU: Final = 256 * GIB
"""What a node has for each of its GPUs where nobody says: so much that GPUs alone bind."""
GPU_MEMORY: Final = 80 * GIB
MODEL: Final = "GPU"
"""Model of the GPUs of which nobody says another."""
MOST_NODES: Final = 200_000
MOST_GPUS: Final = 1_000
"""On one node."""
MOST_CPUS: Final = 4_096
PORTS: Final = (20_000, 20_099)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimNode:
    """A node that is simulated."""

    name: str
    """Its name."""
    gpus: int
    """GPUs."""
    cpus: int
    """Cores."""
    memory_bytes: int
    """Memory."""
    gpu_model: str = MODEL
    """Model of its GPUs."""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels, sorted; its place in the fabric is among them."""

    def facts(self) -> NodeFacts:
        """What its agent would tell of it."""
        return NodeFacts(
            display_name=self.name,
            address="127.0.0.1",
            cpus=self.cpus,
            memory_bytes=self.memory_bytes,
            devices=tuple(
                Device(
                    device_id=f"{self.name}-gpu{i}",
                    kind=DeviceKind.GPU,
                    model=self.gpu_model,
                    memory_bytes=GPU_MEMORY,
                    index=i,
                )
                for i in range(self.gpus)
            ),
            port_first=PORTS[0],
            port_last=PORTS[1],
            labels=self.labels,
        )


Cluster = tuple[SimNode, ...]


def uniform(
    nodes: int,
    gpus: int,
    *,
    cpus: int | None = None,
    memory_bytes: int | None = None,
    gpu_model: str = MODEL,
) -> Cluster:
    """So many nodes alike."""
    return tuple(
        SimNode(
            name=f"n{i}",
            gpus=gpus,
            cpus=cpus if cpus is not None else _cpus(gpus),
            memory_bytes=memory_bytes if memory_bytes is not None else _memory(gpus),
            gpu_model=gpu_model,
        )
        for i in range(nodes)
    )


def _cpus(gpus: int) -> int:
    return min(CPUS_PER_GPU * max(gpus, 1), MOST_CPUS)


def _memory(gpus: int) -> int:
    return MEMORY_PER_GPU * max(gpus, 1)


def read_cluster(path: Path) -> Cluster:
    """Read a cluster: a table of nodes (`.csv`, `.csv.gz`), or a recipe in YAML.

    BadInput names the place.
    """
    if path.name.removesuffix(".gz").endswith(".csv"):
        nodes = tuple(_table(path))
    else:
        nodes = tuple(_recipe(load(path)))
    if not nodes:
        raise BadInput(f"{path} has no node")
    return nodes


def _table(path: Path) -> list[SimNode]:
    """A line for each node (`node,gpus`), or for each group of nodes alike
    (`vc,nodes,gpus_per_node`)."""
    made: list[SimNode] = []
    for line, row in rows(path, ()):
        if "gpus_per_node" in row:
            name = row.get("vc") or row.get("group") or f"group{line - 1}"
            count = _whole(path, line, row, "nodes", MOST_NODES)
            names, column = [f"{name}-{i}" for i in range(count)], "gpus_per_node"
        elif "gpus" in row and "node" in row:
            names, column = [row["node"] or f"n{line - 2}"], "gpus"
        else:
            raise BadInput(
                f"{path}, line 1: the header needs the columns node and gpus (a line for each"
                " node), or nodes and gpus_per_node (a line for each group)"
            )
        gpus = _whole(path, line, row, column, MOST_GPUS)
        cpus = _whole(path, line, row, "cpus", MOST_CPUS) if row.get("cpus") else _cpus(gpus)
        memory = _amount(path, line, row, "mem_gb", GIB) if row.get("mem_gb") else _memory(gpus)
        if not cpus:
            raise at(path, line, "cpus", "is 0, and a node needs at least 1 core")
        model = row.get("gpu_model") or MODEL
        made += (
            SimNode(name=name, gpus=gpus, cpus=cpus, memory_bytes=memory, gpu_model=model)
            for name in names
        )
        if len(made) > MOST_NODES:
            raise BadInput(f"{path}, line {line}: more than {MOST_NODES} nodes can't be simulated")
    seen: set[str] = set()
    for node in made:
        if node.name in seen:
            raise BadInput(f"{path} names the node {node.name!r} twice; a name is for one node")
        seen.add(node.name)
    return made


def _amount(path: Path, line: int, row: Mapping[str, str], column: str, unit: int) -> int:
    try:
        return decimal(row[column].strip(), unit)
    except KeyError:
        raise BadInput(f"{path}, line 1: the header has no column {column}") from None
    except ValueError as error:
        raise at(path, line, column, str(error)) from None


def _whole(path: Path, line: int, row: Mapping[str, str], column: str, most: int) -> int:
    milli = _amount(path, line, row, column, 1000)
    if milli % 1000 or milli > most * 1000:
        words = f"{row[column]!r} is not a whole number from 0 to {most}"
        raise at(path, line, column, words)
    return milli // 1000


def _recipe(top: Section) -> list[SimNode]:
    """Groups of nodes alike. With `fabric`, so many nodes are behind each switch of a level."""
    made: list[SimNode] = []
    for number, group in enumerate(top.sections("nodes")):
        name = group.text("name", f"g{number}-")
        count = group.whole("count", 1, least=1, most=MOST_NODES)
        gpus = group.whole("gpus", 0, most=MOST_GPUS)
        cpus = group.whole("cpus", _cpus(gpus), least=1, most=MOST_CPUS)
        memory = group.memory("memory", _memory(gpus))
        model = group.text("model", MODEL)
        labels = group.texts("labels")
        fabric = group.wholes("fabric")
        group.done()
        for i in range(count):
            # Switches are shared by groups: the nodes are numbered through.
            place = {key: f"{key}-{len(made) // behind}" for key, behind in fabric.items()}
            made.append(
                SimNode(
                    name=f"{name}{i}",
                    gpus=gpus,
                    cpus=cpus,
                    memory_bytes=memory,
                    gpu_model=model,
                    labels=tuple(sorted((labels | place).items())),
                )
            )
    top.done()
    return made
