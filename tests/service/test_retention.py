"""What is over goes from the centre, and who asks for it later is told so."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from controlplane.engine import retention, sweep
from controlplane.model.identity import Role
from controlplane.model.keep import DAY_US, Keep
from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus, WorkerState
from controlplane.model.progress import Point
from controlplane.service.blobstore import BlobStore
from controlplane.service.logstore import LogStore, StreamId
from controlplane.service.seriesstore import SeriesStore
from controlplane.v1 import blob_service_pb2, job_service_pb2, usage_service_pb2
from tests.support.centre import Centre, centre

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MINUTE_US = 60 * 1_000_000
KEEP = Keep(jobs_us=30 * DAY_US, logs_us=7 * DAY_US, usage_us=90 * DAY_US, blobs_us=DAY_US)
JOBS, USAGE = "/controlplane.v1.JobService", "/controlplane.v1.UsageService"
BLOBS = "/controlplane.v1.BlobService"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Centre]:
    with centre(tmp_path, KEEP) as one:
        yield one


def out(job_id: int) -> StreamId:
    return StreamId(job_id=job_id, task_index=0, attempt=1, rank=0, stream="out")


def later(made: Centre, days: float) -> int:
    """The present, and some days."""
    return made.house.clock.now_us() + round(days * DAY_US)


def turn(made: Centre, days: float) -> None:
    """Let go of what is over, as if so many days had passed; until nothing is left to do."""
    files = (made.house.logs, made.house.series)
    while retention.turn(made.registry, files, retention.Reached(), later(made, days)):
        pass


def swept(made: Centre, days: float) -> None:
    """Sweep once, as if so many days had passed."""
    files = sweep.Files(logs=made.house.logs, series=made.house.series, blobs=made.blobs)
    for _ in sweep.steps(made.registry, files, later(made, days)):
        pass


def ended(made: Centre, owner: str = "ada", *, written: int = 6) -> int:
    """A job that has run, with output and a series, and is over. `written`: bytes of output by its
    node's word, of which 6 have come."""
    node = made.join("00000000-0000-4000-8000-000000000001", "agent")
    job_id = made.submit(owner)
    made.place()
    (attempt,) = made.registry.job(job_id).attempts
    runs = replace(attempt.workers[0], state=WorkerState.RUNNING, started_us=1)
    over = replace(runs, state=WorkerState.ENDED, exit_code=0, stdout_bytes=written)
    number = attempt.lease_ids[0]
    for phase, worker in ((LeasePhase.RUNNING, runs), (LeasePhase.ENDED, over)):
        status = LeaseStatus(lease_id=number, token=number, phase=phase, workers=(worker,))
        if phase is LeasePhase.ENDED:
            status = replace(status, end=LeaseEnd.NATURAL)
        made.report(node, "agent", status)
    key = attempt.key
    made.house.logs.append(out(job_id), 0, b"hello\n", 1)
    made.house.series.append(key, 0, [Point(time_us=1, step=1)])
    assert made.registry.job(job_id).job.state.final
    return job_id


