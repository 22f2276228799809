"""AccountService: who pays for jobs, and who may submit to whom."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from controlplane.model.account import NO_LIMITS, Account
from controlplane.model.errors import FieldFault, InvalidRequest, NotFound
from controlplane.model.fairtree import fair_tree, standings
from controlplane.model.identity import USER_NAME
from controlplane.registry import accounts as commands
from controlplane.service.asked import decimal, page_size
from controlplane.service.auth import CALLER
from controlplane.service.context import once_for
from controlplane.service.errors import answers
from controlplane.service.permissions import RPC, Reach, reach, refusal
from controlplane.v1 import account_pb2
from controlplane.v1 import account_service_pb2 as pb
from controlplane.v1.account_service_pb2_grpc import AccountServiceServicer
from controlplane.wire.accounts import (
    account_changes,
    account_message,
    member_changes,
    member_message,
    share_message,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.model.account import Member
    from controlplane.model.view import View
    from controlplane.registry.draft import Draft
    from controlplane.service.context import House

LONGEST_TOLD = 80
_OF_NEW = ("parent", "description", "shares", "qos", "open", "members_may", "quota")


class AccountService(AccountServiceServicer):
    """Keeps accounts and their members."""

    def __init__(self, house: House) -> None:
        """`house`: the rooms to speak to."""
        self._house = house

    @answers
    async def CreateAccount(
        self, request: pb.CreateAccountRequest, context: Any
    ) -> account_pb2.Account:
        """Make an account."""
        told = request.account
        changes: Any = account_changes(told, _OF_NEW, NO_LIMITS)
        changes["shares"] = changes["shares"] or 1
        wanted = Account(name=request.account_id, **changes)

        def command(draft: Draft) -> dict[str, object]:
            commands.create(draft, wanted)
            return {}

        await self._change(command, request, context)
        return self._shown(request.account_id)

    @answers
    async def GetAccount(self, request: pb.GetAccountRequest, context: Any) -> account_pb2.Account:
        """Show an account."""
        return self._shown(self._asked(request.name))

    @answers
    async def ListAccounts(
        self, request: pb.ListAccountsRequest, context: Any
    ) -> pb.ListAccountsResponse:
        """List accounts."""
        registry, mine = self._house.registry, self._mine()
        found = [a for a in registry.accounts() if mine is None or a.name in mine]
        page, token = _page(found, request)
        return pb.ListAccountsResponse(
            accounts=[account_message(a, registry.held(a.name)) for a in page],
            next_page_token=token,
        )

    @answers
    async def UpdateAccount(
        self, request: pb.UpdateAccountRequest, context: Any
    ) -> pb.UpdateAccountResponse:
        """Change an account."""
        name = _account(request.account.name, "account.name")
        _named_something(request)

        def command(draft: Draft) -> dict[str, object]:
            before = commands.known(draft, name).limits
            changes = account_changes(request.account, request.update_mask.paths, before)
            return {"warnings": commands.update(draft, name, changes)[1]}

        body = await self._change(command, request, context)
        return pb.UpdateAccountResponse(account=self._shown(name), warnings=body["warnings"])

    @answers
    async def DeleteAccount(
        self, request: pb.DeleteAccountRequest, context: Any
    ) -> pb.DeleteAccountResponse:
        """Remove an account."""
        name = _account(request.name)

        def command(draft: Draft) -> dict[str, object]:
            commands.delete(draft, name)
            return {}

        await self._change(command, request, context)
        return pb.DeleteAccountResponse()

    @answers
    async def SetMember(self, request: pb.SetMemberRequest, context: Any) -> pb.SetMemberResponse:
        """Make a user a member."""
        account, user = _member(request.member.name, "member.name")
        if self._house.registry.user(user) is None and not self._house.door.knows(user):
            raise NotFound(
                f"users/{user}: there is no such user; `ccctl user create {user}` makes one"
            )

        def command(draft: Draft) -> dict[str, object]:
            known = draft.members.get((account, user))
            before = known.limits if known is not None else NO_LIMITS
            changes = member_changes(request.member, request.update_mask.paths, before)
            return {"warnings": commands.set_member(draft, account, user, changes)[1]}

        body = await self._change(command, request, context)
        registry = self._house.registry
        member = registry.memberships(user).get(account)
        if member is None:
            raise NotFound(f"accounts/{account}/members/{user}: was removed meanwhile")
        return pb.SetMemberResponse(
            member=member_message(member, registry.held(account, user)), warnings=body["warnings"]
        )

    @answers
    async def RemoveMember(
        self, request: pb.RemoveMemberRequest, context: Any
    ) -> pb.RemoveMemberResponse:
        """Take a user out of an account."""
        account, user = _member(request.name)

        def command(draft: Draft) -> dict[str, object]:
            commands.remove_member(draft, account, user)
            return {}

        await self._change(command, request, context)
        return pb.RemoveMemberResponse()

    @answers
    async def ListMembers(
        self, request: pb.ListMembersRequest, context: Any
    ) -> pb.ListMembersResponse:
        """List members of an account."""
        name, registry = self._asked(request.account, "account"), self._house.registry
        members: Sequence[Member] = registry.members(name)
        if self._mine() is not None and name not in self._coordinated():
            members = [m for m in members if m.user == CALLER.get().name]
        page, token = _page(members, request)
        return pb.ListMembersResponse(
            members=[member_message(m, registry.held(name, m.user)) for m in page],
            next_page_token=token,
        )

    @answers
    async def ListShares(
        self, request: pb.ListSharesRequest, context: Any
    ) -> pb.ListSharesResponse:
        """Tell where accounts and users stand."""
        top = self._asked(request.account, "account") if request.account else ""
        house, mine, caller = self._house, self._mine(), CALLER.get().name
        seen = self._coordinated() if mine is not None else frozenset[str]()

        def read() -> list[account_pb2.Share]:
            rows = _shares(house.registry.view(house.clock.now_us()), top)
            if mine is None:
                return rows
            return [
                row
                for row in rows
                if (name := row.account.removeprefix("accounts/")) in seen
                or (name in mine and row.user in ("", f"users/{caller}"))
            ]

        page, token = _page(await asyncio.to_thread(read), request)
        return pb.ListSharesResponse(shares=page, next_page_token=token)

    # --- whose ---------------------------------------------------------------------------------

    def _mine(self) -> frozenset[str] | None:
        """Accounts that are the caller's to see; None for all."""
        caller, registry = CALLER.get(), self._house.registry
        if reach(caller, RPC.get()) is Reach.ALL:
            return None
        everybodys = (account.name for account in registry.accounts() if account.open)
        return frozenset(registry.memberships(caller.name)) | set(everybodys) | self._coordinated()

    def _coordinated(self) -> frozenset[str]:
        """Accounts that the caller coordinates."""
        return self._house.registry.coordinated(CALLER.get().name)

    def _asked(self, name: str, field: str = "name") -> str:
        """The account that a request names. NotAllowed when it is not the caller's to see."""
        found, mine = _account(name, field), self._mine()
        if self._house.registry.account(found) is None:
            raise _missing(found)
        if mine is not None and found not in mine:
            raise refusal(CALLER.get(), RPC.get(), f"accounts/{found}")
        return found

    def _shown(self, name: str) -> account_pb2.Account:
        registry = self._house.registry
        account = registry.account(name)
        if account is None:
            raise _missing(name)
        return account_message(account, registry.held(name))

    async def _change(self, command: Any, request: Any, context: Any) -> Any:
        actor = self._house.actor(context)
        return await self._house.write(command, actor, once_for(actor.principal, request))


