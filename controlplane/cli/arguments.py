"""Kinds of arguments that several commands take, and the filter that they make together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from controlplane.v1.job_service_pb2 import JobFilter

LIVING_STATES: Final = ("pending", "active")
"""States of jobs that have not ended."""
FINAL_STATES: Final = ("succeeded", "failed", "cancelled")
"""States of jobs that have ended. Words of their own, because the model takes longer to import."""

F = TypeVar("F", bound=Callable[..., Any])


def job_name(value: str) -> str:
    """Read a job's number or name, and give `jobs/123`; of a task `jobs/123/tasks/4`."""
    number, mark, task = value.removeprefix("jobs/").replace("/tasks/", "_").partition("_")
    if not _number(number) or (mark and not _number(task)):
        raise click.BadParameter(
            f"{value!r} is no job; write its number, such as 123 or jobs/123, or 123_4 for a task."
        )
    return f"jobs/{int(number)}" + (f"/tasks/{int(task)}" if mark else "")


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def time_limit(value: str) -> int:
    """Read a time limit, and give it in microseconds; 0 for `none`."""
    from controlplane.model.quantity import parse_duration

    if value == "none":
        return 0
    try:
        return parse_duration(f"{value}s" if value.isdecimal() else value)
    except ValueError as problem:
        raise click.BadParameter(f"{value!r} {problem}; or none.") from None


def signal_name(value: str) -> str:
    """Read a signal's name, in letters of any case, and give it without `SIG`."""
    from controlplane.model.signals import parse_signal

    try:
        return parse_signal(value.upper())
    except ValueError as problem:
        words = f"{value!r}: {problem}"
        raise click.BadParameter(words if words.endswith("?") else f"{words}.") from None


def node_name(value: str) -> str:
    """Read a node's name or UUID, and give `nodes/…`."""
    name = value.removeprefix("nodes/")
    if not name or "/" in name:
        raise click.BadParameter(f"{value!r} is no node; `ccctl node list` shows their names.")
    return f"nodes/{name}"


def moment(value: str) -> int:
    """Read how long ago something was, or a date; give microseconds since 1970 in UTC."""
    from controlplane.kit.clock import SystemClock
    from controlplane.model.quantity import parse_duration

    try:
        return SystemClock().now_us() - parse_duration(value)
    except ValueError:
        pass
    try:
        return int(datetime.fromisoformat(value).astimezone().timestamp() * 1_000_000)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{value!r} is no time; write how long ago, such as 2h or 1d12h, or a date such as "
            "2026-03-01 or 2026-03-01T14:00."
        ) from None


def byte_size(value: str) -> int:
    """Read an amount of bytes, at least one."""
    from controlplane.model.quantity import parse_memory

    try:
        count = int(value) if value.isascii() and value.isdigit() else parse_memory(value)
    except ValueError:
        count = 0
    if not 0 < count < 2**62:
        raise click.BadParameter(
            f"{value!r} is no size; write e.g. 4KiB, 1MB or a number of bytes."
        )
    return count


def label(value: str) -> tuple[str, str]:
    """Read a label and its value."""
    key, equals, text = value.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{value!r} is no label; write KEY=VALUE.")
    return key, text


def variable(value: str) -> tuple[str, str]:
    """Read a variable of a program's environment and its value."""
    name, equals, text = value.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{value!r} is no variable; write NAME=VALUE.")
    return name, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which jobs somebody wants, as the options say it."""

    state: tuple[str, ...] = ()
    """States, any of them."""
    owner: str = ""
    """Owner."""
    account: str = ""
    """Account."""
    name: str = ""
    """Pattern of display names."""
    label: tuple[tuple[str, str], ...] = ()
    """Labels."""
    since: int | None = None
    """Submitted at or after, UTC in microseconds."""
    until: int | None = None
    """Submitted before, UTC in microseconds."""

    @property
    def everything(self) -> bool:
        """Whether nothing is filtered."""
        return self == Wanted()

    def filter(self) -> JobFilter:
        """Give it as the server understands it."""
        from controlplane.v1 import job_pb2, job_service_pb2

        result = job_service_pb2.JobFilter(
            states=[job_pb2.JobState.Value(f"JOB_STATE_{state.upper()}") for state in self.state],
            owner=self.owner,
            account=self.account,
            display_name=self.name,
            labels=dict(self.label),
        )
        if self.since is not None:
            result.created_after.FromMicroseconds(self.since)
        if self.until is not None:
            result.created_before.FromMicroseconds(self.until)
        return result


def filter_options(command: F) -> F:
    """Give a command the options of a filter; its function takes them as keyword arguments."""
    options = (
        click.option(
            "--state",
            multiple=True,
            type=click.Choice(LIVING_STATES + FINAL_STATES, case_sensitive=False),
            help="Jobs in this state. Several: in any of them.",
        ),
        click.option("--owner", default="", metavar="NAME", help="Jobs of this owner."),
        click.option("--account", default="", metavar="NAME", help="Jobs that this account pays."),
        click.option(
            "--name", default="", metavar="PATTERN", help="Jobs of this name; * and ? are wild."
        ),
        click.option(
            "--label",
            multiple=True,
            type=label,
            metavar="KEY=VALUE",
            help="Jobs with this label. Several: with all of them.",
        ),
        click.option(
            "--since",
            type=moment,
            metavar="TIME",
            help="Jobs submitted since: 2h, 1d12h, or a date.",
        ),
        click.option(
            "--until", type=moment, metavar="TIME", help="Jobs submitted before that time."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
