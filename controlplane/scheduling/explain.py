"""Why a task waits, when it will start, and what would make it start now.

All is read from the decision that holds it: whoever could be placed has its place in it, so what
fits into the room that is left would start now, wherever it stood in line.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from controlplane.model.explanation import Change, Eta, Explanation, Factor, Holder
from controlplane.model.selector import EVERYWHERE
from controlplane.model.words import count
from controlplane.scheduling.backfill import reserve
from controlplane.scheduling.columns import FOREVER_US
from controlplane.scheduling.leases import Leases, end_of, rows_of
from controlplane.scheduling.placement import would_fit
from controlplane.scheduling.priority import WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from controlplane.model.view import Running, Shape, Waiting
    from controlplane.scheduling.ask import Ask
    from controlplane.scheduling.backfill import Reservation
    from controlplane.scheduling.columns import Ints
    from controlplane.scheduling.decision import Decision

HOLDERS = 20
"""So many holders are told at most."""
GIB = 1 << 30
MINUTE_US = 60_000_000


def explain_task(decision: Decision, row: int) -> Explanation:
    """The explanation for a task that waits, by its row."""
    tasks = decision.board.tasks
    entry: Waiting = tasks.entries[row]
    ask = decision.unbound(entry, decision.ask(entry))
    reason = decision.reason(row)
    never = "can never run" in reason
    ahead, behind = _place_in_line(decision, row, ask)
    promised = decision.reservation(entry)
    eta: Eta | None = None
    holders: tuple[Holder, ...] = ()
    if not never and not entry.held and promised is None:
        promised = _earliest(decision, ask, 1000)
    if not never and not entry.held:
        eta = _eta(decision, row, ask, ahead)
        holders = tuple(_holders(decision, promised)) if promised is not None else ()
    made = decision.promised(entry)
    return Explanation(
        job_id=entry.job_id,
        task_index=entry.task_index,
        seq=decision.view.seq,
        reason=reason,
        ahead=len(ahead),
        behind=behind,
        never=never,
        promised_us=made,
        eta=eta,
        holders=holders,
        changes=tuple(_changes(decision, entry)) if not entry.held else (),
        score=decision.score(row),
        factors=_factors(decision, row),
    )


def _factors(decision: Decision, row: int) -> tuple[Factor, ...]:
    factors, weights = decision.ranking.factors(), decision.policy.weights
    made = []
    for name in ("priority_class", "age", "fair_share", "size", "qos"):
        value, weight = int(getattr(factors, name)[row]), getattr(weights, name)
        points = value * weight if name == "priority_class" else value * weight // WHOLE
        made.append(Factor(name=name, value=value, weight=weight, points=points))
    return tuple(made)


def _place_in_line(decision: Decision, row: int, ask: Ask) -> tuple[Ints, int]:
    """The rows of those ahead that could use the same nodes, and how many such are behind."""
    tasks, ordered = decision.board.tasks, decision.ordered
    like = np.array([_meets(decision, shape, ask) for shape in tasks.shapes.values], np.bool_)
    at = np.flatnonzero(ordered == row)
    if not len(at):
        return ordered[:0], 0
    ahead, behind = ordered[: int(at[0])], ordered[int(at[0]) + 1 :]
    return ahead[like[tasks.shape[ahead]]], int(like[tasks.shape[behind]].sum())


def _meets(decision: Decision, shape: Shape, ask: Ask) -> bool:
    kinds = decision.board.nodes.columns(shape)
    if ask.gpus and not set(kinds) & set(ask.kinds):
        return False
    return shape.queue == ask.shape.queue or not decision.queue_nodes_differ


def _earliest(decision: Decision, ask: Ask, pace: int) -> Reservation | None:
    """The first place by what runs, if it ends after so many thousandths of its limit."""
    leases = decision.leases()
    if pace != 1000:
        now, nodes = decision.view.now_us, decision.board.nodes
        parts = [(p, max(_end(t, now, pace), now + 1)) for t in decision.running for p in t.parts]
        leases = Leases(nodes, rows_of(nodes, parts))
    return reserve(decision.room, leases, decision.fabric, ask, (0, 0), 0)


def _end(task: Running, now_us: int, pace: int) -> int:
    """When a task ends, if so fast; one that has run for longer is expected at its limit."""
    until = end_of(task)
    if task.stopping:
        return until
    if task.expected_us is not None:
        until = min(until, task.expected_us)
    soon = task.placed_us + (until - task.placed_us) * pace // 1000
    return soon if soon > now_us else until


def _eta(decision: Decision, row: int, ask: Ask, ahead: Ints) -> Eta | None:
    """A band: the first place by what runs, and the work ahead over what the nodes can do, each at
    a fast, a usual and a slow pace."""
    now, tasks, nodes = decision.view.now_us, decision.board.tasks, decision.board.nodes
    moments = []
    if ask.gpus:
        width = int(nodes.has_gpus[ask.may][:, list(ask.kinds)].sum())
        work = tasks.gpus[ahead] * np.minimum(tasks.limit[ahead], FOREVER_US)
    else:
        width = int(nodes.has_millicores[ask.may].sum())
        cores = [s.workers * s.resources.cpu_millicores for s in tasks.shapes.values]
        work = np.array(cores, np.int64)[tasks.shape[ahead]] * tasks.limit[ahead]
    for pace in decision.view.pace:
        first = _earliest(decision, ask, pace)
        if first is None:
            return None
        queued = float(work.astype(np.float64).sum()) * pace / 1000
        running = sum(
            _width(task, ask) * max(_end(task, now, pace) - now, 0)
            for task in decision.running
        )  # fmt: skip
        drained = now + int((queued + running) / max(width, 1)) if len(ahead) else now
        moments.append(max(first.start_us, drained))
    p10, p50, p90 = sorted(moments)
    return Eta(p10_us=p10, p50_us=p50, p90_us=p90)


def _width(task: Running, ask: Ask) -> int:
    shape = task.shape
    if ask.gpus:
        return shape.workers * shape.resources.gpus
    return shape.workers * shape.resources.cpu_millicores


def _holders(decision: Decision, place: Reservation) -> Iterator[Holder]:
    """Who must end first on the nodes that the task would get."""
    views = decision.board.nodes.views
    names = {views[row].uuid: views[row].display_name for row in place.rows.tolist()}
    held = []
    for task in decision.running:
        parts = [part for part in task.parts if part.node_uuid in names]
        until = end_of(task)
        if parts and until <= place.start_us:
            held.append((until, task, parts))
    held.sort(key=lambda each: (each[0], each[1].job_id, each[1].task_index))
    for _, task, parts in held[:HOLDERS]:
        yield Holder(
            job_id=task.job_id,
            task_index=task.task_index,
            owner=task.owner,
            nodes=tuple(names[part.node_uuid] for part in parts),
            gpus=sum(len(part.device_ids) for part in parts),
            until_us=task.until_us,
        )


# --- what would start it now ----------------------------------------------------------------------


def _changes(decision: Decision, entry: Waiting) -> Iterator[Change]:
    """Each change that alone would start the task now, the smallest of its kind."""
    shape = entry.shape

    def starts(changed: Shape, *, limit_us: int | None = None, **fields: str | bool) -> bool:
        other = replace(entry, shape=changed, **fields)  # type: ignore[arg-type]
        limit = limit_us or (FOREVER_US if entry.limit_us is None else entry.limit_us)
        if decision.objection(other):
            return False
        end_us = decision.view.now_us + limit
        ask = decision.unbound(entry, decision.ask(other))
        return would_fit(decision.room, ask, decision.fabric, end_us)

    if starts(shape):
        return
    for account in decision.accounts_of(entry.owner):
        if account != entry.account and starts(shape, account=account):
            yield _change("account", account, f"in the name of account {account}")
    if not entry.preemptible and starts(shape, preemptible=True):
        yield _change("preemptible", "true", "as a job that others may end")
    limit = _shorter(decision, entry, lambda us: starts(shape, limit_us=us))
    if limit:
        minutes = f"{limit // MINUTE_US}m"
        yield _change("time_limit", minutes, f"with a time limit of {minutes}")
    each = shape.workers_per_node or 1
    fewer = _largest(shape.workers // each - 1, lambda n: starts(replace(shape, workers=n * each)))
    if fewer:
        yield _change("workers", str(fewer * each), f"with {count(fewer * each, 'worker')}")
    if shape.workers_per_node and starts(replace(shape, workers_per_node=None)):
        yield _change("workers_per_node", "", "without workers_per_node: as they fit")
    if shape.within and starts(replace(shape, within="")):
        yield _change("within", "", "without within: over more of the fabric")
    if shape.exclusive and starts(replace(shape, exclusive=False)):
        yield _change("exclusive", "false", "beside other jobs on its nodes")
    if shape.selector and starts(replace(shape, selector=EVERYWHERE)):
        yield _change("node_selector", "", "on other nodes than it selects")
    yield from _other_resources(decision, shape, starts)


def _other_resources(
    decision: Decision, shape: Shape, starts: Callable[[Shape], bool]
) -> Iterator[Change]:
    need = shape.resources
    if need.gpus and need.gpu_model is not None:
        for model in sorted({key[1] for key in decision.board.nodes.kinds}):
            other = replace(shape, resources=replace(need, gpu_model=model))
            if need.gpu_model.casefold() not in model.casefold() and starts(other):
                yield _change("resources.gpu_model", model, f"on {model}")
    if need.gpus > 1:
        gpus = _largest(
            need.gpus - 1, lambda n: starts(replace(shape, resources=replace(need, gpus=n)))
        )
        if gpus:
            yield _change("resources.gpus", str(gpus), f"with {count(gpus, 'GPU')} for each worker")
    cores = _largest(
        need.cpu_millicores // 1000 - 1,
        lambda n: starts(replace(shape, resources=replace(need, cpu_millicores=n * 1000))),
    )
    if cores:
        yield _change("resources.cpus", str(cores), f"with {count(cores, 'core')} for each worker")
    memory = _largest(
        need.memory_bytes // GIB - 1,
        lambda n: starts(replace(shape, resources=replace(need, memory_bytes=n * GIB))),
    )
    if memory:
        words = f"with {memory} GiB of memory for each worker"
        yield _change("resources.memory", f"{memory}GiB", words)


def _change(field: str, value: str, how: str) -> Change:
    return Change(field=field, value=value, words=f"{how} it would start now")


def _shorter(decision: Decision, entry: Waiting, starts: Callable[[int], bool]) -> int:
    """The longest time limit, in whole minutes, with which it would end before what is promised
    to others; 0 when none would do."""
    now = decision.view.now_us
    limit = FOREVER_US if entry.limit_us is None else entry.limit_us
    gaps = {
        (reservation.start_us - now) // MINUTE_US * MINUTE_US
        for reservation in decision.room.reservations
    }
    for gap in sorted((gap for gap in gaps if MINUTE_US <= gap < limit), reverse=True):
        if starts(gap):
            return gap
    return 0


def _largest(most: int, will: Callable[[int], bool]) -> int:
    """The largest number up to `most` that will do, where each smaller one does as well; 0 when 1
    does not."""
    if most < 1 or not will(1):
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        if will(middle):
            low = middle
        else:
            high = middle - 1
    return low
