"""`ccctl user`, `ccctl token` and `ccctl node token`: who may speak."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controlplane.cli.app import App, Group, pass_app
from controlplane.cli.arguments import node_name
from controlplane.kit.durable import sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from controlplane.kit.credential import Kind

ROLES = ("viewer", "user", "operator", "admin")
"""Words of their own, because the model takes longer to import."""

out_option = click.option(
    "--out",
    metavar="FILE",
    help="Write the line into a new file that you alone can read; else it is printed.",
)
reached_option = click.option(
    "--reached-at",
    metavar="ADDRESS",
    help="Where its holder reaches the control plane, if not at your own --server.",
)


@click.group(
    "user",
    cls=Group,
    examples="""
    ccctl user create alice
    ccctl user list
    """,
)
def user() -> None:
    """Users: who they are, and what they may do. For admins."""


@user.command("create", examples="ccctl user create olga --role operator")
@click.argument("name")
@click.option(
    "--role", type=click.Choice(ROLES), default="user", show_default=True, help="What they may do."
)
@pass_app
def create_user(app: App, name: str, role: str) -> None:
    """Make the user NAME; `ccctl token create NAME` lets them in.

    On the nodes their jobs run as the account of that name.
    """
    from controlplane.cli.render import plain

    with app.client() as client:
        made = client.identities.create_user(name, role)
    words = f"{name} is a user with the role {role}; let them in: ccctl token create {name}"
    app.emit(lambda: plain(made), lambda console: console.print(words))


@user.command("list", examples="ccctl user list -o json")
@pass_app
def list_users(app: App) -> None:
    """List users; `ccctl whoami` tells who you are."""
    from controlplane.cli.identitytables import draw_users
    from controlplane.cli.render import plain

    with app.client() as client:
        users = list(client.identities.users())
    app.emit(
        lambda: {"users": [plain(one) for one in users]},
        lambda console: draw_users(console, users),
    )


@user.command("set-role", examples="ccctl user set-role olga operator")
@click.argument("name")
@click.argument("role", type=click.Choice(ROLES))
@pass_app
def set_role(app: App, name: str, role: str) -> None:
    """Give the user NAME another ROLE; it counts from their next call on."""
    _update(app, name, f"{name} has the role {role}.", role=role)


@user.command("bar", examples="ccctl user bar mallory")
@click.argument("name")
@pass_app
def bar(app: App, name: str) -> None:
    """Shut the user NAME out: none of their tokens counts any more. Their jobs run on."""
    _update(app, name, f"{name} is barred.", barred=True)


@user.command("unbar", examples="ccctl user unbar mallory")
@click.argument("name")
@pass_app
def unbar(app: App, name: str) -> None:
    """Let the user NAME in again, by the tokens that they had."""
    _update(app, name, f"{name} may speak again.", barred=False)


def _update(app: App, name: str, words: str, *, role: str = "", barred: bool | None = None) -> None:
    from controlplane.cli.render import plain

    with app.client() as client:
        found = client.identities.update_user(name, role=role, barred=barred)
    app.emit(lambda: plain(found), lambda console: console.print(words))


@click.group(
    "token",
    cls=Group,
    examples="""
    ccctl token create alice --out alice.login
    ccctl token create --label laptop --expires 30d --out laptop.login
    ccctl token list
    ccctl token revoke 3f2a81c09d4e
    """,
)
def token() -> None:
    """Tokens, by which users are let in: their own; for admins, everybody's."""


@token.command(
    "create",
    examples="""
    ccctl token create alice --out alice.login     for `ccctl login alice.login` of alice's
    ccctl token create --bare --out ci.token       a bare token, for --token-file
    """,
)
@click.argument("name", required=False, default="")
@click.option("--label", default="", help="What it is for.")
@click.option(
    "--expires",
    default="90d",
    show_default=True,
    help='When it ends, such as "12h" or "30d"; "never" for until it is revoked.',
)
@click.option("--bare", is_flag=True, help="The token alone, without server and certificate.")
@out_option
@reached_option
@pass_app
def create_token(
    app: App,
    name: str,
    label: str,
    expires: str,
    bare: bool,
    out: str | None,
    reached_at: str | None,
) -> None:
    """Make a token for the user NAME, or for yourself.

    What is written holds a secret, which is shown this once: whoever has it is NAME.
    """
    lifetime_s = None if expires == "never" else _seconds("--expires", expires)
    with _Secretly(out) as file, app.client() as client:
        made, secret = client.identities.create_token(name, label=label, lifetime_s=lifetime_s)
        with _or_else(lambda: client.identities.revoke_token(made.name)):
            file.write(secret if bare else _line(app, "login", secret, reached_at))
    whose = made.user.removeprefix("users/")
    use = "--token-file" if bare else "ccctl login"
    app.note(f"{made.name} is a token for {whose}, for {use}{f': {out}' if out else ''}")


@token.command("list", examples="ccctl token list --user alice")
@click.option("--user", "name", default="", help="Of this user alone.")
@pass_app
def list_tokens(app: App, name: str) -> None:
    """List tokens, newest first: all of them for admins, your own for others."""
    from controlplane.cli.identitytables import draw_tokens
    from controlplane.cli.render import plain

    with app.client() as client:
        tokens = list(client.identities.tokens(name))
    app.emit(
        lambda: {"tokens": [plain(one) for one in tokens]},
        lambda console: draw_tokens(console, tokens, app.clock.now_us()),
    )


