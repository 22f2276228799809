"""A fake of AccountService: a small tree that stays as it is, and what it was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlplane.v1 import account_pb2 as pb
from controlplane.v1 import account_service_pb2 as service_pb
from controlplane.v1 import account_service_pb2_grpc

if TYPE_CHECKING:
    import grpc

HOUR_US = 3_600_000_000


def accounts() -> list[pb.Account]:
    """Three accounts, one of them below another."""
    vision = pb.Account(
        name="accounts/vision",
        parent="accounts/science",
        description="cameras, and what they see",
        shares=2,
        quota=pb.Limits(running=50, gpus=64, borrow_gpus=-1, gpu_hours=10_000, window_days=30),
        qos=250_000,
        members_may=pb.MEMBERS_MAY_SEE,
        created_by="olga",
        etag="7",
        use=pb.AccountUse(queued=12, running=3, gpus=24),
    )
    vision.create_time.FromJsonString("2026-02-01T09:00:00Z")
    quota = pb.Limits(window_days=30)
    may = pb.MEMBERS_MAY_OWN
    default = pb.Account(name="accounts/default", shares=1, quota=quota, open=True, members_may=may)
    science = pb.Account(name="accounts/science", shares=3, quota=quota, members_may=may)
    return [default, science, vision]


def members() -> list[pb.Member]:
    """Two members of `vision`."""
    return [
        pb.Member(
            name="accounts/vision/members/ada",
            user="users/ada",
            shares=1,
            quota=pb.Limits(gpus=16, window_days=30),
            default_account=True,
            use=pb.AccountUse(queued=2, running=1, gpus=8),
        ),
        pb.Member(
            name="accounts/vision/members/bob",
            user="users/bob",
            shares=3,
            quota=pb.Limits(window_days=30),
            coordinator=True,
        ),
    ]


class FakeAccounts(account_service_pb2_grpc.AccountServiceServicer):
    """The service."""

    def __init__(self, requests: list[Any]) -> None:
        """`requests`: where it notes what it was asked."""
        self.requests = requests

    def CreateAccount(self, request: Any, context: grpc.ServicerContext) -> pb.Account:
        self.requests.append(request)
        made = pb.Account()
        made.CopyFrom(request.account)
        made.name = f"accounts/{request.account_id}"
        return made

    def GetAccount(self, request: Any, context: grpc.ServicerContext) -> pb.Account:
        return next(each for each in accounts() if each.name == request.name)

    def ListAccounts(self, request: Any, context: grpc.ServicerContext) -> Any:
        return service_pb.ListAccountsResponse(accounts=accounts())

    def UpdateAccount(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        words = "vision has 24 GPUs by now, above its quota of 8: nothing of it is ended"
        return service_pb.UpdateAccountResponse(account=accounts()[2], warnings=[words])

    def DeleteAccount(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        return service_pb.DeleteAccountResponse()

    def SetMember(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        return service_pb.SetMemberResponse(member=members()[0])

    def RemoveMember(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        return service_pb.RemoveMemberResponse()

    def ListMembers(self, request: Any, context: grpc.ServicerContext) -> Any:
        return service_pb.ListMembersResponse(members=members())

    def ListShares(self, request: Any, context: grpc.ServicerContext) -> Any:
        def share(account: str, user: str, depth: int, *figures: Any) -> pb.Share:
            shares, norm, hours, usage, level, factor = figures
            return pb.Share(
                account=f"accounts/{account}",
                user=f"users/{user}" if user else "",
                depth=depth,
                shares=shares,
                norm_shares=norm,
                usage_us=(hours or 0) * HOUR_US,
                effective_usage=usage,
                level=level,
                factor=factor,
            )

        return service_pb.ListSharesResponse(
            shares=[
                share("default", "", 0, 1, 250_000, 0, 0, None, None),
                share("science", "", 0, 3, 750_000, 400, 1_000_000, 750_000, None),
                share("vision", "", 1, 2, 1_000_000, 400, 1_000_000, 1_000_000, None),
                share("vision", "ada", 2, 1, 250_000, 400, 1_000_000, 250_000, 500_000),
                share("vision", "bob", 2, 3, 750_000, 0, 0, None, 1_000_000),
            ]
        )
