"""What must be true at the end, whatever went wrong: a pure judgement of three accounts.

The control plane's is its event log and its jobs; the workers' is a file that each of them appends
to; the clients' is what each of them was told. A fault is a sentence.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FINAL_JOB = frozenset({"succeeded", "failed", "cancelled"})
FINAL_ATTEMPT = FINAL_JOB | {"preempted", "timed_out", "node_lost", "launch_failed"}
_ATTEMPT = re.compile(r"jobs/(\d+)/tasks/(\d+)/attempts/(\d+)")
_JOBS = re.compile(r"jobs/(\d+)(?:-(\d+))?")

Task = tuple[int, int]
"""Job and index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """An event, as the control plane tells it."""

    seq: int
    """Its number."""
    kind: str
    """What happened."""
    resource: str
    """To what."""
    changed: Mapping[str, Any] = field(default_factory=dict)
    """What changed by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A job at the end, as the control plane tells it."""

    state: str
    """Where it stands."""
    reason: str
    """Why."""
    exit_code: int | None
    """What a shell would say of it."""
    tasks: int = 1
    """How many tasks it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a worker."""

    what: str
    """`begin`, `end`, or `twice` where a worker of another attempt lives."""
    job: int
    """Its job."""
    task: int = 0
    """Its task."""
    attempt: int = 1
    """Its attempt."""
    rank: int = 0
    """Its rank."""
    size: int = 1
    """Workers of its gang; of `begin` alone."""
    code: int = 0
    """How it is about to exit; of `end` alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a client was told."""

    what: str
    """`submitted`, `cancelled`, `held`, `released`, `requeued`, or `saw`."""
    names: tuple[str, ...]
    """Of which jobs or tasks."""
    request_id: str = ""
    """Under which id it had asked for a change."""
    state: str = ""
    """In which state it saw the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """All that is known at the end."""

    events: Sequence[Happened]
    """All of them, by number."""
    jobs: Mapping[str, Known]
    """All jobs, by name."""
    lines: Sequence[Line]
    """What workers wrote, in the order of their writing."""
    told: Sequence[Told]
    """What clients were told, each in its order."""
    printed: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """What the control plane has of the output of attempts that succeeded, by name and rank."""
    site: Sequence[str] = ()
    """What the site's programs wrote in turn: `prolog` or `epilog`, and of which lease."""
    left: Sequence[str] = ()
    """What is still there that should be gone: processes, leases, files, control groups."""


def faults(accounts: Accounts) -> list[str]:
    """All that is not as it must be; nothing when all is well."""
    events, jobs = accounts.events, accounts.jobs
    found = [
        *_numbers(events),
        *_acknowledged(accounts.told, events, jobs),
        *_changes(accounts.told, events, jobs),
        *_seen(accounts.told, jobs),
        *_attempts(events),
        *_at_once(events, accounts.lines),
        *_causes(events, jobs),
        *_successes(events, accounts.lines),
        *_outputs(accounts.printed),
        *_epilogs(accounts.site),
    ]
    return found + [f"left behind: {each}" for each in accounts.left]


def _numbers(events: Sequence[Happened]) -> Iterator[str]:
    for wanted, event in enumerate(events, start=1):
        if event.seq != wanted:
            yield f"events: {event.seq} follows {wanted - 1}"
            return


def _submitted(event: Happened) -> list[str]:
    """The jobs that an event tells the submit of."""
    match = _JOBS.fullmatch(event.resource)
    if match is None or event.kind not in ("job.submitted", "jobs.submitted"):
        return []
    first, last = int(match[1]), int(match[2] or match[1])
    return [f"jobs/{number}" for number in range(first, last + 1)]


def _acknowledged(
    told: Sequence[Told], events: Sequence[Happened], jobs: Mapping[str, Known]
) -> Iterator[str]:
    """What was acknowledged is known, once, and under one number for ever."""
    submits = Counter(name for event in events for name in _submitted(event))
    yield from (f"{name}: was submitted {n} times" for name, n in submits.items() if n != 1)
    yield from (f"{name}: is known, and no event tells of it" for name in jobs.keys() - submits)
    yield from (
        f"{name}: an event tells of it, and it is not known" for name in submits - jobs.keys()
    )
    by_request: dict[str, tuple[str, ...]] = {}
    by_name: dict[str, str] = {}
    for each in told:
        if each.what != "submitted":
            continue
        first = by_request.setdefault(each.request_id, each.names)
        if first != each.names:
            yield f"{each.request_id}: was answered with {first}, and then with {each.names}"
        for name in each.names:
            if name not in jobs:
                yield f"{name}: was acknowledged, and is not known"
            if by_name.setdefault(name, each.request_id) != each.request_id:
                yield f"{name}: was given to {by_name[name]} and to {each.request_id}"


def _changes(
    told: Sequence[Told], events: Sequence[Happened], jobs: Mapping[str, Known]
) -> Iterator[str]:
    """A change that was acknowledged was made."""
    kinds = {"held": "job.held", "released": "job.released", "requeued": "task.requeued"}
    made = {(event.kind, event.resource) for event in events}
    made |= {("job.held", n) for e in events if "held_by" in e.changed for n in _submitted(e)}
    for each in told:
        for name in each.names:
            if each.what in kinds and (kinds[each.what], name) not in made:
                yield f"{name}: is told as {each.what}, and no event tells of it"
            if each.what != "cancelled":
                continue
            kind = "task.cancelled" if "/tasks/" in name else "job.cancelled"
            if (kind, name) not in made:
                yield f"{name}: is told as cancelled, and no event tells of it"
            job = jobs.get(name)
            if job is not None and job.tasks == 1 and job.state != "cancelled":
                yield f"{name}: is told as cancelled, and is {job.state}"


