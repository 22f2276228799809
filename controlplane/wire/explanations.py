"""Explanations on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.v1 import schedule_service_pb2 as pb
from controlplane.wire.basics import timestamp

if TYPE_CHECKING:
    from controlplane.model.explanation import Explanation


def explanation_message(told: Explanation) -> pb.Explanation:
    """An explanation."""
    eta = told.eta
    return pb.Explanation(
        name=f"jobs/{told.job_id}/tasks/{told.task_index}",
        seq=told.seq,
        reason=told.reason,
        never=told.never,
        ahead=told.ahead,
        behind=told.behind,
        promised_time=timestamp(told.promised_us),
        estimate=pb.StartEstimate(
            p10_time=timestamp(eta.p10_us),
            p50_time=timestamp(eta.p50_us),
            p90_time=timestamp(eta.p90_us),
        )
        if eta is not None
        else None,
        holders=[
            pb.Holder(
                task=f"jobs/{holder.job_id}/tasks/{holder.task_index}",
                owner=holder.owner,
                nodes=holder.nodes,
                gpus=holder.gpus,
                until_time=timestamp(holder.until_us),
            )
            for holder in told.holders
        ],
        changes=[
            pb.SuggestedChange(field=change.field, value=change.value, words=change.words)
            for change in told.changes
        ],
        priority=pb.PriorityFactors(
            score=told.score,
            factors=[
                pb.PriorityFactor(
                    name=factor.name, value=factor.value, weight=factor.weight, points=factor.points
                )
                for factor in told.factors
            ],
        ),
    )
