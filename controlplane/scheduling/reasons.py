"""Why a gang waits, in the user's words: which constraint binds on how many nodes, or why it can
never run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from controlplane.model.words import count
from controlplane.scheduling.columns import MILLI, Bools, Ints
from controlplane.scheduling.room import Amounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.model.spec import Resources
    from controlplane.model.view import Shape
    from controlplane.scheduling.ask import Ask
    from controlplane.scheduling.columns import Nodes
    from controlplane.scheduling.room import Room

GIB = 1 << 30


def explain(room: Room, ask: Ask, owner: str) -> str:
    """One sentence on why the gang has no place among the nodes now; it could have one if all were
    free."""
    nodes = room.nodes
    if not nodes.views:
        return "waits: no node has joined the cluster yet"
    each = ask.each or 1
    fits = room.free.fits(ask)
    left = np.ones(len(fits), np.bool_)
    told: list[tuple[int, int, str]] = []
    for order, (words, bad) in enumerate(_refusals(room, ask, owner, each, fits)):
        if number := int(np.count_nonzero(left & bad)):
            told.append((-number, order, f"{count(number, 'node')} {words}"))
            left &= ~bad
            if not left.any():
                break
    able = int(np.count_nonzero(left))
    width = able * each if ask.each else int(fits[left].sum())
    short = f"room for {width} of {count(ask.workers, 'worker')} ({describe(ask.shape)} each)"
    if width >= ask.workers and ask.shape.within:
        short += f", but not within one {_short(ask.shape.within)}"
    words = "; ".join(words for *_, words in sorted(told))
    return f"waits for resources: {short}{'; ' if words else ''}{words}"


def _refusals(
    room: Room, ask: Ask, owner: str, each: int, fits: Ints
) -> Iterator[tuple[str, Bools]]:
    """Sets of nodes that will not do, each with what is the matter; the first that names a node is
    its reason."""
    nodes, free, shape = room.nodes, room.free, ask.shape
    yield "take no work (draining, silent or in trouble)", ~nodes.takes
    owners = {view.only_owner for view in nodes.views} if nodes.owned.any() else set()
    for name in sorted(owners - {"", owner}):
        theirs = np.array([view.only_owner == name for view in nodes.views], np.bool_)
        yield f"can run only jobs of {name}", theirs
    if not ask.everywhere:
        yield _elsewhere(shape), ~ask.may
    if shape.exclusive:
        yield "in use by others, and it wants nodes of its own", ~room.whole(free)
    if ask.gpus:
        kind = _kind(shape, plural=True)
        yield f"without enough free {kind}", free.devices(ask) < ask.gpus * each
    yield "without enough free memory", free.memory < ask.memory * each
    yield "without enough free cores", fits < each


def _elsewhere(shape: Shape) -> str:
    if shape.selector:
        return f"outside its node selector ({shape.selector}) or its queue ({shape.queue})"
    return f"outside its queue ({shape.queue})"


def impossible(nodes: Nodes, ask: Ask, owner: str) -> str | None:
    """Why the gang would not fit even if the whole cluster were free and healthy; None when it
    would."""
    shape, need, each = ask.shape, ask.shape.resources, ask.each or 1
    if not ask.may.any():
        owners = sorted({view.only_owner for view in nodes.views})
        if "" not in owners and owner not in owners:
            told = ", ".join(owners[:5])
            return f"no node runs jobs of {owner}: their agents have no root, and run only {told}'s"
        if shape.selector:
            return f"no node of its queue is selected by {shape.selector}"
        return f"its queue {shape.queue} has no nodes"
    whole = Amounts(
        nodes.has_millicores, nodes.has_memory, nodes.has_millicores // MILLI, nodes.has_gpus
    )
    fits = whole.fits(ask)
    fits[~ask.may] = 0
    if ask.gpus and need.gpu_model is not None and not ask.kinds:
        models = sorted({key[1] for key in nodes.kinds})
        there = ", ".join(models) if models else "none"
        return f"no node has a GPU of model {need.gpu_model!r} (there are: {there})"
    if ask.gpus and shape.gpu_memory_bytes and not ask.kinds:
        most = max((key[2] for key in nodes.kinds), default=0) / GIB
        return (
            f"no node has a GPU with {shape.gpu_memory_bytes / GIB:.4g} GiB of memory (the most is"
            f" {most:.4g} GiB)"
        )
    if int(fits.max(initial=0)) < each:
        what = f"{each} workers on one node need" if each > 1 else "a worker needs"
        return f"{what} {_on_one(shape, each)}, and no node has so much: {_largest(nodes)}"
    if ask.each:
        wide, wanted = int((fits >= each).sum()), ask.workers // each
        if wide < wanted:
            have = f"only {wide}" if wide else "none"
            return (
                f"it needs {count(wanted, 'node')} with room for {count(each, 'worker')} each,"
                f" and the cluster has {have}"
            )
    elif int(fits.sum()) < ask.workers:
        return (
            f"its {ask.workers} workers need {describe(shape)} each,"
            f" and the whole cluster has room for {int(fits.sum())}"
        )
    return None


def describe(shape: Shape) -> str:
    """A worker's need: `1 GPU, 2 cores, 8 GiB of memory`."""
    return _on_one(shape, 1)


def _on_one(shape: Shape, workers: int) -> str:
    need: Resources = shape.resources
    parts = []
    if need.gpus:
        parts.append(count(need.gpus * workers, _kind(shape)))
    cores = need.cpu_millicores * workers / MILLI
    parts.append(f"{cores:g} core" if cores == 1 else f"{cores:g} cores")
    if need.memory_bytes:
        parts.append(f"{need.memory_bytes * workers / GIB:.4g} GiB of memory")
    return ", ".join(parts)


def _kind(shape: Shape, *, plural: bool = False) -> str:
    model = f"{shape.resources.gpu_model} " if shape.resources.gpu_model else ""
    return f"{model}GPU{'s' if plural else ''}"


def _largest(nodes: Nodes) -> str:
    gpus: Ints = nodes.gpu_count()
    cores = int(nodes.has_millicores.max()) // MILLI
    memory = int(nodes.has_memory.max()) / GIB
    return (
        f"the most are {count(int(gpus.max()), 'GPU')}, {count(cores, 'core')},"
        f" {memory:.4g} GiB of memory"
    )


def _short(key: str) -> str:
    return key.rpartition("/")[2]
