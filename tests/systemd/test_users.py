"""Two users on one host, under the units as they are shipped: each job runs as its owner, and is
nobody else's business."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import sdbox
from tests.support.sdbox import Host, until
from tests.support.sdcentre import BIN, ccctl, installed, job, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(lacking := sdbox.why_not()), reason=lacking or "-"),
]
STATE = "/var/lib/nodeagent"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with installed(tmp_path_factory.mktemp("users")) as host:
        serve(host)
        for user in ("alice", "bob", "carol", "root"):
            ccctl(host, "user", "create", user)
            ccctl(host, "token", "create", user, "--out", f"/run/{user}.login")
            by(host, user, "login", f"/run/{user}.login")
        yield host


def by(host: Host, user: str, *words: str) -> str:
    """What ccctl says to somebody who has logged in."""
    return host.run("env", f"XDG_CONFIG_HOME=/run/{user}", f"{BIN}/ccctl", *words)


def submit(host: Host, user: str, document: dict[str, Any]) -> str:
    """Submit a job as a user; its number."""
    folder = host.path(f"/run/{user}")
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(json.dumps(document))
    answer = json.loads(by(host, user, "--output", "json", "submit", f"/run/{user}/job.json"))
    return str(answer["job_id"])


def ended(host: Host, number: str) -> dict[str, Any]:
    until("it has ended", lambda: job(host, number)["exit_code"] is not None, within_s=30)
    return job(host, number)


def run(host: Host, user: str, script: str, **fields: Any) -> list[str]:
    """The lines that a shell script prints as a user's job."""
    number = submit(host, user, {"command": ["bash", "-c", script], **fields})
    done = ended(host, number)
    printed = ccctl(host, "logs", number)
    assert done["exit_code"] == 0, (done["reason"], printed)
    return printed.splitlines()


def as_user(host: Host, user: str, *command: str) -> str:
    """What a command prints that a user runs on the host; "denied" when it is."""
    try:
        return host.run("setpriv", f"--reuid={user}", "--clear-groups", "--", *command).strip()
    except AssertionError as error:
        if "Permission denied" not in str(error):
            raise
        return "denied"


def test_a_job_runs_as_its_owner_and_finds_the_owners_own_place(host: Host) -> None:
    host.run("groupadd", "--force", "vision")
    host.run("usermod", "-aG", "vision", "alice")
    script = (
        "id -un; id -Gn; echo $HOME $USER $LOGNAME $SHELL; touch here $CC_JOB_DIR/kept;"
        " stat -c '%U %a' . $TMPDIR $CC_JOB_DIR; stat -c %U here $CC_JOB_DIR/kept;"
        " grep CapEff /proc/self/status; env | grep -c TOKEN || true"
    )

    lines = run(host, "alice", script)

    assert lines[:3] == ["alice", "alice vision", "/home/alice alice alice /bin/bash"]
    assert lines[3:6] == ["alice 700"] * 3
    assert lines[6:] == ["alice", "alice", "CapEff:\t0000000000000000", "0"]


def test_a_report_is_read_as_the_owners_file_and_as_no_other(host: Host) -> None:
    for script, told in (
        ("echo '{\"step\": 7}' > $CC_REPORT", "Progress: step 7"),
        ("ln -s /etc/shadow $CC_REPORT", "is no regular file of the job's own"),
    ):
        number = submit(host, "alice", {"command": ["bash", "-c", script]})
        assert ended(host, number)["exit_code"] == 0

        def shown(number: str = number, told: str = told) -> bool:
            return told in ccctl(host, "show", number)

        until("its report is told", shown, within_s=10)


def test_a_shipped_folder_belongs_to_the_owner(host: Host) -> None:
    folder = host.path("/run/bob")
    (folder / "deep").mkdir(parents=True, exist_ok=True)
    (folder / "deep" / "data.txt").write_text("42\n")
    (folder / "link").unlink(missing_ok=True)
    (folder / "link").symlink_to("deep/data.txt")

    script = "cat link; stat -c %U . deep deep/data.txt link; echo more >> deep/data.txt"
    lines = run(host, "bob", script, working_dir={"ship": "."})

    assert lines == ["42", "bob", "bob", "bob", "bob"]


