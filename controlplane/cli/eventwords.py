"""What happened, in sentences: one table, from the kind of an event to its words.

Each sentence follows on the event's time: with the principal in front where somebody asked for it
(`ada submitted it from 10.0.0.7`), without where the control plane did it by itself or a node
reported it (`placed on n1, n2 as attempt 1`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from controlplane.cli import accountwords, text
from controlplane.cli.render import struct
from controlplane.model.quantity import format_duration
from controlplane.model.words import count

if TYPE_CHECKING:
    from controlplane.v1.event_pb2 import Event

Changed = Mapping[str, Any]
_PLACE: Final = re.compile(r"jobs/\d+/tasks/(\d+)(?:/attempts/(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An event, as sentences need it."""

    changed: Changed
    """What it tells."""
    who: str
    """The principal."""
    where: str
    """` from 10.0.0.7`, or empty."""
    attempt: str
    """`attempt 2`, where it is of one."""

    def by(self, words: str, more: str = "") -> str:
        """What somebody did, from where, and more of it."""
        return f"{self.who or 'somebody without a token'} {words}{self.where}{more}"

    def pair(self, name: str) -> tuple[Any, Any]:
        """A field before and after; of what an earlier release wrote, the value after alone."""
        value = self.changed.get(name)
        return tuple(value) if isinstance(value, list) and len(value) == 2 else (None, value)

    def get(self, name: str, default: Any = "") -> Any:
        """A field."""
        return self.changed.get(name, default)


Sentence = Callable[[Told], str]


def _submitted(told: Told) -> str:
    return told.by("submitted it", ", held" if told.get("held_by") else "")


def _submitted_many(told: Told) -> str:
    held = ", held" if told.get("held_by") else ""
    return told.by("submitted it", f"{held}, one of {told.get('jobs')} jobs together")


def _changed_job(told: Told) -> str:
    words = []
    if "time_limit_us" in told.changed:
        before, after = (_limit(us) for us in told.pair("time_limit_us"))
        words.append(f"its time limit from {before} to {after}")
    if "priority_class" in told.changed:
        before, after = told.pair("priority_class")
        words.append(f"its priority class from {before or 'that of its file'} to {after}")
    if "priority" in told.changed:
        before, after = told.pair("priority")
        words.append(f"its priority from {before} to {after}")
    if "account" in told.changed:
        before, after = told.pair("account")
        words.append(f"the account that pays from {before} to {after}")
    return told.by("changed it", f": {', '.join(words)}" if words else "")


def _met(told: Told) -> str:
    return f"what it waits for has come: {told.get('dependency')} ({told.get('state')})"


def _unmet(told: Told) -> str:
    words = f"{told.get('dependency')} can never come ({told.get('state')})"
    return f"it can never run: {words}"


def _limit(us: Any) -> str:
    if us is None:
        return "none"
    return text.duration(int(us)) if us % 1_000_000 else format_duration(int(us))


def _placed(told: Told) -> str:
    return f"placed on {_row(told.get('nodes', []))} as {told.attempt or 'an attempt'}"


def _ended(word: str) -> Sentence:
    def sentence(told: Told) -> str:
        cause = told.get("cause")
        words = f"{told.attempt} {word}" + (f": {cause}" if cause else "")
        waits_us = told.changed.get("waits_us")
        if waits_us is None:
            return words + (
                "; there is no further one" if told.get("job_state") == "failed" else ""
            )
        if not waits_us:
            return f"{words}; it may start again at once"
        return f"{words}; it waits {waits_us / 1_000_000:g} s before the next one may start"

    return sentence


def _stopping(told: Told) -> str:
    cause = told.get("cause")
    return f"{told.attempt} is being ended" + (f": {cause}" if cause else "")


def _phase(words: str) -> Sentence:
    def sentence(told: Told) -> str:
        node = told.get("node")
        return f"{told.attempt}{f' on {node}' if node else ''}: {words}"

    return sentence


def _signalled(told: Told) -> str:
    ranks = told.get("ranks", [])
    whom = f"rank {_row(ranks)}" if ranks else "all ranks"
    return told.by(f"sent {told.get('signal')}", f" to {whom} of attempt {told.get('attempt')}")


def _warned(told: Told) -> str:
    return (
        f"{told.attempt} was warned of its time limit by {told.get('signal', 'a signal')} on"
        f" {told.get('node')}"
    )


