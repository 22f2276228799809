"""The worker of every node but the first: waits for its daemon line, then becomes that daemon."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from nodeagent.launchers.mpi_rsh import SCOPE
from nodeagent.launchers.rendezvous_client import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

_JOIN_S = 120.0
"""How long `mpirun` may take to ask for this node, in seconds."""


def daemon_argv(line: str, env: Mapping[str, str]) -> list[str]:
    """The arguments of `orted` in a line that was meant for a shell on this node.

    Depending on the user's login shell, `mpirun` wraps the call into commands that set things up;
    this node's agent has done that already, so only the call of `orted` itself is taken. A
    parameter
    that this node's environment sets (OMPI_MCA_*) is left out: the line has the first node's value.
    ValueError when the line calls no `orted`.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    tokens = list(lexer)
    calls = [i for i, token in enumerate(tokens) if token.rsplit("/", 1)[-1] == "orted"]
    if not calls:
        raise ValueError(f"no orted is called in {line!r}")
    argv = ["orted"]
    rest = iter(tokens[calls[-1] + 1 :])
    for token in rest:
        if token and set(token) <= set("();<>|&"):
            break
        if token in ("-mca", "--mca"):
            name, value = next(rest, ""), next(rest, "")
            if f"OMPI_MCA_{name}" not in env:
                argv += [token, name, value]
        else:
            argv.append(token)
    return argv


def main() -> NoReturn:
    """Become this node's daemon."""
    env = dict(os.environ)
    name = env["CC_MPI_NAME"]
    secret = env.pop("CC_MPI_SECRET")
    store = Store(host=env["CC_MPI_STORE_HOST"], port=int(env["CC_MPI_STORE_PORT"]), secret=secret)
    program = shutil.which("orted", path=env.get("PATH"))
    if program is None:
        print(
            "mpi_join: this node has no orted in PATH; install Open MPI 4.1 on every node of the "
            "job's queue (Debian: openmpi-bin)",
            file=sys.stderr,
        )
        sys.exit(127)
    try:
        line = store.get(SCOPE, name, deadline=time.monotonic() + _JOIN_S).decode()
        argv = daemon_argv(line, env)
    except (StoreError, TimeoutError, ValueError) as error:
        print(f"mpi_join: mpirun did not ask this node ({name}) to join: {error}", file=sys.stderr)
        sys.exit(1)
    os.execve(program, argv, env)


if __name__ == "__main__":
    main()
