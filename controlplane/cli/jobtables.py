"""Jobs as tables and pages for people."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from controlplane.cli import text
from controlplane.cli.outputwords import output_lines
from controlplane.cli.render import enum_word, struct
from controlplane.cli.usagewords import usage_words
from controlplane.model.moments import parse_moment
from controlplane.model.quantity import format_duration
from controlplane.model.words import signal_name
from controlplane.v1 import job_pb2, lease_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

STYLES: Final = {
    "pending": "yellow",
    "active": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
    "running": "cyan",
    "staging": "yellow",
    "starting": "yellow",
    "stopping": "yellow",
    "preempted": "magenta",
    "timed_out": "red",
    "node_lost": "red",
    "launch_failed": "red",
    "ready": "green",
    "unknown": "red",
    "draining": "yellow",
    "drained": "magenta",
    "lost": "red",
}
"""Colour of each state, on terminals."""


def state(word: str) -> Text:
    """A state in its colour."""
    return Text(word, style=STYLES.get(word, ""))


def cell(value: object) -> Text:
    """Anything as one harmless line."""
    return Text(text.visible_line(str(value)))


def table(*columns: str, wide: str = "") -> Table:
    """A table without lines; the column named `wide` gets what room there is, and is cut there."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if name == wide else None)
    return made


def job_state(job: job_pb2.Job) -> str:
    """Word for a job's state."""
    return enum_word(job_pb2.JobState.DESCRIPTOR, job.state)


def attempt_state(attempt: job_pb2.Attempt) -> str:
    """Word for an attempt's state."""
    return enum_word(job_pb2.AttemptState.DESCRIPTOR, attempt.state)


def running_time(job: job_pb2.Job, now_us: int) -> str:
    """How long a job runs or ran; empty before its start."""
    if not job.HasField("start_time"):
        return ""
    end = text.micros(job.end_time) if job.HasField("end_time") else now_us
    return text.duration(end - text.micros(job.start_time))


def draw_jobs(console: Console, jobs: Iterable[job_pb2.Job], now_us: int) -> None:
    """One line for each job."""
    jobs = list(jobs)
    arrays = any(job.HasField("tasks") for job in jobs)
    tasks = ["TASKS"] if arrays else []
    columns = ["JOB", "NAME", "STATE", *tasks, "OWNER", "WORKERS", "GPUS", "AGE", "RAN", "REASON"]
    made = table(*columns, wide="REASON")
    for job in jobs:
        spec = struct(job.spec)
        workers = spec.get("workers", 1)
        made.add_row(
            cell(job.job_id),
            cell(job.display_name),
            state(job_state(job)),
            *([cell(_ended_of(job))] if arrays else []),
            cell(job.owner),
            cell(workers),
            cell(workers * spec.get("resources", {}).get("gpus", 0)),
            cell(text.duration(now_us - text.micros(job.create_time))),
            cell(running_time(job, now_us)),
            cell(job.reason),
        )
    console.print(made)


def _ended_of(job: job_pb2.Job) -> str:
    """How many of an array's tasks have ended: `3/100`."""
    of = job.tasks
    return f"{of.succeeded + of.failed + of.cancelled}/{of.total}" if job.HasField("tasks") else ""


def draw_tasks(console: Console, tasks: Iterable[job_pb2.Task]) -> None:
    """One line for each task."""
    made = table("TASK", "STATE", "ATTEMPTS", "EXIT", "NODES", "REASON", wide="REASON")
    for task in tasks:
        made.add_row(
            cell(task.index),
            state(enum_word(job_pb2.JobState.DESCRIPTOR, task.state)),
            cell(task.attempts or ""),
            cell(task.exit_code if task.HasField("exit_code") else ""),
            cell(", ".join(task.nodes)),
            cell(task.reason),
        )
    console.print(made)


