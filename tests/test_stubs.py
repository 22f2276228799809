"""The contract in `protos/`: its stubs are fresh, its form is right, and it breaks nobody."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUF = Path(sys.executable).parent / "buf"
STUBS = "controlplane/v1"
KEPT_VERSIONS = 20
"""How many earlier versions of the contract are compared; each costs a tenth of a second."""
DECLARED_BREAK = re.compile(r"^Breaking-Change: \S", re.MULTILINE)


def run(*command: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, input=stdin, capture_output=True, cwd=ROOT, timeout=50, check=False
    )


def git(*arguments: str) -> bytes:
    # A clone that belongs to somebody else, as in many a CI, is read all the same.
    done = run("git", "-c", "safe.directory=*", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def breaks(protos: Path, *, against: bytes) -> str:
    """What buf has to say of `protos` against those of a git archive; empty when all is kept."""
    done = run(BUF, "breaking", protos, "--against", "-#format=tar,subdir=protos", stdin=against)
    assert done.returncode in (0, 100), done.stderr.decode()
    return done.stdout.decode()


def earlier_versions() -> list[str]:
    """The commits that changed the contract, newest first, down to the last declared break.

    A change that breaks callers on purpose says so with a line `Breaking-Change: why` in the
    message of its commit; what was before that commit is compared no more. A shallow clone has
    fewer commits, and is compared with those that it has.
    """
    log = git("log", f"-{KEPT_VERSIONS}", "--format=%H%x00%B%x01", "--", "protos").decode()
    kept = []
    for entry in log.split("\x01")[:-1]:
        commit, message = entry.strip().split("\0")
        kept.append(commit)
        if DECLARED_BREAK.search(message):
            break
    return kept


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*_pb2*"))}


def test_stubs_are_what_the_protos_say(tmp_path: Path) -> None:
    done = run(sys.executable, ROOT / "tools" / "protos.py", tmp_path)

    assert done.returncode == 0, done.stderr.decode()
    committed, fresh = contents(ROOT / STUBS), contents(tmp_path / STUBS)
    assert committed.keys() == fresh.keys(), "run `make protos`, and remove what it no longer makes"
    stale = [name for name in fresh if fresh[name] != committed[name]]
    assert not stale, "run `make protos`"


def test_the_contract_is_in_good_form() -> None:
    done = run(BUF, "lint", "protos")

    assert done.stdout.decode() == ""
    assert done.returncode == 0


def test_no_caller_of_an_earlier_contract_is_broken() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone: there is no earlier contract to compare with")

    for commit in earlier_versions():
        said = breaks(ROOT / "protos", against=git("archive", "--format=tar", commit, "protos"))
        assert said == "", f"breaks callers of {commit[:12]}; if meant: see `earlier_versions`"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("string display_name = 3;", "string display_name = 300;"),
        ("string display_name = 3;", "bytes display_name = 3;"),
        ("string display_name = 3;", "string title = 3;"),
        ("JOB_STATE_ACTIVE = 2;", "JOB_STATE_BUSY = 2;"),
    ],
    ids=["renumbered", "retyped", "renamed", "renamed enum value"],
)
def test_a_break_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    protos = shutil.copytree(ROOT / "protos", tmp_path / "protos")
    archive = tmp_path / "before.tar"
    shutil.make_archive(str(archive.with_suffix("")), "tar", tmp_path, "protos")
    broken = protos / "controlplane" / "v1" / "job.proto"
    text = broken.read_text(encoding="utf-8")
    assert old in text
    broken.write_text(text.replace(old, new, 1), encoding="utf-8")

    assert breaks(protos, against=archive.read_bytes()) != ""
