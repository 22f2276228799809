"""Ending attempts to make room for others: one whose job has a warning signal gets that first, and
is ended once it has saved its state, or when the time is over that the signal gives it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from controlplane.model.event import CONTROL_PLANE
from controlplane.model.job import AttemptState, Cause, CauseKind
from controlplane.registry import signals
from controlplane.registry.attempts import finish, stop
from controlplane.registry.which import Which

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.model.job import Attempt, Job, SentSignal
    from controlplane.model.plan import Preempt
    from controlplane.model.progress import Progress
    from controlplane.registry.draft import Draft

Key = tuple[int, int, int]


def asked_to_save(attempt: Attempt) -> SentSignal | None:
    """The signal by which an attempt was asked to save its state, for it is to make room; None when
    it was not."""
    ours = (s for s in attempt.signals if s.principal == CONTROL_PLANE.principal)
    return next(ours, None)


def deadline_us(job: Job, asked: SentSignal) -> int:
    """When the time is over that it has to save its state."""
    return asked.sent_us + (job.spec.signal.before_us if job.spec.signal is not None else 0)


def preempt(draft: Draft, preempts: Iterable[Preempt]) -> None:
    """Have attempts make room. What ends by itself meanwhile, or runs as another attempt by now, is
    left alone."""
    for each in preempts:
        attempt = draft.attempts.get((each.job_id, each.task_index, each.attempt))
        if attempt is None or attempt.state is AttemptState.STOPPING or asked_to_save(attempt):
            continue
        which = Which(each.job_id, each.task_index)
        told = {"attempt": each.attempt, "reason": each.reason}
        seq = draft.emit("task.preempted", str(which), told)
        job = draft.jobs[each.job_id]
        draft.jobs[job.job_id] = job = replace(job, revision=seq)
        if job.spec.signal is not None and attempt.state is AttemptState.RUNNING:
            signals.send(draft, which, job.spec.signal.name, ())
        else:
            _end(draft, attempt, each.reason)


def end_saved(draft: Draft, keys: Iterable[Key]) -> int:
    """End those of these attempts that have saved their state since they were asked to, or have had
    their time; how many these are."""
    ended = 0
    for key in keys:
        attempt = draft.attempts.get(key)
        if attempt is None or attempt.state is AttemptState.STOPPING:
            continue
        asked = asked_to_save(attempt)
        if asked is None:
            continue
        saved = has_saved(draft.progress.get(key), asked)
        if saved or draft.now_us >= deadline_us(draft.jobs[key[0]], asked):
            words = "it has saved its state" if saved else "the time to save its state is over"
            reason = f"makes room for others, and {words}"
            told = {"state": AttemptState.STOPPING, "cause": f"preempted: {reason}"}
            seq = draft.emit(f"attempt.{AttemptState.STOPPING}", attempt.name, told)
            draft.jobs[key[0]] = replace(draft.jobs[key[0]], revision=seq)
            _end(draft, attempt, reason)
            ended += 1
    return ended


def has_saved(told: Progress | None, asked: SentSignal) -> bool:
    """Whether an attempt has saved its state since it was asked to."""
    return (
        told is not None
        and told.checkpoint is not None
        and told.checkpoint.time_us >= asked.sent_us
    )


def _end(draft: Draft, attempt: Attempt, reason: str) -> None:
    cause = Cause(kind=CauseKind.USER, message=f"preempted: {reason}")
    stopped = stop(draft, attempt, AttemptState.PREEMPTED, cause)
    finish(draft, replace(stopped, requeue=True))
