"""`ccctl usage`: who used how much of what."""

from __future__ import annotations

import click

from controlplane.cli.app import App, Command, pass_app
from controlplane.cli.arguments import moment


def keep_form(ctx: click.Context, _param: click.Parameter, form: str | None) -> str | None:
    """Keep the form that was asked for with the other settings; CSV is some commands' alone."""
    app = ctx.find_object(App)
    if app is not None and form not in (None, "csv"):
        app.flags["output"] = form
    return form


@click.command(
    "usage",
    cls=Command,
    examples="""
    ccctl usage                                 GPU-hours of each user, from the first record on
    ccctl usage --by account --from 30d         of each account in the last 30 days
    ccctl usage --by job --owner ada --from 2026-03-01 --to 2026-04-01
    ccctl usage --by model -o csv > usage.csv   seconds, for a spreadsheet
    """,
)
@click.option(
    "--by",
    type=click.Choice(["user", "account", "job", "model"]),
    default="user",
    show_default=True,
    help="What each line is for.",
)
@click.option(
    "--from", "from_us", type=moment, metavar="TIME",
    help="Count time since: 2h, 30d, or a date; from the first record by default.",
)  # fmt: skip
@click.option(
    "--to", "to_us", type=moment, metavar="TIME",
    help="Count time before that; up to now by default.",
)  # fmt: skip
@click.option("--owner", default="", metavar="NAME", help="Only jobs of this owner.")
@click.option("--account", default="", metavar="NAME", help="Only jobs of this account.")
@click.option(
    "--output", "-o", "form", type=click.Choice(["table", "json", "yaml", "csv"]),
    callback=keep_form,
    help="Table with hours for people; JSON, YAML or CSV with seconds for programs.",
)  # fmt: skip
@pass_app
def usage(
    app: App,
    by: str,
    from_us: int | None,
    to_us: int | None,
    owner: str,
    account: str,
    form: str | None,
) -> None:
    """Sum what jobs used: time of GPUs and cores, by user, account, job or model.

    Counted is what was leased, from a job's placement until its end, used or not. An attempt that
    crosses an edge of the window counts with its part within; one that runs counts up to now.
    FAILED is the share of failures among the attempts that ended.
    """
    from controlplane.cli.render import plain
    from controlplane.cli.usagetables import csv_text, draw_usage
    from controlplane.v1 import usage_service_pb2

    request = usage_service_pb2.GetUsageRequest(
        group_by=usage_service_pb2.UsageGroup.Value(f"USAGE_GROUP_{by.upper()}"),
        owner=owner,
        account=account,
        page_size=1000,
    )
    if from_us is not None:
        request.from_time.FromMicroseconds(from_us)
    if to_us is not None:
        request.to_time.FromMicroseconds(to_us)
    with app.client() as client:
        answer = client.usage(request)
    if form == "csv":
        click.echo(csv_text(answer, by))
        return

    def document() -> object:
        shown = plain(answer)
        del shown["next_page_token"]  # all pages are here
        return shown

    app.emit(document, lambda console: draw_usage(console, answer, by))
