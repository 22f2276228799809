"""Signals and requeues in the registry: what is refused and why, what nodes are told and tell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.model.errors import (
    ControlPlaneError,
    InvalidRequest,
    NotFound,
    Overloaded,
    WrongState,
)
from controlplane.model.job import AttemptState, CauseKind, JobState
from controlplane.model.launch import LeaseSignal
from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus, WorkerState
from controlplane.registry import signals
from controlplane.registry.registry import Registry
from controlplane.registry.store import JobFilter
from controlplane.wire.jobs import attempt_message

if TYPE_CHECKING:
    from tests.support.world import World


def send(world: World, job_id: int, name: str = "USR1", *ranks: int) -> signals.Signalled:
    return world.do(lambda draft: signals.send(draft, job_id, name, ranks))


def running(world: World, **document: Any) -> tuple[int, dict[str, LeaseStatus]]:
    """A job of two workers on two nodes, all of which run; and what its nodes report."""
    world.join("a")
    world.join("b")
    job_id = world.submit(workers=2, workers_per_node=1, **document)
    world.tick()
    statuses = world.statuses(job_id)
    for uuid, status in statuses.items():
        world.report(uuid, status)
    return job_id, statuses


def ordered(world: World, uuid: str) -> list[tuple[int, str, tuple[int, ...]]]:
    (order,) = world.registry.desire(uuid).orders
    return [(s.number, s.signal, s.ranks) for s in order.signals]


def ended(status: LeaseStatus, **how: Any) -> LeaseStatus:
    workers = tuple(
        replace(w, state=WorkerState.ENDED, ended_us=(w.started_us or 0) + 5, **how)
        for w in status.workers
    )
    return replace(status, phase=LeasePhase.ENDED, workers=workers)


def kinds(world: World, job_id: int) -> list[str]:
    return [event.kind for event in world.store.events(f"jobs/{job_id}", after=0, limit=100)]


# --- signals --------------------------------------------------------------------------------------


def test_a_signal_is_ordered_from_every_node_until_that_reports_it(world: World) -> None:
    job_id, statuses = running(world)
    (a, of_a), (b, _) = statuses.items()
    before = {uuid: world.registry.generation(uuid) for uuid in statuses}

    done = send(world, job_id)

    assert (done.attempt, done.ranks) == (f"jobs/{job_id}/tasks/0/attempts/1", (0, 1))
    assert ordered(world, a) == ordered(world, b) == [(1, "USR1", ())]
    assert all(world.registry.generation(uuid) > n for uuid, n in before.items())
    world.report(a, of_a)  # it has not heard of it yet
    assert ordered(world, a) == [(1, "USR1", ())]
    world.report(a, replace(of_a, signals_done=1))
    assert (ordered(world, a), ordered(world, b)) == ([], [(1, "USR1", ())])
    assert kinds(world, job_id)[-2:] == ["job.signalled", "signal.delivered"]
    assert world.attempt(job_id).state is AttemptState.RUNNING


def test_what_was_sent_and_not_reported_survives_a_restart_and_no_number_is_used_twice(
    world: World,
) -> None:
    job_id, statuses = running(world)
    (a, of_a), (b, of_b) = statuses.items()
    send(world, job_id)
    world.report(a, replace(of_a, signals_done=1))

    world.registry = Registry(world.store, world.clock.now_us)

    assert (ordered(world, a), ordered(world, b)) == ([], [(1, "USR1", ())])
    world.report(b, replace(of_b, signals_done=1))
    send(world, job_id, "USR2")
    assert ordered(world, a) == ordered(world, b) == [(2, "USR2", ())]
    world.report(a, of_a)  # a report that was held up takes nothing back
    assert ordered(world, a) == [(2, "USR2", ())]


def test_only_nodes_of_the_ranks_that_were_named_are_told(world: World) -> None:
    job_id, statuses = running(world)
    (a, _), (b, of_b) = statuses.items()
    calm = world.registry.generation(a)

    assert send(world, job_id, "HUP", 1, 1).ranks == (1,)
    send(world, job_id, "USR1", 0, 1)

    assert ordered(world, a) == [(2, "USR1", (0,))]
    assert ordered(world, b) == [(1, "HUP", (1,)), (2, "USR1", (1,))]
    world.report(b, replace(of_b, signals_done=1))
    assert ordered(world, b) == [(2, "USR1", (1,))]
    assert world.registry.generation(a) > calm


def refused(world: World, job_id: int, *what: Any) -> str:
    before = world.registry.view(0).seq
    with pytest.raises(ControlPlaneError) as no:
        send(world, job_id, *what)
    assert world.registry.view(0).seq == before
    assert isinstance(no.value, WrongState | InvalidRequest | NotFound)
    return str(no.value)


def test_every_no_has_its_reason(world: World) -> None:
    assert refused(world, 7) == "jobs/7: there is no such job"
    waiting = world.submit(workers=1000)
    assert refused(world, waiting) == (
        "jobs/1 waits: it has no workers yet that could get a signal"
    )
    node = world.join("a")
    job_id = world.submit(workers=2)
    world.tick()
    assert refused(world, job_id).startswith(
        "jobs/2 is being started: its workers do not all run yet"
    )
    status = world.statuses(job_id)[node]
    first = replace(status.workers[0], state=WorkerState.ENDED, exit_code=0, ended_us=9)
    world.report(node, replace(status, workers=(first, status.workers[1])))
    assert refused(world, job_id, "USR1", 0) == (
        "rank 0 of jobs/2 has ended, and gets no signal any more"
    )
    assert "2: jobs/2 has no such rank; its ranks are 0 to 1" in refused(world, job_id, "USR1", 2)
    world.cancel(job_id)
    assert refused(world, job_id) == (
        "jobs/2 is being ended, and takes no more signals: cancelled by alice"
    )
    world.report(node, replace(world.ended(status, exit_code=143), end=LeaseEnd.ORDERED))
    assert refused(world, job_id) == "jobs/2 has ended: no worker of it is left to get a signal"


def test_mpirun_takes_only_what_it_hands_on_and_only_for_all(world: World) -> None:
    job_id, _ = running(world, launcher="mpi")

    assert "mpirun hands only USR1 and USR2 on" in refused(world, job_id, "HUP")
    assert "mpirun hands a signal on to all ranks; name none" in refused(world, job_id, "USR1", 0)
    assert send(world, job_id, "USR2").ranks == (0, 1)


def test_signals_that_no_node_takes_are_not_heaped_up(world: World) -> None:
    job_id, statuses = running(world)
    for _ in range(signals.MOST_WAITING):
        send(world, job_id)
    with pytest.raises(Overloaded, match="32 signals wait for its nodes to send them"):
        send(world, job_id)
    for uuid, status in statuses.items():
        world.report(uuid, replace(status, signals_done=signals.MOST_WAITING))
    send(world, job_id)
    kept = [s.number for s in world.attempt(job_id).signals]
    assert kept == list(range(25, 34))  # of those that were delivered the last ones


def test_nobody_waits_for_a_node_whose_workers_have_all_ended(world: World) -> None:
    job_id, statuses = running(world)
    (a, of_a), (b, of_b) = statuses.items()
    send(world, job_id)  # which the first node has not heard of when its worker ends
    world.report(a, ended(of_a, exit_code=0))

    for number in range(2, 2 * signals.MOST_WAITING):
        assert send(world, job_id).ranks == (1,)
        assert ordered(world, b)[-1] == (number, "USR1", (1,))
        world.report(b, replace(of_b, signals_done=number))
    assert ordered(world, b) == []
    assert len(world.attempt(job_id).signals) <= signals.KEPT + 1
    (record,) = world.store.jobs(JobFilter(), before=None, limit=1, full=True)
    shown = attempt_message(record.job, record.attempts[0], record.leases, None, None, {})
    assert all(sent.delivered for sent in shown.signals)


def test_what_never_reached_its_worker_is_shown_as_that(world: World) -> None:
    job_id, statuses = running(world)
    (a, of_a), (_, of_b) = statuses.items()
    send(world, job_id)
    world.report(a, ended(of_a, exit_code=0))
    world.report(next(reversed(statuses)), ended(replace(of_b, signals_done=1), exit_code=0))

    record = world.registry.job(job_id)
    shown = attempt_message(record.job, record.attempts[0], record.leases, None, None, {})
    assert [(sent.signal, sent.delivered) for sent in shown.signals] == [("SIGUSR1", False)]


def test_a_stop_takes_back_what_was_not_sent(world: World) -> None:
    job_id, statuses = running(world)
    send(world, job_id)
    world.cancel(job_id)

    for uuid in statuses:
        (order,) = world.registry.desire(uuid).orders
        assert (order.stop, order.signals) == (True, ())


def test_a_worker_that_a_signal_ended_is_told_with_who_sent_it(world: World) -> None:
    job_id, statuses = running(world)
    (a, of_a), _ = statuses.items()
    send(world, job_id, "USR1", 0)
    world.report(a, ended(replace(of_a, signals_done=1), signal=10))

    cause = world.attempt(job_id).cause
    assert cause is not None
    assert cause.message == (
        "rank 0 on a was ended by signal 10 (SIGUSR1), which alice had sent and it does not handle"
    )


# --- the warning ----------------------------------------------------------------------------------

WARNED = {"time_limit": "1m", "signal": "USR2@20s"}


def test_nodes_are_told_to_warn_and_the_first_warning_is_kept_with_one_event(world: World) -> None:
    node = world.join("a")
    job_id = world.submit(**WARNED)
    world.tick()
    (order,) = world.registry.desire(node).orders
    assert order.launch is not None
    assert (order.launch.warning_signal, order.launch.warning_before_us) == ("USR2", 20_000_000)
    status = replace(world.statuses(job_id)[node], warned_us=77)

    world.report(node, world.statuses(job_id)[node])
    world.report(node, status)
    world.report(node, replace(status, signals_done=0, message=""))

    assert world.attempt(job_id).warned_us == 77
    assert kinds(world, job_id).count("attempt.warned") == 1
    world.registry = Registry(world.store, world.clock.now_us)
    assert world.attempt(job_id).warned_us == 77


@pytest.mark.parametrize(
    ("end", "how", "words"),
    [
        (
            LeaseEnd.TIME_LIMIT,
            {"exit_code": 143},
            "the time limit was reached, 20 s after the warning by SIGUSR2",
        ),
        (
            LeaseEnd.NATURAL,
            {"signal": 12},
            "rank 0 on a was ended by signal 12 (SIGUSR2), the warning before its time limit,"
            " which it does not handle",
        ),
        (LeaseEnd.NATURAL, {"signal": 11}, "rank 0 on a was ended by signal 11 (SIGSEGV)"),
    ],
)
def test_each_end_after_a_warning_has_one_cause_in_words(
    world: World, end: LeaseEnd, how: dict[str, int], words: str
) -> None:
    node = world.join("a")
    job_id = world.submit(**WARNED)
    world.tick()
    status = world.statuses(job_id)[node]
    world.report(node, status)
    world.report(node, replace(ended(replace(status, warned_us=77), **how), end=end))

    cause = world.attempt(job_id).cause
    assert cause is not None
    assert cause.message == words
    assert world.job(job_id).state is JobState.FAILED


# --- requeues -------------------------------------------------------------------------------------


def test_a_job_that_asks_for_it_is_started_again_at_once_and_as_often_as_it_likes(
    world: World,
) -> None:
    node = world.join("a")
    job_id = world.submit(requeue_exit_codes=[75], max_attempts=1)
    for number in range(1, 6):
        assert world.tick().placed == 1
        status = world.statuses(job_id)[node]
        world.report(node, status)
        world.report(node, ended(status, exit_code=75))
        assert world.attempt(job_id).number == number
    job = world.job(job_id)
    assert job.state is JobState.PENDING
    assert job.reason == (
        "attempt 5 ended: rank 0 on a exited with code 75, by which it asks to be started again; "
        "the next one may start at once"
    )
    world.registry = Registry(world.store, world.clock.now_us)
    assert world.registry.job(job_id).tasks[0].quick_requeues == 5
    assert world.registry.job(job_id).tasks[0].application_faults == 0
    assert world.tick().placed == 1
    status = world.statuses(job_id)[node]
    world.report(node, status)
    world.report(node, ended(status, exit_code=1))
    assert world.job(job_id).state is JobState.FAILED


def test_the_others_of_a_gang_that_asks_get_their_whole_grace(world: World) -> None:
    job_id, statuses = running(world, requeue_exit_codes=[75], grace_period="50s")
    (a, of_a), (b, of_b) = statuses.items()

    world.report(a, ended(of_a, exit_code=75))

    attempt = world.attempt(job_id)
    assert attempt.state is AttemptState.STOPPING
    assert attempt.cause is not None
    assert attempt.cause.kind is CauseKind.APPLICATION
    (order,) = world.registry.desire(b).orders
    assert (order.stop, order.grace_period_us) == (True, 50_000_000)
    world.report(b, ended(of_b, exit_code=143))  # the first that failed counts
    assert world.job(job_id).state is JobState.PENDING


def test_a_cancel_and_a_time_limit_are_stronger_than_the_wish_to_be_started_again(
    world: World,
) -> None:
    node = world.join("a")
    limited = world.submit(requeue_exit_codes=[75], time_limit="1m")
    world.tick()
    status = world.statuses(limited)[node]
    world.report(node, status)
    world.report(node, replace(ended(status, exit_code=75), end=LeaseEnd.TIME_LIMIT))
    assert world.attempt(limited).state is AttemptState.TIMED_OUT
    assert world.job(limited).state is JobState.FAILED
    cancelled = world.submit(requeue_exit_codes=[75])
    world.tick()
    status = world.statuses(cancelled)[node]
    world.report(node, status)
    world.cancel(cancelled)
    world.report(node, replace(ended(status, exit_code=75), end=LeaseEnd.ORDERED))
    assert world.job(cancelled).state is JobState.CANCELLED


def test_a_signal_travels_as_it_was_ordered(world: World) -> None:
    from controlplane.wire.agents import order_message, order_value, status_message, status_value

    job_id, statuses = running(world, requeue_exit_codes=[75], **WARNED)
    send(world, job_id, "USR1", 1)
    (_, of_b) = statuses.values()
    (order,) = world.registry.desire(next(reversed(statuses))).orders
    assert order.signals == (LeaseSignal(number=1, signal="USR1", ranks=(1,)),)
    assert order_value(order_message(order)) == order
    told = replace(of_b, signals_done=3, warned_us=77)
    assert status_value(status_message(told)) == told
