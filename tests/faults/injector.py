"""Has one thing after another go wrong, as a seed decides."""

from __future__ import annotations

import signal
import time
import traceback
from typing import TYPE_CHECKING

from controlplane.client.errors import ClientError
from controlplane.kit.failpoints import POINTS
from nodeagent.supervision import processes
from tests.faults.scenarios import HOUR_S, fill_disk, restart_postgresql
from tests.faults.stage import LEASE_S, MARGIN_S

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable

    from tests.faults.stage import Stage

PAUSE_S = 1.0
"""Between two faults, at most; half of it on average."""
AWAY_S = 1.5
"""A daemon that died is started again after so long, at most."""
KINDS = ("job.submitted", "attempt.placed", "attempt.running", "attempt.succeeded", "job.cancelled")
STEPS = sorted([*POINTS, *(f"{kind}.{w}_commit" for kind in KINDS for w in ("before", "after"))])
FAILING = ("agent.folder_made", "agent.prepared", "agent.prolog_ran", "agent.plan_written")
"""Steps at which an error of the system's may come."""
TOO_LONG_S = LEASE_S + MARGIN_S + 1.5
STOPS_S = (0.2, 1.0, TOO_LONG_S)


class Injector:
    """Breaks things, and mends them soon after."""

    def __init__(self, stage: Stage, chance: random.Random, stop: threading.Event) -> None:
        self._stage, self._chance, self._stop = stage, chance, stop
        self.done: list[str] = []
        self.faults: list[str] = []
        self._began = time.monotonic()

    def run(self) -> None:
        """Go on until told to stop."""
        deeds: dict[Callable[[], str], int] = {
            self._step: 10,
            self._kill_daemon: 3,
            self._restart_daemon: 2,
            self._kill_supervisor: 2,
            self._kill_worker: 2,
            self._stop_and_go: 3,
            self._set_clock: 1,
        }
        if self._stage.postgres is not None:
            deeds[self._restart_database] = 3
        if self._stage.small_disk:
            deeds[self._fill_disk] = 3
        if self._stage.cables:
            deeds[self._cut] = 3
        while not self._stop.is_set():
            # Both are drawn before anything is done: what comes is the seed's alone.
            (deed,) = self._chance.choices(list(deeds), list(deeds.values()))
            pause_s = self._chance.uniform(0, PAUSE_S)
            try:
                self._say(deed())
                time.sleep(pause_s)
                self._stage.revive()
                self._stage.undrain()
            except ClientError:
                continue
            except Exception:
                self.faults.append(traceback.format_exc())
                return

    def _say(self, words: str) -> None:
        self.done.append(f"{time.monotonic() - self._began:7.2f} {words}")

    def _step(self) -> str:
        step = self._chance.choice(STEPS)
        actions = ["kill", f"sleep:{self._chance.choice((20, 200, 1000))}"]
        actions += ["error"] if step in FAILING else []
        action = f"{self._chance.choice(actions)}@{self._chance.randint(1, 4)}"
        self._stage.arm(step, action)
        return f"{action} at {step}"

    def _kill_daemon(self) -> str:
        daemon = self._chance.choice(self._stage.daemons)
        away_s = self._chance.uniform(0, AWAY_S)
        daemon.kill()
        time.sleep(away_s)
        return f"kill {daemon.name}, for {away_s:.1f} s"

    def _restart_daemon(self) -> str:
        daemon = self._chance.choice(self._stage.daemons)
        daemon.stop()
        daemon.start()
        return f"restart {daemon.name}"

    def _kill_supervisor(self) -> str:
        return self._hit(self._stage.spawners(), signal.SIGKILL, "spawner or supervisor")

    def _kill_worker(self) -> str:
        return self._hit(list(self._stage.workers()), signal.SIGKILL, "worker")

    def _hit(self, pids: list[int], number: int, what: str) -> str:
        place = self._chance.random()
        if not pids:
            return f"no {what} to hit"
        pid = sorted(pids)[int(place * len(pids))]
        processes.signal_all([pid], number)
        return f"{signal.Signals(number).name} to {what} {pid}"

    def _stop_and_go(self) -> str:
        what = self._chance.choice(("daemon", "supervisor", "worker"))
        daemon = self._chance.choice(self._stage.daemons)
        seconds, place = self._chance.choice(STOPS_S), self._chance.random()
        pids = [daemon.pid]
        if what != "daemon":
            there = self._stage.spawners() if what == "supervisor" else list(self._stage.workers())
            pids = sorted(there)[int(place * len(there)) :][:1]
        if what == "supervisor":
            # Nobody else ends its workers in its place at the deadline: shorter than the margin.
            seconds = min(seconds, MARGIN_S / 2)
        processes.signal_all(pids, signal.SIGSTOP)
        time.sleep(seconds)
        processes.signal_all(pids, signal.SIGCONT)
        return f"stop {what} {daemon.name if what == 'daemon' else pids} for {seconds} s"

    def _set_clock(self) -> str:
        off_s = self._chance.choice((-HOUR_S, 0, HOUR_S))
        self._stage.set_clock(off_s)
        return f"set the clocks to {off_s:+} s"

    def _cut(self) -> str:
        name = self._chance.choice(sorted(self._stage.cables))
        seconds = self._chance.choice(STOPS_S)
        self._stage.cables[name].link_down()
        time.sleep(seconds)
        self._stage.cables[name].link_up()
        return f"cut {name} off for {seconds} s"

    def _restart_database(self) -> str:
        restart_postgresql(self._stage)
        return "restart PostgreSQL"

    def _fill_disk(self) -> str:
        fill_disk(self._stage)
        return "fill the control plane's disk"
