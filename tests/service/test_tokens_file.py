"""Tokens in a file that changes while it is used."""

from __future__ import annotations

from pathlib import Path

from controlplane.model.identity import Role
from controlplane.service.auth import TOGETHER_US, TokenFile


def test_a_token_counts_at_once_when_it_is_made(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    daemon, operator = TokenFile(path), TokenFile(path)
    first = operator.add("ada", Role.USER)
    assert daemon.principal(first, 1_000) is not None
    second = operator.add("grace", Role.ADMIN)
    found = daemon.principal(second, 1_001)
    assert found is not None
    assert (found.name, found.role) == ("grace", Role.ADMIN)


def test_a_token_that_is_gone_counts_for_none_but_the_calls_of_the_moment(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    daemon = TokenFile(path)
    token = daemon.add("ada", Role.USER)
    at_us = 5_000_000
    assert daemon.principal(token, at_us) is not None
    path.unlink()
    assert daemon.principal(token, at_us + TOGETHER_US) is None
    assert daemon.principal(token, at_us + TOGETHER_US) is None
    assert daemon.principal(token) is None


def test_who_tells_no_time_looks_each_time(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    daemon = TokenFile(path)
    token = daemon.add("ada", Role.USER)
    assert daemon.principal(token) is not None
    path.unlink()
    assert daemon.principal(token) is None
