"""`ccctl queue …`: named sets of nodes with limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from controlplane.cli.app import App, Group, pass_app
from controlplane.cli.arguments import time_limit

F = TypeVar("F", bound=Callable[..., Any])


@click.group(
    "queue",
    cls=Group,
    examples="""
    ccctl queue list
    ccctl queue create night --selector tier=prod --max-time 12h --account vision
    ccctl queue update night --close "the cooling is mended"
    """,
)
def queue() -> None:
    """Queues: sets of nodes with limits, and who may use them."""


def number(value: str) -> int:
    """Read a number from 0 on, and give -1 for `none`."""
    if value == "none":
        return -1
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise click.BadParameter(f"{value!r} is no number from 0 on; or write none.")
    return int(value)


def rules(command: F) -> F:
    """Give a command the options that say what a queue is."""
    options = (
        click.option(
            "--selector", metavar="SELECTOR",
            help='Its nodes, by their labels, as node_selector in job.json; "" for all.',
        ),
        click.option(
            "--default-time", type=time_limit, metavar="TIME",
            help="Time limit of jobs that name none; the longest one by default.",
        ),
        click.option(
            "--max-time", type=time_limit, metavar="TIME",
            help="The longest time limit: 12h; or none.",
        ),
        click.option(
            "--max-workers", type=number, metavar="N", help="The most workers of a job; or none."
        ),
        click.option(
            "--max-gpus", type=number, metavar="N", help="The most GPUs of a job; or none."
        ),
        click.option(
            "--account", "accounts", multiple=True, metavar="NAME",
            help='Its jobs may use it; with no --user either, everybody\'s. Several; "" for none.',
        ),
        click.option(
            "--user", "users", multiple=True, metavar="NAME",
            help='Who may use it. Several; "" for none.',
        ),
        click.option(
            "--priority", type=int, metavar="N",
            help="What waits in it comes before whatever waits in queues with less.",
        ),
        click.option("--description", metavar="TEXT", help="For what it is."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def made_of(given: dict[str, Any]) -> tuple[Any, list[str]]:
    """A queue of the options that were given, and the fields that they set."""
    from controlplane.v1 import queue_service_pb2 as pb

    wanted, fields = pb.Queue(), []
    names = {"selector": "node_selector", "default_time": "default_time_limit"}
    names["max_time"] = "max_time_limit"
    for option, value in given.items():
        if value is None or value == ():
            continue
        field = names.get(option, option)
        fields.append(field)
        if field.endswith("_time_limit"):
            if value:
                getattr(wanted, field).FromMicroseconds(value)
        elif field in ("accounts", "users"):
            getattr(wanted, field).extend(filter(None, value))
        elif not (field.startswith("max_") and value < 0):
            setattr(wanted, field, value)
    return wanted, fields


@queue.command(
    "create",
    examples="""
    ccctl queue create night --selector "tier=prod,rack in (a,b)" --max-time 12h
    ccctl queue create vision --account vision --max-gpus 64 --priority 10
    """,
)
@click.argument("name")
@rules
@pass_app
def create(app: App, /, name: str, **given: Any) -> None:
    """Make the queue NAME."""
    from controlplane.cli.render import plain

    with app.client() as client:
        made = client.queues.create_queue(name, made_of(given)[0])
    app.emit(lambda: plain(made), lambda console: console.print(f"{made.name} is made."))


@queue.command("list", examples="ccctl queue list -o json")
@pass_app
def list_queues(app: App) -> None:
    """List queues."""
    from controlplane.cli.queuetables import draw_queues
    from controlplane.cli.render import plain

    with app.client() as client:
        found = list(client.queues.queues())
    app.emit(
        lambda: {"queues": [plain(one) for one in found]},
        lambda console: draw_queues(console, found),
    )


@queue.command("show", examples="ccctl queue show night")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show all about the queue NAME."""
    from controlplane.cli.queuetables import draw_queue
    from controlplane.cli.render import plain

    with app.client() as client:
        found = client.queues.queue(name)
    app.emit(lambda: plain(found), lambda console: draw_queue(console, found))


@queue.command(
    "update",
    examples="""
    ccctl queue update night --max-time 8h --max-gpus none
    ccctl queue update night --close "the cooling is mended"
    ccctl queue update night --open
    """,
)
@click.argument("name")
@rules
@click.option(
    "--close", "closed", metavar="REASON",
    help="Start nothing of it, and say why; submits are taken even so.",
)  # fmt: skip
@click.option("--open", "open_", is_flag=True, help="Start what is in it again.")
@pass_app
def update(app: App, /, name: str, open_: bool, **given: Any) -> None:
    """Change the queue NAME; what is not named stays.

    Jobs that are in it keep the time limits that they have, and what runs of them runs on.
    """
    from controlplane.cli.render import plain

    if given["closed"] is not None and (open_ or not given["closed"].strip()):
        raise click.UsageError("--close takes a reason, and --open none: give one of them.")
    if open_:
        given["closed"] = ""
    wanted, fields = made_of(given)
    if not fields:
        raise click.UsageError("Say what to change: see `ccctl queue update --help`.")
    with app.client() as client:
        found = client.queues.update_queue(name, wanted, fields)
    words = f"{found.name} is {f'closed: {found.closed}' if found.closed else 'open'}."
    app.emit(lambda: plain(found), lambda console: console.print(words))


@queue.command("delete", examples="ccctl queue delete night")
@click.argument("name")
@pass_app
def delete(app: App, name: str) -> None:
    """Remove the queue NAME, which no job may be in; `default` stays."""
    with app.client() as client:
        client.queues.delete_queue(name)
    app.emit(lambda: {"deleted": name}, lambda console: console.print(f"{name} is gone."))
