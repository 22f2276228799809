"""The commands that hold jobs back, let them go, start them again and change them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.app import App, Command, pass_app
from controlplane.cli.arguments import FINAL_STATES, LIVING_STATES, job_name, time_limit

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command(
    cls=Command,
    examples="""
    ccctl hold 123 124
    """,
)
@click.argument("jobs", nargs=-1, required=True, type=job_name)
@pass_app
def hold(app: App, jobs: tuple[str, ...]) -> None:
    """Start nothing more of JOBS until they are released.

    What runs of them runs on.
    """
    with app.client() as client:
        names = client.hold_jobs(jobs)
    _tell(app, "names", names, "is held.")


@click.command(
    cls=Command,
    examples="""
    ccctl release 123 124
    """,
)
@click.argument("jobs", nargs=-1, required=True, type=job_name)
@pass_app
def release(app: App, jobs: tuple[str, ...]) -> None:
    """Let JOBS that are held go on.

    What an operator holds, an operator alone releases.
    """
    with app.client() as client:
        names = client.release_jobs(jobs)
    _tell(app, "names", names, "is not held.")


@click.command(
    cls=Command,
    examples="""
    ccctl requeue 123                           end it, and start it again
    ccctl requeue 123_4                         only that task of the array
    """,
)
@click.argument("jobs", nargs=-1, required=True, type=job_name)
@pass_app
def requeue(app: App, jobs: tuple[str, ...]) -> None:
    """End what runs of JOBS, and have it started again.

    Workers get SIGTERM, and SIGKILL after their grace period. The next attempt counts against
    nothing. A job that has ended must be submitted again.
    """
    with app.client() as client:
        tasks = client.requeue(jobs)
    _tell(app, "tasks", tasks, "is started again.")


def _tell(app: App, field: str, names: Sequence[str], words: str) -> None:
    def table(console: Any) -> None:
        for name in names:
            console.print(f"{name} {words}")

    app.emit(lambda: {field: list(names)}, table)


@click.command(
    cls=Command,
    examples="""
    ccctl update 123 --time-limit 4h
    ccctl update 123 --priority-class high
    ccctl update 123 --time-limit none
    ccctl update 123 --account vision
    """,
)
@click.argument("job", type=job_name)
@click.option(
    "--time-limit", "limit", type=time_limit, metavar="TIME",
    help="The longest that an attempt may run, from its start: 90m, 1d12h; or none.",
)  # fmt: skip
@click.option("--priority-class", metavar="NAME", help="Its class among those that wait.")
@click.option("--account", metavar="NAME", help="The account that pays, while nothing of it runs.")
@pass_app
def update(
    app: App, job: str, limit: int | None, priority_class: str | None, account: str | None
) -> None:
    """Change JOB's time limit, its priority class or the account that pays.

    A job that runs gets more time from an operator alone; anybody may shorten their own.
    """
    from controlplane.cli.render import plain

    if limit is None and priority_class is None and account is None:
        raise click.UsageError("Say what to change: --time-limit, --priority-class or --account.")
    with app.client() as client:
        found = client.update(
            job,
            time_limit_us=limit or None,
            no_time_limit=limit == 0,
            priority_class=priority_class or "",
            account=account or "",
        )
    app.emit(lambda: plain(found), lambda console: console.print(f"{found.name} is changed."))


@click.command(
    cls=Command,
    examples="""
    ccctl tasks 123
    ccctl tasks 123 --state failed
    """,
)
@click.argument("job", type=job_name)
@click.option(
    "--state", "states", multiple=True, type=click.Choice([*LIVING_STATES, *FINAL_STATES]),
    help="Tasks in this state. Several: in any of them.",
)  # fmt: skip
@pass_app
def tasks(app: App, job: str, states: tuple[str, ...]) -> None:
    """List the tasks of the array JOB that were started or have ended.

    `ccctl show 123_4` tells all about one.
    """
    from controlplane.cli.jobtables import draw_tasks
    from controlplane.cli.render import plain
    from controlplane.v1 import job_pb2

    wanted = [job_pb2.JobState.Value(f"JOB_STATE_{state.upper()}") for state in states]
    with app.client() as client:
        found = list(client.tasks(job, states=wanted, page_size=1000))
    app.emit(
        lambda: {"tasks": [plain(task) for task in found]},
        lambda console: draw_tasks(console, found),
    )
