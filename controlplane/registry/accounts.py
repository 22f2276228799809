"""Commands of operators on accounts and their members; and what a job's account may refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from controlplane.model.account import (
    ACCOUNT_NAME,
    DEEPEST,
    DEFAULT,
    NOTHING,
    Account,
    Limits,
    Member,
    downwards,
    upwards,
)
from controlplane.model.errors import (
    AlreadyExists,
    FieldFault,
    InvalidRequest,
    NotAllowed,
    NotFound,
    QuotaExceeded,
    WrongState,
)
from controlplane.model.spending import Spending, charged
from controlplane.model.words import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from controlplane.model.account import Held
    from controlplane.model.job import Job
    from controlplane.model.usage import Usage
    from controlplane.registry.draft import Draft
    from controlplane.registry.facts import Facts

_TOLD = ("parent", "description", "shares", "qos", "open", "members_may")
_TOLD_OF_MEMBERS = ("shares", "coordinator", "default")


# --- commands ----------------------------------------------------------------------------------


def create(draft: Draft, wanted: Account) -> Account:
    """Make an account. AlreadyExists when the name is taken."""
    if draft.accounts.get(wanted.name) is not None:
        raise AlreadyExists(f"accounts/{wanted.name}: is there already; `ccctl account update`")
    if not ACCOUNT_NAME.fullmatch(wanted.name):
        words = f"{wanted.name[:80]!r}: must be 1 to 63 of a-z, 0-9 and, between them, - . _"
        raise InvalidRequest(FieldFault(field="account_id", description=words))
    _check_parent(draft, wanted)
    told = _changes(Account(name=wanted.name), wanted)
    seq = draft.emit("account.created", f"accounts/{wanted.name}", told)
    made = replace(wanted, created_us=draft.now_us, created_by=draft.actor.principal, revision=seq)
    draft.accounts[made.name] = made
    return made


def update(draft: Draft, name: str, changes: Mapping[str, object]) -> tuple[Account, list[str]]:
    """Change fields of an account; it, and in words what is above its quota already. NotFound when
    there is none."""
    before = known(draft, name)
    account = replace(before, **changes)  # type: ignore[arg-type]  # checked where it was read
    if account != before:
        _check_parent(draft, account)
        told = _changes(before, account)
        seq = draft.emit("account.changed", f"accounts/{name}", told)
        draft.accounts[name] = account = replace(account, revision=seq)
    return account, _above(name, account.limits, held_below(draft, name))


def delete(draft: Draft, name: str) -> None:
    """Remove an account, with its members. WrongState while it has accounts below or jobs that
    live. What was used in its name stays in `ccctl usage`."""
    known(draft, name)
    if name == DEFAULT:
        raise WrongState(f"accounts/{name} stays; close it: ccctl account update {name} --no-open")
    below = downwards(draft.all_accounts(), name)[1:]
    if below:
        raise WrongState(f"accounts/{name} has accounts below it: {', '.join(sorted(below))}")
    held = draft.held(name)
    if held != NOTHING:
        waits = f"{held.queued} that {'waits' if held.queued == 1 else 'wait'}"
        jobs = f"{waits} and {held.running} that {'runs' if held.running == 1 else 'run'}"
        raise WrongState(f"accounts/{name} has jobs that have not ended: {jobs}; end or move them")
    users = sorted(draft.members_of(name))
    draft.emit("account.deleted", f"accounts/{name}", {"members": users} if users else {})
    for user in users:
        draft.members[name, user] = None
    for key in draft.spenders(name):
        draft.spendings[key] = None
    draft.accounts[name] = None


def set_member(
    draft: Draft, account: str, user: str, changes: Mapping[str, object]
) -> tuple[Member, list[str]]:
    """Make a user a member, or change what they have; the membership, and in words what is above
    its quota already. NotFound when there is no such account."""
    known(draft, account)
    before = draft.members.get((account, user))
    member = replace(before or Member(account=account, user=user), **changes)  # type: ignore[arg-type]  # as above
    if member != before:
        old = before or Member(account=account, user=user)
        told: dict[str, object] = {
            name: [getattr(old, name), getattr(member, name)]
            for name in _TOLD_OF_MEMBERS
            if getattr(old, name) != getattr(member, name)
        }
        told |= old.limits.changed(member.limits)
        resource = f"accounts/{account}/members/{user}"
        if before is None:
            seq = draft.emit("account.member_added", resource, told)
        else:
            seq = draft.emit("account.member_changed", resource, told)
        member = replace(member, revision=seq)
        if member.default:
            for other in draft.memberships(user).values():
                if other.default and other.account != account:
                    draft.members[other.key] = replace(other, default=False, revision=seq)
        draft.members[account, user] = member
    return member, _above(f"{user} in {account}", member.limits, draft.held(account, user))


def remove_member(draft: Draft, account: str, user: str) -> None:
    """Take a user out of an account; their jobs that have been accepted go on. NotFound when they
    are no member."""
    known(draft, account)
    if draft.members.get((account, user)) is None:
        raise NotFound(f"accounts/{account}/members/{user}: there is no such member")
    draft.emit("account.member_removed", f"accounts/{account}/members/{user}", {})
    draft.members[account, user] = None


def known(draft: Draft, name: str) -> Account:
    """An account. NotFound when there is none."""
    account = draft.accounts.get(name)
    if account is None:
        raise NotFound(f"accounts/{name}: there is no such account; `ccctl account list`")
    return account


def _check_parent(draft: Draft, account: Account) -> None:
    """InvalidRequest when the account cannot be where it wants to be."""
    if not account.parent:
        return
    accounts = draft.all_accounts()
    if account.parent not in accounts:
        words = f'"{account.parent}": there is no such account'
        raise InvalidRequest(FieldFault(field="parent", description=words))
    below = downwards(accounts, account.name)
    if account.parent in below:
        words = f'"{account.parent}": is {account.name} itself, or below it'
        raise InvalidRequest(FieldFault(field="parent", description=words))
    accounts[account.name] = account
    if any(len(list(upwards(accounts, name))) > DEEPEST for name in below):
        words = f'"{account.parent}": at most {DEEPEST} accounts may be above one another'
        raise InvalidRequest(FieldFault(field="parent", description=words))


def _changes(before: Account, after: Account) -> dict[str, object]:
    told: dict[str, object] = {
        name: [getattr(before, name), getattr(after, name)]
        for name in _TOLD
        if getattr(before, name) != getattr(after, name)
    }
    return told | before.limits.changed(after.limits)


def _above(who: str, limits: Limits, held: Held) -> list[str]:
    """What is above a quota already, in words: nothing is ended for it, and nothing more starts."""
    return [
        f"{who} has {count(now, noun)} by now, above its quota of {most}: nothing of it is ended,"
        " and nothing is added until there are fewer"
        for noun, now, most in (
            ("running task", held.running, limits.running),
            ("waiting task", held.queued, limits.queued),
            ("GPU", held.gpus, limits.most_gpus),
        )
        if most is not None and now > most
    ]


def held_below(draft: Draft | Facts, name: str) -> Held:
    """What jobs of an account and of all below it have."""
    held = NOTHING
    for each in downwards(draft.all_accounts(), name):
        held = held.plus(draft.held(each))
    return held


# --- jobs --------------------------------------------------------------------------------------


def payer(draft: Draft, wanted: str | None, owner: str) -> str:
    """The account that pays for a job: the one that it names, or its owner's default one.

    InvalidRequest when there is no such account, NotAllowed when the owner may not submit to it.
    """
    mine = draft.memberships(owner)
    name = wanted or next((m.account for m in mine.values() if m.default), DEFAULT)
    account = draft.accounts.get(name)
    if account is not None and (account.open or name in mine):
        return name
    everybodys = (each.name for each in draft.all_accounts().values() if each.open)
    usable = sorted({*mine, *everybodys})
    yours = f"yours are: {', '.join(usable)}" if usable else "you are in none; ask your operator"
    if account is None:
        words = f'"{name[:80]}": there is no such account; {yours}'
        raise InvalidRequest(FieldFault(field="account", description=words))
    raise NotAllowed(f"accounts/{name}: {owner} is no member of it; {yours}", f"accounts/{name}")


def check_queued(draft: Draft, account: str, owner: str, tasks: int) -> None:
    """QuotaExceeded when so many more tasks may not wait in an account."""
    for who, limits, held in _bounds(draft, account, owner, "queued"):
        if limits.queued is not None and held.queued + tasks > limits.queued:
            raise QuotaExceeded(
                f"{who}: {count(held.queued, 'task')} {'wait' if held.queued != 1 else 'waits'},"
                f" and {limits.queued} may (queued of its quota), so {tasks} more are refused; wait"
                " until some have started, cancel some, or submit to another account"
            )


def over_quota(draft: Draft, job: Job, gpus: int) -> str | None:
    """Why one more task of a job may not start, with so many GPUs; None where it may."""
    for who, limits, held in _bounds(draft, job.account, job.owner, "running", "gpus"):
        if limits.running is not None and held.running >= limits.running:
            return f"{who} runs {count(held.running, 'task')}, and may run {limits.running}"
        most = limits.most_gpus
        if most is not None and gpus and held.gpus + gpus > most:
            return f"{who} has {count(held.gpus, 'GPU')}, and may have {most}"
    return None


def _bounds(
    draft: Draft, account: str, owner: str, *names: str
) -> Iterator[tuple[str, Limits, Held]]:
    """All that bounds a job by one of these limits: the member, the account and those above it."""
    member = draft.members.get((account, owner))
    if member is not None and _any(member.limits, names):
        yield f"{owner} in accounts/{account}", member.limits, draft.held(account, owner)
    above = draft.accounts.get(account)
    while above is not None:
        if _any(above.limits, names):
            yield f"accounts/{above.name}", above.limits, held_below(draft, above.name)
        above = draft.accounts.get(above.parent) if above.parent else None


def _any(limits: Limits, names: tuple[str, ...]) -> bool:
    return any(getattr(limits, name) is not None for name in names)


def charge(draft: Draft, usage: Usage) -> None:
    """Add what an attempt that has ended used to what its owner used in the account's name."""
    if not usage.devices:
        return
    key = (usage.account, usage.owner)
    before = draft.spendings.get(key) or Spending(account=usage.account, user=usage.owner)
    policy = draft.policy
    draft.spendings[key] = charged(
        before,
        usage,
        half_life_us=policy.half_life_us,
        weights=policy.gpu_weights,
        now_us=draft.now_us,
    )
