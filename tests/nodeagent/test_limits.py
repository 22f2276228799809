"""Limits of workers, as a site writes them."""

from __future__ import annotations

import resource

import pytest

from nodeagent.limits import parse_limits, why_not


def test_limits_are_numbers_sizes_or_unlimited() -> None:
    asked = {"nofile": "1048576", "memlock": "unlimited", "stack": "64MiB", "core": "0"}

    assert parse_limits(asked) == (
        ("core", 0),
        ("memlock", resource.RLIM_INFINITY),
        ("nofile", 1048576),
        ("stack", 64 << 20),
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("memlok", "1", "limits.memlok: unknown; known are core, cpu, data, fsize, memlock,"),
        ("nofile", "64KiB", "limits.nofile: '64KiB': must be a whole number or \"unlimited\""),
        ("memlock", "much", "limits.memlock: 'much': must be a size such as \"8MiB\" or"),
        ("nproc", "-1", "limits.nproc: '-1': must be a whole number"),
    ],
)
def test_what_is_no_limit_is_told_with_its_name_and_the_fix(
    name: str, text: str, words: str
) -> None:
    with pytest.raises(ValueError) as refusal:
        parse_limits({name: text})

    assert str(refusal.value).startswith(words)


def test_trying_limits_changes_nothing_here() -> None:
    soft, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert why_not((("nofile", min(soft, 64)), ("core", 0))) is None
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    assert hard == before[1]
