"""Output that an agent hands over: kept by offset, and settled before the agent drops its copy."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from controlplane.model.identity import Role
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1 import job_service_pb2 as jobs_pb
from tests.support.centre import centre
from tests.support.disk import Synced

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SHIP = "/controlplane.v1.AgentService/ShipLogs"


def test_a_stream_is_settled_before_the_answer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with centre(tmp_path) as made:
        node = str(uuid.uuid4())
        made.join(node, "one-agent")
        made.submit("alice")
        made.place()
        lease = made.registry.lease(1)
        assert lease is not None
        agent = made.token("one-agent", Role.AGENT)

        def ship(offset: int, data: bytes, *, settle: bool = False) -> int:
            chunk = pb.LogChunk(
                lease_id=lease.lease_id,
                token=lease.token,
                rank=lease.first_rank,
                stream=jobs_pb.LOG_STREAM_STDOUT,
                offset=offset,
                data=data,
                settle=settle,
            )
            request = pb.ShipLogsRequest(node_uuid=node, chunks=[chunk])
            (answer,) = made.call(SHIP, request.SerializeToString(), agent)
            (end,) = pb.ShipLogsResponse.FromString(answer).next_offsets
            return end

        def segments() -> list[Path]:
            found = (tmp_path / "logs").rglob("*.out.*")
            return [each for each in found if each.suffix != ".times"]

        synced = Synced(monkeypatch)
        assert ship(0, b"some words") == 10
        (path,) = segments()
        assert not synced.has(path, tmp_path / "logs"), "a sync for each would cost too much"
        assert ship(14, b"", settle=True) == 10, "what is missing must come first"
        assert ship(10, b" and") == 14
        assert ship(14, b"", settle=True) == 14
        assert segments() == [path]
        assert synced.has(path, tmp_path / "logs")
