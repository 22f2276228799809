"""`ccctl node …`: what operators do with nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from controlplane.cli.app import App, Group, pass_app
from controlplane.cli.arguments import node_name
from controlplane.cli.identity import node_token

if TYPE_CHECKING:
    from controlplane.v1.node_pb2 import Node


@click.group(
    "node",
    cls=Group,
    examples="""
    ccctl node list
    ccctl node drain gpu-07 --reason "fan is loud"
    """,
)
def node() -> None:
    """Show nodes; take them out of service and back."""


@node.command(
    "list",
    examples="""
    ccctl node list
    ccctl node list --selector "tier=prod,rack in (a,b)"
    ccctl node list -o json
    """,
)
@click.option(
    "--selector", default="", metavar="SELECTOR",
    help="Only nodes with these labels, as node_selector in job.json.",
)  # fmt: skip
@pass_app
def list_nodes(app: App, selector: str) -> None:
    """List nodes, with how much of each is leased."""
    from controlplane.cli.nodetables import draw_nodes
    from controlplane.cli.render import plain

    with app.client() as client:
        nodes = list(client.nodes(selector))
    app.emit(
        lambda: {"nodes": [plain(one) for one in nodes]},
        lambda console: draw_nodes(console, nodes, app.clock.now_us()),
    )


@node.command("show", examples="ccctl node show gpu-07")
@click.argument("name", type=node_name, metavar="NODE")
@pass_app
def show_node(app: App, name: str) -> None:
    """Show all of NODE: its host, its devices, and what runs there."""
    from controlplane.cli.nodetables import draw_node
    from controlplane.cli.render import plain

    with app.client() as client:
        found = client.node(name)
    app.emit(lambda: plain(found), lambda console: draw_node(console, found, app.clock.now_us()))


@node.command(
    "label",
    examples="""
    ccctl node label gpu-07 tier=prod rack=r1
    ccctl node label gpu-07 tier-                takes tier away again
    """,
)
@click.argument("name", type=node_name, metavar="NODE")
@click.argument("labels", nargs=-1, required=True, metavar="KEY=VALUE|KEY-…")
@pass_app
def label(app: App, name: str, labels: tuple[str, ...]) -> None:
    """Give NODE labels, which override those of its agent's configuration.

    KEY- takes one away that was given so. Queues, reservations and node_selector in job.json go by
    labels.
    """
    from controlplane.cli.render import plain

    given = dict(each.split("=", 1) for each in labels if "=" in each)
    taken = [each.removesuffix("-") for each in labels if "=" not in each and each.endswith("-")]
    if other := [each for each in labels if "=" not in each and not each.endswith("-")]:
        raise click.BadParameter(f"{other[0]!r} is no label; write KEY=VALUE, or KEY- to take it.")
    with app.client() as client:
        found = client.label(name, given, taken)
    told = ", ".join(f"{key}={value}" for key, value in sorted(found.labels.items()))
    words = f"{found.facts.display_name or found.name} has {told or 'no labels'}."
    app.emit(lambda: plain(found), lambda console: console.print(words))


@node.command("drain", examples='ccctl node drain gpu-07 --reason "fan is loud"')
@click.argument("name", type=node_name, metavar="NODE")
@click.option("--reason", required=True, help="Why, for those who look at the node later.")
@pass_app
def drain(app: App, name: str, reason: str) -> None:
    """Send NODE no new work; what runs there may finish."""
    with app.client() as client:
        found = client.drain(name, reason=reason)
    _tell(app, found)


@node.command("undrain", examples="ccctl node undrain gpu-07")
@click.argument("name", type=node_name, metavar="NODE")
@pass_app
def undrain(app: App, name: str) -> None:
    """Take NODE back into service."""
    with app.client() as client:
        found = client.undrain(name)
    _tell(app, found)


@node.command("release", examples="ccctl node release gpu-07")
@click.argument("name", type=node_name, metavar="NODE")
@pass_app
def release(app: App, name: str) -> None:
    """Let another agent's token speak for NODE.

    The agent that calls next enrols it. Stop the old one, or revoke its token, first. What runs
    there runs on.
    """
    from controlplane.cli.render import plain

    with app.client() as client:
        found = client.release(name)
    words = f"{found.facts.display_name or found.name} is enrolled by the agent that calls next."
    app.emit(lambda: plain(found), lambda console: console.print(words))


@node.command("revoke", examples="ccctl node revoke gpu-07")
@click.argument("name", type=node_name, metavar="NODE")
@click.confirmation_option("--yes", prompt="Its jobs end there and run elsewhere. Shut it out?")
@pass_app
def revoke(app: App, name: str) -> None:
    """Make NODE's certificates void at once: for a host that was stolen or broken into.

    Its supervisors end what runs there when the node's lease is over, and its jobs run elsewhere.
    It comes back by `ccctl node token create --node NODE`.
    """
    from controlplane.cli.render import plain

    with app.client() as client:
        found = client.revoke(name)
    words = f"{found.facts.display_name or found.name} is shut out."
    app.emit(lambda: plain(found), lambda console: console.print(words))


node.add_command(node_token)


def _tell(app: App, found: Node) -> None:
    from controlplane.cli.nodetables import node_state
    from controlplane.cli.render import plain

    words = f"{found.facts.display_name or found.name} is {node_state(found)}."
    app.emit(lambda: plain(found), lambda console: console.print(words))
