"""Events in sentences: every kind that the control plane writes has one."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.cli.eventwords import SENTENCES, sentence, where
from controlplane.cli.joblines import Shown
from controlplane.model.job import AttemptState
from controlplane.model.lease import LeasePhase
from controlplane.v1 import event_pb2, job_pb2
from tests.cli.fake_server import struct
from tests.cli.golden import check

if TYPE_CHECKING:
    from tests.cli.conftest import Ccctl
    from tests.cli.fake_server import World

ROOT = Path(__file__).parents[2] / "controlplane"
GROWING = {"attempt": AttemptState, "lease": LeasePhase}
"""Nouns of kinds that are made of a state, and whose states there are."""
ATTEMPT = "jobs/7/tasks/3/attempts/2"
DAY_US = 24 * 3600 * 1_000_000

SAMPLES: list[tuple[str, str, dict[str, Any]]] = [
    ("job.submitted", "jobs/7", {"name": "bert", "spec_sha256": "ab", "state": "pending"}),
    ("job.submitted", "jobs/7", {"name": "bert", "held_by": "ada"}),
    ("jobs.submitted", "jobs/7-9", {"jobs": 3}),
    ("job.cancelled", "jobs/7", {"state": "active", "cancelled_by": ["", "ada"]}),
    ("task.cancelled", "jobs/7/tasks/3", {"state": "pending"}),
    ("job.held", "jobs/7", {"held_by": ["", "ada"]}),
    ("job.released", "jobs/7", {"held_by": ["olga", ""]}),
    ("job.released", "jobs/7", {"held_by": "olga"}),
    ("task.preempted", "jobs/7/tasks/3", {"attempt": 2, "reason": "makes room for job 12"}),
    ("job.promised", "jobs/7", {"start_us": 1772362800000000}),
    (
        "job.promise_broken",
        "jobs/7",
        {"promised_us": 1772362800000000, "start_us": 1772362980000000},
    ),
    ("task.requeued", "jobs/7/tasks/3", {"attempt": 2, "state": "running"}),
    ("job.changed", "jobs/7", {"time_limit_us": [3600e6, 7200e6]}),
    ("job.changed", "jobs/7", {"account": ["default", "vision"]}),
    (
        "job.changed",
        "jobs/7",
        {
            "time_limit_us": [None, 1_500_000],
            "priority": [1000, 2000],
            "priority_class": ["", "high"],
        },
    ),
    ("dependency.met", "jobs/7", {"dependency": "afterok:3", "state": "succeeded"}),
    ("dependency.failed", "jobs/7/tasks/3", {"dependency": "aftercorr:3", "state": "failed"}),
    ("job.signalled", "jobs/7", {"attempt": 2, "signal": "SIGUSR1"}),
    ("job.signalled", "jobs/7", {"attempt": 2, "signal": "SIGUSR1", "ranks": [0, 3]}),
    ("signal.delivered", ATTEMPT, {"signals": ["SIGUSR1", "SIGHUP"], "node": "n2"}),
    ("attempt.placed", ATTEMPT, {"state": "staging", "nodes": ["n1", "n2"]}),
    ("attempt.staging", ATTEMPT, {}),
    ("attempt.starting", ATTEMPT, {"state": "starting"}),
    ("attempt.running", ATTEMPT, {"state": "running"}),
    ("attempt.stopping", ATTEMPT, {"cause": "cancelled by ada"}),
    ("attempt.warned", ATTEMPT, {"signal": "SIGUSR2", "node": "n1"}),
    ("attempt.output_missing", ATTEMPT, {"node": "n2", "fault": "the disk is full"}),
    ("attempt.stuck", ATTEMPT, {"node": "n2", "message": "process 4711 does not end"}),
    ("attempt.cut_off", ATTEMPT, {"node": "n2"}),
    ("attempt.heard_again", ATTEMPT, {"node": "n2"}),
    ("attempt.succeeded", ATTEMPT, {"job_state": "succeeded"}),
    (
        "attempt.failed",
        ATTEMPT,
        {
            "job_state": "pending",
            "cause": "rank 3 on n2 exited with code 1",
            "waits_us": 2_000_000,
        },
    ),
    (
        "attempt.failed",
        ATTEMPT,
        {"job_state": "failed", "cause": "rank 3 on n2 exited with code 1"},
    ),
    ("attempt.cancelled", ATTEMPT, {"cause": "requeued by olga", "waits_us": 0}),
    ("attempt.preempted", ATTEMPT, {"waits_us": 0}),
    ("attempt.timed_out", ATTEMPT, {"job_state": "failed", "cause": "the time limit was reached"}),
    ("attempt.node_lost", ATTEMPT, {"cause": "n2 was silent past its lease", "waits_us": 1e6}),
    ("attempt.launch_failed", ATTEMPT, {"cause": "could not be started on n2: no such file"}),
    ("lease.staging", ATTEMPT, {"lease_id": 5, "node": "n2"}),
    ("lease.starting", ATTEMPT, {"lease_id": 5, "node": "n2"}),
    ("lease.running", ATTEMPT, {"lease_id": 5, "node": "n2"}),
    ("lease.stopping", ATTEMPT, {"lease_id": 5, "node": "n2"}),
    ("lease.ended", ATTEMPT, {"lease_id": 5}),
    (
        "step.started",
        "jobs/7",
        {"attempt": 2, "rank": 0, "node": "n1", "program": "top", "task": 3},
    ),
    (
        "step.started",
        "jobs/7",
        {"attempt": 2, "rank": 0, "node": "n1", "program": "sh", "terminal": True, "detach": True},
    ),
    ("step.ended", "jobs/7", {"step": 12, "exit_code": 7}),
    ("step.ended", "jobs/7", {"step": 12, "signal": 9, "message": "its lease has ended"}),
    ("node.joined", "nodes/u", {"display_name": "n1", "enrolled_by": "nodes/u"}),
    (
        "node.changed",
        "nodes/u",
        {
            "boot_id": ["a", "b"],
            "silent_since": [5, None],
            "enrolled_by": ["", "nodes/u"],
            "facts": {"memory_bytes": [1, 2], "devices": [["GPU-0"], []], "trouble": ["", "full"]},
        },
    ),
    ("node.changed", "nodes/u", {"facts": ["cpus", "devices"]}),
    ("node.silent", "nodes/u", {"silent_since": [None, 5]}),
    ("node.suspected", "nodes/u", {"failures": 2, "job_id": 7}),
    ("node.cleared", "nodes/u", {"job_id": 7}),
    ("node.drained", "nodes/u", {"reason": [None, "fan is loud"]}),
    ("node.drained", "nodes/u", {"reason": ["fan is loud", "no power"]}),
    ("node.drained", "nodes/u", {"reason": "as an earlier release wrote it"}),
    ("node.undrained", "nodes/u", {"reason": ["fan is loud", None]}),
    ("node.released", "nodes/u", {"enrolled_by": ["an-agent", ""]}),
    ("node.admitted", "nodes/u", {"join_token": "3f2a", "generation": [None, 1]}),
    ("node.renewed", "nodes/u", {"generation": 1}),
    ("node.revoked", "nodes/u", {"generation": [1, 2], "join_tokens": ["3f2a", "77ab"]}),
    ("node.labelled", "nodes/u", {"labels": [{"rack": "r1", "old": ""}, {"rack": "r2"}]}),
    ("priority_class.created", "priorityClasses/high", {"value": 10000, "preemption": "lower"}),
    ("priority_class.deleted", "priorityClasses/high", {"value": 10000}),
    ("queue.created", "queues/night", {"max_limit_us": 7200e6, "users": ["ada"], "priority": 0}),
    (
        "queue.changed",
        "queues/night",
        {"max_limit_us": [7200e6, None], "users": [["ada"], []], "closed": ["", "dust"]},
    ),
    ("queue.changed", "queues/night", {"closed": ["dust", ""]}),
    ("queue.deleted", "queues/night", {}),
    (
        "reservation.created",
        "reservations/demo",
        {"begin_us": DAY_US, "end_us": 2 * DAY_US, "node_uuids": ["u"], "users": ["ada"]},
    ),
    ("reservation.deleted", "reservations/demo", {"end_us": DAY_US}),
    ("reservation.ended", "reservations/demo", {"end_us": DAY_US}),
    ("user.created", "users/eve", {"role": "user"}),
    ("user.changed", "users/eve", {"role": ["user", "operator"], "barred": [False, True]}),
    ("user.changed", "users/eve", {"barred": [True, False]}),
    (
        "account.created",
        "accounts/vision",
        {"parent": ["", "science"], "shares": [1, 2], "quota.gpus": [None, 64]},
    ),
    ("account.created", "accounts/speech", {}),
    (
        "account.changed",
        "accounts/vision",
        {"open": [False, True], "quota.gpus": [64, None], "quota.borrow_gpus": [0, None]},
    ),
    ("account.changed", "accounts/vision", {"members_may": ["own", "see"], "qos": [0, 9]}),
    ("account.deleted", "accounts/vision", {"members": ["ada", "bob"]}),
    ("account.deleted", "accounts/speech", {}),
    ("account.member_added", "accounts/vision/members/ada", {"default": [False, True]}),
    ("account.member_changed", "accounts/vision/members/ada", {"shares": [1, 3]}),
    ("account.member_removed", "accounts/vision/members/ada", {}),
    (
        "file_token.found",
        "fileTokens/3f2a",
        {"principal": "eve", "role": "admin", "made_by": "root"},
    ),
    ("file_token.found", "fileTokens/3f2a", {"principal": "eve", "role": "admin"}),
    ("file_token.gone", "fileTokens/3f2a", {"principal": "eve", "role": "admin"}),
    ("token.created", "tokens/3f2a", {"user": "eve", "label": "laptop", "expires_us": DAY_US}),
    ("token.created", "tokens/3f2a", {"user": "eve", "label": "", "expires_us": None}),
    ("token.revoked", "tokens/3f2a", {"user": "eve"}),
    ("join_token.created", "joinTokens/3f2a", {"node": "nodes/u", "expires_us": DAY_US}),
    ("join_token.revoked", "joinTokens/3f2a", {}),
    ("blob.uploaded", "blobs/abab", {"size_bytes": 1 << 20}),
    (
        "access.denied",
        "principals/bob",
        {"rpc": "JobService/GetJob", "role": "user", "object": "jobs/2", "passed_over": 3},
    ),
    ("records.removed", "records", {"jobs": 2, "jobs_before_us": DAY_US, "usages": 1}),
    ("queue.opened", "queues/night", {"gpus": [1, 2], "by_hand": True}),
]
BY_ITSELF = (
    "attempt.",
    "lease.",
    "node.s",
    "node.cl",
    "records.",
    "signal.",
    "step.e",
    "depend",
    "reservation.e",
)


def event(kind: str, resource: str, changed: dict[str, Any]) -> event_pb2.Event:
    itself = kind.startswith(BY_ITSELF)
    return event_pb2.Event(
        seq=1,
        kind=kind,
        principal="control-plane" if itself else "ada",
        peer="" if itself else "ipv4:10.0.0.7:4711",
        resource=resource,
        changed=struct(changed),
    )


def emitted() -> set[str]:
    """Every kind that the code writes."""
    kinds = set()
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "emit"
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "draft"
            ):
                kinds |= kinds_of(node.args[0])
    return kinds


def kinds_of(argument: ast.expr) -> set[str]:
    if isinstance(argument, ast.JoinedStr):
        noun, _ = argument.values
        assert isinstance(noun, ast.Constant)
        states = GROWING[str(noun.value).removesuffix(".")]
        return {str(noun.value) + state.value for state in states}
    assert isinstance(argument, ast.Constant), "a kind must be readable in the code"
    return {str(argument.value)}


def test_every_kind_that_the_code_writes_has_a_sentence_and_a_sample() -> None:
    kinds = emitted()
    assert len(kinds) > 40
    assert SENTENCES.keys() == kinds
    assert kinds == {kind for kind, _, _ in SAMPLES} - {"queue.opened"}


def test_every_sentence() -> None:
    lines = []
    for kind, resource, changed in SAMPLES:
        found = event(kind, resource, changed)
        alone, of_array = sentence(found), sentence(found, array=True)
        assert of_array.endswith(alone)
        lines.append(f"{kind:<24}{of_array}")
    check("sentences.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", sorted(SENTENCES))
def test_a_sentence_bears_that_nothing_is_known(kind: str) -> None:
    """Events of earlier releases told less."""
    for changed in ({}, dict.fromkeys(("reason", "generation", "held_by", "role", "facts"), "x")):
        assert sentence(event(kind, "jobs/7", changed))


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        ("ipv4:10.0.0.7:4711", " from 10.0.0.7"),
        ("ipv6:%5B2001:db8::1%5D:4711", " from 2001:db8::1"),
        ("ipv6:[::1]:4711", " from ::1"),
        ("unix:", " from the control plane's host"),
        ("127.0.0.1", " from 127.0.0.1"),
        ("", ""),
    ],
)
def test_addresses_are_told_without_ports(peer: str, words: str) -> None:
    assert where(peer) == words


def test_events_are_lines_or_json_lines(ccctl: Ccctl, served: World) -> None:
    told = ccctl("events", "--kind", "access", "--kind", "job.signalled")
    assert told.code == 0, told.err
    assert told.out.splitlines() == [
        "2026-03-01 11:30:00  jobs/2: bob sent SIGHUP from 127.0.0.1 to rank 0, 1 of attempt 1",
        "2026-03-01 11:00:00  principals/bob: bob was denied JobService/GetJob for jobs/2 from"
        " 127.0.0.1, with the role user; 3 more times since the last that was written down",
    ]
    lines = ccctl("events", "2", "-o", "json").out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [4, 5, 6, 7]
    (kept,) = ccctl("events", "nodes/gpu-1").out.splitlines() or ["nothing"]
    assert kept == "nothing"
    assert ccctl("events", "nodes/nowhere").code == 3


def test_a_watched_list_takes_no_limit(ccctl: Ccctl, served: World) -> None:
    for more in (("--limit", "5"), ("--all",)):
        told = ccctl("list", "--watch", *more)
        assert told.code == 2
        assert "--watch tells all that match" in told.err


def test_a_job_that_leaves_the_states_asked_for_is_told_once_more() -> None:
    def job(number: int, state: str) -> job_pb2.Job:
        return job_pb2.Job(job_id=number, state=job_pb2.JobState.Value(f"JOB_STATE_{state}"))

    shown = Shown(("active",))
    story = [(1, "ACTIVE"), (2, "PENDING"), (1, "FAILED"), (1, "FAILED"), (2, "ACTIVE")]
    assert [shown.takes(job(*each)) for each in story] == [True, False, True, False, True]
    assert Shown(()).takes(job(3, "PENDING"))
