"""Steps with real daemons: commands and shells inside running jobs, and how they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import ROOT, Cluster, alive, cluster, until
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
PAIR = {"workers": 2, "workers_per_node": 1}
FOREVER = {"command": ["sleep", "600"], "resources": {"cpus": 1, "memory": "64MiB"}}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("two")) as made:
        made.agent("a", cpus=16)
        made.agent("b", cpus=16)
        yield made


@pytest.fixture(scope="module")
def pair(two: Cluster) -> str:
    """A job that runs on both nodes for as long as anybody wants."""
    name = two.submit({**FOREVER, **PAIR, "env": {"COLOUR": "red"}})
    two.running(name)
    return name


def command(two: Cluster, *words: str | Path) -> list[str | Path]:
    return [*two.as_admin, *words]


def events(two: Cluster, name: str, kind: str) -> list[dict[str, object]]:
    return [dict(e.changed) for e in two.client.events(name) if e.kind == kind]


def test_a_command_runs_as_its_rank_does_and_gives_its_exit_code(two: Cluster, pair: str) -> None:
    script = "echo $CC_RANK $CC_NODE_NAME $COLOUR $MORE $(pwd) $CC_STEP_ID; echo oops >&2; exit 7"
    done = two.ccctl("exec", pair, "--rank", "1", "-e", "MORE=yes", "--", "sh", "-c", script)

    (worker,) = (w for w in two.running(pair).attempts[0].workers if w.rank == 1)
    folder = os.readlink(f"/proc/{worker.pid}/cwd")
    assert (done.returncode, done.stderr) == (7, "oops\n")
    *words, number = done.stdout.split()
    assert words == ["1", worker.node_display_name, "red", "yes", folder]
    started = until(
        lambda: next((e for e in two.client.events(pair) if e.seq == int(number)), None), "event"
    )
    assert dict(started.changed) == {
        "attempt": 1,
        "rank": 1,
        "node": worker.node_display_name,
        "program": "sh",
    }
    ended = until(lambda: events(two, pair, "step.ended"), "the end to be told")[-1]
    assert ended == {"step": int(number), "exit_code": 7}
    node = two.ccctl("exec", pair, "--node", worker.node_display_name, "printenv", "CC_RANK")
    assert node.stdout == "1\n"


def test_a_signals_end_and_a_program_that_is_not_there_are_told_as_a_shell_does(
    two: Cluster, pair: str
) -> None:
    assert two.ccctl("exec", pair, "--", "sh", "-c", "kill -USR1 $$").returncode == 138
    none = two.ccctl("exec", pair, "--", "no-such-program")
    assert none.returncode == 127
    assert none.stderr.startswith("cannot run 'no-such-program': not found in PATH=")
    assert two.ccctl("exec", pair, "--", "/etc/passwd").returncode == 126


def test_a_hundred_megabytes_go_through_and_nobody_keeps_them(two: Cluster, pair: str) -> None:
    def resident() -> list[int]:
        pids = [two.control.pid, *(agent.pid for agent in two.agents.values())]
        return [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in pids]

    before = resident()
    size = 100_000_000
    with subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE) as feed:
        done = subprocess.run(
            command(two, "exec", pair, "--", "cat"),
            stdin=feed.stdout,
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == size
    for was, now in zip(before, resident(), strict=True):
        assert now - was < 48 << 20


def test_what_nobody_reads_waits_on_its_node(two: Cluster, pair: str) -> None:
    was = int(Path(f"/proc/{two.control.pid}/statm").read_text().split()[1]) * 4096
    with subprocess.Popen(
        command(two, "exec", pair, "--", "sh", "-c", "echo $$; exec yes"), stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        pid = int(reader.stdout.readline())
        time.sleep(1)  # as long as an unbounded buffer would take for some 100 MB
        now = int(Path(f"/proc/{two.control.pid}/statm").read_text().split()[1]) * 4096
        assert now - was < 48 << 20
        reader.kill()
    until(lambda: not alive(pid), "the step to be hung up on")


def test_a_shell_has_a_terminal_of_the_right_size_that_hears_ctrl_c(
    two: Cluster, pair: str
) -> None:
    here = Terminal(command(two, "shell", pair, "--rank", "1"), 33, 101)
    here.sees(rb"A shell beside rank 1 of jobs/\d+ on [ab]; the job goes on when it ends\.")
    here.sees(rb"[#$] ")  # a shell drops what was typed before it has set up its terminal
    here.type(b"stty size; echo t=$TERM r=$CC_RANK; tty\n")
    here.sees(rb"33 101\r\n")
    here.sees(rb"t=xterm r=1\r\n")
    here.sees(rb"/dev/pts/\d+\r\n")
    assert here.raw()
    here.resize(40, 120)
    os.kill(here.pid, signal.SIGWINCH)

    def answer(line: bytes, pattern: bytes) -> bytes:
        here.type(line + b"\n")
        return here.sees(rb"[\r\n](" + pattern + rb")\r\n")[1]

    until(lambda: answer(b"stty size", rb"\d+ \d+") == b"40 120", "the new size to arrive")
    here.type(b"sleep 60; echo slept=$?\n")
    here.sees(rb"slept=\$\?\r\n")
    time.sleep(0.2)
    here.type(b"\x03")
    here.sees(rb"\^C")
    time.sleep(0.2)  # a terminal drops what was typed before an interrupt
    assert answer(b"echo after", b"after|slept=.*") == b"after"
    here.type(b"exit 9\n")
    assert here.end() == 9


def test_ctrl_c_goes_to_a_step_without_a_terminal_and_the_second_hangs_up(
    two: Cluster, pair: str
) -> None:
    script = "trap 'echo int' INT; trap 'exit 0' HUP; echo ready $$; while :; do sleep 0.05; done"
    with subprocess.Popen(
        command(two, "exec", pair, "--", "sh", "-c", script),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        pid = int(run.stdout.readline().split()[1])
        run.send_signal(signal.SIGINT)
        assert run.stdout.readline() == "int\n"
        run.send_signal(signal.SIGINT)
        assert run.wait(20) == 130
        assert "Hung up: the step gets SIGHUP" in run.stderr.read()
    until(lambda: not alive(pid), "the step to end")


def test_a_step_ends_when_its_client_is_killed_and_a_detached_one_goes_on(
    two: Cluster, pair: str
) -> None:
    with subprocess.Popen(
        command(two, "exec", pair, "--", "sh", "-c", "echo $$; sleep 600"), stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        run.kill()
    until(lambda: not alive(pid), "the step to end")

    script = "echo begun; while ! [ -e $CC_JOB_DIR/go ]; do sleep 0.05; done; echo done; exit 3"
    with subprocess.Popen(
        command(two, "exec", pair, "--detach", "--", "sh", "-c", script), stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        line = run.stdout.readline().decode()
        run.kill()
    told = re.fullmatch(rf"Started step (\d+) of {pair} on [ab]\.\n", line)
    assert told, line
    number = told[1]

    def said() -> str:
        return two.ccctl("logs", pair, "--step", number).stdout

    until(lambda: said() == "begun\n", "its output to be kept")
    for folder in two.folder.glob(f"*/jobs/{pair.removeprefix('jobs/')}"):
        (folder / "go").touch()
    assert two.ccctl("logs", pair, "--step", number, "-f").stdout == "begun\ndone\n"
    over = until(
        lambda: [e for e in events(two, pair, "step.ended") if e["step"] == int(number)], "its end"
    )
    assert over == [{"step": int(number), "exit_code": 3}]
    assert two.ccctl("logs", pair).stdout == ""


def test_the_jobs_end_ends_its_steps_and_theirs_does_not_end_it(two: Cluster) -> None:
    script = "while ! [ -e $CC_JOB_DIR/go ]; do sleep 0.05; done"
    name = two.submit({**FOREVER, "command": ["sh", "-c", script]})
    two.running(name)
    assert two.ccctl("exec", name, "--", "true").returncode == 0
    with subprocess.Popen(
        command(two, "exec", name, "--", "sh", "-c", "echo $$; exec sleep 600"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        pid = int(run.stdout.readline())
        for folder in two.folder.glob(f"*/jobs/{name.removeprefix('jobs/')}"):
            (folder / "go").touch()
        assert run.wait(20) == 143
        assert run.stderr.read() == (
            "The step was ended: the job ends on this node, and its steps with it: its workers have"
            " ended.\n"
        )
    assert not alive(pid)
    assert two.ended(name).exit_code == 0


def test_the_death_of_the_agent_hangs_up_on_its_steps_alone(two: Cluster) -> None:
    name = two.submit(FOREVER)
    job = two.running(name)
    (worker,) = job.attempts[0].workers
    agent = two.agents[worker.node_display_name]
    with subprocess.Popen(
        command(two, "exec", name, "--", "sh", "-c", "echo $$; exec sleep 600"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        pid = int(run.stdout.readline())
        agent.kill()
        until(lambda: not alive(pid), "the step to end")
        assert run.wait(20) == 1
        assert "was lost, and the step was told to end by SIGHUP" in run.stderr.read()
    assert alive(worker.pid)
    agent.start()
    until(lambda: two.ccctl("exec", name, "--", "true").returncode == 0, "the agent to serve again")
    two.client.cancel([name])


WAITS = "while ! [ -e $CC_JOB_DIR/go ]; do sleep 0.05; done; exit 3"


def detached(two: Cluster, name: str, script: str) -> int:
    """The number of a step that goes on alone."""
    done = two.ccctl("exec", name, "--detach", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[2])


def let_go(two: Cluster, name: str) -> None:
    for folder in two.folder.glob(f"*/jobs/{name.removeprefix('jobs/')}"):
        (folder / "go").touch()


@pytest.mark.parametrize("who", ["agent", "control plane"])
def test_the_end_of_a_detached_step_is_told_though_it_came_while_others_were_down(
    two: Cluster, who: str
) -> None:
    name = two.submit(FOREVER)
    (worker,) = two.running(name).attempts[0].workers
    number = detached(two, name, f"echo $$ > $CC_JOB_DIR/pid; {WAITS}")
    (pid_file,) = until(
        lambda: list(two.folder.glob(f"*/jobs/{name.removeprefix('jobs/')}/pid")), "it to begin"
    )
    pid = int(until(pid_file.read_text, "its pid"))
    agent = two.agents[worker.node_display_name]
    down = agent if who == "agent" else two.control
    down.kill()
    let_go(two, name)
    until(lambda: not alive(pid), "the step to end")
    down.start()
    expected = [{"step": number, "exit_code": 3}]
    until(lambda: events(two, name, "step.ended") == expected, "its end to be told")
    # An agent that is started anew reads it again.
    agent.kill()
    agent.start()
    until(lambda: two.ccctl("exec", name, "--", "true").returncode == 0, "the agent to serve again")
    ended = [event for event in events(two, name, "step.ended") if event["step"] == number]
    assert ended == expected
    two.client.cancel([name])


def test_a_detached_step_that_ends_with_its_job_while_the_agent_is_down_is_told(
    two: Cluster,
) -> None:
    name = two.submit({**FOREVER, "command": ["sh", "-c", WAITS.replace("exit 3", "exit 0")]})
    (worker,) = two.running(name).attempts[0].workers
    number = detached(two, name, "sleep 600")
    agent = two.agents[worker.node_display_name]
    agent.kill()
    let_go(two, name)
    until(lambda: not alive(worker.pid), "the worker to end")
    agent.start()
    assert two.ended(name).exit_code == 0
    (end,) = until(lambda: events(two, name, "step.ended"), "its end to be told")
    words = "the job ends on this node, and its steps with it: its workers have ended"
    assert end == {"step": number, "signal": 15, "message": words}


def test_the_output_of_a_detached_step_is_followed_while_its_agent_is_started_anew(
    two: Cluster,
) -> None:
    name = two.submit(FOREVER)
    (worker,) = two.running(name).attempts[0].workers
    number = detached(two, name, f"echo begun; {WAITS.replace('exit 3', 'echo done')}")
    follow = command(two, "logs", name, "--step", str(number), "-f")
    with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "begun\n"
        agent = two.agents[worker.node_display_name]
        agent.kill()
        agent.start()
        until(lambda: two.ccctl("exec", name, "--", "true").returncode == 0, "it to serve again")
        let_go(two, name)
        assert reader.stdout.readline() == "done\n"
        assert reader.wait(20) == 0
    two.client.cancel([name])


def test_no_step_where_none_can_be(two: Cluster, pair: str) -> None:
    done = two.submit({**FOREVER, "command": ["true"]})
    two.ended(done)
    waits = two.submit({**FOREVER, "workers": 1000})
    lines = (
        ((done, "true"), 1, f"Error: {done} has ended: a step can be started in a running job"),
        ((waits, "true"), 1, f"Error: {waits} is pending: a step can be started once it runs"),
        ((pair, "--rank", "2", "true"), 2, "has no such rank; its ranks are 0 to 1"),
        ((pair, "--node", "c", "true"), 2, f"'c': {pair} does not run there; it runs on "),
        (("jobs/99999", "true"), 3, "Error: jobs/99999: there is no such job"),
    )
    for words, code, said in lines:
        no = two.ccctl("exec", *words)
        assert no.returncode == code, no.stderr
        assert said in no.stderr
        assert no.stdout == ""
    two.client.cancel([waits])


def test_run_submits_follows_and_gives_the_jobs_exit_code(two: Cluster) -> None:
    script = "echo $A $(pwd) >&2; echo out; exit 5"
    done = two.ccctl("run", "--cpus", "1", "-e", "A=b", "--name", "n", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (5, "out\n")
    name = done.stderr.splitlines()[0].removeprefix("Submitted ").rstrip(".")
    assert f"b {two.folder}" in done.stderr
    assert re.search(rf"{name}  failed: rank 0 on [ab] exited with code 5", done.stderr)
    job = two.client.get(name)
    assert (job.display_name, job.exit_code) == ("n", 5)


def test_ctrl_c_twice_cancels_what_run_has_submitted(two: Cluster) -> None:
    with subprocess.Popen(
        command(two, "run", "--no-stdin", "--", "sh", "-c", "echo ready; exec sleep 600"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline() == "ready\n"
        run.send_signal(signal.SIGINT)
        told = ""
        while "Ctrl-C once more cancels it." not in told:
            told += run.stderr.readline()
        name = told.splitlines()[0].removeprefix("Submitted ").rstrip(".")
        assert not two.client.get(name).HasField("exit_code")
        run.send_signal(signal.SIGINT)
        assert run.wait(20) == 130
        assert f"Cancelling {name}." in run.stderr.read()
    assert two.client.get(name).reason == "cancelled by admin"


GANG = """
echo "script on $CC_NODE_NAME of $CC_HOSTS"
for rank in 0 1 2 3; do
  ccctl exec $CC_JOB_ID --rank $rank -- sh -c 'echo "rank $CC_RANK on $CC_NODE_NAME"' &
  pids="$pids $!"