@token.command("revoke", examples="ccctl token revoke 3f2a81c09d4e")
@click.argument("name", metavar="ID")
@pass_app
def revoke_token(app: App, name: str) -> None:
    """Make the token ID void at once; `ccctl token list` tells IDs."""
    from controlplane.cli.render import plain

    with app.client() as client:
        found = client.identities.revoke_token(f"tokens/{name.removeprefix('tokens/')}")
    words = f"{found.name} is void."
    app.emit(lambda: plain(found), lambda console: console.print(words))


@click.group(
    "token",
    cls=Group,
    examples="""
    ccctl node token create --out gpu-07.join      then on the host: nodeagent join gpu-07.join
    ccctl node token list
    """,
)
def node_token() -> None:
    """Join tokens, each of which lets one host become a node. For admins."""


@node_token.command(
    "create",
    examples="""
    ccctl node token create --out gpu-07.join
    ccctl node token create | ssh gpu-07 nodeagent join -
    ccctl node token create --node gpu-07          that host joins again, with another key
    """,
)
@click.option(
    "--expires", default="1h", show_default=True, help='Until when it counts, such as "1h".'
)
@click.option(
    "--node", type=node_name, default=None, help="For a node that is known, to join again."
)
@out_option
@reached_option
@pass_app
def create_join_token(
    app: App, expires: str, node: str | None, out: str | None, reached_at: str | None
) -> None:
    """Make a token by which one host joins: give it to `nodeagent join` there."""
    lifetime_s = _seconds("--expires", expires)
    with _Secretly(out) as file, app.client() as client:
        made, secret = client.identities.create_join_token(lifetime_s=lifetime_s, node=node or "")
        with _or_else(lambda: client.identities.revoke_join_token(made.name)):
            file.write(_line(app, "join", secret, reached_at))
    app.note(f"{made.name} lets one host join{f': nodeagent join {out}' if out else ''}")


@node_token.command("list", examples="ccctl node token list")
@pass_app
def list_join_tokens(app: App) -> None:
    """List join tokens, newest first, and which nodes joined by them."""
    from controlplane.cli.identitytables import draw_join_tokens
    from controlplane.cli.render import plain

    with app.client() as client:
        tokens = list(client.identities.join_tokens())
    app.emit(
        lambda: {"join_tokens": [plain(one) for one in tokens]},
        lambda console: draw_join_tokens(console, tokens, app.clock.now_us()),
    )


@node_token.command("revoke", examples="ccctl node token revoke 3f2a81c09d4e")
@click.argument("name", metavar="ID")
@pass_app
def revoke_join_token(app: App, name: str) -> None:
    """Make the join token ID void. A node that has joined by it stays; see `ccctl node revoke`."""
    from controlplane.cli.render import plain

    with app.client() as client:
        found = client.identities.revoke_join_token(
            f"joinTokens/{name.removeprefix('joinTokens/')}"
        )
    words = f"{found.name} is void."
    app.emit(lambda: plain(found), lambda console: console.print(words))


class _Secretly:
    """Writes a line where its owner alone can read it: a new file of mode 0600, or stdout. The file
    is made before the token, and goes again when there is none."""

    def __init__(self, out: str | None) -> None:
        """`out`: the file; None for stdout."""
        self._out, self._fd = out, -1

    def __enter__(self) -> _Secretly:
        if self._out is not None:
            try:
                self._fd = os.open(self._out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                raise click.BadParameter(
                    f"{self._out}: is there already; remove it, or name another file.",
                    param_hint="--out",
                ) from None
        return self

    def write(self, line: str) -> None:
        if self._out is None:
            click.echo(line)
            sys.stdout.flush()
        else:
            os.write(self._fd, f"{line}\n".encode())
            os.fsync(self._fd)  # nobody else has it
            sync(Path(self._out).absolute().parent)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            if kind is not None and self._out is not None:
                os.unlink(self._out)


@contextmanager
def _or_else(undo: Callable[[], object]) -> Iterator[None]:
    """What could not be written down lets nobody in."""
    try:
        yield
    except BaseException:
        undo()
        raise


def _line(app: App, kind: Kind, secret: str, reached_at: str | None) -> str:
    from controlplane.kit.address import parse_address
    from controlplane.kit.credential import Credential

    settings = app.settings
    server = reached_at or settings.server
    authority = settings.ca_file.expanduser().read_bytes() if settings.ca_file else b""
    try:
        local = parse_address(server.rpartition("://")[2]).local
    except ValueError:
        local = False
    if local and kind == "join":
        app.note(f"Note: {server} is reached from its own host alone; see --reached-at.")
    return Credential(kind=kind, server=server, authority=authority, secret=secret).write()


def _seconds(option: str, text: str) -> int:
    from controlplane.model.quantity import parse_duration

    try:
        return parse_duration(text) // 1_000_000
    except ValueError as problem:
        raise click.BadParameter(f"{text!r}: {problem}", param_hint=option) from None
