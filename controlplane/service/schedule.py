"""ScheduleService: why what waits waits, and what a decision sees."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from controlplane.model.errors import WrongState
from controlplane.model.scene import write_scene
from controlplane.service.asked import asked
from controlplane.service.errors import answers, streams
from controlplane.v1 import schedule_service_pb2 as pb
from controlplane.v1.schedule_service_pb2_grpc import ScheduleServiceServicer
from controlplane.wire.explanations import explanation_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.service.context import House

PIECE = 1 << 20
"""Bytes of a document in one message."""


class ScheduleService(ScheduleServiceServicer):
    """Explains decisions. Changes nothing."""

    def __init__(self, house: House) -> None:
        """`house`: the rooms to speak to."""
        self._house = house

    @answers
    async def ExplainJob(self, request: pb.ExplainJobRequest, context: Any) -> pb.Explanation:
        """Explain why a job waits."""
        house = self._house
        which = await asked(house, request.name)
        told = await asyncio.to_thread(
            house.scheduler.explain, which.job_id, which.task, house.clock.now_us()
        )
        if told is None:
            record = await asyncio.to_thread(house.registry.job, which.job_id, which.task)
            raise WrongState(f"{which} does not wait: it is {record.job.state}")
        return explanation_message(told)

    @streams
    async def DumpView(
        self, request: pb.DumpViewRequest, context: Any
    ) -> AsyncIterator[pb.DumpViewResponse]:
        """Hand out what the next decision would see."""
        house = self._house
        now_us = house.clock.now_us()
        text = await asyncio.to_thread(lambda: write_scene(house.scheduler.scene(now_us)).encode())
        for start in range(0, len(text), PIECE):
            yield pb.DumpViewResponse(data=text[start : start + PIECE])
