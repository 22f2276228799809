"""Patterns of the files that output goes into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model import outputs
from controlplane.model.outputs import Files, Named, complaint, files, is_below

NAMED = Named(job_id=123, task_index=4, attempt=2, rank=7, node="n-1", name="digits", owner="ada")


@pytest.mark.parametrize(
    ("output", "error", "expected"),
    [
        (None, None, Files("/b/job-123-7.out", "/b/job-123-7.out")),
        ("%x", "%x.err", Files("/b/digits", "/b/digits.err")),
        ("none", None, Files("", "")),
        ("none", "e", Files("", "/b/e")),
        (None, "none", Files("/b/job-123-7.out", "")),
        ("logs/%A_%a-%4t.%r.%N.%u", None, Files(*["/b/logs/123_4-0007.2.n-1.ada"] * 2)),
        ("100%%/%%j/%j", None, Files("/b/100%/%j/123", "/b/100%/%j/123")),
        ("/b/./c//%t", None, Files("/b/c/7", "/b/c/7")),
    ],
)
def test_patterns_name_files(output: str | None, error: str | None, expected: Files) -> None:
    assert files(output, error, "/b", NAMED) == expected


@given(
    st.text("%jAatrNxu./0123 x", min_size=1, max_size=12).filter(lambda text: not complaint(text)),
    st.text(st.characters(exclude_characters="\0"), max_size=4) | st.sampled_from([".", "..", "/"]),
)
def test_no_file_lies_outside_whatever_things_are_called(pattern: str, called: str) -> None:
    named = Named(job_id=1, task_index=0, attempt=1, rank=0, node=called, name=called, owner=called)
    if pattern.startswith("/"):
        pattern = "/base" + pattern
    found = files(pattern, None, "/base", named).output
    assert found == "/base" or is_below(found, "/base")


def test_each_letter_is_told_and_replaced() -> None:
    for letter in outputs.LETTERS:
        assert complaint(f"%{letter}") is None
        assert "%" not in files(f"%{letter}", None, "/b", NAMED).output
