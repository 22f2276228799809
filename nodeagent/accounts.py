"""As whom a job's workers run: the account of its owner on this host, or the agent's own.

A root agent starts each worker as its owner. One without root can only be itself, so it runs the
jobs of its own user and no other's, unless the operator has said that all jobs may run as it.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import Literal

from nodeagent.launchers import LaunchRefused

RunAs = Literal["owner", "agent"]
"""`owner`: each job as its owner's account; `agent`: all jobs as the agent's user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user of this host."""

    name: str
    """Login name."""
    uid: int
    """User id."""
    gid: int
    """Primary group."""
    groups: tuple[int, ...]
    """All groups, the primary one among them."""
    home: str
    """Home folder."""
    shell: str
    """Login shell."""


def own_account() -> Account:
    """The account of this process."""
    try:
        return _account(pwd.getpwuid(os.geteuid()), tuple(os.getgroups()))
    except KeyError:  # A container may run under a number that no account has.
        uid = os.geteuid()
        return Account(
            name=str(uid),
            uid=uid,
            gid=os.getegid(),
            groups=tuple(os.getgroups()),
            home="/",
            shell="/bin/sh",
        )


def account_for(owner: str, run_as: RunAs, *, allow_root: bool) -> Account:
    """The account that a job of `owner` runs as here. LaunchRefused when there is none for it.

    It may ask a directory service over the network: call it in a thread, with a deadline.
    """
    own = own_account()
    if run_as == "agent":
        return own
    try:
        entry = pwd.getpwnam(owner)
    except (KeyError, ValueError):  # ValueError: a NUL in the name
        raise LaunchRefused(
            f"this host has no account {owner!r}; make one, or set run_as to agent"
            " where all jobs may run as one user"
        ) from None
    if entry.pw_uid == own.uid and own.uid != 0:
        return own
    if own.uid != 0:
        raise LaunchRefused(
            f"the agent runs as {own.name} without root, and can run that user's jobs only,"
            f" not those of {owner}"
        )
    if entry.pw_uid == 0 and not allow_root:
        raise LaunchRefused(
            f"{owner} is root on this host, and jobs do not run as root here; submit as another"
            " user, or set allow_root on the agent"
        )
    return _account(entry, tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def only_owner(run_as: RunAs) -> str:
    """The one user whose jobs can run here; empty where all users' jobs can."""
    own = own_account()
    return own.name if run_as == "owner" and own.uid != 0 else ""


def _account(entry: pwd.struct_passwd, groups: tuple[int, ...]) -> Account:
    return Account(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=groups,
        home=entry.pw_dir,
        shell=entry.pw_shell or "/bin/sh",
    )
