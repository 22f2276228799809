"""Accounts over the API: alice and bob share one, and the account says what that means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from controlplane.model.account import MembersMay
from controlplane.model.identity import Role
from controlplane.v1 import account_pb2 as pb
from controlplane.v1 import account_service_pb2 as accounts_pb
from controlplane.v1 import job_pb2, step_pb2
from controlplane.v1 import job_service_pb2 as jobs_pb
from controlplane.v1 import schedule_service_pb2 as schedule_pb
from controlplane.v1 import step_service_pb2 as steps_pb
from controlplane.wire.accounts import MEMBERS_MAY
from tests.support.centre import METHODS, Centre, centre

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.message import Message

OPERATOR, ALICE, BOB, EVE = "olga", "alice", "bob", "eve"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Centre]:
    with centre(tmp_path) as found:
        for user in (ALICE, BOB, EVE):
            found.token(user, Role.USER)
        yield found


def ask(made: Centre, who: str, name: str, request: Message) -> Any:
    """Call an rpc; its answer. Raises grpc.RpcError."""
    rpc = next(each for each in METHODS if each.endswith(f"/{name}"))
    token = made.token(who, Role.OPERATOR if who == OPERATOR else Role.USER)
    kind = METHODS[rpc].output_type._concrete_class
    answers = [kind.FromString(raw) for raw in made.call(rpc, request.SerializeToString(), token)]
    return answers[0] if answers else None


def refused(made: Centre, who: str, name: str, request: Message) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as error:
        ask(made, who, name, request)
    return error.value.code().name, str(error.value.details())


def create(made: Centre, name: str, **fields: Any) -> pb.Account:
    account = pb.Account(**fields)
    request = accounts_pb.CreateAccountRequest(account_id=name, account=account)
    return ask(made, OPERATOR, "CreateAccount", request)  # type: ignore[no-any-return]


def update(made: Centre, account: pb.Account, *paths: str) -> accounts_pb.UpdateAccountResponse:
    request = accounts_pb.UpdateAccountRequest(account=account, update_mask=FieldMask(paths=paths))
    return ask(made, OPERATOR, "UpdateAccount", request)  # type: ignore[no-any-return]


def join(made: Centre, account: str, user: str, **fields: Any) -> accounts_pb.SetMemberResponse:
    member = pb.Member(name=f"accounts/{account}/members/{user}", **fields)
    request = accounts_pb.SetMemberRequest(member=member, update_mask=FieldMask(paths=fields))
    return ask(made, OPERATOR, "SetMember", request)  # type: ignore[no-any-return]


def spec(**document: Any) -> Struct:
    message = Struct()
    message.update({"command": ["true"], **document})
    return message


def submit(made: Centre, who: str, **document: Any) -> job_pb2.Job:
    return ask(made, who, "SubmitJob", jobs_pb.SubmitJobRequest(spec=spec(**document)))  # type: ignore[no-any-return]


def test_an_account_is_made_shown_changed_and_removed(made: Centre) -> None:
    create(made, "science", shares=3)
    quota = pb.Limits(gpus=8, borrow_gpus=-1, gpu_hours=100)
    found = create(made, "vision", parent="accounts/science", quota=quota, description="cameras")
    assert (found.name, found.parent, found.shares) == ("accounts/vision", "accounts/science", 1)
    assert (found.quota.gpus, found.quota.borrow_gpus, found.quota.window_days) == (8, -1, 30)
    assert not found.quota.HasField("running")
    assert MEMBERS_MAY.into(found.members_may) is MembersMay.OWN
    listed = ask(made, OPERATOR, "ListAccounts", accounts_pb.ListAccountsRequest())
    assert [each.name[9:] for each in listed.accounts] == ["default", "science", "vision"]
    changed = update(made, pb.Account(name=found.name, shares=9), "shares", "quota.gpus").account
    assert (changed.shares, changed.quota.HasField("gpus"), changed.quota.gpu_hours) == (
        9,
        False,
        100,
    ), "a field that is named and absent becomes unlimited"
    assert changed.etag != found.etag
    delete = accounts_pb.DeleteAccountRequest(name="accounts/science")
    assert refused(made, OPERATOR, "DeleteAccount", delete) == (
        "FAILED_PRECONDITION",
        "accounts/science has accounts below it: vision",
    )
    ask(made, OPERATOR, "DeleteAccount", accounts_pb.DeleteAccountRequest(name=found.name))
    get = accounts_pb.GetAccountRequest(name=found.name)
    assert refused(made, OPERATOR, "GetAccount", get)[0] == "NOT_FOUND"


def test_pages_follow_one_another(made: Centre) -> None:
    for number in range(3):
        create(made, f"a{number}")
    request, names = accounts_pb.ListAccountsRequest(page_size=2), []
    while True:
        page = ask(made, OPERATOR, "ListAccounts", request)
        names += [each.name[9:] for each in page.accounts]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert names == ["a0", "a1", "a2", "default"]


def test_what_is_wrong_with_an_account_is_told_by_field(made: Centre) -> None:
    bad = pb.Account(shares=-1, qos=2_000_000, quota=pb.Limits(gpus=-5, window_days=91))
    request = accounts_pb.CreateAccountRequest(account_id="x", account=bad)
    code, words = refused(made, OPERATOR, "CreateAccount", request)
    assert code == "INVALID_ARGUMENT"
    assert words.splitlines() == [
        "account.shares: -1: must be 0 to 1,000,000",
        "account.qos: 2000000: must be 0 to 1,000,000",
        "account.quota: -5: must be 0 to 1,000,000,000",
    ]
    mask = accounts_pb.UpdateAccountRequest(
        account=pb.Account(name="accounts/default"), update_mask=FieldMask(paths=["owner"])
    )
    assert (
        '"owner": is no field that can be changed; there are: parent, description'
        in (refused(made, OPERATOR, "UpdateAccount", mask)[1])
    )
    nothing = accounts_pb.UpdateAccountRequest(account=pb.Account(name="accounts/default"))
    assert "names no field" in refused(made, OPERATOR, "UpdateAccount", nothing)[1]
    nobody = accounts_pb.SetMemberRequest(member=pb.Member(name="accounts/default/members/nobody"))
    assert refused(made, OPERATOR, "SetMember", nobody) == (
        "NOT_FOUND",
        "users/nobody: there is no such user; `ccctl user create nobody` makes one",
    )


def test_a_forged_account_is_denied_and_written_down(made: Centre) -> None:
    create(made, "vision")
    join(made, "vision", ALICE, default_account=True)
    assert submit(made, ALICE).account == "vision"
    assert submit(made, BOB).account == "default"
    request = jobs_pb.SubmitJobRequest(spec=spec(account="vision"))
    several = jobs_pb.SubmitJobsRequest(specs=[spec(), spec(account="vision")])
    check_only = jobs_pb.SubmitJobRequest(spec=spec(account="vision"), validate_only=True)
    words = "accounts/vision: bob is no member of it; yours are: default"
    before = made.registry.last_job_id
    for rpc, each in (
        ("SubmitJob", request),
        ("SubmitJobs", several),
        ("SubmitJob", check_only),
    ):
        assert refused(made, BOB, rpc, each) == ("PERMISSION_DENIED", words)
    assert made.registry.last_job_id == before, "all or nothing"
    made.do(lambda draft: None, "test")  # who is denied does not wait for the event
    denials = [e for e in made.events("principals/bob") if e.kind == "access.denied"]
    assert [e.changed["object"] for e in denials] == ["accounts/vision"] * 3
    mine = submit(made, BOB)
    move = jobs_pb.UpdateJobRequest(name=mine.name, account="vision")
    assert refused(made, BOB, "UpdateJob", move) == ("PERMISSION_DENIED", words)
    unknown = jobs_pb.SubmitJobRequest(spec=spec(account="visoin"))
    code, told = refused(made, ALICE, "SubmitJob", unknown)
    assert code == "INVALID_ARGUMENT"
    assert told == 'account: "visoin": there is no such account; yours are: default, vision'
    check_only = jobs_pb.SubmitJobRequest(spec=spec(), validate_only=True)
    assert ask(made, ALICE, "SubmitJob", check_only).account == "vision", "her default one"


def test_a_quota_is_kept_at_submit_and_a_smaller_one_warns(made: Centre) -> None:
    create(made, "vision", quota=pb.Limits(queued=2))
    join(made, "vision", ALICE, default_account=True)
    submit(made, ALICE)
    submit(made, ALICE)
    code, words = refused(made, ALICE, "SubmitJob", jobs_pb.SubmitJobRequest(spec=spec()))
    assert code == "RESOURCE_EXHAUSTED"
    assert words.startswith("accounts/vision: 2 tasks wait, and 2 may (queued of its quota)")
    smaller = pb.Account(name="accounts/vision", quota=pb.Limits(queued=1))
    answer = update(made, smaller, "quota.queued")
    assert [each[:54] for each in answer.warnings] == [
        "vision has 2 waiting tasks by now, above its quota of "
    ]
    assert (answer.account.use.queued, answer.account.quota.queued) == (2, 1)


def outcomes(made: Centre, who: str, number: int) -> dict[str, str]:
    """What somebody may do to a job: by rpc, the status."""
    name = f"jobs/{number}"
    requests: dict[str, Message] = {
        "GetJob": jobs_pb.GetJobRequest(name=name),
        "ListTasks": jobs_pb.ListTasksRequest(name=name),
        "ListEvents": jobs_pb.ListEventsRequest(resource=name),
        "GetMetrics": jobs_pb.GetMetricsRequest(name=name),
        "ExplainJob": schedule_pb.ExplainJobRequest(name=name),
        "ReadLogs": jobs_pb.ReadLogsRequest(name=name),
        "HoldJobs": jobs_pb.HoldJobsRequest(names=[name]),
        "UpdateJob": jobs_pb.UpdateJobRequest(name=name, priority_class="normal"),
        "Exec": steps_pb.ExecRequest(start=step_pb2.StepStart(job=name, command=["id"])),
        "CancelJobs": jobs_pb.CancelJobsRequest(names=[name]),
    }
    found = {}
    for rpc, request in requests.items():
        full = next(each for each in METHODS if each.endswith(f"/{rpc}"))
        code = made.code(full, request.SerializeToString(), made.token(who, Role.USER))
        found[rpc] = code.name
    return found


SEEN = ("GetJob", "ListTasks", "ListEvents", "GetMetrics", "ExplainJob")
STOPPED = ("HoldJobs", "UpdateJob", "CancelJobs")


@pytest.mark.parametrize("may", list(MembersMay))
def test_the_account_says_what_members_may_do_to_each_others_jobs(
    made: Centre, may: MembersMay
) -> None:
    create(made, "vision", members_may=MEMBERS_MAY.out(may))
    for user in (ALICE, BOB):
        join(made, "vision", user)
    number = submit(made, ALICE, account="vision", env={"KEY": "s3cret"}).job_id
    private = submit(made, ALICE, account="default").job_id
    listed = ask(made, BOB, "ListJobs", jobs_pb.ListJobsRequest())
    sees, reads, stops = (
        may is not MembersMay.OWN,
        may in (MembersMay.READ, MembersMay.STOP),
        may is MembersMay.STOP,
    )
    assert [job.job_id for job in listed.jobs] == ([number] if sees else [])
    if sees:
        (shown,) = listed.jobs
        assert ("s3cret" in str(shown)) is reads, "who may not read output sees no environment"
        of_alice = jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(owner=ALICE))
        assert [job.job_id for job in ask(made, BOB, "ListJobs", of_alice).jobs] == [number]
    denied = "PERMISSION_DENIED"
    assert set(outcomes(made, BOB, private).values()) == {denied}
    assert set(outcomes(made, EVE, number).values()) == {denied}
    found = outcomes(made, BOB, number)
    assert {rpc for rpc in SEEN if found[rpc] == denied} == (set() if sees else set(SEEN))
    assert (found["ReadLogs"] == denied) is not reads
    assert {rpc for rpc in STOPPED if found[rpc] == denied} == (set() if stops else set(STOPPED))
    assert found["Exec"] == denied, "a step acts as the job's owner"


def test_a_coordinator_sees_and_stops_the_jobs_of_the_account_and_of_those_below(
    made: Centre,
) -> None:
    create(made, "science")
    create(made, "vision", parent="accounts/science")
    join(made, "science", BOB, coordinator=True)
    join(made, "vision", ALICE)
    number = submit(made, ALICE, account="vision").job_id
    pending = jobs_pb.JobFilter(states=[job_pb2.JOB_STATE_PENDING], account="vision")
    assert [job.owner for job in ask(made, BOB, "ListJobs", _list(pending)).jobs] == [ALICE]
    found = outcomes(made, BOB, number)
    assert {rpc for rpc, code in found.items() if code == "PERMISSION_DENIED"} == {
        "ReadLogs",
        "Exec",
    }
    assert made.registry.job(number).job.cancelled_by == BOB
    submit(made, ALICE, account="vision")
    answer = ask(made, BOB, "CancelJobs", jobs_pb.CancelJobsRequest(filter=pending))
    assert list(answer.cancelled) == [f"jobs/{number + 1}"]


def _list(which: jobs_pb.JobFilter) -> jobs_pb.ListJobsRequest:
    return jobs_pb.ListJobsRequest(filter=which)


def test_a_watch_tells_what_may_be_seen(made: Centre) -> None:
    create(made, "vision", members_may=pb.MEMBERS_MAY_SEE)
    for user in (ALICE, BOB):
        join(made, "vision", user)
    number = submit(made, ALICE, account="vision").job_id
    submit(made, ALICE, account="default")
    first = ask(made, BOB, "WatchJobs", jobs_pb.WatchJobsRequest())
    assert [job.job_id for job in first.jobs] == [number]


def test_users_see_their_own_accounts_and_themselves(made: Centre) -> None:
    create(made, "vision", shares=3)
    create(made, "secret")
    join(made, "vision", ALICE, shares=2)
    join(made, "vision", BOB, coordinator=True)

    def names(who: str) -> list[str]:
        listed = ask(made, who, "ListAccounts", accounts_pb.ListAccountsRequest())
        return [each.name[9:] for each in listed.accounts]

    assert names(ALICE) == ["default", "vision"]
    assert names(EVE) == ["default"]
    members = accounts_pb.ListMembersRequest(account="accounts/vision")
    seen = {
        who: [m.user[6:] for m in ask(made, who, "ListMembers", members).members]
        for who in (ALICE, BOB)
    }
    assert seen == {ALICE: [ALICE], BOB: [ALICE, BOB]}
    assert refused(made, EVE, "ListMembers", members)[0] == "PERMISSION_DENIED"

    def shares(who: str, **fields: Any) -> list[tuple[str, str, int, int]]:
        found = ask(made, who, "ListShares", accounts_pb.ListSharesRequest(**fields))
        return [(s.account[9:], s.user[6:], s.depth, s.norm_shares) for s in found.shares]

    assert shares(ALICE) == [
        ("default", "", 0, 200_000),
        ("vision", "", 0, 600_000),
        ("vision", "alice", 1, 666_667),
    ]
    assert shares(BOB, account="accounts/vision")[1:] == [
        ("vision", "alice", 1, 666_667),
        ("vision", "bob", 1, 333_333),
    ]
    assert len(shares(OPERATOR)) == 5
    assert refused(made, ALICE, "ListShares", accounts_pb.ListSharesRequest(account="secret")) == (
        "PERMISSION_DENIED",
        "accounts/secret: not alice's own, and the role user may call AccountService/ListShares for"
        " its own alone; viewer, operator and admin may for all",
    )


def test_a_repeat_of_a_change_is_answered_as_the_first(made: Centre) -> None:
    request = accounts_pb.CreateAccountRequest(account_id="vision", request_id="once")
    first = ask(made, OPERATOR, "CreateAccount", request)
    assert ask(made, OPERATOR, "CreateAccount", request) == first
    request.request_id = "twice"
    assert refused(made, OPERATOR, "CreateAccount", request)[0] == "ALREADY_EXISTS"
