"""Following many jobs: a line for each, and then one for each that changes."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from controlplane.cli import text
from controlplane.cli.failures import INTERRUPTED
from controlplane.cli.jobtables import job_state
from controlplane.cli.render import plain, write

if TYPE_CHECKING:
    from controlplane.cli.app import App
    from controlplane.cli.arguments import Wanted
    from controlplane.v1.job_pb2 import Job


def watch_list(app: App, wanted: Wanted) -> NoReturn:
    """Tell the jobs that are wanted, and each again when it has changed, until Ctrl-C."""
    shown = Shown(wanted.state)
    with app.client() as client:
        try:
            for job in client.watch_jobs(wanted.filter()):
                if shown.takes(job):
                    tell(app, job)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
    sys.exit(INTERRUPTED)


class Shown:
    """Which jobs are on the screen: one that leaves the states that were asked for is told of once
    more, and then no longer."""

    def __init__(self, states: tuple[str, ...]) -> None:
        """`states`: those that were asked for; none for all."""
        self._states = states
        self._there: set[int] = set()

    def takes(self, job: Job) -> bool:
        """Whether a job as it is now is to be told."""
        if not self._states or job_state(job) in self._states:
            if self._states:
                self._there.add(job.job_id)
            return True
        was_there = job.job_id in self._there
        self._there.discard(job.job_id)
        return was_there


def tell(app: App, job: Job) -> None:
    """Write one job on one line, or as a document of its own."""
    output = app.settings.output
    if output == "table":
        now = text.clock_time(app.clock.now_us())
        click.echo(text.visible_line(f"{now}  {line(job)}"))
    else:
        # It comes without attempts: an empty list of them would say something else.
        document = plain(job)
        del document["attempts"]
        click.echo(json.dumps(document) if output == "json" else f"---\n{write(document, output)}")
    sys.stdout.flush()


def line(job: Job) -> str:
    """Write one job on one line: `jobs/3  active  bert  ada: runs on 2 nodes`."""
    words = f"{job.name}  {job_state(job)}  {job.display_name}  {job.owner}"
    if job.HasField("tasks"):
        of = job.tasks
        words += f"  {of.succeeded + of.failed + of.cancelled}/{of.total} tasks"
    return words + (f": {job.reason}" if job.reason else "")