done
for pid in $pids; do wait $pid || exit 9; done
ccctl exec $OTHER -- true; echo "another job: $?"
ccctl show $CC_JOB_ID; echo "a look: $?"
cp $CCCTL_TOKEN_FILE $CC_JOB_DIR/kept
exit 6
"""


def test_a_script_starts_steps_on_every_rank_of_its_gang(two: Cluster, pair: str) -> None:
    document = {
        "launcher": "script",
        "command": ["bash", "-c", GANG],
        "env": {"PYTHONPATH": str(ROOT), "OTHER": pair},
        "workers": 4,
        "workers_per_node": 2,
        "max_attempts": 1,
    }
    name = two.submit(document)
    job = two.ended(name)
    out = two.output(name).decode().splitlines()
    err = two.output(name, stream="stderr").decode()
    nodes = {w.rank: w.node_display_name for w in job.attempts[0].workers}
    assert job.exit_code == 6, (job.reason, out, err)
    first, other = nodes[0], nodes[2]
    assert first != other
    assert out[0] == f"script on {first} of {first}:2,{other}:2"
    assert sorted(out[1:5]) == [f"rank {rank} on {nodes[rank]}" for rank in range(4)]
    assert out[5:] == ["another job: 4", "a look: 4"]
    assert "which may start steps in that one alone" in err
    assert "which may start steps in it and nothing else" in err
    (kept,) = two.folder.glob(f"*/jobs/{name.removeprefix('jobs/')}/kept")
    no = subprocess.run(
        [*two.ccctl_command, "--token-file", kept, "exec", name, "--", "true"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert no.returncode == 4
    assert "the token is not valid here" in no.stderr


def test_a_script_that_ends_well_ends_its_job_on_all_nodes(two: Cluster) -> None:
    name = two.submit({"launcher": "script", "command": ["true"], **PAIR})
    assert two.ended(name).exit_code == 0
