"""Why a gang waits, in the user's words: which constraint binds on how many nodes, or why it can
never run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from controlplane.model.words import count
from controlplane.scheduling.scratch import MILLI, model_matches

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.model.spec import Resources
    from controlplane.model.view import NodeView, Waiting
    from controlplane.scheduling.scratch import ScratchNode

GIB = 1 << 30


def explain(gang: Waiting, nodes: Iterable[ScratchNode]) -> str:
    """One sentence on why the gang has no place among these nodes now."""
    nodes = list(nodes)
    if not nodes:
        return "waits: no node has joined the cluster yet"
    never = impossible(gang, [node.view for node in nodes])
    if never is not None:
        return f"can never run because {never}"
    need = gang.shape.resources
    each = gang.shape.workers_per_node or 1
    refusals: Counter[str] = Counter()
    room = 0
    for node in nodes:
        fit = node.fits(need) if node.serves(gang.owner) else 0
        if fit >= each:
            room += each if gang.shape.workers_per_node else fit
        else:
            refusals[_refusal(node, gang.owner, need, each)] += 1
    told = "; ".join(f"{count(n, 'node')} {why}" for why, n in refusals.most_common())
    short = f"room for {room} of {count(gang.shape.workers, 'worker')} ({describe(need)} each)"
    return f"waits for resources: {short}{'; ' if told else ''}{told}"


def _refusal(node: ScratchNode, owner: str, need: Resources, workers: int) -> str:
    if not node.view.takes_work:
        return "take no work (draining, silent or in trouble)"
    if not node.serves(owner):
        return f"can run only jobs of {node.view.only_owner}"
    free = sum(1 for d in node.devices if model_matches(need.gpu_model, d))
    if need.gpus and free < need.gpus * workers:
        kind = f"{need.gpu_model} GPUs" if need.gpu_model else "GPUs"
        return f"without enough free {kind}"
    if node.memory < need.memory_bytes * workers:
        return "without enough free memory"
    return "without enough free cores"


def impossible(gang: Waiting, nodes: list[NodeView]) -> str | None:
    """Why the gang would not fit even if the whole cluster were free and healthy; None when it
    would."""
    need = gang.shape.resources
    each = gang.shape.workers_per_node or 1
    serving = [node for node in nodes if node.only_owner in ("", gang.owner)]
    if not serving:
        told = ", ".join(sorted({node.only_owner for node in nodes})[:5])
        return (
            f"no node runs jobs of {gang.owner}: their agents have no root, and run only {told}'s"
        )
    nodes = serving
    if need.gpus and need.gpu_model is not None:
        models = sorted({d.model for node in nodes for d in node.devices})
        if not any(model_matches(need.gpu_model, d) for node in nodes for d in node.devices):
            there = ", ".join(models) if models else "none"
            return f"no node has a GPU of model {need.gpu_model!r} (there are: {there})"
    whole = [_capacity(node, need) for node in nodes]
    widest = max(whole)
    if widest < each:
        what = f"{each} workers on one node need" if each > 1 else "a worker needs"
        return f"{what} {_on_one(need, each)}, and no node has so much: {_largest(nodes)}"
    if gang.shape.workers_per_node:
        wide, wanted = sum(fit >= each for fit in whole), gang.shape.workers // each
        if wide < wanted:
            have = f"only {wide}" if wide else "none"
            return (
                f"it needs {count(wanted, 'node')} with room for {count(each, 'worker')} each,"
                f" and the cluster has {have}"
            )
    elif sum(whole) < gang.shape.workers:
        return (
            f"its {gang.shape.workers} workers need {describe(need)} each,"
            f" and the whole cluster has room for {sum(whole)}"
        )
    return None


def _capacity(node: NodeView, need: Resources) -> int:
    most = node.cpus * MILLI // need.cpu_millicores
    if need.memory_bytes:
        most = min(most, node.memory_bytes // need.memory_bytes)
    if need.gpus:
        matching = sum(1 for d in node.devices if model_matches(need.gpu_model, d))
        most = min(most, matching // need.gpus)
    return most


def describe(need: Resources) -> str:
    """A worker's need: `1 GPU, 2 cores, 8 GiB of memory`."""
    return _on_one(need, 1)


def _on_one(need: Resources, workers: int) -> str:
    parts = []
    if need.gpus:
        kind = f"{need.gpu_model} GPU" if need.gpu_model else "GPU"
        parts.append(count(need.gpus * workers, kind))
    cores = need.cpu_millicores * workers / MILLI
    parts.append(f"{cores:g} core" if cores == 1 else f"{cores:g} cores")
    if need.memory_bytes:
        parts.append(f"{need.memory_bytes * workers / GIB:.4g} GiB of memory")
    return ", ".join(parts)


def _largest(nodes: list[NodeView]) -> str:
    gpus = max(sum(model_matches(None, d) for d in node.devices) for node in nodes)
    cores = max(node.cpus for node in nodes)
    memory = max(node.memory_bytes for node in nodes) / GIB
    return f"the most are {count(gpus, 'GPU')}, {count(cores, 'core')}, {memory:.4g} GiB of memory"