def draw_job(console: Console, job: job_pb2.Job, now_us: int) -> None:
    """Everything about one job."""
    spec = struct(job.spec)
    console.print(cell(f"{job.name}  {job.display_name}"), style="bold")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")

    def fact(name: str, value: object) -> None:
        facts.add_row(name, value if isinstance(value, Text) else Text(text.visible(str(value))))

    fact("State", Text.assemble(state(job_state(job)), f"  {text.visible_line(job.reason)}"))
    if job.HasField("exit_code"):
        fact("Exit code", job.exit_code)
    fact("Owner", job.owner)
    fact("Launcher", spec.get("launcher", ""))
    fact("Command", text.visible_line(text.shell_words(spec.get("command"))))
    fact("Asks for", text.request_words(spec))
    if spec.get("tasks"):
        fact("Tasks", spec["tasks"])
    if job.HasField("tasks"):
        words = ("pending", "active", "succeeded", "failed", "cancelled")
        told = ((getattr(job.tasks, word), word) for word in words)
        fact("", ", ".join(f"{n} {word}" for n, word in told if n))
    if job.held_by:
        fact("Held by", job.held_by)
    if spec.get("begin"):
        fact("Begin", text.local_time(parse_moment(spec["begin"])))
    if spec.get("depends_on"):
        fact("Depends on", ", ".join(_dependency(each, job) for each in spec["depends_on"]))
    for name in ("node_selector", "exclusive", "packing", "within", "preemptible"):
        if spec.get(name):
            fact(name.replace("_", " ").capitalize(), "yes" if spec[name] is True else spec[name])
    if spec.get("working_dir"):
        fact("Working dir", _working_dir(spec["working_dir"]))
    if job.HasField("time_limit"):
        fact("Time limit", format_duration(job.time_limit.ToMicroseconds()))
    if account := job.account or spec.get("account"):
        fact("Account", account)
    for name in ("queue", "priority_class", "signal", "comment"):
        if spec.get(name):
            fact(name.replace("_", " ").capitalize(), spec[name])
    if spec.get("requeue_exit_codes"):
        fact("Requeued by", f"exit code {' or '.join(map(str, spec['requeue_exit_codes']))}")
    if spec.get("labels"):
        fact("Labels", ", ".join(f"{k}={v}" for k, v in spec["labels"].items()))
    created = text.micros(job.create_time)
    fact("Submitted", f"{text.local_time(created)} ({text.duration(now_us - created)} ago)")
    if job.HasField("start_time"):
        waited = text.duration(text.micros(job.start_time) - created)
        fact("Started", f"{text.local_time(text.micros(job.start_time))} (waited {waited})")
    if job.HasField("end_time"):
        ended = text.local_time(text.micros(job.end_time))
        ran = running_time(job, now_us)
        fact("Ended", f"{ended} (ran {ran})" if ran else ended)
    console.print(Padding(facts, (0, 0, 0, 2)))
    for attempt in job.attempts:
        _draw_attempt(console, attempt, now_us)


def _dependency(written: str, job: job_pb2.Job) -> str:
    return f"{written} (not yet)" if written in job.waits_for else written


def _working_dir(found: object) -> str:
    if not isinstance(found, dict):
        return text.visible_line(str(found))
    return f"shipped, {text.size(found.get('size', 0))}, SHA-256 {found.get('sha256', '')}"


def _draw_attempt(console: Console, attempt: job_pb2.Attempt, now_us: int) -> None:
    from controlplane.cli.progresswords import progress_lines

    console.print()
    console.print(
        Text.assemble(
            f"Attempt {attempt.number}  ", state(attempt_state(attempt)), "  ", _phases(attempt)
        )
    )
    if attempt.HasField("cause"):
        console.print(Text(f"  Cause: {text.visible_line(attempt.cause.message)}"))
        for line in text.visible(attempt.cause.stderr_tail).splitlines():
            console.print(Text(f"    | {line}"))
    if attempt.HasField("progress"):
        for line in progress_lines(attempt.progress, now_us):
            console.print(Text(f"  {line}"))
    if attempt.HasField("usage"):
        console.print(Text(f"  Used: {usage_words(attempt.usage)}"))
    if attempt.HasField("warning_time"):
        warned = text.local_time(text.micros(attempt.warning_time))
        console.print(Text(f"  Warned of the time limit: {warned}"))
    for sent in attempt.signals:
        console.print(Text(f"  {text.visible_line(_signal_words(sent))}"))
    for line in output_lines(attempt):
        console.print(Text(f"  {text.visible_line(line)}"))
    devices = {lease.node: len(lease.device_ids) for lease in attempt.leases}
    made = table("RANK", "NODE", "STATE", "PID", "EXIT", "DEVICES ON NODE", "STDOUT", "STDERR")
    for worker in attempt.workers:
        made.add_row(
            cell(worker.rank),
            cell(worker.node_display_name or worker.node),
            state(enum_word(lease_pb2.WorkerState.DESCRIPTOR, worker.state)),
            cell(worker.pid or ""),
            cell(_exit(worker)),
            cell(devices.get(worker.node, 0)),
            cell(text.size(worker.stdout_bytes)),
            cell(text.size(worker.stderr_bytes)),
        )
    console.print(Padding(made, (0, 0, 0, 2)))


def _phases(attempt: job_pb2.Attempt) -> str:
    """How long each part of an attempt took, as far as it came."""
    moments = [
        (word, text.micros(moment))
        for word, moment in (
            ("staging", attempt.create_time),
            ("starting", attempt.start_time),
            ("running", attempt.running_time),
            ("stopping", attempt.stop_time),
            ("", attempt.end_time),
        )
        if text.micros(moment)
    ]
    parts = [
        f"{word} {text.duration(ended - began)}"
        for (word, began), (_, ended) in itertools.pairwise(moments)
    ]
    return f"({', '.join(parts)})" if parts else ""


def _signal_words(sent: job_pb2.SentSignal) -> str:
    """Say what was sent to whom, and whether they got it."""
    ranks = f"rank {', '.join(map(str, sent.ranks))}" if sent.ranks else "all ranks"
    when = text.local_time(text.micros(sent.create_time))
    got = "delivered" if sent.delivered else "not delivered"
    return f"{sent.signal} to {ranks}: sent by {sent.principal} {when}, {got}"


def _exit(worker: lease_pb2.Worker) -> str:
    if worker.HasField("signal") and worker.signal:
        return signal_name(worker.signal)
    return str(worker.exit_code) if worker.HasField("exit_code") else ""
