"""Output on its way to the centre: every stream has its share, and every byte its moment."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest

from controlplane.model.lease import LeasePhase, LeaseStatus
from controlplane.v1 import agent_service_pb2 as pb
from nodeagent import shipping
from nodeagent.folders import LeaseKey
from nodeagent.found import GRAIN_US, MOST_MARKS, Found
from nodeagent.held import Held
from nodeagent.shipping import CALL_BYTES, ship_once
from nodeagent.streams import StreamWriter

if TYPE_CHECKING:
    from pathlib import Path

NOON = 1_770_000_000_000_000


class Centre:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int], bytes] = defaultdict(bytes)
        self.moments: list[tuple[int, int]] = []
        """Each chunk's second after noon, and its length."""
        self.away = False

    async def ship(self, request: pb.ShipLogsRequest) -> pb.ShipLogsResponse:
        assert sum(len(chunk.data) for chunk in request.chunks) <= CALL_BYTES
        if self.away:
            raise grpc.RpcError
        ends = []
        for chunk in request.chunks:
            key = (chunk.lease_id, chunk.rank)
            assert chunk.offset == len(self.kept[key])
            self.kept[key] += chunk.data
            after_us = chunk.read_time.ToMicroseconds() - NOON
            self.moments.append((after_us // 1_000_000, len(chunk.data)))
            ends.append(len(self.kept[key]))
        return pb.ShipLogsResponse(next_offsets=ends)


class Node:
    """Leases with workers that print when they are told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.held: dict[int, Held] = {}
        self.leases = cast("Any", SimpleNamespace(held=self.held, data=self._data))
        self._writers: dict[tuple[int, int], StreamWriter] = {}

    def _data(self, key: LeaseKey) -> Path:
        return self._folder / str(key)

    def print(self, lease: int, data: bytes, rank: int = 0) -> None:
        key = LeaseKey(lease, 1)
        status = LeaseStatus(lease_id=lease, token=1, phase=LeasePhase.RUNNING)
        self.held.setdefault(lease, Held(key=key, status=status))
        writer = self._writers.get((lease, rank))
        if writer is None:
            writer = StreamWriter(
                self._data(key), rank, "out", segment_bytes=4 << 20, cap_bytes=64 << 20
            )
            self._writers[lease, rank] = writer
        writer.write(data)

    def ship(self, to: Centre, second: float = 0.0) -> bool:
        return asyncio.run(ship_once(self.leases, "node", to.ship, NOON + int(second * 1e6)))


def test_a_flood_leaves_room_for_every_other_stream(tmp_path: Path) -> None:
    node, centre = Node(tmp_path), Centre()
    for rank in range(3):
        node.print(1, b"x" * (3 * CALL_BYTES), rank)
    node.print(2, b"a word")
    assert node.ship(centre)
    assert centre.kept[2, 0] == b"a word"
    shares = [len(centre.kept[1, rank]) for rank in range(3)]
    assert min(shares) > CALL_BYTES // 3 - 100
    calls = 1
    while node.ship(centre):
        calls += 1
    assert calls <= 10
    assert {len(centre.kept[1, rank]) for rank in range(3)} == {3 * CALL_BYTES}


def test_very_many_streams_all_have_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "CALL_BYTES", 1000)
    node, centre = Node(tmp_path), Centre()
    for rank in range(200):
        node.print(1, b"x" * 50, rank)
    assert node.ship(centre)
    assert {len(data) for data in centre.kept.values()} == {5}
    assert len(centre.kept) == 200


def test_output_keeps_the_moment_at_which_it_was_found_while_the_centre_was_away(
    tmp_path: Path,
) -> None:
    node, centre = Node(tmp_path), Centre()
    node.print(1, b"x" * 10)
    node.ship(centre, 0)
    centre.away = True
    for second in (60.0, 60.5, 61.5, 90.0):
        node.print(1, b"x" * 10)
        with pytest.raises(grpc.RpcError):
            node.ship(centre, second)
    centre.away = False
    node.ship(centre, 300)
    assert centre.moments == [(0, 10), (60, 20), (61, 10), (90, 10)]


def test_a_stream_that_nobody_wants_is_not_handed_over_again(tmp_path: Path) -> None:
    node, calls = Node(tmp_path), 0

    async def refuse(request: pb.ShipLogsRequest) -> pb.ShipLogsResponse:
        nonlocal calls
        calls += 1
        return pb.ShipLogsResponse(next_offsets=[-1] * len(request.chunks))

    for _ in range(3):
        node.print(1, b"x" * CALL_BYTES)
        assert not asyncio.run(ship_once(node.leases, "node", refuse, NOON))
    assert calls == 1


def test_an_answer_that_goes_back_is_obeyed(tmp_path: Path) -> None:
    node, centre = Node(tmp_path), Centre()
    node.print(1, b"first ")
    node.ship(centre)
    centre.kept.clear()  # restored from a backup that is older
    stream = node.held[1].found[0, "out", 0]
    stream.hand_over(0)
    node.print(1, b"second")
    node.ship(centre)
    assert centre.kept[1, 0] == b"first second"


def test_moments_of_a_long_absence_are_thinned_and_never_go_forward() -> None:
    stream, true = Found(), {}
    for second in range(10 * MOST_MARKS):
        true[stream.end] = NOON + second * GRAIN_US
        stream.look(stream.end + 5, NOON + second * GRAIN_US)
        assert len(stream.marks) <= MOST_MARKS
    told = {offset: stream.moment(offset)[0] for offset in true}
    assert all(told[offset] <= true[offset] for offset in true)
    assert list(told.values()) == sorted(told.values())
    assert max(true[o] - told[o] for o in true) < 16 * GRAIN_US
    stream.hand_over(stream.end)
    assert (len(stream.marks), stream.grain_us) == (1, GRAIN_US)


def test_a_clock_that_is_set_back_is_another_moment() -> None:
    stream = Found()
    stream.look(10, NOON)
    stream.look(20, NOON - 3600 * GRAIN_US)
    assert stream.moment(9) == (NOON, 10)
    assert stream.moment(10) == (NOON - 3600 * GRAIN_US, 20)
