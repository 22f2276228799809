"""Everything at once, at random: clients that submit, cancel, requeue, hold and read, and faults of
every kind meanwhile; then all is healed, every job comes to its end, and the checker looks.

    python -m tests.faults.soak --seed 7 --seconds 300

The seed decides on each client's requests and on the sequence of faults; in which order these meet
is the machine's. A failing run says how to replay it, and keeps what was there.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.client.errors import Refused
from tests.faults.check import faults
from tests.faults.injector import Injector
from tests.faults.logbooks import suspicious
from tests.faults.people import Person
from tests.faults.playing import KINDS, centre

if TYPE_CHECKING:
    from collections.abc import Mapping

CLIENTS = 16
MIX = {"plain": 4, "gang": 3, "array": 2, "batch": 1}
SETTLE_S = 240.0


def soak(
    folder: Path,
    *,
    seed: int,
    seconds: float,
    mix: Mapping[str, int] = MIX,
    clients: int = CLIENTS,
    on: str = "sqlite",
) -> list[str]:
    """Run it in a folder; all that is not as it must be."""
    with centre(on, folder) as stage:
        stop = threading.Event()
        people = [
            Person(stage, random.Random(f"{seed} client {number}"), mix, stop)
            for number in range(clients)
        ]
        injector = Injector(stage, random.Random(f"{seed} faults"), stop)
        threads = [threading.Thread(target=each.run) for each in people]
        for thread in (*threads, threading.Timer(seconds, stop.set)):
            thread.start()
        injector.run()  # here: what it starts ends with the thread that has started it
        for thread in threads:
            thread.join()
        stage.heal()
        for name, job in stage.jobs().items():
            if job.exit_code is None:
                with contextlib.suppress(Refused):  # it has ended meanwhile
                    stage.cluster.client.release_jobs([name])
        found = []
        try:
            stage.settle(SETTLE_S)
        except AssertionError as error:
            found.append(str(error))
        accounts = stage.accounts()
        found += faults(accounts)
        found += [fault for each in people for fault in each.faults] + injector.faults
        for path in sorted(folder.glob("*.log")):
            bad = suspicious(path.read_text(errors="replace"))
            found += [f"{path.name}: {record}" for record in bad[:5]]
        ends: dict[str, int] = {}
        for job in accounts.jobs.values():
            ends[job.state] = ends.get(job.state, 0) + 1
        print(
            f"{len(accounts.jobs)} jobs ({ends}), {len(accounts.events)} events,"
            f" {sum(line.what == 'begin' for line in accounts.lines)} workers,"
            f" {len(accounts.told)} answers, {len(injector.done)} faults"
        )
        (folder / "faults.txt").write_text("\n".join([*injector.done, "", *found]))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--on", choices=KINDS, default=KINDS[0])
    mix = ",".join(f"{kind}={weight}" for kind, weight in MIX.items())
    parser.add_argument("--jobs-mix", default=mix, help="what is submitted how often")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(1 << 30)
    weights = {k: int(v) for k, v in (each.split("=") for each in asked.jobs_mix.split(","))}
    again = (
        f"python -m tests.faults.soak --seed {seed} --seconds {asked.seconds:g}"
        f" --clients {asked.clients} --on {asked.on} --jobs-mix {asked.jobs_mix}"
    )
    print(again, flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"soak-{seed}-"))
    try:
        found = soak(
            folder,
            seed=seed,
            seconds=asked.seconds,
            mix=weights,
            clients=asked.clients,
            on=asked.on,
        )
    except BaseException:
        print(f"seed {seed} failed; what was there is kept in {folder}; to replay:\n  {again}")
        raise
    if found:
        print("\n".join(found[:40]))
        print(f"seed {seed} failed; what was there is kept in {folder}; to replay:\n  {again}")
        return 1
    shutil.rmtree(folder)
    print(f"seed {seed}: nothing was lost, run twice or left behind")
    return 0


if __name__ == "__main__":
    sys.exit(main())
