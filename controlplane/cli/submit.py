"""`ccctl submit`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controlplane.cli.app import App, Command, pass_app
from controlplane.cli.failures import OWN_FIELDS, Failure, fault_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.v1.job_pb2 import Job


@click.command(
    cls=Command,
    examples="""
    ccctl submit job.json                       submit, and print the job's number
    ccctl submit job.json -f                    and follow it; exits with the job's exit code
    ccctl submit job.json --validate-only       only check the file
    ccctl submit job.json --set workers=4 --set env.LR=0.1
    generate-job | ccctl submit -               read it from stdin
    generate-jobs | ccctl submit -              a list of jobs: all of them, or none
    """,
)
@click.argument("file")
@click.option("--follow", "-f", is_flag=True, help="Show states and output until the job ends.")
@click.option("--hold", is_flag=True, help="Accept it held: `ccctl release` lets it go on.")
@click.option("--validate-only", is_flag=True, help="Check the file; submit and ship nothing.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a field of the file; may be given several times.",
)
@click.option(
    "--request-id",
    metavar="ID",
    help="Makes a repeat harmless: the same id never makes a second job. One is chosen by default.",
)
@pass_app
def submit(
    app: App,
    file: str,
    follow: bool,
    hold: bool,
    validate_only: bool,
    overrides: tuple[str, ...],
    request_id: str | None,
) -> None:
    """Submit the job that FILE describes; `-` reads it from stdin.

    Once the job's number is printed, the job is kept, whatever happens to this program or the
    control plane. Every fault of the file is told at once. `ccctl schema` prints the file's JSON
    Schema, and docs/job.md describes it. A file may hold a list of jobs, which are accepted
    together or not at all.
    """
    from controlplane.cli.document import read_documents, shown_name
    from controlplane.client import InvalidInput

    if request_id is not None and not 0 < len(request_id) <= 128:
        raise click.BadParameter("must have 1 to 128 characters.", param_hint="--request-id")
    documents = read_documents(file, overrides)
    if len(documents) > 1 and (follow or validate_only):
        raise click.UsageError("--follow and --validate-only are for one job, not for a list.")
    base = Path() if file == "-" else Path(file).parent
    try:
        # Checked before anything else is looked at, so that a fault needs no server and no token.
        documents = _checked(documents, app.clock.now_us())
        with app.client() as client:
            if len(documents) > 1:
                names = client.submit_many(documents, base=base, request_id=request_id, hold=hold)
                _tell_many(app, names)
                return
            job = client.submit(
                documents[0],
                base=base,
                request_id=request_id,
                validate_only=validate_only,
                hold=hold,
            )
            if validate_only:
                _tell_valid(app, file, job)
                return
            if not follow:
                _tell_submitted(app, job)
                return
            from controlplane.cli.follow import follow as follow_job

            app.note(f"Submitted {job.name}.")
            code = follow_job(app, client, job)
    except InvalidInput as error:
        if not error.faults or error.faults[0].field in OWN_FIELDS:
            raise
        raise Failure(fault_list(shown_name(file), error.faults)) from None
    sys.exit(code)


def _checked(documents: list[dict[str, object]], now_us: int) -> list[dict[str, object]]:
    """The documents with the environment and the moment that they ask for. InvalidInput with each
    fault, and of a list with its place in it."""
    from dataclasses import replace

    from controlplane.client import InvalidInput
    from controlplane.client.shipping import check_document, with_moment, with_passed_env

    checked, faults = [], []
    for number, document in enumerate(documents):
        try:
            checked.append(with_moment(with_passed_env(document, os.environ), now_us))
            check_document(checked[-1])
        except InvalidInput as error:
            place = f"[{number}]." if len(documents) > 1 else ""
            faults += [replace(each, field=place + each.field) for each in error.faults]
    if faults:
        raise InvalidInput.of(*faults)
    return checked


def _tell_many(app: App, names: Sequence[str]) -> None:
    words = f"Submitted {names[0]} to {names[-1]}."
    app.emit(lambda: {"names": list(names)}, lambda console: console.print(words))


def _tell_valid(app: App, file: str, job: Job) -> None:
    from controlplane.cli.document import shown_name
    from controlplane.cli.render import plain, struct
    from controlplane.cli.text import request_words

    words = request_words(struct(job.spec))
    app.emit(
        lambda: plain(job),
        lambda console: console.print(
            f"{shown_name(file)} is valid: {words}. Nothing was submitted."
        ),
    )


def _tell_submitted(app: App, job: Job) -> None:
    from controlplane.cli.render import plain

    app.emit(lambda: plain(job), lambda console: console.print(f"Submitted {job.name}."))