def test_nobody_else_sees_a_job_on_the_hosts_disk_or_in_its_processes(host: Host) -> None:
    secret = "s3cret-of-alice"
    script = "echo a word; pwd; echo $CC_JOB_DIR; echo $$; exec sleep 600"
    document = {"command": ["bash", "-c", script], "env": {"KEY": secret}}
    number = submit(host, "alice", document)
    until("it speaks", lambda: len(ccctl(host, "logs", number).splitlines()) == 4, within_s=20)
    _, work, job_dir, pid = ccctl(host, "logs", number).splitlines()
    try:
        for path in (work, job_dir, f"{STATE}/leases", f"{STATE}/jobs", "/run/nodeagent", STATE):
            assert as_user(host, "bob", "ls", path) == "denied", path
        assert as_user(host, "bob", "cat", f"/proc/{pid}/environ") == "denied"
        # Her output besides, in a file that is hers, in a folder that only she can enter.
        output = f"job-{number}-0.out"
        assert as_user(host, "alice", "ls", job_dir) == output
        assert as_user(host, "alice", "cat", f"{job_dir}/{output}").splitlines()[0] == "a word"
        assert as_user(host, "bob", "cat", f"{job_dir}/{output}") == "denied"
        assert host.run("stat", "-c", "%U", f"{job_dir}/{output}").strip() == "alice"
        found = host.run("grep", "-rls", secret, "/run/nodeagent", STATE).split()
        assert found, "the plan itself holds it"
        for path in found:
            assert as_user(host, "bob", "cat", path) == "denied", path
            assert as_user(host, "alice", "cat", path) == "denied", "a plan is the agent's alone"
    finally:
        ccctl(host, "cancel", number)
    assert ended(host, number)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("carol", "this host has no account 'carol'"),
        ("root", "root is root on this host, and jobs do not run as root here"),
    ],
)
def test_who_has_no_account_or_is_root_is_refused_in_words(
    host: Host, user: str, words: str
) -> None:
    number = submit(host, user, {"command": ["id"]})

    done = ended(host, number)

    assert done["state"] == "failed"
    assert words in done["reason"]
    assert all(w["pid"] == 0 for attempt in done["attempts"] for w in attempt["workers"])
    # Three owners in a row whose jobs fail at once would have the node drained.
    assert run(host, "alice", "echo fine") == ["fine"]


def test_a_folder_that_the_owner_may_not_enter_is_the_jobs_fault(host: Host) -> None:
    host.run("install", "-d", "-m", "0700", "-o", "alice", "/srv/alices")

    number = submit(host, "bob", {"command": ["pwd"], "working_dir": "/srv/alices"})

    done = ended(host, number)
    words = "working_dir: bob cannot enter /srv/alices on "
    assert all(words in attempt["cause"]["message"] for attempt in done["attempts"])
    assert all(attempt["running_time"] is None for attempt in done["attempts"])
    assert run(host, "alice", "pwd", working_dir="/srv/alices") == ["/srv/alices"]


def test_folders_that_the_owner_cannot_get_to_are_the_nodes_fault(host: Host) -> None:
    host.run("chmod", "0700", f"{STATE}/jobs")
    try:
        number = submit(host, "alice", {"command": ["pwd"], "max_attempts": 1})
        words = f"{STATE}/jobs/{number}: alice can make no file there: Permission denied ("
        done = ended(host, number)
        assert all(words in attempt["cause"]["message"] for attempt in done["attempts"])
        assert len(done["attempts"]) > 1, "it does not count against max_attempts"
    finally:
        host.run("chmod", "0711", f"{STATE}/jobs")
    assert run(host, "alice", "echo fine") == ["fine"]


def test_a_forged_owner_user_or_account_is_refused(host: Host) -> None:
    ccctl(host, "account", "create", "her-own")
    ccctl(host, "account", "member", "set", "her-own", "alice")
    assert run(host, "alice", "echo paid", account="her-own") == ["paid"]

    def refused(**forged: Any) -> str:
        document = json.dumps({"command": ["id", "-un"], **forged})
        host.path("/run/bob/forged.json").write_text(document)
        line = f"XDG_CONFIG_HOME=/run/bob {BIN}/ccctl submit /run/bob/forged.json; echo code $?"
        told = host.run("sh", "-c", line)
        assert "code 0" not in told
        return told

    assert "owner" in refused(owner="alice")
    assert "her-own" in refused(account="her-own")
    # He may call himself what he likes in there: he is who he is, to the host and to its files.
    forged = run(host, "bob", "id -un; whoami; touch mine; stat -c %U mine", env={"USER": "alice"})
    assert forged == ["bob", "bob", "bob"]
    assert "was denied" in ccctl(host, "denials")