def _step_started(told: Told) -> str:
    how = [word for word in ("terminal", "detach") if told.get(word)]
    words = {"terminal": "with a terminal", "detach": "detached"}
    more = "".join(f", {words[word]}" for word in how)
    return told.by(
        f"started {told.get('program')} in it",
        f", beside rank {told.get('rank')} of attempt {told.get('attempt')} on"
        f" {told.get('node')}{more}",
    )


def _step_ended(told: Told) -> str:
    words = f"step {told.get('step')} ended"
    if told.changed.get("signal"):
        words += f" by signal {told.get('signal')}"
    elif told.changed.get("exit_code") is not None:
        words += f" with code {told.get('exit_code')}"
    return words + (f": {told.get('message')}" if told.get("message") else "")


def _changed_node(told: Told) -> str:
    words = []
    if "silent_since" in told.changed:
        words.append("was heard again")
    if "boot_id" in told.changed:
        words.append("was rebooted")
    if "enrolled_by" in told.changed:
        words.append(f"was enrolled by {told.pair('enrolled_by')[1]}")
    facts = told.get("facts", {})
    if isinstance(facts, Mapping):
        words += [
            f"{_name(n)} changed from {_value(a)} to {_value(b)}" for n, (a, b) in facts.items()
        ]
    elif facts:
        words.append(f"{_row(map(_name, facts))} changed")
    return "the node " + "; ".join(words) if words else "the node changed"


def _drained(told: Told) -> str:
    before, after = told.pair("reason")
    instead = f" (before: {before})" if before else ""
    return told.by("drained it", f": {after}{instead}")


def _undrained(told: Told) -> str:
    before, _ = told.pair("reason")
    more = f"; it had been drained: {before}" if before else ""
    return told.by("took it back into service", more)


def _released_node(told: Told) -> str:
    before, _ = told.pair("enrolled_by")
    more = f"; {before} had enrolled it" if before else ""
    return told.by("released it for another agent", more)


def _revoked_node(told: Told) -> str:
    tokens = told.get("join_tokens", [])
    more = f", with the join tokens {_row(tokens)}" if tokens else ""
    return told.by("made its certificates void", more)


def _admitted(told: Told) -> str:
    return f"joined{told.where} with the join token {told.get('join_token')}"


def _labelled(told: Told) -> str:
    before, after = ({} if each is None else each for each in told.pair("labels"))
    given = [f"{key}={value}" for key, value in after.items() if before.get(key) != value]
    taken = [key for key in before if key not in after]
    words = [f"gave it the labels {_row(given)}"] if given else []
    words += [f"took the labels {_row(taken)} away"] if taken else []
    return told.by("labelled it", f": {' and '.join(words)}" if words else "")


def _made(noun: str) -> Sentence:
    def sentence(told: Told) -> str:
        return told.by(f"made the {noun}", f": {_facts(told)}" if told.changed else "")

    return sentence


def _facts(told: Told) -> str:
    return "; ".join(f"{_name(n)} {_amount(n, v)}" for n, v in sorted(told.changed.items()))


def _amount(name: str, value: Any) -> str:
    if value is not None and name.endswith("limit_us"):
        return _limit(value)
    return text.local_time(int(value)) if value and name.endswith("_us") else _value(value)


def _changed_queue(told: Told) -> str:
    words = [
        f"{_name(n)} from {_amount(n, told.pair(n)[0])} to {_amount(n, told.pair(n)[1])}"
        for n in sorted(told.changed)
        if n != "closed"
    ]
    if "closed" in told.changed:
        why = told.pair("closed")[1]
        words.append(f"closed: {why}" if why else "open again")
    return told.by("changed the queue", f": {', '.join(words)}" if words else "")


def _changed_user(told: Told) -> str:
    words = []
    if "role" in told.changed:
        before, after = told.pair("role")
        words.append(f"the role from {before} to {after}" if before else f"the role to {after}")
    if "barred" in told.changed:
        words.append("now barred" if told.pair("barred")[1] else "no longer barred")
    return told.by("changed the user", f": {', '.join(words)}" if words else "")


def _created_token(told: Told) -> str:
    label = f" ({told.get('label')})" if told.get("label") else ""
    return told.by(f"made a token for {told.get('user')}{label}", _until(told))


