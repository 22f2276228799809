"""Folders of a lease: fetching what is shipped, and seeing that whom it runs as can use them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlplane.kit.archive import pack
from nodeagent.accounts import Account, own_account
from nodeagent.folders import Folders, LeaseKey
from nodeagent.launchers import LaunchError, LaunchRefused, NodeContext
from nodeagent.looking import Looks
from nodeagent.room import Room
from nodeagent.staging import Stage
from tests.support.disk import Synced, small_disk
from tests.support.launches import launch, members, node

FILES = 5_000


async def never(_sha256: str) -> AsyncIterator[bytes]:
    raise AssertionError("it is there already")
    yield b""


def stage(folder: Path) -> Stage:
    return Stage(
        base=node(members([1], addresses=["127.0.0.1"])),
        folders=Folders(state=folder, runtime=folder / "run"),
        room=Room(folders=(folder,), free_bytes=0, free_inodes=0),
        log_cap_bytes=1 << 20,
        download=never,
        limits=(),
        own=own_account(),
        run_as="agent",
        allow_root=False,
        devices=tuple,
        cages=None,
    )


async def parts(content: bytes) -> AsyncIterator[bytes]:
    yield content[:10]
    yield content[10:]


def test_what_was_fetched_is_whole_under_its_hash_also_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    with (tmp_path / "archive").open("wb") as file:
        pack(tmp_path / "source", file)
    content = (tmp_path / "archive").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    made = replace(stage(tmp_path), download=lambda _: parts(content))
    made.folders.prepare("boot")
    synced = Synced(monkeypatch)
    asyncio.run(made.fetch(sha256, LeaseKey(7, 9), own_account()))
    assert synced.has(made.folders.blobs / sha256, made.folders.blobs)


def test_an_unpacking_that_is_cut_off_writes_no_more(tmp_path: Path) -> None:
    source, into = tmp_path / "source", tmp_path / "leases" / "7.9" / "work"
    source.mkdir()
    for number in range(FILES):
        (source / str(number)).touch()
    stage(tmp_path).folders.prepare("boot")
    with (tmp_path / "blobs" / "sha").open("wb") as file:
        pack(source, file)

    async def cut_off() -> int:
        fetching = asyncio.create_task(stage(tmp_path).fetch("sha", LeaseKey(7, 9), own_account()))
        # A thread's doing, which tells nobody.
        while not (into.exists() and any(into.iterdir())):  # noqa: ASYNC110
            await asyncio.sleep(0)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        return len(list(into.iterdir()))

    there = asyncio.run(cut_off())  # it waits for threads that still run
    assert 0 < there < FILES
    assert len(list(into.iterdir())) == there


KEY = LeaseKey(7, 9)
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
SOMEBODY = Account(name="ada", uid=65534, gid=65534, groups=(65534,), home="/", shell="/bin/sh")


def prepared(made: Stage, account: Account, **fields: Any) -> NodeContext:
    """What a launcher is told of a lease, looked at as agents do; its owner is `account`."""
    made.folders.prepare("boot")
    gang = members([1], addresses=["127.0.0.1"])
    wanted = launch("command", gang, **fields)
    look = Looks().within("ada", lambda place: made.prepare(wanted, KEY, account, place))
    return asyncio.run(look)


@pytest.fixture
def others(tmp_path: Path) -> Iterator[Stage]:
    """A stage in a folder that other accounts get to, as pytest's are not."""
    folder = Path("/tmp") / f"cc-{os.getpid()}-{tmp_path.name}"
    folder.mkdir(mode=0o755)
    made = stage(folder)
    yield replace(made, folders=replace(made.folders, shared=True))
    shutil.rmtree(folder)


def test_a_lease_gets_its_folders_and_no_file_is_left_in_them(tmp_path: Path) -> None:
    for attempt in (1, 2):
        told = prepared(stage(tmp_path), own_account(), attempt=attempt)
        assert told.work_dir == told.job_dir == str(tmp_path / "jobs" / "12")
        assert told.tmp_dir == str(tmp_path / "tmp" / "7.9")
        assert not os.listdir(told.job_dir) + os.listdir(told.tmp_dir)
        os.rmdir(told.tmp_dir)


def test_a_working_directory_that_is_none_is_the_jobs_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(LaunchRefused, match=rf"^working_dir: {path} is no folder on node0$"):
            prepared(stage(tmp_path), own_account(), working_dir_path=str(path))
        os.rmdir(tmp_path / "tmp" / "7.9")


def test_a_node_without_room_begins_nothing_and_is_in_trouble(tmp_path: Path) -> None:
    made = stage(tmp_path)
    made.room.free_bytes = 1 << 60
    with pytest.raises(LaunchError, match="needed; make room there") as error:
        prepared(made, own_account())
    assert not isinstance(error.value, LaunchRefused)
    assert made.room.trouble == str(error.value)


@ROOT_ONLY
@pytest.mark.root
def test_another_account_gets_folders_that_are_its_own(others: Stage) -> None:
    told = prepared(others, SOMEBODY)
    for folder in (told.job_dir, told.tmp_dir):
        assert os.stat(folder).st_uid == SOMEBODY.uid
        assert not os.listdir(folder)


@ROOT_ONLY
@pytest.mark.root
def test_what_another_account_may_not_enter_is_the_jobs_fault_if_the_job_names_it(
    others: Stage,
) -> None:
    closed = others.folders.state / "closed"
    closed.mkdir(mode=0o700)
    words = rf"^working_dir: ada cannot enter {closed} on node0: Permission denied$"
    with pytest.raises(LaunchRefused, match=words):
        prepared(others, SOMEBODY, working_dir_path=str(closed))


@ROOT_ONLY
@pytest.mark.root
def test_folders_that_another_account_cannot_get_to_are_the_nodes_fault(others: Stage) -> None:
    others.folders.state.chmod(0o700)
    closed = replace(others, folders=replace(others.folders, shared=False))
    words = r"/jobs/12: ada can make no file there: Permission denied \(\d+ MiB|nobody knows"
    with pytest.raises(LaunchError, match=words) as error:
        prepared(closed, SOMEBODY)
    assert not isinstance(error.value, LaunchRefused)


@ROOT_ONLY
@pytest.mark.root
def test_a_full_disk_is_the_nodes_fault_though_the_floor_is_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=256k") as disk:
        made = stage(disk)
        told = prepared(made, own_account())
        os.rmdir(told.tmp_dir)
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        words = rf"^{told.job_dir}: \w+ can make no file there: No space left on device \(0 MiB"
        with pytest.raises(LaunchError, match=words):
            prepared(made, own_account(), attempt=2)


def test_a_jobs_folder_of_somebody_elses_is_told(tmp_path: Path) -> None:
    made = stage(tmp_path)
    prepared(made, own_account())
    with pytest.raises(LaunchError, match=r"jobs/12 is not ada's: remove it, or give it to them"):
        prepared(made, replace(SOMEBODY, uid=os.geteuid() + 1))
