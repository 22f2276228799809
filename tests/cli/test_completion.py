"""Completion in shells: what they are told to run, and what that answers."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Ccctl


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_it_can_read(ccctl: Ccctl, shell: str) -> None:
    told = ccctl("completion", shell)
    assert told.code == 0
    assert "_CCCTL_COMPLETE" in told.out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=told.out, text=True, check=True, timeout=20)


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        ("ccctl su", ["plain,submit"]),
        (
            "ccctl node ",
            [
                *("plain,drain", "plain,label", "plain,list", "plain,release"),
                *("plain,revoke", "plain,show", "plain,token", "plain,undrain"),
            ],
        ),
        ("ccctl list --state a", ["plain,active"]),
        ("ccctl list --own", ["plain,--owner"]),
    ],
)
def test_words_are_completed(
    ccctl: Ccctl, monkeypatch: pytest.MonkeyPatch, words: str, answers: list[str]
) -> None:
    monkeypatch.setenv("_CCCTL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    assert ccctl().out.split() == answers
