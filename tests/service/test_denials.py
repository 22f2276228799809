"""What a denial leaves behind: an event, and never a flood of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.identity import Role
from controlplane.service.denials import WINDOW_US, WRITTEN_PER_WINDOW, Denials
from controlplane.v1 import fleet_service_pb2 as fleet_pb
from controlplane.v1 import job_service_pb2 as jobs_pb
from tests.support.centre import Centre, centre
from tests.support.cluster import until

if TYPE_CHECKING:
    from controlplane.model.event import Event

CANCEL = "/controlplane.v1.JobService/CancelJobs"
DRAIN = "/controlplane.v1.FleetService/DrainNode"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    with centre(tmp_path_factory.mktemp("centre")) as found:
        yield found


def denials(made: Centre, resource: str, count: int) -> list[Event]:
    """The denials of a resource, once there are so many."""

    def found() -> list[Event] | None:
        events = made.events(resource)
        return events if len(events) >= count else None

    events: list[Event] = until(found, f"{count} denials of {resource}")
    assert {event.kind for event in events} == {"access.denied"}
    return events


def test_a_denial_tells_who_was_refused_what_from_where(made: Centre) -> None:
    bob = made.token("bob", Role.USER)
    foreign = [f"jobs/{made.submit('alice')}" for _ in range(2)]
    asked = jobs_pb.CancelJobsRequest(names=foreign, request_id="a-secret").SerializeToString()
    assert made.code(CANCEL, asked, bob) is grpc.StatusCode.PERMISSION_DENIED
    (event,) = denials(made, "principals/bob", 1)
    assert event.actor.principal == "bob"
    assert event.actor.peer.startswith("unix:")
    assert event.changed == {
        "rpc": "JobService/CancelJobs",
        "role": "user",
        "object": ", ".join(foreign),
    }


def test_a_flood_of_denials_writes_ten_events_of_each_principal(made: Centre) -> None:
    flood, other = made.token("flood", Role.USER), made.token("other", Role.USER)
    before = made.registry.view(0).seq
    drain = fleet_pb.DrainNodeRequest(name="nodes/a", reason="x").SerializeToString()
    for _ in range(100):
        assert made.code(DRAIN, drain, flood) is grpc.StatusCode.PERMISSION_DENIED
        assert made.code(DRAIN, drain, None) is grpc.StatusCode.UNAUTHENTICATED
    assert made.code(DRAIN, drain, other) is grpc.StatusCode.PERMISSION_DENIED
    assert len(denials(made, "principals/other", 1)) == 1
    assert len(denials(made, "principals/flood", 10)) == 10
    nameless = [e for e in denials(made, "principals", 21) if e.resource == "principals"]
    assert len(nameless) == 10
    assert {(e.actor.principal, e.changed["role"]) for e in nameless} == {("", "")}
    assert made.registry.view(0).seq - before == 21


def test_no_token_and_nothing_of_a_request_comes_into_events(made: Centre) -> None:
    token = made.token("planted", Role.USER)
    secrets = [token, "cc_WrongTokenPlanted", "PlantedReason", "PlantedOwner"]
    drain = fleet_pb.DrainNodeRequest(name="nodes/a", reason=secrets[2]).SerializeToString()
    made.code(DRAIN, drain, token)
    made.code(DRAIN, drain, secrets[1])
    owner = jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(owner=secrets[3]))
    listing = "/controlplane.v1.JobService/ListJobs"
    assert made.code(listing, owner.SerializeToString(), token) is (
        grpc.StatusCode.PERMISSION_DENIED
    )
    denials(made, "principals/planted", 2)
    text = repr(made.events())
    assert not [secret for secret in secrets if secret in text]
    assert all(len(str(e.changed.get("object", ""))) <= 200 for e in made.events("principals"))


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, WINDOW_US // 3)), max_size=200)
)
def test_at_most_so_many_are_written_in_any_window_and_none_is_uncounted(
    calls: list[tuple[str, int]],
) -> None:
    counts, now = Denials(), 0
    written: dict[str, list[int]] = {"a": [], "b": []}
    told, made = {"a": 0, "b": 0}, {"a": 0, "b": 0}
    for principal, later in calls:
        now += later
        made[principal] += 1
        passed_over = counts.note(principal, now)
        if passed_over is not None:
            written[principal].append(now)
            told[principal] += 1 + passed_over
            assert told[principal] == made[principal]
    for moments in written.values():
        for start in moments:
            within = [m for m in moments if start <= m < start + WINDOW_US]
            assert len(within) <= 2 * WRITTEN_PER_WINDOW  # two windows may meet in it
        assert len(moments) <= WRITTEN_PER_WINDOW * (now // WINDOW_US + 1)
