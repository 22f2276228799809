"""What a submit may wait for: told with the field's path where it may not, and read where it has
ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from controlplane.model.identity import Role
from controlplane.registry import jobs
from controlplane.registry.removal import Doomed, remove
from controlplane.registry.which import Which
from controlplane.v1 import job_pb2
from controlplane.v1 import job_service_pb2 as pb
from tests.service.test_permissions import spec
from tests.support.centre import Centre, centre

if TYPE_CHECKING:
    from pathlib import Path

SUBMIT = "/controlplane.v1.JobService/SubmitJob"
SUBMIT_MANY = "/controlplane.v1.JobService/SubmitJobs"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Centre]:
    with centre(tmp_path) as found:
        yield found


def submit(made: Centre, **document: Any) -> job_pb2.Job:
    request = pb.SubmitJobRequest(spec=spec(**document)).SerializeToString()
    return job_pb2.Job.FromString(made.call(SUBMIT, request, made.token("ada", Role.USER))[0])


def faults(made: Centre, **document: Any) -> dict[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        submit(made, **document)
    error: Any = caught.value
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    found = error_details_pb2.BadRequest()
    assert any(detail.Unpack(found) for detail in status.details)
    return {each.field: each.description for each in found.field_violations}


def test_each_that_cannot_be_waited_for_is_told_with_its_place(made: Centre) -> None:
    mine, theirs = made.submit("ada", tasks="0-2"), made.submit("eve")
    found = faults(
        made,
        tasks="1-3",
        depends_on=[
            "afterok:99",
            f"afterany:{theirs}",
            f"afterok:{mine}_7",
            f"aftercorr:{mine}",
            f"afterany:{theirs + 1}",
        ],
    )
    assert list(found) == [f"depends_on[{place}]" for place in range(5)]
    assert "jobs/99 is not there yet" in found["depends_on[0]"]
    assert "you may not see it" in found["depends_on[1]"]
    assert "its tasks are 0-2" in found["depends_on[2]"]
    assert "has no task 3 that task 3 could wait for" in found["depends_on[3]"]
    assert f"the last one is jobs/{theirs}" in found["depends_on[4]"], "nor for itself"


def test_what_has_ended_is_read_and_what_was_removed_is_told(made: Centre) -> None:
    first = made.submit("ada", tasks="0-1")
    made.do(lambda draft: jobs.cancel(draft, [Which(first, 0)]), "ada")
    made.do(lambda draft: jobs.cancel(draft, [Which(first)]), "ada")
    ok = submit(made, depends_on=[f"afternotok:{first}", f"afterany:{first}_0"])
    assert list(ok.waits_for) == []
    never = submit(made, depends_on=[f"afterok:{first}"], tasks="0-1")
    pairs = submit(made, depends_on=[f"aftercorr:{first}"], tasks="0-1")
    made.place()
    get = "/controlplane.v1.JobService/GetJob"
    for job in (never, pairs):
        asked = pb.GetJobRequest(name=job.name).SerializeToString()
        told = job_pb2.Job.FromString(made.call(get, asked, made.token("ada", Role.USER))[0])
        assert told.reason.startswith("can never run because jobs/1")
    made.do(lambda draft: remove(draft, Doomed(jobs=(first,), jobs_before_us=1)), "test")
    assert "was removed" in faults(made, depends_on=[f"afterok:{first}"])["depends_on[0]"]


def test_many_may_wait_for_one(made: Centre) -> None:
    first = made.submit("ada")
    waiting = [spec(depends_on=[f"afterok:{first}"]) for _ in range(3)]
    request = pb.SubmitJobsRequest(specs=waiting).SerializeToString()
    answer = made.call(SUBMIT_MANY, request, made.token("ada", Role.USER))[0]
    names = pb.SubmitJobsResponse.FromString(answer).names
    made.do(lambda draft: jobs.cancel(draft, [Which(first)]), "ada")
    assert [str(each) for each in made.registry.unmet()] == list(names)