def _missing(name: str) -> NotFound:
    return NotFound(f"accounts/{name[:LONGEST_TOLD]}: there is no such account")


def _named_something(request: pb.UpdateAccountRequest) -> None:
    if not request.update_mask.paths:
        words = "names no field; name those that should change, e.g. shares"
        raise InvalidRequest(FieldFault(field="update_mask", description=words))


def _account(name: str, field: str = "name") -> str:
    found = name.removeprefix("accounts/")
    if not found or "/" in found:
        words = f"{name[:LONGEST_TOLD]!r}: must be accounts/<name>"
        raise InvalidRequest(FieldFault(field=field, description=words))
    return found


def _member(name: str, field: str = "name") -> tuple[str, str]:
    account, _, user = name.removeprefix("accounts/").partition("/members/")
    if not account or "/" in account or not USER_NAME.fullmatch(user):
        words = f"{name[:LONGEST_TOLD]!r}: must be accounts/<name>/members/<user>"
        raise InvalidRequest(FieldFault(field=field, description=words))
    return account, user


def _shares(seen: View, top: str) -> list[account_pb2.Share]:
    """The tree in its order: an account, its users, then what is below it."""
    factors = fair_tree(seen.accounts, seen.members)
    stands = standings(seen.accounts, seen.members)
    depths: dict[str, int] = {"": -1}
    users: dict[str, list[account_pb2.Share]] = {}
    for member in seen.members:
        key = (member.account, member.user)
        row = share_message(member, stands[key], 0, factors.get(key))
        users.setdefault(member.account, []).append(row)
    rows = []
    within = {top} if top else set()
    for account in seen.accounts:
        depths[account.name] = depth = depths[account.parent] + 1
        if account.parent in within:
            within.add(account.name)
        if top and account.name not in within:
            continue
        rows.append(share_message(account, stands[account.name, ""], depth, None))
        for row in users.get(account.name, ()):
            row.depth = depth + 1
            rows.append(row)
    return rows


def _page(items: Sequence[Any], request: Any) -> tuple[Sequence[Any], str]:
    """A page, and the token of the next one: how many came before it."""
    begin = decimal(request.page_token or "0")
    if begin is None:
        words = "is none of this server's; use the next_page_token of the answer before"
        raise InvalidRequest(FieldFault(field="page_token", description=words))
    end = begin + page_size(request.page_size)
    return items[begin:end], str(end) if end < len(items) else ""
