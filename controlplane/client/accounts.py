"""Accounts and their members: the part of the client for operators, and for who is a member."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from controlplane.v1 import account_pb2
    from controlplane.v1 import account_service_pb2 as pb


class Accounts:
    """Asks for everything that AccountService does. Methods raise as those of `Client`."""

    def __init__(self, stub: Any, call: Callable[[Any, Any], Any]) -> None:
        """`call`: makes one unary call of a stub's method."""
        self._stub, self._call = stub, call

    def create(
        self, name: str, account: account_pb2.Account, *, request_id: str | None = None
    ) -> account_pb2.Account:
        """Make an account."""
        from controlplane.v1 import account_service_pb2 as pb

        request = pb.CreateAccountRequest(
            account_id=name, account=account, request_id=request_id or uuid.uuid4().hex
        )
        return self._call(self._stub.CreateAccount, request)  # type: ignore[no-any-return]

    def get(self, name: str) -> account_pb2.Account:
        """One account."""
        from controlplane.v1 import account_service_pb2 as pb

        request = pb.GetAccountRequest(name=f"accounts/{name}")
        return self._call(self._stub.GetAccount, request)  # type: ignore[no-any-return]

    def all(self) -> Iterator[account_pb2.Account]:
        """All accounts that one may see, each before those below it."""
        from controlplane.v1 import account_service_pb2 as pb

        yield from self._pages(self._stub.ListAccounts, pb.ListAccountsRequest(), "accounts")

    def update(
        self,
        account: account_pb2.Account,
        fields: Sequence[str],
        *,
        request_id: str | None = None,
    ) -> pb.UpdateAccountResponse:
        """Change the named fields of an account, such as `shares` or `quota.gpus`."""
        from google.protobuf.field_mask_pb2 import FieldMask

        from controlplane.v1 import account_service_pb2 as pb

        request = pb.UpdateAccountRequest(
            account=account,
            update_mask=FieldMask(paths=fields),
            request_id=request_id or uuid.uuid4().hex,
        )
        return self._call(self._stub.UpdateAccount, request)  # type: ignore[no-any-return]

    def delete(self, name: str, *, request_id: str | None = None) -> None:
        """Remove an account, and its members."""
        from controlplane.v1 import account_service_pb2 as pb

        request = pb.DeleteAccountRequest(
            name=f"accounts/{name}", request_id=request_id or uuid.uuid4().hex
        )
        self._call(self._stub.DeleteAccount, request)

    def set_member(
        self,
        member: account_pb2.Member,
        fields: Sequence[str] = (),
        *,
        request_id: str | None = None,
    ) -> pb.SetMemberResponse:
        """Make a user a member, or change the named fields of the membership."""
        from google.protobuf.field_mask_pb2 import FieldMask

        from controlplane.v1 import account_service_pb2 as pb

        request = pb.SetMemberRequest(
            member=member,
            update_mask=FieldMask(paths=fields),
            request_id=request_id or uuid.uuid4().hex,
        )
        return self._call(self._stub.SetMember, request)  # type: ignore[no-any-return]

    def remove_member(self, account: str, user: str, *, request_id: str | None = None) -> None:
        """Take a user out of an account."""
        from controlplane.v1 import account_service_pb2 as pb

        request = pb.RemoveMemberRequest(
            name=f"accounts/{account}/members/{user}", request_id=request_id or uuid.uuid4().hex
        )
        self._call(self._stub.RemoveMember, request)

    def members(self, account: str) -> Iterator[account_pb2.Member]:
        """Members of an account that one may see."""
        from controlplane.v1 import account_service_pb2 as pb

        request = pb.ListMembersRequest(account=f"accounts/{account}")
        yield from self._pages(self._stub.ListMembers, request, "members")

    def shares(self, account: str = "") -> Iterator[account_pb2.Share]:
        """The fair-share tree, or what is below one account."""
        from controlplane.v1 import account_service_pb2 as pb

        request = pb.ListSharesRequest(account=f"accounts/{account}" if account else "")
        request.page_size = 1000
        yield from self._pages(self._stub.ListShares, request, "shares")

    def _pages(self, method: Any, request: Any, field: str) -> Iterator[Any]:
        while True:
            page = self._call(method, request)
            yield from getattr(page, field)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
