"""What an agent finds of the leases that an earlier one held: after a crash, after a reboot."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
from typing import TYPE_CHECKING, Any, cast

import pytest

from controlplane.model.launch import LeaseSignal
from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus
from controlplane.service.logstore import LogStore, StreamId
from controlplane.v1 import agent_service_pb2 as pb
from nodeagent import status as agent_status
from nodeagent import streams
from nodeagent.folders import Folders, LeaseKey, leases_in
from nodeagent.held import Held
from nodeagent.leases import Leases
from nodeagent.looking import Looks
from nodeagent.plan import StepPlan, WorkerPlan
from nodeagent.preflight import Preflight
from nodeagent.reconcile import Forget, Signal
from nodeagent.shipping import ship_once
from nodeagent.supervision import record, sockets
from tests.support.disk import room_for

if TYPE_CHECKING:
    from pathlib import Path

BOOT, NEXT_BOOT = "boot-1", "boot-2"
KEY = LeaseKey(7, 9)
NOW = 1_770_000_000_000_000


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(state=tmp_path / "state", runtime=tmp_path / "run")
    made.prepare(BOOT)
    return made


def leases(folders: Folders) -> Leases:
    """The leases of an agent that starts nothing."""
    return Leases(
        folders,
        cast("Any", None),
        cast("Any", None),
        Preflight(users=lambda ids: {}, prolog=None, epilog=None, deadline_s=5),
        Looks(),
        lambda: None,
    )


def leave(folders: Folders, *, plan: str | None = None, output: bytes = b"") -> None:
    """What an agent that held a lease leaves behind."""
    (folders.control / str(KEY)).mkdir()
    data = folders.data / str(KEY)
    data.mkdir()
    if plan is not None:
        (folders.control / str(KEY) / record.PLAN).write_text(plan)
    if output:
        writer = streams.StreamWriter(data, 0, "out", segment_bytes=1 << 20, cap_bytes=4 << 20)
        writer.write(output)
        writer.close()


def a_plan() -> str:
    worker = WorkerPlan(rank=0, local_rank=0, argv=("true",), env={}, cwd="/")
    return StepPlan(lease_id=KEY.lease_id, token=KEY.token, workers=(worker,)).to_json()


def adopted(folders: Folders) -> Held:
    found = leases(folders)
    assert found.adopt() == 1
    return found.held[KEY.lease_id]


def test_folders_are_named_after_their_leases(folders: Folders) -> None:
    for name in ("12.40", "2.3", "x.1", "7", "1.2.3", ".1"):
        (folders.data / name).mkdir()

    assert list(leases_in(folders.data)) == [LeaseKey(2, 3), LeaseKey(12, 40)]


def test_a_lease_with_a_supervisor_is_adopted_with_its_token(folders: Folders) -> None:
    leave(folders, plan=a_plan())
    facts = [{"fact": "started", "time": 5, "rank": 0, "pid": 4_000_000, "ticks": 1}]
    status = folders.control / str(KEY) / record.STATUS
    status.write_text("".join(json.dumps(fact) + "\n" for fact in facts))

    held = adopted(folders)

    assert held.key == KEY
    assert held.status.phase is LeasePhase.RUNNING
    assert held.status.token == KEY.token
    assert held.status.workers[0].pid == 4_000_000


@pytest.mark.parametrize("length", [None, 0, 1, 40])
def test_a_plan_that_was_not_written_to_its_end_was_never_started(
    folders: Folders, length: int | None
) -> None:
    leave(folders, plan=None if length is None else a_plan()[:length])

    status = adopted(folders).status

    assert (status.phase, status.end) == (LeasePhase.ENDED, LeaseEnd.LAUNCH_FAILED)
    assert status.message == "the agent was restarted before the start"


def test_what_ran_before_a_reboot_is_told_as_that_though_the_runtime_folder_is_on_disk(
    folders: Folders,
) -> None:
    leave(folders, plan=a_plan(), output=b"some words")
    folders.deadline.write_text("123456789\n")

    folders.prepare(NEXT_BOOT)

    assert not folders.deadline.exists()
    assert not list(folders.control.iterdir())
    status = adopted(folders).status
    assert (status.phase, status.end) == (LeasePhase.ENDED, LeaseEnd.SUPERVISOR_LOST)
    assert (status.token, status.message) == (KEY.token, "the node was rebooted")


def test_the_deadline_and_the_leases_outlive_a_restart_of_the_agent(folders: Folders) -> None:
    leave(folders, plan=a_plan())
    folders.deadline.write_text("123456789\n")

    folders.prepare(BOOT)

    assert folders.deadline.read_text() == "123456789\n"
    assert adopted(folders).status.phase is LeasePhase.STARTING


def test_leases_outlive_a_restart_of_the_agent_that_finds_no_room_to_write(
    folders: Folders,
) -> None:
    leave(folders, plan=a_plan())

    with room_for(0):
        folders.prepare(BOOT)

    assert (folders.runtime / "boot_id").read_text() == BOOT
    assert adopted(folders).status.phase is LeasePhase.STARTING


def test_output_from_before_a_reboot_is_handed_over_and_then_removed(
    folders: Folders,
) -> None:
    leave(folders, plan=a_plan(), output=b"the last words")
    folders.prepare(NEXT_BOOT)
    found = leases(folders)
    found.adopt()
    sent: list[pb.LogChunk] = []

    async def ship(request: pb.ShipLogsRequest) -> pb.ShipLogsResponse:
        sent.extend(request.chunks)
        ends = [chunk.offset + len(chunk.data) for chunk in request.chunks]
        return pb.ShipLogsResponse(next_offsets=ends)

    asyncio.run(ship_once(found, "node", ship, NOW))
    found.perform(Forget(lease_id=KEY.lease_id))
    asyncio.run(ship_once(found, "node", ship, NOW))
    assert list(folders.data.iterdir()), "it goes when the store has settled it"
    asyncio.run(ship_once(found, "node", ship, NOW))

    assert [(c.lease_id, c.token, c.data, c.settle) for c in sent] == [
        (7, 9, b"the last words", False),
        (7, 9, b"", True),
    ]
    assert found.held == {}
    assert not list(folders.data.iterdir())


def test_output_that_a_power_cut_took_from_the_store_is_handed_over_anew(
    folders: Folders, tmp_path: Path
) -> None:
    leave(folders, plan=a_plan(), output=b"the last words")
    folders.prepare(NEXT_BOOT)
    found = leases(folders)
    found.adopt()
    found.perform(Forget(lease_id=KEY.lease_id))
    which = StreamId(job_id=1, task_index=0, attempt=1, rank=0, stream="out")
    stores = [LogStore(tmp_path / "logs", 1 << 20)]

    async def ship(request: pb.ShipLogsRequest) -> pb.ShipLogsResponse:
        ends = [stores[-1].append(which, each.offset, each.data, NOW) for each in request.chunks]
        return pb.ShipLogsResponse(next_offsets=ends)

    def hand_over() -> None:
        asyncio.run(ship_once(found, "node", ship, NOW))

    def cut(size: int) -> None:
        os.truncate(tmp_path / f"logs/000000/1/0.1/0.out.{0:020d}", size)
        stores.append(LogStore(tmp_path / "logs", 1 << 20))

    hand_over()
    cut(4)
    found.resend()  # as it does when it hears of the new epoch
    hand_over()
    assert stores[-1].read(which, 0) == (0, b"the last words")
    cut(6)  # and though it has not heard of it yet
    hand_over()
    assert found.held, "the store said that it lacks some"
    hand_over()
    hand_over()
    assert stores[-1].read(which, 0) == (0, b"the last words")
    assert stores[-1].end(which) == len(b"the last words")
    hand_over()
    assert found.held == {}


def test_a_lease_that_was_stopped_before_it_was_seen_leaves_nothing(folders: Folders) -> None:
    found = leases(folders)
    told = LeaseStatus(lease_id=7, token=9, phase=LeasePhase.ENDED)
    found.held[7] = Held(key=KEY, status=told)

    found.drop(7)

    assert found.held == {}


def test_signals_are_ordered_again_until_they_are_reported_and_never_out_of_order(
    folders: Folders,
) -> None:
    leave(folders, plan=a_plan())
    folder = folders.control / str(KEY)
    told = folder / record.STATUS
    fact = {"fact": "started", "time": 5, "rank": 0, "pid": 4_000_000, "ticks": 1}
    told.write_text(json.dumps(fact) + "\n")
    found = leases(folders)
    found.adopt()
    ordered = tuple(LeaseSignal(number=n, signal="USR1", ranks=(0,)) for n in (3, 4))

    def heard(control: socket.socket) -> list[int]:
        numbers = []
        with contextlib.suppress(BlockingIOError):
            while True:
                numbers.append(json.loads(control.recv(4096))["number"])
        return numbers

    with (folder / record.PLAN).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as its supervisor does, which does not listen yet
        found.perform(Signal(lease_id=KEY.lease_id, signals=ordered))
        control = sockets.bind_to(str(folder / record.CONTROL))
        found.refresh_all()
        assert heard(control) == [3, 4]
        found.refresh_all()
        assert heard(control) == [3, 4]
        with told.open("a") as file:
            file.write(json.dumps({"fact": "signalled", "time": 6, "number": 3}) + "\n")
        found.refresh_all()
        assert heard(control) == [4]
        with told.open("a") as file:
            file.write(json.dumps({"fact": "signalled", "time": 7, "number": 4}) + "\n")
        found.refresh_all()
        found.refresh_all()
        assert heard(control) == []
        assert found.held[KEY.lease_id].status.signals_done == 4
        control.close()


def test_a_signal_that_is_not_heard_holds_up_those_behind_it(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(folders, plan=a_plan())
    found = leases(folders)
    found.adopt()
    tried: list[int] = []

    def full(_folder: Path, number: int, *_: object) -> bool:
        tried.append(number)
        return False

    monkeypatch.setattr(agent_status, "signal_workers", full)
    ordered = tuple(LeaseSignal(number=n, signal="USR1") for n in (3, 4))
    found.perform(Signal(lease_id=KEY.lease_id, signals=ordered))

    assert tried == [3]


def test_ends_of_detached_steps_are_told_until_they_are_heard(folders: Folders) -> None:
    leave(folders, plan=a_plan())
    told = folders.control / str(KEY) / record.STATUS
    facts: list[dict[str, Any]] = [
        {"fact": "started", "time": 5, "rank": 0, "pid": 4_000_000, "ticks": 1},
        *(
            {"fact": "step_started", "step": n, "rank": 0, "pid": n, "ticks": 1, "detached": n != 3}
            for n in (1, 2, 3)
        ),
        {"fact": "step_exited", "step": 2, "exit_code": 7, "message": ""},
        {"fact": "step_exited", "step": 3, "exit_code": 0, "message": ""},
    ]
    told.write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    found = leases(folders)
    found.adopt()

    assert list(found.steps_ended()) == [(KEY, 2, (7, None, ""))]
    found.steps_heard([2])
    assert list(found.steps_ended()) == []

    with told.open("a") as file:
        last = {"fact": "ended", "time": 9, "end": "supervisor_lost", "message": "it was lost"}
        file.write(json.dumps(last) + "\n")
    found.refresh(KEY.lease_id)
    assert list(found.steps_ended()) == [(KEY, 1, (None, None, "it was lost"))]
