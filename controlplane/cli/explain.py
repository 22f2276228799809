"""`ccctl explain`, `ccctl priority` and `ccctl dump`: what the scheduler sees and decides, and
why."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from controlplane.cli.app import App, Command, pass_app
from controlplane.cli.arguments import job_name


@click.command(
    cls=Command,
    examples="""
    ccctl explain 123                           why job 123 waits, and when it will start
    ccctl explain 123_4 -o json
    """,
)
@click.argument("job", type=job_name)
@pass_app
def explain(app: App, job: str) -> None:
    """Say why JOB waits, when it will start, and what would start it now.

    The start is told as a band, by how much of their time limits jobs of late have used: in 10 of
    100 cases it starts by the first moment, in half of them by the second, in 90 by the third. A
    promised start is not put off for jobs of the same or a lower priority class.
    Each change that is suggested was tried by the scheduler's own policy.
    """
    from controlplane.cli.explaintables import draw_explanation
    from controlplane.cli.render import plain

    with app.client() as client:
        told = client.explain(job)
    now_us = app.clock.now_us()
    app.emit(lambda: plain(told), lambda console: draw_explanation(console, job, told, now_us))


@click.command(
    cls=Command,
    examples="""
    ccctl priority 123                          what makes up its priority
    ccctl priority 123 124 125                  side by side
    """,
)
@click.argument("jobs", type=job_name, nargs=-1, required=True, metavar="JOB...")
@pass_app
def priority(app: App, jobs: tuple[str, ...]) -> None:
    """Show what makes up the priority of jobs that wait.

    Each factor lies between 0 and 1, and counts by its weight; the class counts by its value. The
    higher sum goes first.
    """
    from controlplane.cli.explaintables import draw_priorities
    from controlplane.cli.render import plain

    with app.client() as client:
        told = [(job, client.explain(job).priority) for job in jobs]

    def document() -> object:
        return {"jobs": [{"name": job, **plain(factors)} for job, factors in told]}

    app.emit(document, lambda console: draw_priorities(console, told))


@click.command(
    cls=Command,
    examples="""
    ccctl dump view.json                        for `ccctl replay view.json`, here or elsewhere
    ccctl dump - | gzip > view.json.gz
    """,
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@pass_app
def dump(app: App, file: Path) -> None:
    """Write what the next decision would be made of into FILE: all nodes, all jobs that wait or
    run, accounts, queues and the policy, as one JSON document.

    The decision can be made again from it, to the byte, with no control plane. It names jobs,
    owners and nodes; no command, environment or output is in it.
    """
    with app.client() as client:
        data = client.view()
    if str(file) == "-":
        sys.stdout.buffer.write(data)
        return
    file.write_bytes(data)
    app.note(f"{file}: {len(data) / 2**20:.1f}MiB")
