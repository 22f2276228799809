"""Fetching a job's folder: what is cut off leaves nothing that goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.kit.archive import pack
from nodeagent.accounts import own_account
from nodeagent.folders import Folders, LeaseKey
from nodeagent.staging import Stage
from tests.support.launches import members, node

FILES = 5_000


async def never(_sha256: str) -> AsyncIterator[bytes]:
    raise AssertionError("it is there already")
    yield b""


def stage(folder: Path) -> Stage:
    return Stage(
        base=node(members([1])),
        folders=Folders(state=folder, runtime=folder / "run"),
        log_cap_bytes=1 << 20,
        download=never,
        limits=(),
        own=own_account(),
        run_as="agent",
        allow_root=False,
        cages=None,
    )


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
