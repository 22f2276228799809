"""GetUsage at the edge: which windows are taken, what is refused, and pages without a gap."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.errors import InvalidRequest, NotAllowed
from controlplane.model.identity import Role
from controlplane.model.usage import UsageFilter, UsageGroup
from controlplane.registry.memory import MemoryStore
from controlplane.service.auth import CALLER, Principal
from controlplane.service.permissions import RPC
from controlplane.service.usage import UsageService, usage_filter, usage_group
from controlplane.v1 import usage_service_pb2 as pb
from tests.support.world import World

NOW = 1_000_000_000


def request(
    from_us: int | None = None, to_us: int | None = None, **more: Any
) -> pb.GetUsageRequest:
    made = pb.GetUsageRequest(**more)
    if from_us is not None:
        made.from_time.FromMicroseconds(from_us)
    if to_us is not None:
        made.to_time.FromMicroseconds(to_us)
    return made


@pytest.mark.parametrize(
    ("since", "until", "window"),
    [
        (None, None, (0, NOW)),
        (5, None, (5, NOW)),
        (None, 7, (0, 7)),
        (5, 7, (5, 7)),
        (5, NOW + 1, (5, NOW)),
        (-5, None, (0, NOW)),
    ],
)
def test_a_window_ends_no_later_than_now(
    since: int | None, until: int | None, window: tuple[int, int]
) -> None:
    assert usage_filter(request(since, until, owner="ada"), NOW) == UsageFilter(
        from_us=window[0], to_us=window[1], owner="ada"
    )


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [
        (7, 7, "from_time: the window holds no time: from_time must lie before to_time"),
        (8, 7, "from_time: the window holds no time: from_time must lie before to_time"),
        (None, -7, "from_time: the window holds no time: from_time must lie before to_time"),
        (NOW, None, "from_time: the window holds no time: it begins in the future"),
        (NOW + 5, NOW + 9, "from_time: the window holds no time: it begins in the future"),
    ],
)
def test_a_window_without_time_is_refused(since: int | None, until: int | None, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        usage_filter(request(since, until), NOW)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_no_moment_leaves_what_a_database_can_hold(since: int, until: int) -> None:
    made = pb.GetUsageRequest()
    made.from_time.seconds, made.to_time.seconds = since, until
    try:
        which = usage_filter(made, NOW)
    except InvalidRequest:
        return
    assert 0 <= which.from_us < which.to_us <= NOW


def test_usage_is_of_users_unless_it_says_otherwise_and_unknown_groups_are_refused() -> None:
    assert usage_group(0) is UsageGroup.USER
    assert usage_group(pb.USAGE_GROUP_MODEL) is UsageGroup.MODEL
    with pytest.raises(InvalidRequest, match="group_by: unknown enum value 99"):
        usage_group(99)


class Context:
    """As much of a call as a handler without faults needs."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_args, **_more: None


def ask(
    world: World, *, caller: str = "root", role: Role = Role.ADMIN, **asked: Any
) -> pb.GetUsageResponse:
    house: Any = SimpleNamespace(registry=world.registry, clock=world.clock)

    async def call() -> pb.GetUsageResponse:
        CALLER.set(Principal(name=caller, role=role))
        RPC.set("/controlplane.v1.UsageService/GetUsage")
        answer: pb.GetUsageResponse = await UsageService.GetUsage.__wrapped__(
            UsageService(house), pb.GetUsageRequest(**asked), Context()
        )
        return answer

    return asyncio.run(call())


@pytest.fixture
def world() -> World:
    made = World(MemoryStore())
    node = made.join("a", gpus=2)
    for number in range(3):
        made.open_account(f"a{number}")
    for number in range(1, 13):
        job_id = made.submit(resources={"gpus": number % 2}, account=f"a{number % 3}")
        made.tick()
        made.clock.advance(1_000_000)
        if number != 5:  # that one lives on, between others that have ended
            made.report(node, made.ended(made.statuses(job_id)[node]))
    return made


@pytest.mark.parametrize("group", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_pages_follow_one_another_without_a_gap(world: World, group: int, size: int) -> None:
    whole = ask(world, group_by=group)
    rows: list[pb.UsageRow] = []
    token = ""
    while True:
        page = ask(world, group_by=group, page_size=size, page_token=token)
        assert len(page.rows) <= size
        assert page.total == whole.total
        rows += page.rows
        token = page.next_page_token
        if not token:
            break
    assert rows == list(whole.rows)
    assert whole.total.attempts == 12
    assert whole.total.living_attempts == 1
    if group == pb.USAGE_GROUP_JOB:
        assert [row.key for row in rows] == [f"jobs/{number}" for number in range(1, 13)]
    if group == pb.USAGE_GROUP_MODEL:
        assert [row.key for row in rows] == ["", "NVIDIA H100 80GB HBM3"]


@pytest.mark.parametrize("token", ["7", "user:ada", "job:", "job:jobs/x", "job:jobs/1;"])
def test_a_page_token_of_another_request_is_refused(world: World, token: str) -> None:
    with pytest.raises(InvalidRequest, match="page_token: is none of this request's"):
        ask(world, group_by=pb.USAGE_GROUP_JOB, page_token=token)


def test_a_user_sees_their_own_usage_alone(world: World) -> None:
    assert ask(world, caller="alice", role=Role.USER).total.attempts == 12
    assert ask(world, caller="bob", role=Role.USER).total.attempts == 0
    with pytest.raises(NotAllowed, match="usage of 'alice': not bob's own"):
        ask(world, caller="bob", role=Role.USER, owner="alice")
