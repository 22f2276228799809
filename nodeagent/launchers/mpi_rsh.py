"""What `mpirun` calls instead of ssh: publishes a node's daemon line in the rendezvous store.

`mpirun` runs it as `… mpi_rsh HOST orted ARGUMENT…`. It leaves at once: from then on `mpirun` knows
the daemon by its own connection, and the gang knows it by its worker.
"""

from __future__ import annotations

import os
import sys
import time

from nodeagent.launchers.rendezvous_client import Store, StoreError

SCOPE = "_cc/mpi"
"""Scope of the store in which the lines lie, by host name."""
_PUBLISH_S = 15.0


def main() -> int:
    """Publish the line; the exit code tells `mpirun` whether that worked."""
    host, line = sys.argv[1], " ".join(sys.argv[2:])
    store = Store(
        host=os.environ["CC_MPI_STORE_HOST"],
        port=int(os.environ["CC_MPI_STORE_PORT"]),
        secret=os.environ["CC_MPI_SECRET"],
    )
    try:
        store.put(SCOPE, host, line.encode(), deadline=time.monotonic() + _PUBLISH_S)
    except (StoreError, TimeoutError) as error:
        print(f"mpi_rsh: cannot tell host {host} to join: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