def refused(made: Centre, rpc: str, request: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        made.call(rpc, request.SerializeToString(), made.token("ada", Role.USER))
    error: Any = caught.value
    return error.code(), error.details()


def test_who_asks_for_a_removed_job_is_told_for_how_long_it_was_kept(made: Centre) -> None:
    job_id = ended(made)
    turn(made, 29)
    assert made.registry.job(job_id).job.job_id == job_id
    turn(made, 31)
    words = (
        f"jobs/{job_id} was removed: ended jobs are kept for 30 days"
        " (keep_jobs_days of the control plane)"
    )
    name = f"jobs/{job_id}"
    for rpc, request in {
        "GetJob": job_service_pb2.GetJobRequest(name=name),
        "WatchJob": job_service_pb2.WatchJobRequest(name=name),
        "ReadLogs": job_service_pb2.ReadLogsRequest(name=name, follow=True),
        "GetMetrics": job_service_pb2.GetMetricsRequest(name=name),
        "ListEvents": job_service_pb2.ListEventsRequest(resource=name),
        "CancelJobs": job_service_pb2.CancelJobsRequest(names=[name]),
    }.items():
        assert refused(made, f"{JOBS}/{rpc}", request) == (grpc.StatusCode.NOT_FOUND, words)
    never = refused(made, f"{JOBS}/GetJob", job_service_pb2.GetJobRequest(name="jobs/99"))
    assert never == (grpc.StatusCode.NOT_FOUND, "jobs/99: there is no such job")
    assert list(made.house.logs.numbers()) == list(made.house.series.numbers()) == []


def test_output_goes_before_its_job_and_readers_are_told(made: Centre) -> None:
    job_id = ended(made)
    request = job_service_pb2.ReadLogsRequest(name=f"jobs/{job_id}")
    read = made.call(f"{JOBS}/ReadLogs", request.SerializeToString(), made.token("ada", Role.USER))
    assert [job_service_pb2.ReadLogsResponse.FromString(r).data for r in read] == [b"hello\n"]
    swept(made, 6)
    assert made.house.logs.end(out(job_id)) == 6
    swept(made, 8)
    assert refused(made, f"{JOBS}/ReadLogs", request) == (
        grpc.StatusCode.NOT_FOUND,
        f"the output of jobs/{job_id} was removed: it is kept for 7 days after a job's end"
        " (keep_logs_days of the control plane)",
    )
    assert made.registry.job(job_id).job.job_id == job_id
    assert list(made.house.logs.numbers()) == []
    assert list(made.house.series.numbers()) == [[job_id]]
    (event,) = made.events("records")
    assert event.changed["outputs"] == 1
    swept(made, 8)
    assert made.events("records") == [event]


def test_who_reads_output_while_it_is_removed_is_told(made: Centre) -> None:
    """The reader follows, so it waits for more output when the job goes."""
    job_id = ended(made, written=7)
    request = job_service_pb2.ReadLogsRequest(name=f"jobs/{job_id}", follow=True)
    rpc = made.channel.unary_stream(f"{JOBS}/ReadLogs")
    secret = made.token("ada", Role.USER)
    answers = rpc(request.SerializeToString(), metadata=(("authorization", f"Bearer {secret}"),))
    first = job_service_pb2.ReadLogsResponse.FromString(next(answers))
    assert first.data == b"hello\n"
    turn(made, 31)
    with pytest.raises(grpc.RpcError) as caught:
        list(answers)
    assert "was removed" in str(caught.value.details())


def test_a_window_of_usage_reaches_back_as_far_as_usage_is_kept(made: Centre) -> None:
    ended(made)
    turn(made, 31)
    asked = usage_service_pb2.GetUsageRequest(group_by=usage_service_pb2.USAGE_GROUP_JOB)

    def sums() -> usage_service_pb2.GetUsageResponse:
        token = made.token("ada", Role.USER)
        (answer,) = made.call(f"{USAGE}/GetUsage", asked.SerializeToString(), token)
        return usage_service_pb2.GetUsageResponse.FromString(answer)

    assert [row.key for row in sums().rows] == ["jobs/1"]
    assert not sums().HasField("from_time")
    made.registry.keep = Keep(jobs_us=1, usage_us=1)
    turn(made, 0)
    assert list(sums().rows) == []
    assert sums().from_time.ToMicroseconds() == made.registry.usage_removed_us > 0
    asked.from_time.FromMicroseconds(made.registry.usage_removed_us - 1)
    code, words = refused(made, f"{USAGE}/GetUsage", asked)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert words.startswith("from_time: ")
    assert "usage is kept from" in words
    asked.from_time.FromMicroseconds(made.registry.usage_removed_us)
    assert list(sums().rows) == []
    asked.ClearField("from_time")
    asked.to_time.FromMicroseconds(made.registry.usage_removed_us)
    code, words = refused(made, f"{USAGE}/GetUsage", asked)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert words.startswith("to_time: ")


def test_files_that_a_crash_left_behind_are_found_and_newer_ones_are_kept(made: Centre) -> None:
    job_id = ended(made)
    retention.turn(
        made.registry, (), retention.Reached(), later(made, 31)
    )  # and then it was killed
    assert list(made.house.logs.numbers()) == [[job_id]]
    # As after a backup was put back: a number that this registry has never given out.
    made.house.logs.append(out(job_id + 1), 0, b"of another time", 1)
    swept(made, 29)
    assert list(made.house.logs.numbers()) == [[job_id, job_id + 1]]
    swept(made, 31)
    assert list(made.house.logs.numbers()) == [[job_id + 1]]
    assert list(made.house.series.numbers()) == []


def test_blobs_go_that_no_kept_job_needs_and_nobody_uses(made: Centre) -> None:
    needed, unused = made.upload("ada", b"needed"), made.upload("ada", b"unused")
    made.submit("ada", working_dir={"sha256": needed, "size": 6})
    swept(made, 0.9)
    assert made.blobs.path(unused).is_file()
    swept(made, 1.1)
    assert made.blobs.path(needed).is_file()
    assert not list(made.blobs.path(unused).parent.glob(f"{unused}*"))  # nor its owners' marks
    (event,) = made.events("records")
    assert event.changed["blobs"] == 1
    request = job_service_pb2.SubmitJobRequest()
    request.spec.update({"command": ["true"], "working_dir": {"sha256": unused, "size": 6}})
    code, words = refused(made, f"{JOBS}/SubmitJob", request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "upload it before the submit" in words


@pytest.mark.parametrize("kind", ["GetBlob", "SubmitJob"])
def test_a_blob_that_a_submit_was_told_of_stays(made: Centre, kind: str) -> None:
    """Between the look of a sweep and its removal somebody asks for the blob."""
    sha256 = made.upload("ada", b"mine")
    path = made.blobs.path(sha256)
    before_us = made.house.clock.now_us() - DAY_US
    os.utime(path, ns=(0, (before_us - 1) * 1000))
    assert made.blobs.unused(before_us) == [sha256]
    if kind == "GetBlob":
        made.call(
            f"{BLOBS}/GetBlob",
            blob_service_pb2.GetBlobRequest(sha256=sha256).SerializeToString(),
            made.token("ada", Role.USER),
        )
    else:
        request = job_service_pb2.SubmitJobRequest(validate_only=True)
        request.spec.update({"command": ["true"], "working_dir": {"sha256": sha256, "size": 4}})
        made.call(f"{JOBS}/SubmitJob", request.SerializeToString(), made.token("ada", Role.USER))
    assert not made.blobs.remove(sha256, before_us)
    assert path.is_file()


def test_no_blob_goes_within_an_hour_however_short_the_setting(made: Centre) -> None:
    sha256 = made.upload("ada", b"fresh")
    made.registry.keep = Keep(blobs_us=1)
    swept(made, 0)
    assert made.blobs.path(sha256).is_file()
    swept(made, 2 / 24)
    assert not made.blobs.path(sha256).exists()


def test_who_is_told_that_a_blob_is_there_finds_it_whatever_is_swept_beside(tmp_path: Path) -> None:
    """Users and sweeps at the same time: what `use` has answered counts."""
    store = BlobStore(tmp_path, 1 << 20)
    sha256 = "00" * 32
    path = store.path(sha256)
    path.parent.mkdir(parents=True)
    broken = []

    def sweep_on(stop: threading.Event) -> None:
        while not stop.is_set():
            store.remove(sha256, 1_000_000)

    stop = threading.Event()
    sweeper = threading.Thread(target=sweep_on, args=(stop,))
    sweeper.start()
    for _ in range(2000):
        path.touch()
        os.utime(path, (0.5, 0.5))
        if store.use(sha256) and not path.is_file():
            broken.append(path)
    stop.set()
    sweeper.join()
    assert not broken


def test_a_dead_upload_goes_and_one_on_its_way_stays(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, 1 << 20)
    dead, alive = store.receive("aa" * 32), store.receive("aa" * 32)
    alive.write(b"x")
    parts = sorted(tmp_path.rglob(".part-*"))
    dead_part = next(part for part in parts if part.stat().st_size == 0)
    os.utime(dead_part, (1, 1))
    assert store.unused(2_000_000) == []
    assert [part.stat().st_size for part in tmp_path.rglob(".part-*")] == [1]
    for each in (dead, alive):
        each.close()


def test_output_that_comes_after_its_removal_keeps_its_offset(tmp_path: Path) -> None:
    logs = LogStore(tmp_path, 1 << 20)
    logs.append(out(7), 0, b"first", 1)
    logs.remove(7)
    logs.remove(7)
    assert logs.end(out(7)) == 0
    assert list(tmp_path.iterdir()) == []
    assert logs.append(out(7), 5, b"late", 1) == 9
    assert logs.read(out(7), 0) == (5, b"late")


def test_folders_are_told_a_thousand_at_a_time_and_half_removed_ones_go(tmp_path: Path) -> None:
    series = SeriesStore(tmp_path)
    for number in (7, 8, 1008):
        series.append((number, 0, 1), 0, [Point(time_us=1, step=1)])
    (tmp_path / ".gone-5" / "x").mkdir(parents=True)
    (tmp_path / "000000" / "notes").mkdir()
    (tmp_path / "000000" / "4711").mkdir()
    assert list(series.numbers()) == [[7, 8], [1008]]
    assert not (tmp_path / ".gone-5").exists()
    series.remove(1008)
    series.remove(7)
    assert list(series.numbers()) == [[8]]
    assert series.read((7, 0, 1))[0] is None
    assert abs(series.newest_us(8) / 1e6 - (tmp_path / "000000" / "8").stat().st_mtime) < 60
    assert series.newest_us(7) == 0
