"""`ccctl account`: who pays for jobs, and who may submit to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.app import App, Group, pass_app

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from controlplane.v1 import account_pb2

MEMBERS_MAY = ("own", "see", "read", "stop")
"""Words of their own, because the model takes longer to import."""
_NONE, _ALL = "none", "all"


class Amount(click.ParamType[int | str]):
    """A number, or a word for no limit."""

    name = "amount"

    def __init__(self, word: str) -> None:
        """`word`: for no limit."""
        self._word = word

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Read it."""
        if value == self._word or isinstance(value, int):
            return value  # type: ignore[no-any-return]
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            self.fail(f"{value!r} is neither a number nor {self._word!r}.", param, ctx)
        return int(value)


def _quota_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option(
                "--running", type=Amount(_NONE), metavar="N", help="Tasks that run; or none."
            ),
            click.option(
                "--queued", type=Amount(_NONE), metavar="N", help="Tasks that may wait; or none."
            ),
            click.option(
                "--gpus", type=Amount(_NONE), metavar="N", help="GPUs at once; or none: no limit."
            ),
            click.option(
                "--gpu-hours", type=Amount(_NONE), metavar="N",
                help="GPU-hours within the window; or none.",
            ),
            click.option(
                "--window", "window_days", type=click.IntRange(1, 90), metavar="DAYS",
                help="The window, in days, today included.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def _account_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option(
                "--borrow-gpus", type=Amount(_ALL), metavar="N",
                help="GPUs beyond --gpus, while siblings leave theirs idle; or all.",
            ),
            click.option("--parent", metavar="NAME", help='The account above it; "" for none.'),
            click.option("--description", metavar="WORDS", help="Free words."),
            click.option(
                "--shares", type=click.IntRange(0, 1_000_000), metavar="N",
                help="Its part among its siblings.",
            ),
            click.option(
                "--qos", type=click.IntRange(0, 1_000_000), metavar="N",
                help="What its quality of service adds to a priority, up to 1000000.",
            ),
            click.option(
                "--open/--no-open", default=None,
                help="Whether everybody may submit to it, members or not.",
            ),
            click.option(
                "--members-may", type=click.Choice(MEMBERS_MAY),
                help="What members may do to each other's jobs; each includes those before it.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(
    "account",
    cls=Group,
    examples="""
    ccctl account list
    ccctl account create vision --shares 10 --gpus 64
    ccctl account member set vision alice --default
    ccctl account shares
    """,
)
def account() -> None:
    """Accounts: who pays for jobs, and what that may cost."""


@account.command(
    "create",
    examples="""
    ccctl account create vision --shares 10 --gpus 64 --borrow-gpus all
    ccctl account create students --parent vision --queued 200 --members-may see
    """,
)
@click.argument("name")
@_account_options
@_quota_options
@pass_app
def create(app: App, /, name: str, **fields: Any) -> None:
    """Make the account NAME."""
    from controlplane.cli.render import plain

    message, _ = _account_of(name, fields)
    with app.client() as client:
        made = client.accounts.create(name, message)
    words = f"{made.name} is made; let users in: ccctl account member set {name} USER"
    app.emit(lambda: plain(made), lambda console: console.print(words))


@account.command("list", examples="ccctl account list -o json")
@pass_app
def list_accounts(app: App) -> None:
    """List accounts, each above those below it: for users, those that they may submit to."""
    from controlplane.cli.accounttables import draw_accounts
    from controlplane.cli.render import plain

    with app.client() as client:
        found = list(client.accounts.all())
    app.emit(
        lambda: {"accounts": [plain(one) for one in found]},
        lambda console: draw_accounts(console, found),
    )