def _seen(told: Sequence[Told], jobs: Mapping[str, Known]) -> Iterator[str]:
    """What somebody saw ended stays as it was."""
    for each in told:
        for name in each.names if each.what == "saw" else ():
            job = jobs.get(name)
            if job is None:
                yield f"{name}: was seen, and is not known"
            elif each.state in FINAL_JOB and job.state != each.state:
                yield f"{name}: was seen {each.state}, and is {job.state}"


def _attempts(events: Sequence[Happened]) -> Iterator[str]:
    """One attempt of a task after the other, none after the end, none while held or cancelled."""
    living: dict[Task, int] = {}
    last: Counter[Task] = Counter()
    over: set[Task] = set()
    held: set[str] = set()
    cancelled: set[str] = set()
    for event in events:
        match event.kind:
            case "job.submitted" | "jobs.submitted" if "held_by" in event.changed:
                held.update(_submitted(event))
            case "job.held":
                held.add(event.resource)
            case "job.released":
                held.discard(event.resource)
            case "job.cancelled" | "task.cancelled":
                cancelled.add(event.resource)
        match = _ATTEMPT.fullmatch(event.resource)
        if match is None or not event.kind.startswith("attempt."):
            continue
        task, number = (int(match[1]), int(match[2])), int(match[3])
        if event.kind == "attempt.placed":
            if task in living:
                yield f"{event.resource}: was placed while attempt {living[task]} lived"
            if task in over:
                yield f"{event.resource}: was placed after its task's end"
            if number != last[task] + 1:
                yield f"{event.resource}: was placed after attempt {last[task]}"
            names = {f"jobs/{task[0]}", f"jobs/{task[0]}/tasks/{task[1]}"}
            yield from (f"{event.resource}: was placed while held" for _ in names & held)
            yield from (f"{event.resource}: was placed after a cancel" for _ in names & cancelled)
            living[task], last[task] = number, number
        elif event.kind.removeprefix("attempt.") in FINAL_ATTEMPT:
            if living.pop(task, None) != number:
                yield f"{event.resource}: ended, and did not live"
            if event.changed.get("job_state") in FINAL_JOB:
                over.add(task)
    yield from (f"jobs/{job}/tasks/{i}/attempts/{n}: never ended" for (job, i), n in living.items())


def _at_once(events: Sequence[Happened], lines: Sequence[Line]) -> Iterator[str]:
    """Workers of a task run in one attempt at a time, and each is started once in it."""
    placed = {event.resource for event in events if event.kind == "attempt.placed"}
    begun: Counter[str] = Counter()
    for line in lines:
        name = f"jobs/{line.job}/tasks/{line.task}/attempts/{line.attempt}"
        if line.what == "twice":
            yield f"{name}: rank {line.rank} ran while a worker of another attempt did"
        if line.what == "begin":
            begun[f"{name} rank {line.rank}"] += 1
            if name not in placed:
                yield f"{name}: rank {line.rank} ran, and no event tells of the attempt"
    yield from (f"{each}: was started {n} times" for each, n in begun.items() if n > 1)


def _causes(events: Sequence[Happened], jobs: Mapping[str, Known]) -> Iterator[str]:
    """Every end has its cause, in words."""
    for event in events:
        state = event.kind.removeprefix("attempt.")
        if not event.kind.startswith("attempt.") or state not in FINAL_ATTEMPT - {"succeeded"}:
            continue
        if "job_state" in event.changed and not event.changed.get("cause"):
            yield f"{event.resource}: is {state} without a cause"
        elif "job_state" in event.changed and not event.changed.get("cause_kind"):
            yield f"{event.resource}: is {state}, and nobody knows whose doing that was"
    for name, job in jobs.items():
        if job.state not in FINAL_JOB:
            yield f"{name}: has not ended: {job.state}, {job.reason}"
        elif not job.reason:
            yield f"{name}: is {job.state} without a reason"
        elif job.exit_code is None or (job.exit_code == 0) != (job.state == "succeeded"):
            yield f"{name}: is {job.state} with exit code {job.exit_code}"


def _successes(events: Sequence[Happened], lines: Sequence[Line]) -> Iterator[str]:
    """What is told as a success is one by the workers' own word: of each rank, to the end."""
    done: defaultdict[str, set[int]] = defaultdict(set)
    sizes: dict[str, int] = {}
    for line in lines:
        name = f"jobs/{line.job}/tasks/{line.task}/attempts/{line.attempt}"
        if line.what == "begin":
            sizes[name] = line.size
        if line.what == "end" and line.code == 0:
            done[name].add(line.rank)
    for event in events:
        name = event.resource
        if event.kind == "attempt.succeeded" and done[name] != set(range(sizes.get(name, 1))):
            yield f"{name}: is told as succeeded, and only ranks {sorted(done[name])} say so"


def _outputs(printed: Mapping[tuple[str, int], str]) -> Iterator[str]:
    """What a worker printed, from its beginning to its end, is there, once."""
    for (name, rank), text in printed.items():
        if text != f"begin {rank}\nend {rank}\n":
            yield f"{name}: the output of rank {rank} is {text!r}"


def _epilogs(site: Sequence[str]) -> Iterator[str]:
    """What a prolog has begun, an epilog has undone, whoever died in between."""
    last = {lease: program for program, _, lease in (line.partition(" ") for line in site)}
    owed = (lease for lease, program in last.items() if program == "prolog")
    yield from (f"{lease}: its prolog ran, and no epilog after it" for lease in owed)
