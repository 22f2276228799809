"""`ccctl metrics`: what a job reported of its progress, over time."""

from __future__ import annotations

import click

from controlplane.cli.app import App, Command, pass_app
from controlplane.cli.arguments import job_name
from controlplane.cli.usage import keep_form


@click.command(
    "metrics",
    cls=Command,
    examples="""
    ccctl metrics 123                           what job 123 reported in its last attempt
    ccctl metrics 123 -o csv > metrics.csv
    """,
)
@click.argument("job", type=job_name)
@click.option(
    "--attempt", type=click.IntRange(1, 2**31 - 1), metavar="N",
    help="This attempt; the last one by default.",
)  # fmt: skip
@click.option(
    "--output", "-o", "form", type=click.Choice(["table", "json", "yaml", "csv"]),
    callback=keep_form, help="Table for people; JSON, YAML or CSV for programs.",
)  # fmt: skip
@pass_app
def metrics(app: App, job: str, attempt: int | None, form: str | None) -> None:
    """Show what the program of JOB reported of its progress.

    At most some 500 points: of a long series neighbours are merged into one.
    """
    from controlplane.cli.progresswords import csv_text, draw_metrics
    from controlplane.cli.render import plain

    with app.client() as client:
        answer = client.metrics(job, attempt=attempt or 0)
    if form == "csv":
        click.echo(csv_text(answer))
        return
    app.emit(lambda: plain(answer), lambda console: draw_metrics(console, answer))
