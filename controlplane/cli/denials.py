"""`ccctl denials`: who was refused what."""

from __future__ import annotations

import click

from controlplane.cli.app import App, Command, pass_app


@click.command(
    "denials",
    cls=Command,
    examples="""
    ccctl denials
    ccctl denials bob
    """,
)
@click.argument("principal", default="", metavar="[PRINCIPAL]")
@pass_app
def denials(app: App, principal: str) -> None:
    """Tell who was refused what, of all or of PRINCIPAL.

    At most 10 in an hour are kept of each principal, and 10 of all who had no valid token; the next
    one that is kept tells how many were passed over.
    """
    from controlplane.cli.eventtables import draw_events
    from controlplane.cli.render import plain

    with app.client() as client:
        events = list(client.events(f"principals/{principal}" if principal else "principals"))
    app.emit(
        lambda: {"events": [plain(event) for event in events]},
        lambda console: draw_events(console, events),
    )
