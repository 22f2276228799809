"""`ccctl priority-class …`: named integers that say who goes first."""

from __future__ import annotations

import click

from controlplane.cli.app import App, Group, pass_app


@click.group(
    "priority-class",
    cls=Group,
    examples="""
    ccctl priority-class list
    ccctl priority-class create urgent --value 100000
    """,
)
def priority_class() -> None:
    """Priority classes: names for integers; jobs of the higher one go first."""


@priority_class.command(
    "create",
    examples="""
    ccctl priority-class create urgent --value 100000 --description "before a deadline"
    ccctl priority-class create idle --value 0 --preemption never
    """,
)
@click.argument("name")
@click.option("--value", type=int, required=True, help="Jobs of the higher one go first.")
@click.option(
    "--default", "global_default", is_flag=True,
    help="For jobs that name none, in place of the one until now.",
)  # fmt: skip
@click.option(
    "--preemption", type=click.Choice(["lower", "never"]), default="lower", show_default=True,
    help="Whether its jobs end others, of lower priority, to make room.",
)  # fmt: skip
@click.option("--description", default="", help="For whom it is.")
@pass_app
def create(
    app: App, name: str, value: int, global_default: bool, preemption: str, description: str
) -> None:
    """Make the priority class NAME. Its value and preemption never change."""
    from controlplane.cli.render import plain
    from controlplane.v1 import queue_service_pb2 as pb

    wanted = pb.PriorityClass(
        value=value,
        global_default=global_default,
        preemption=pb.PreemptionPolicy.Value(f"PREEMPTION_POLICY_{preemption.upper()}"),
        description=description,
    )
    with app.client() as client:
        made = client.queues.create_priority_class(name, wanted)
    app.emit(lambda: plain(made), lambda console: console.print(f"{made.name} is made."))


@priority_class.command("list", examples="ccctl priority-class list -o json")
@pass_app
def list_classes(app: App) -> None:
    """List priority classes, the highest first."""
    from controlplane.cli.queuetables import draw_classes
    from controlplane.cli.render import plain

    with app.client() as client:
        found = sorted(client.queues.priority_classes(), key=lambda one: (-one.value, one.name))
    app.emit(
        lambda: {"priority_classes": [plain(one) for one in found]},
        lambda console: draw_classes(console, found),
    )


@priority_class.command("show", examples="ccctl priority-class show high")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show the priority class NAME."""
    from controlplane.cli.queuetables import draw_classes
    from controlplane.cli.render import plain

    with app.client() as client:
        found = client.queues.priority_class(name)
    app.emit(lambda: plain(found), lambda console: draw_classes(console, [found]))


@priority_class.command("delete", examples="ccctl priority-class delete urgent")
@click.argument("name")
@pass_app
def delete(app: App, name: str) -> None:
    """Remove the priority class NAME; the default one stays.

    Jobs that have it keep its value, and end no others any more to make room.
    """
    with app.client() as client:
        client.queues.delete_priority_class(name)
    app.emit(lambda: {"deleted": name}, lambda console: console.print(f"{name} is gone."))
