"""A client that submits, cancels, requeues, holds and reads at random, and notes the answers."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Any

from controlplane.client.errors import ClientError, DeadlinePassed, Refused, Unreachable
from controlplane.v1 import job_pb2
from tests.faults.check import Told
from tests.faults.scenarios import GANG, cancel_job

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Mapping

    from controlplane.client import Client
    from tests.faults.stage import Stage

MOST_LIVING = 5
"""A client submits no more while so many of its jobs live."""
PAUSE_S = 0.3
_MAY_FAIL = (Unreachable, DeadlinePassed, Refused)
"""Whoever asks in times like these bears them."""


class Person:
    """One client, in a thread of its own."""

    def __init__(
        self, stage: Stage, chance: random.Random, mix: Mapping[str, int], stop: threading.Event
    ) -> None:
        self._stage, self._chance, self._stop = stage, chance, stop
        self._mix = mix
        self._living: list[str] = []
        self.faults: list[str] = []

    def run(self) -> None:
        """Ask until told to stop."""
        deeds = {
            self._submit: 6,
            self._cancel: 1,
            self._requeue: 1,
            self._hold: 1,
            self._release: 3,
            self._signal: 1,
            self._change: 1,
            self._read: 6,
        }
        with self._stage.client(timeout_s=20) as client:
            while not self._stop.is_set():
                (deed,) = self._chance.choices(list(deeds), list(deeds.values()))
                try:
                    deed(client)
                except _MAY_FAIL as error:
                    if "internal" in str(error):
                        self.faults.append(f"{deed.__name__}: {error}")
                except ClientError as error:
                    self.faults.append(f"{deed.__name__}: {type(error).__name__}: {error}")
                except Exception:
                    self.faults.append(traceback.format_exc())
                time.sleep(self._chance.uniform(0, PAUSE_S))

    def _some(self) -> str:
        return self._chance.choice(self._living) if self._living else ""

    def _submit(self, client: Client) -> None:
        chance = self._chance
        (kind,) = chance.choices(list(self._mix), list(self._mix.values()))
        seconds = chance.choice((0.0, 0.1, 0.5, 2.0))
        code = chance.choice((0, 0, 0, 3))
        hold = chance.random() < 0.1
        fields: dict[str, Any] = {"max_attempts": chance.choice((1, 2))}
        if chance.random() < 0.2:
            fields["time_limit"] = 1
        shape: dict[str, dict[str, Any]] = {
            "plain": {},
            "gang": GANG,
            "array": {"tasks": chance.choice(("0-3", "0-5%2"))},
            "batch": {},
        }
        document = self._stage.document(seconds, code, **fields, **shape[kind])
        if len(self._living) >= MOST_LIVING:
            self._read(client)
            return
        names = self._stage.submit(client, *[document] * (3 if kind == "batch" else 1), hold=hold)
        self._living += names

    def _cancel(self, client: Client) -> None:
        if name := self._some():
            if self._chance.random() < 0.2:
                name += "/tasks/0"
            cancel_job(self._stage, name, client)

    def _requeue(self, client: Client) -> None:
        if name := self._some():
            self._stage.note(Told(what="requeued", names=tuple(client.requeue([name]))))

    def _hold(self, client: Client) -> None:
        if name := self._some():
            self._stage.note(Told(what="held", names=tuple(client.hold_jobs([name]))))

    def _signal(self, client: Client) -> None:
        if name := self._some():
            client.signal(f"{name}/tasks/0", "CONT")

    def _change(self, client: Client) -> None:
        if name := self._some():
            client.update(name, time_limit_us=self._chance.randint(1, 9) * 1_000_000)

    def _release(self, client: Client) -> None:
        for name in list(self._living):
            if client.get(name).held_by:
                client.release_jobs([name])

    def _read(self, client: Client) -> None:
        for name in list(self._living):
            job = client.get(name)
            state = job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
            self._stage.note(Told(what="saw", names=(name,), state=state))
            if job.HasField("exit_code"):
                self._living.remove(name)
