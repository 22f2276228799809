"""The commands that tell what happened: to one job, and in the whole centre."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from controlplane.cli.app import App, Command, pass_app
from controlplane.cli.arguments import job_name, moment
from controlplane.cli.failures import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.client import Client
    from controlplane.v1.event_pb2 import Event

_DAY_US = 24 * 3600 * 1_000_000


@click.command(
    cls=Command,
    examples="""
    ccctl history 123                           its whole story
    ccctl history 123_4                         of one task of an array
    """,
)
@click.argument("job", type=job_name)
@pass_app
def history(app: App, job: str) -> None:
    """Tell what happened to JOB.

    A sentence for each event, oldest first: who did what, from which address, and what came of it.
    """
    from controlplane.cli.eventtables import draw_history
    from controlplane.cli.render import plain

    with app.client() as client:
        found = client.get(job)  # a job that is not there is an error, not an empty history
        events = list(client.events(job))
    app.emit(
        lambda: {"events": [plain(event) for event in events]},
        lambda console: draw_history(console, events, array=found.HasField("tasks")),
    )


@click.command(
    "events",
    cls=Command,
    examples="""
    ccctl events                                what happened in the last day
    ccctl events --since 2h --kind access       who was refused what in the last two hours
    ccctl events --follow                       what happens from now on, until Ctrl-C
    ccctl events -f --since 1h nodes/gpu-07     of one node, from an hour ago on
    ccctl events -f -o json > events.jsonl      for a program: each once, also over restarts
    """,
)
@click.argument("resource", default="", metavar="[RESOURCE]")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option(
    "--since", "since_us", type=moment, metavar="TIME",
    help="Since then: 10m, 1d12h, or a date. By default the last day; with --follow from now on.",
)  # fmt: skip
@click.option(
    "--kind", "kinds", multiple=True, metavar="KIND",
    help="Only such events: node.drained, or node for all of nodes; may be given several times.",
)  # fmt: skip
@pass_app
def events_(
    app: App, resource: str, follow: bool, since_us: int | None, kinds: tuple[str, ...]
) -> None:
    """Tell what happened in the whole centre, or to RESOURCE.

    RESOURCE is a job, a node (nodes/gpu-07), a user (users/ada), or all of a kind (users). The log
    of events is the audit log: who asked for what, from which address, and what changed. With
    --follow no event is missed or told twice, also when the control plane is restarted meanwhile.
    """
    with app.client() as client:
        wanted = _resource(client, resource)
        try:
            if follow:
                _tell(app, client.watch_events(wanted, kinds=kinds, since_us=since_us))
            else:
                since_us = app.clock.now_us() - _DAY_US if since_us is None else since_us
                found = client.events(wanted, since_us=since_us)
                nouns = set(kinds)
                _tell(
                    app,
                    (
                        event
                        for event in found
                        if not nouns or nouns & {event.kind, event.kind.partition(".")[0]}
                    ),
                )
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


def _resource(client: Client, name: str) -> str:
    """A resource as events name it: jobs may be numbers, and nodes may be called by their names."""
    if name.partition("_")[0].isdecimal():
        return job_name(name)
    noun, _, rest = name.partition("/")
    return client.node(name).name if noun == "nodes" and rest and "/" not in rest else name


def _tell(app: App, events: Iterable[Event]) -> None:
    """Write each event as it comes: on a line, or as a document of its own."""
    from controlplane.cli.eventtables import line
    from controlplane.cli.render import plain, write

    output = app.settings.output
    for event in events:
        if output == "table":
            click.echo(line(event))
        elif output == "json":
            click.echo(json.dumps(plain(event)))
        else:
            click.echo(f"---\n{write(plain(event), output)}")
        sys.stdout.flush()