def _created_join_token(told: Told) -> str:
    node = f" for {told.get('node')}" if told.get("node") else ""
    return told.by(f"made a join token{node}", _until(told))


def _found_file_token(told: Told) -> str:
    maker = f"; {told.get('made_by')} made it there" if told.get("made_by") else ""
    role = f"{told.get('principal')} with the role {told.get('role')}"
    return f"a token for {role} is in the tokens' file of the control plane's host{maker}"


def _gone_file_token(told: Told) -> str:
    role = f"{told.get('principal')} with the role {told.get('role')}"
    return f"the token for {role} is gone from the tokens' file of the control plane's host"


def _until(told: Told) -> str:
    us = told.changed.get("expires_us")
    return f", good until {text.local_time(int(us))}" if us else ""


def _denied(told: Told) -> str:
    what = f" for {told.get('object')}" if told.get("object") else ""
    role = f", with the role {told.get('role')}" if told.get("role") else ""
    passed = told.get("passed_over", 0)
    more = f"; {passed} more times since the last that was written down" if passed else ""
    return told.by(f"was denied {told.get('rpc')}{what}", role + more)


def _removed(told: Told) -> str:
    kinds = ("jobs", "outputs", "usages", "events", "blobs")
    parts = []
    for kind in kinds:
        if told.get(kind, 0):
            before = text.local_time(int(told.get(f"{kind}_before_us", 0)))
            noun = {"outputs": "output", "usages": "usage record"}.get(kind, kind[:-1])
            parts.append(f"{count(told.get(kind), noun)} from before {before}")
    return f"removed what is kept no longer: {', '.join(parts)}"


def _by(words: str) -> Sentence:
    return lambda told: told.by(words)


