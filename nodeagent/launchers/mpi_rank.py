"""Open MPI's fork agent: gives a rank its own environment, folder and cores, then becomes it.

Open MPI calls it as `… mpi_rank env COMMAND…`, in a folder that every node has.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

_NODE_PARAMETER = "CC_MPI_MCA_"


def rank_env(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a rank, from that of its node and the numbers that Open MPI gave it."""
    rank, local_rank = env["OMPI_COMM_WORLD_RANK"], env["OMPI_COMM_WORLD_LOCAL_RANK"]
    devices: list[dict[str, str]] = json.loads(env["CC_MPI_DEVICES"])
    # More ranks than were asked for: such a one has no devices.
    none = dict.fromkeys(devices[0], "")
    own = {
        name.replace(_NODE_PARAMETER, "OMPI_MCA_"): value
        for name, value in env.items()
        if name.startswith(_NODE_PARAMETER)
    }
    told = {
        "CC_RANK": rank,
        "CC_LOCAL_RANK": local_rank,
        "CC_REPORT": f"{env['CC_REPORT'].rpartition('.')[0]}.{rank}",
        "CC_CPUS": _part("CC_MPI_CPUS", env, int(local_rank)),
        **dict(enumerate(devices)).get(int(local_rank), none),
        "PWD": env["CC_MPI_CWD"],
    }
    return {k: v for k, v in env.items() if not k.startswith("CC_MPI_")} | own | told


def _part(name: str, env: Mapping[str, str], local_rank: int) -> str:
    parts = env[name].split(";")
    return parts[local_rank] if local_rank < len(parts) else ""


def main() -> NoReturn:
    """Become the rank's program."""
    command, env = sys.argv[2:], rank_env(os.environ)
    cores = [int(core) for core in env["CC_CPUS"].split(",") if core]
    if cores:
        with suppress(OSError):  # a core that went offline must not end the job
            os.sched_setaffinity(0, cores)
    try:
        os.chdir(env["PWD"])
        os.execvpe(command[0], command, env)
    except OSError as error:
        words = f"rank {env['CC_RANK']} on node {env['CC_NODE_NAME']}: cannot run {command[0]!r}"
        print(f"{words} in {env['PWD']}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
