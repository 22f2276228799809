"""As whom a job runs: decided by the owner's account, and never more than the agent may."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest

from nodeagent import accounts
from nodeagent.launchers import LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable

ALICE = pwd.struct_passwd(("alice", "x", 1001, 1001, "", "/home/alice", ""))
ROOT = pwd.struct_passwd(("root", "x", 0, 0, "", "/root", "/bin/bash"))
HOST = {"alice": ALICE, "root": ROOT}


@pytest.fixture
def agent_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have the agent run as a user of a host with alice and root."""

    def by_uid(uid: int) -> pwd.struct_passwd:
        return next(entry for entry in HOST.values() if entry.pw_uid == uid)

    def become(uid: int) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        monkeypatch.setattr(os, "getgroups", lambda: [uid])
        monkeypatch.setattr(pwd, "getpwnam", HOST.__getitem__)
        monkeypatch.setattr(pwd, "getpwuid", by_uid)
        monkeypatch.setattr(os, "getgrouplist", lambda _name, gid: [gid, 2000])

    return become


def test_a_root_agent_becomes_the_owner_with_all_groups(agent_of: Callable[[int], None]) -> None:
    agent_of(0)

    found = accounts.account_for("alice", "owner", allow_root=False)

    assert found == accounts.Account(
        name="alice", uid=1001, gid=1001, groups=(1001, 2000), home="/home/alice", shell="/bin/sh"
    )
    assert accounts.only_owner("owner") == ""


def test_an_agent_without_root_runs_its_own_users_jobs_only(
    agent_of: Callable[[int], None],
) -> None:
    agent_of(1001)

    assert accounts.account_for("alice", "owner", allow_root=False).uid == 1001
    assert accounts.only_owner("owner") == "alice"
    with pytest.raises(LaunchError, match=r"runs as alice without root.*not those of root"):
        accounts.account_for("root", "owner", allow_root=True)


def test_root_runs_only_where_the_operator_allows_it(agent_of: Callable[[int], None]) -> None:
    agent_of(0)

    with pytest.raises(LaunchError, match=r"jobs do not run as root here; .* set allow_root"):
        accounts.account_for("root", "owner", allow_root=False)
    assert accounts.account_for("root", "owner", allow_root=True).uid == 0


@pytest.mark.parametrize("owner", ["nobody-of-that-name", "a\0b", ""])
def test_an_owner_without_an_account_is_refused_in_words(
    agent_of: Callable[[int], None], owner: str
) -> None:
    agent_of(0)

    with pytest.raises(LaunchError, match=r"this host has no account '.*; make one, or set run_as"):
        accounts.account_for(owner, "owner", allow_root=True)


def test_all_jobs_run_as_the_agent_where_the_operator_says_so(
    agent_of: Callable[[int], None],
) -> None:
    agent_of(1001)

    assert accounts.account_for("whoever", "agent", allow_root=False).name == "alice"
    assert accounts.only_owner("agent") == ""
