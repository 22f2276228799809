"""`ccctl replay` and `ccctl policy`: decisions made again from a file, and under another policy."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from controlplane.cli.app import App, Command, Group, pass_app
from controlplane.cli.failures import Failure

if TYPE_CHECKING:
    from controlplane.model.policy import Policy
    from controlplane.model.scene import Scene

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


def read_view(path: Path, data: bytes | None = None) -> Scene:
    """A view that was dumped, packed by gzip or not. Failure, in words, for any other file."""
    from controlplane.model.document import BadDocument
    from controlplane.model.scene import read_scene

    try:
        content = path.read_bytes() if data is None else data
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        return read_scene(content.decode())
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise Failure(f"{path}: cannot be read: {error}") from None
    except BadDocument as error:
        raise Failure(f"{path}: {error}") from None


@click.command(
    cls=Command,
    examples="""
    ccctl replay view.json                      the decision of a view that `ccctl dump` wrote
    ccctl replay view.json --plan plan.json     and the whole of it, byte for byte
    ccctl replay view.json --expect 5f2c…       fails when it is another
    """,
)
@click.argument("file", type=FILE)
@click.option(
    "--plan", "plan_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the whole decision there, as JSON.",
)  # fmt: skip
@click.option(
    "--expect", metavar="SHA256",
    help="Fail unless the decision has this SHA-256, or one that begins so.",
)  # fmt: skip
@pass_app
def replay(app: App, file: Path, plan_file: Path | None, expect: str | None) -> None:
    """Make the decision of a dumped view again, with no control plane.

    The same view gives the same decision, byte for byte, on every machine: its SHA-256 tells.
    """
    from controlplane.sim.replay import replay as decide_again

    made = decide_again(read_view(file))
    if plan_file is not None:
        plan_file.write_text(made.text)
    decided = made.plan
    document = {
        "seq": decided.seq,
        "starts": len(decided.places),
        "ends": len(decided.preempts),
        "waits": len(decided.holds),
        "promises": len(decided.promises),
        "view_sha256": made.view_sha256,
        "plan_sha256": made.plan_sha256,
    }

    def draw(console: object) -> None:
        from rich.console import Console

        assert isinstance(console, Console)
        console.print(
            f"Of event {decided.seq}: {len(decided.places)} start, {len(decided.preempts)} are"
            f" ended for others, {len(decided.holds)} wait."
        )
        console.print(f"view {made.view_sha256}", soft_wrap=True)
        console.print(f"plan {made.plan_sha256}", soft_wrap=True)

    app.emit(lambda: document, draw)
    if expect is not None and not made.plan_sha256.startswith(expect.lower()):
        raise Failure(f"The decision is another: its SHA-256 does not begin with {expect}.")


@click.group(cls=Group)
def policy() -> None:
    """How jobs are scheduled."""


@policy.command(
    "plan",
    cls=Command,
    examples="""
    ccctl policy plan new.toml                  what it would change in the cluster as it is now
    ccctl policy plan new.toml --view view.json
    """,
)
@click.argument("file", type=FILE)
@click.option(
    "--view", "view_file", type=FILE, metavar="FILE",
    help="Decide over this view, which `ccctl dump` wrote; that of the cluster by default.",
)  # fmt: skip
@pass_app
def plan(app: App, file: Path, view_file: Path | None) -> None:
    """Show which jobs the policy of FILE would start, hold, move or end, before it is applied.

    FILE is what the control plane's --policy-file would name. Nothing is changed: both policies
    decide over the same view, and what differs is told.
    """
    from controlplane.cli.jobtables import cell, table
    from controlplane.sim.replay import differences

    wanted = read_policy_file(file)
    if view_file is not None:
        scene = read_view(view_file)
    else:
        with app.client() as client:
            scene = read_view(Path("the view"), client.view())
    found = differences(scene, wanted)

    def document() -> object:
        return {
            "seq": scene.view.seq,
            "differences": [
                {
                    "task": f"jobs/{each.job_id}/tasks/{each.task_index}",
                    "effect": each.effect.value,
                    "words": each.words,
                }
                for each in found
            ],
        }

    def draw(console: object) -> None:
        from rich.console import Console

        assert isinstance(console, Console)
        if not found:
            console.print("Nothing would change now.")
            return
        made = table("TASK", "EFFECT", "HOW")
        for each in found:
            name = f"jobs/{each.job_id}/tasks/{each.task_index}"
            made.add_row(cell(name), cell(each.effect.value), cell(each.words))
        console.print(made)

    app.emit(document, draw)


def read_policy_file(path: Path) -> Policy:
    """A policy. Failure, with the file and the key, where it says it wrong."""
    from controlplane.model.document import BadDocument
    from controlplane.model.policyfile import read_policy

    try:
        return read_policy(path.read_text())
    except (OSError, UnicodeDecodeError, BadDocument) as error:
        raise Failure(f"{path}: {error}") from None
