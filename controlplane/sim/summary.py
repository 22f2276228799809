"""The figures of a simulation, from what became of its jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from controlplane.sim.meter import JobRun, Meter

SECOND_US: Final = 1_000_000
HOUR_US: Final = 3_600 * SECOND_US
SIZES: Final = ((0, "0"), (1, "1"), (4, "2-4"), (8, "5-8"), (32, "9-32"))
"""Classes of jobs by GPUs: up to so many, and its name."""
LARGEST: Final = "33+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Some jobs together."""

    name: str
    """What they have in common."""
    jobs: int
    """Jobs that ended."""
    gpu_hours: float
    """Work that they did: GPUs × duration."""
    avg_jct_s: float
    """Mean time from submission to end, in seconds."""
    p50_jct_s: float
    """Its median."""
    p99_jct_s: float
    """Its 99th percentile."""
    avg_wait_s: float
    """Mean time from submission to first start, in seconds."""
    p50_wait_s: float
    """Its median."""
    p99_wait_s: float
    """Its 99th percentile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountShare:
    """An account's part of the GPU time in which somebody waited."""

    account: str
    """The account."""
    used: float
    """Its part of what was used, 0 to 1."""
    fair: float
    """The part that an even share would have been, up to what it asked for."""

    @property
    def error(self) -> float:
        """What it had beyond its fair part; negative: what it lacked."""
        return self.used - self.fair


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of a simulation."""

    overall: Group
    """All jobs."""
    by_size: tuple[Group, ...]
    """By GPUs."""
    by_account: tuple[Group, ...]
    """By account."""
    never: tuple[tuple[str, str], ...]
    """Jobs that can never run on this cluster, each with the reason; they are in no figure."""
    makespan_s: float
    """From the beginning to the last end, in seconds."""
    gpu_utilization: float
    """Work done, as a part of what the cluster could have done in that time."""
    fragmentation: float
    """Part of the idle GPU time that lay on nodes partly in use."""
    jain_index: float
    """Jain's index of what accounts had over what was fair, while somebody waited: 1 is even."""
    shares: tuple[AccountShare, ...]
    """Each account's part of that time."""
    preemptions: int
    """Jobs ended to make room, each time counted."""
    lost_gpu_hours: float
    """GPU time spent on preemptions: checkpoints, restarts, and work done twice."""

    @property
    def share_error(self) -> float:
        """The largest of the accounts' share errors, without its sign."""
        return max((abs(share.error) for share in self.shares), default=0.0)


def percentile(values: Sequence[int], percent: int) -> int:
    """The value that so many percent do not exceed: the nearest rank. `values` are sorted."""
    if not values:
        return 0
    return values[max(0, -(-len(values) * percent // 100) - 1)]


def summarise(runs: Iterable[JobRun], meter: Meter, *, begin_us: int) -> Summary:
    """Sum up a simulation that began at this moment."""
    runs = list(runs)
    over = [run for run in runs if run.ended_us is not None]
    by_size: dict[str, list[JobRun]] = {name: [] for name in (*(n for _, n in SIZES), LARGEST)}
    by_account: dict[str, list[JobRun]] = {}
    for run in over:
        by_size[size_of(run.job.gpus)].append(run)
        by_account.setdefault(run.job.account, []).append(run)
    makespan_us = max((run.ended_us or 0 for run in over), default=begin_us) - begin_us
    work_us = sum(run.job.gpus * run.job.duration_us for run in over)
    shares = _shares(meter)
    return Summary(
        overall=_group("all", over),
        by_size=tuple(_group(name, of) for name, of in by_size.items() if of),
        by_account=tuple(_group(name, of) for name, of in sorted(by_account.items())),
        never=tuple((run.job.name, run.never) for run in runs if run.never),
        makespan_s=makespan_us / SECOND_US,
        gpu_utilization=_part(work_us, meter.gpus * makespan_us),
        fragmentation=_part(meter.stranded_us, meter.idle_us),
        jain_index=jain([_part(share.used, share.fair) for share in shares if share.fair]),
        shares=shares,
        preemptions=sum(run.preemptions for run in runs),
        lost_gpu_hours=meter.lost_us / HOUR_US,
    )


def size_of(gpus: int) -> str:
    """The class of a job by its GPUs."""
    return next((name for most, name in SIZES if gpus <= most), LARGEST)


def jain(ratios: Sequence[float]) -> float:
    """Jain's fairness index (Jain, Chiu and Hawe, 1984); 1 where there is nobody."""
    squares = sum(ratio * ratio for ratio in ratios)
    return sum(ratios) ** 2 / (len(ratios) * squares) if squares else 1.0


def _part(of: float, whole: float) -> float:
    return of / whole if whole else 0.0


def _shares(meter: Meter) -> tuple[AccountShare, ...]:
    used_us = sum(part.used_us for part in meter.contended.values())
    fair_us = sum(part.fair_us for part in meter.contended.values())
    return tuple(
        AccountShare(
            account=account,
            used=_part(part.used_us, used_us),
            fair=_part(part.fair_us, fair_us),
        )
        for account, part in sorted(meter.contended.items())
    )


def _group(name: str, runs: Sequence[JobRun]) -> Group:
    jcts = sorted((run.ended_us or 0) - run.job.submit_us for run in runs)
    waits = sorted((run.started_us or 0) - run.job.submit_us for run in runs)

    def mean(values: Sequence[int]) -> float:
        return sum(values) / len(values) / SECOND_US if values else 0.0

    return Group(
        name=name,
        jobs=len(runs),
        gpu_hours=sum(run.job.gpus * run.job.duration_us for run in runs) / HOUR_US,
        avg_jct_s=mean(jcts),
        p50_jct_s=percentile(jcts, 50) / SECOND_US,
        p99_jct_s=percentile(jcts, 99) / SECOND_US,
        avg_wait_s=mean(waits),
        p50_wait_s=percentile(waits, 50) / SECOND_US,
        p99_wait_s=percentile(waits, 99) / SECOND_US,
    )


def document(summary: Summary) -> Mapping[str, object]:
    """The figures as JSON values. The names are kept from release to release."""
    overall = _plain(summary.overall)
    del overall["name"]
    return {
        **overall,
        "never_jobs": len(summary.never),
        "makespan_s": _round(summary.makespan_s),
        "gpu_utilization": _round(summary.gpu_utilization, 6),
        "fragmentation": _round(summary.fragmentation, 6),
        "jain_index": _round(summary.jain_index, 6),
        "share_error": _round(summary.share_error, 6),
        "preemptions": summary.preemptions,
        "lost_gpu_hours": _round(summary.lost_gpu_hours),
        "by_size": [_plain(group) for group in summary.by_size],
        "by_account": [_plain(group) for group in summary.by_account],
        "shares": [
            {
                "account": share.account,
                "used": _round(share.used, 6),
                "fair": _round(share.fair, 6),
                "error": _round(share.error, 6),
            }
            for share in summary.shares
        ],
    }


def _plain(group: Group) -> dict[str, object]:
    return {
        "name": group.name,
        "jobs": group.jobs,
        "gpu_hours": _round(group.gpu_hours),
        "avg_jct_s": _round(group.avg_jct_s),
        "p50_jct_s": _round(group.p50_jct_s),
        "p99_jct_s": _round(group.p99_jct_s),
        "avg_wait_s": _round(group.avg_wait_s),
        "p50_wait_s": _round(group.p50_wait_s),
        "p99_wait_s": _round(group.p99_wait_s),
    }


def _round(value: float, places: int = 3) -> float:
    # 0.0 in place of -0.0, which JSON would tell apart.
    return round(value, places) + 0.0
