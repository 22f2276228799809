"""`ccctl reservation …`: nodes kept for a time."""

from __future__ import annotations

import click

from controlplane.cli.app import App, Group, pass_app
from controlplane.cli.arguments import time_limit


@click.group(
    "reservation",
    cls=Group,
    examples="""
    ccctl reservation create demo --from 18:00 --for 4h --nodes gpu-1,gpu-2 --account vision
    ccctl reservation create power --from 06:00 --for 12h --selector rack=r1 --maintenance
    ccctl reservation list
    """,
)
def reservation() -> None:
    """Reservations: nodes kept for somebody for a time, or for nobody."""


@reservation.command(
    "create",
    examples="""
    ccctl reservation create demo --from 18:00 --for 4h --nodes gpu-1,gpu-2 --user ada
    ccctl reservation create power --from 2026-03-01T06:00 --to 2026-03-01T18:00 \\
      --selector rack=r1 --maintenance
    """,
)
@click.argument("name")
@click.option(
    "--from", "begin", metavar="TIME", default="now", show_default=True,
    help="When it begins: now+2h, 18:00, 2026-03-01T18:00.",
)  # fmt: skip
@click.option("--to", "end", metavar="TIME", help="When it ends.")
@click.option(
    "--for", "length_us", type=time_limit, metavar="TIME", help="Or how long it lasts: 4h, 1d12h."
)
@click.option("--nodes", metavar="NODES", help="Its nodes, by name or UUID, with commas between.")
@click.option("--selector", default="", metavar="SELECTOR", help="Or its nodes by their labels.")
@click.option(
    "--account", "accounts", multiple=True, metavar="NAME", help="Its jobs may use them. Several."
)
@click.option("--user", "users", multiple=True, metavar="NAME", help="Who may use them. Several.")
@click.option("--maintenance", is_flag=True, help="Nobody may.")
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@pass_app
def create(
    app: App,
    name: str,
    begin: str,
    end: str | None,
    length_us: int | None,
    nodes: str | None,
    selector: str,
    accounts: tuple[str, ...],
    users: tuple[str, ...],
    maintenance: bool,
    description: str,
) -> None:
    """Keep nodes for a time, under the name NAME.

    Whoever it is for needs no field in job.json to use them. Nothing else is started there whose
    time limit runs into it, nor what has none; what runs there already runs on.
    """
    from controlplane.cli.queuetables import kept_words
    from controlplane.cli.render import plain
    from controlplane.v1 import queue_service_pb2 as pb

    if (end is None) == (not length_us):
        raise click.UsageError("Say when it ends: --to TIME, or --for how long.")
    now_us = app.clock.now_us()
    begin_us = _moment("--from", begin, now_us)
    end_us = _moment("--to", end, now_us) if end is not None else begin_us + (length_us or 0)
    named = [each.strip() for each in (nodes or "").split(",") if each.strip()]
    wanted = pb.Reservation(
        nodes=[f"nodes/{each.removeprefix('nodes/')}" for each in named],
        node_selector=selector,
        accounts=accounts,
        users=users,
        maintenance=maintenance,
        description=description,
    )
    wanted.begin_time.FromMicroseconds(begin_us)
    wanted.end_time.FromMicroseconds(end_us)
    with app.client() as client:
        made = client.queues.create_reservation(name, wanted)
    app.emit(lambda: plain(made), lambda console: console.print(kept_words(made)))


def _moment(option: str, value: str, now_us: int) -> int:
    from controlplane.model.moments import moment_from

    try:
        return moment_from(value, now_us)
    except ValueError as problem:
        raise click.BadParameter(f"{value!r} {problem}.", param_hint=option) from None


@reservation.command("list", examples="ccctl reservation list -o json")
@pass_app
def list_reservations(app: App) -> None:
    """List reservations that are not over, by their beginning."""
    from controlplane.cli.queuetables import draw_reservations
    from controlplane.cli.render import plain
    from controlplane.cli.text import micros

    with app.client() as client:
        found = sorted(client.queues.reservations(), key=lambda one: micros(one.begin_time))
        names = {node.name: node.facts.display_name for node in client.nodes()} if found else {}
    app.emit(
        lambda: {"reservations": [plain(one) for one in found]},
        lambda console: draw_reservations(console, found, names),
    )


@reservation.command("show", examples="ccctl reservation show demo")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show the reservation NAME."""
    from controlplane.cli.queuetables import draw_reservations
    from controlplane.cli.render import plain

    with app.client() as client:
        found = client.queues.reservation(name)
        names = {node.name: node.facts.display_name for node in client.nodes()}
    app.emit(lambda: plain(found), lambda console: draw_reservations(console, [found], names))


@reservation.command("delete", examples="ccctl reservation delete demo")
@click.argument("name")
@pass_app
def delete(app: App, name: str) -> None:
    """Give the nodes of the reservation NAME back before its end."""
    with app.client() as client:
        client.queues.delete_reservation(name)
    app.emit(lambda: {"deleted": name}, lambda console: console.print(f"{name} is gone."))