SENTENCES: Final[Mapping[str, Sentence]] = {
    "job.submitted": _submitted,
    "jobs.submitted": _submitted_many,
    "job.cancelled": _by("cancelled it"),
    "task.cancelled": _by("cancelled it"),
    "job.held": _by("held it"),
    "job.released": lambda told: told.by(
        "released it", f"; {told.pair('held_by')[0] or told.get('held_by')} had held it"
    ),
    "task.requeued": lambda told: told.by(
        "requeued it", f" while attempt {told.get('attempt')} ran" if told.get("attempt") else ""
    ),
    "job.changed": _changed_job,
    "job.promised": lambda told: (
        f"its start is promised by {text.local_time(int(told.get('start_us', 0)))}"
    ),
    "job.promise_broken": lambda told: (
        f"it started {text.duration(told.get('start_us', 0) - told.get('promised_us', 0))} later"
        " than was promised"
    ),
    "task.preempted": lambda told: (
        f"attempt {told.get('attempt')} is being ended, and will start again:"
        f" it {told.get('reason')}"
    ),
    "job.signalled": _signalled,
    "signal.delivered": lambda told: (
        f"{_row(told.get('signals', []))} was delivered on {told.get('node')} to {told.attempt}"
    ),
    "dependency.met": _met,
    "dependency.failed": _unmet,
    "attempt.placed": _placed,
    "attempt.staging": lambda told: f"{told.attempt} fetches what it needs",
    "attempt.starting": lambda told: f"{told.attempt} starts its workers",
    "attempt.running": lambda told: f"{told.attempt} runs: all its workers were started",
    "attempt.stopping": _stopping,
    "attempt.warned": _warned,
    "attempt.output_missing": lambda told: (
        f"of {told.attempt}, files of output are missing on {told.get('node')}: {told.get('fault')}"
    ),
    "attempt.stuck": lambda told: (
        f"{told.attempt} is being ended on {told.get('node')}: {told.get('message')}"
    ),
    "attempt.cut_off": lambda told: (
        f"{told.get('node')} is silent past its lease; the workers of"
        f" {told.attempt} may run on there, and are waited for"
    ),
    "attempt.heard_again": lambda told: (
        f"{told.get('node')}, where {told.attempt} runs, was heard again"
    ),
    "attempt.succeeded": _ended("succeeded"),
    "attempt.failed": _ended("failed"),
    "attempt.cancelled": _ended("ended"),
    "attempt.preempted": _ended("made room for another job"),
    "attempt.timed_out": _ended("ran out of time"),
    "attempt.node_lost": _ended("was lost"),
    "attempt.launch_failed": _ended("did not start"),
    "lease.staging": _phase("fetches what it needs"),
    "lease.starting": _phase("starts its workers"),
    "lease.running": _phase("its workers run"),
    "lease.stopping": _phase("its workers are being ended"),
    "lease.ended": _phase("all that ran there has ended"),
    "step.started": _step_started,
    "step.ended": _step_ended,
    "node.joined": lambda told: (
        f"{told.get('enrolled_by')} enrolled the node {told.get('display_name')}{told.where}"
    ),
    "node.changed": _changed_node,
    "node.silent": lambda told: "the node is silent past its lease",
    "node.suspected": lambda told: (
        f"suspected: {told.get('failures')} quick failures in a row, the"
        f" last of jobs/{told.get('job_id')}"
    ),
    "node.cleared": lambda told: f"cleared of suspicion by jobs/{told.get('job_id')}",
    "node.drained": _drained,
    "node.undrained": _undrained,
    "node.released": _released_node,
    "node.admitted": _admitted,
    "node.renewed": lambda told: f"was given another certificate{told.where}",
    "node.revoked": _revoked_node,
    "node.labelled": _labelled,
    "priority_class.created": _made("priority class"),
    "priority_class.deleted": _by("removed the priority class"),
    "queue.created": _made("queue"),
    "queue.changed": _changed_queue,
    "queue.deleted": _by("removed the queue"),
    "reservation.created": _made("reservation"),
    "reservation.deleted": _by("gave its nodes back"),
    "reservation.ended": lambda told: "the reservation is over",
    "user.created": lambda told: told.by(f"made the user, with the role {told.get('role')}"),
    "user.changed": _changed_user,
    "account.created": accountwords.created,
    "account.changed": accountwords.changed,
    "account.deleted": accountwords.deleted,
    "account.member_added": accountwords.member_added,
    "account.member_changed": accountwords.member_changed,
    "account.member_removed": accountwords.member_removed,
    "file_token.found": _found_file_token,
    "file_token.gone": _gone_file_token,
    "token.created": _created_token,
    "token.revoked": lambda told: told.by(f"revoked the token of {told.get('user')}"),
    "join_token.created": _created_join_token,
    "join_token.revoked": _by("revoked the join token"),
    "blob.uploaded": lambda told: told.by(f"uploaded {text.size(int(told.get('size_bytes', 0)))}"),
    "access.denied": _denied,
    "records.removed": _removed,
}
"""Kind of event → what it says. A test holds it to every kind that there is."""


def sentence(event: Event, *, array: bool = False) -> str:
    """Say what happened. `array`: the job has several tasks, so that it must be said which."""
    place = _PLACE.fullmatch(event.resource)
    changed = struct(event.changed)
    attempt = f"attempt {place[2]}" if place and place[2] else ""
    told = Told(changed=changed, who=event.principal, where=where(event.peer), attempt=attempt)
    say = SENTENCES.get(event.kind)
    words = say(told) if say is not None else _unknown(event, told)
    task = place[1] if place else changed.get("task") if event.kind == "step.started" else None
    return f"task {task}: {words}" if array and task is not None else words


def _unknown(event: Event, told: Told) -> str:
    """A kind of a later release."""
    what = event.kind.replace(".", " ").replace("_", " ")
    more = "; ".join(f"{name}: {_value(value)}" for name, value in told.changed.items())
    return told.by(f"({what})", f": {more}" if more else "")


def where(peer: str) -> str:
    """From where: ` from 10.0.0.7`, without the port, which tells nobody anything."""
    if not peer:
        return ""
    kind, _, rest = unquote(peer).partition(":")
    if kind == "unix":
        return " from the control plane's host"
    address = rest if kind in ("ipv4", "ipv6") else unquote(peer)
    bracketed = re.fullmatch(r"\[(.*)\]:\d+", address)
    plain = re.fullmatch(r"([^:]*):\d+", address)
    found = bracketed or plain
    return f" from {found[1] if found else address}"


def _name(name: str) -> str:
    return name.removesuffix("_us").replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, list):
        return _row(value) or "none"
    return "nothing" if value in (None, "") else str(value)


def _row(values: Any) -> str:
    return ", ".join(map(str, values))