@account.command("show", examples="ccctl account show vision")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show the account NAME, with what its jobs have now."""
    from controlplane.cli.accounttables import draw_account
    from controlplane.cli.render import plain

    with app.client() as client:
        found = client.accounts.get(name)
    app.emit(lambda: plain(found), lambda console: draw_account(console, found))


@account.command(
    "update",
    examples="""
    ccctl account update vision --gpus 32 --gpu-hours none
    ccctl account update default --no-open          from now on for members alone
    """,
)
@click.argument("name")
@_account_options
@_quota_options
@pass_app
def update(app: App, /, name: str, **fields: Any) -> None:
    """Change the account NAME. What runs is not ended for a smaller quota."""
    from controlplane.cli.render import plain

    message, paths = _account_of(name, fields)
    if not paths:
        raise click.UsageError("Say what to change, e.g. --shares 10.")
    with app.client() as client:
        done = client.accounts.update(message, paths)
    words = f"{done.account.name} is changed."
    app.emit(lambda: plain(done.account), lambda console: console.print(words))
    _warn(app, done.warnings)


@account.command("delete", examples="ccctl account delete students")
@click.argument("name")
@pass_app
def delete(app: App, name: str) -> None:
    """Remove the account NAME and its members.

    Not while accounts are below it, or jobs of it have not ended. `ccctl usage` still counts what
    was used in its name.
    """
    with app.client() as client:
        client.accounts.delete(name)
    told = f"accounts/{name}"
    app.emit(lambda: {"name": told}, lambda console: console.print(f"{told} is removed."))


@account.command(
    "shares",
    examples="""
    ccctl account shares                the whole tree, as sshare of Slurm
    ccctl account shares vision         an account, and what is below it
    """,
)
@click.argument("name", required=False, default="")
@pass_app
def shares(app: App, name: str) -> None:
    """Show where accounts and users stand in the fair-share tree.

    LEVEL FS is the part of the shares over the part of the usage, among siblings: below 1 has had
    more than its part. FACTOR orders users: 1 goes first.
    """
    from controlplane.cli.accounttables import draw_shares
    from controlplane.cli.render import plain

    with app.client() as client:
        found = list(client.accounts.shares(name))
    app.emit(
        lambda: {"shares": [plain(one) for one in found]},
        lambda console: draw_shares(console, found),
    )


@account.group(
    "member",
    cls=Group,
    examples="""
    ccctl account member set vision alice --default
    ccctl account member list vision
    """,
)
def member() -> None:
    """Members of accounts: who may submit to them."""


@member.command(
    "set",
    examples="""
    ccctl account member set vision alice --default
    ccctl account member set vision bob --coordinator --gpus 8
    """,
)
@click.argument("name", metavar="ACCOUNT")
@click.argument("user")
@click.option(
    "--shares", type=click.IntRange(0, 1_000_000), metavar="N", help="The part among members."
)
@click.option(
    "--default/--no-default", "default_account", default=None,
    help="Whether it pays for jobs of USER that name no account.",
)  # fmt: skip
@click.option(
    "--coordinator/--no-coordinator", default=None,
    help="Whether USER sees and may stop all jobs of the account, and of those below it.",
)  # fmt: skip
@_quota_options
@pass_app
def set_member(app: App, /, name: str, user: str, **fields: Any) -> None:
    """Make USER a member of ACCOUNT, or change what a member has."""
    from controlplane.cli.render import plain
    from controlplane.v1 import account_pb2

    message = account_pb2.Member(name=f"accounts/{name}/members/{user}")
    paths = _quota(message.quota, fields)
    for field in ("shares", "default_account", "coordinator"):
        if fields[field] is not None:
            setattr(message, field, fields[field])
            paths.append(field)
    with app.client() as client:
        done = client.accounts.set_member(message, paths)
    words = f"{user} is a member of {name}{', by default' if done.member.default_account else ''}."
    app.emit(lambda: plain(done.member), lambda console: console.print(words))
    _warn(app, done.warnings)


@member.command("remove", examples="ccctl account member remove vision alice")
@click.argument("name", metavar="ACCOUNT")
@click.argument("user")
@pass_app
def remove_member(app: App, name: str, user: str) -> None:
    """Take USER out of ACCOUNT. Jobs that were accepted go on."""
    with app.client() as client:
        client.accounts.remove_member(name, user)
    told = f"accounts/{name}/members/{user}"
    words = f"{user} is no member of {name} any more."
    app.emit(lambda: {"name": told}, lambda console: console.print(words))


@member.command("list", examples="ccctl account member list vision")
@click.argument("name", metavar="ACCOUNT")
@pass_app
def list_members(app: App, name: str) -> None:
    """List members of ACCOUNT: for users, themselves."""
    from controlplane.cli.accounttables import draw_members
    from controlplane.cli.render import plain

    with app.client() as client:
        found = list(client.accounts.members(name))
    app.emit(
        lambda: {"members": [plain(one) for one in found]},
        lambda console: draw_members(console, found),
    )


def _account_of(name: str, fields: dict[str, Any]) -> tuple[account_pb2.Account, list[str]]:
    """An account as the options say, and which of its fields they name."""
    from controlplane.v1 import account_pb2

    message = account_pb2.Account(name=f"accounts/{name}")
    paths = _quota(message.quota, fields)
    for field in ("parent", "description", "shares", "qos", "open"):
        if fields[field] is not None:
            setattr(message, field, fields[field])
            paths.append(field)
    if message.parent:
        message.parent = f"accounts/{message.parent}"
    if fields["members_may"] is not None:
        word = f"MEMBERS_MAY_{fields['members_may'].upper()}"
        message.members_may = account_pb2.MembersMay.Value(word)
        paths.append("members_may")
    return message, paths


def _quota(message: account_pb2.Limits, fields: dict[str, Any]) -> list[str]:
    paths = []
    for field in ("running", "queued", "gpus", "gpu_hours", "borrow_gpus", "window_days"):
        value = fields.get(field)
        if value is None:
            continue
        paths.append(f"quota.{field}")
        if value == _ALL:
            value = -1
        if value != _NONE:
            setattr(message, field, value)
    return paths


def _warn(app: App, warnings: Sequence[str]) -> None:
    for words in warnings:
        app.note(f"Note: {words}.")
