"""Launchers as functions: what each rank is started with, on any gang."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nodeagent.launchers import LAUNCHERS, LaunchError, NodeContext, plan_step
from nodeagent.launchers.horovod import scopes
from nodeagent.launchers.mpi import host_names
from nodeagent.launchers.mpi_join import daemon_argv
from nodeagent.launchers.mpi_rank import rank_env
from nodeagent.launchers.slots import core_slices, labels
from nodeagent.plan import RendezvousPlan, StepPlan
from tests.support.launches import launch, members, node

BASE = {
    "HOME": "/home/ada",
    "USER": "ada",
    "LOGNAME": "ada",
    "SHELL": "/bin/sh",
    "PATH": "/usr/bin:/bin",
    "TMPDIR": "/tmp/lease7",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "2",
    "PYTHONUNBUFFERED": "1",
    "EPOCHS": "3",
    "CC_JOB_ID": "12",
    "CC_JOB_NAME": "digits",
    "CC_TASK_INDEX": "0",
    "CC_TASK_COUNT": "1",
    "CC_ATTEMPT": "1",
    "CC_RESTART_COUNT": "0",
    "CC_OWNER": "ada",
    "CC_RANK": "3",
    "CC_WORLD_SIZE": "4",
    "CC_LOCAL_RANK": "1",
    "CC_LOCAL_SIZE": "2",
    "CC_NODE_RANK": "1",
    "CC_NODES": "2",
    "CC_NODE_NAME": "node1",
    "CC_NODE_ADDRESS": "10.0.0.2",
    "CC_HOSTS": "node0:2,node1:2",
    "CC_HEAD_ADDRESS": "10.0.0.1",
    "CC_JOB_DIR": "/srv/jobs/12",
    "CC_REPORT": "/tmp/lease7/.cc-report.3",
    "CC_DEVICES": "GPU-c,GPU-d",
    "CC_CPUS": "10,11",
    "CUDA_VISIBLE_DEVICES": "GPU-c,GPU-d",
}
SOCKETS = {
    "GLOO_SOCKET_IFNAME": "eth0",
    "TP_SOCKET_IFNAME": "eth0",
    "NCCL_SOCKET_IFNAME": "=eth0",
}
HOROVOD = {
    "HOROVOD_CPU_OPERATIONS": "gloo",
    "HOROVOD_CONTROLLER": "gloo",
    "HOROVOD_GLOO_IFACE": "eth0",
    "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1",
    "HOROVOD_GLOO_RENDEZVOUS_PORT": "20000",
    "HOROVOD_GLOO_TIMEOUT_SECONDS": "300",
    "HOROVOD_HOSTNAME": "node1",
    "HOROVOD_RANK": "3",
    "HOROVOD_SIZE": "4",
    "HOROVOD_LOCAL_RANK": "1",
    "HOROVOD_LOCAL_SIZE": "2",
    "HOROVOD_CROSS_RANK": "1",
    "HOROVOD_CROSS_SIZE": "2",
}
TORCHRUN = {
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "20000",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "NODE_RANK": "1",
    "ROLE_NAME": "default",
    "ROLE_RANK": "3",
    "ROLE_WORLD_SIZE": "4",
    "TORCHELASTIC_RUN_ID": "12-0-1",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "0",
    "TORCHELASTIC_USE_AGENT_STORE": "False",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
}
FORK = "/opt/agent/bin/python -I -m nodeagent.launchers.mpi_rank"
MPI = {
    "OMPI_MCA_rmaps_base_mapping_policy": "slot",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_plm": "rsh",
    "OMPI_MCA_plm_rsh_agent": "/opt/agent/bin/python -I -m nodeagent.launchers.mpi_rsh",
    "OMPI_MCA_plm_rsh_no_tree_spawn": "1",
    "OMPI_MCA_orte_leave_session_attached": "1",
    "OMPI_MCA_orte_fork_agent": FORK,
    "OMPI_MCA_oob_tcp_if_include": "eth0",
    "OMPI_MCA_btl_tcp_if_include": "eth0",
    "CC_MPI_MCA_orte_fork_agent": FORK,
    "CC_MPI_MCA_oob_tcp_if_include": "eth0",
    "CC_MPI_MCA_btl_tcp_if_include": "eth0",
    "CC_MPI_CPUS": "8,9;10,11",
    "CC_MPI_DEVICES": json.dumps(
        2 * [{"CC_DEVICES": "GPU-c,GPU-d", "CUDA_VISIBLE_DEVICES": "GPU-c,GPU-d"}]
    ),
    "CC_MPI_CWD": "/srv/leases/7/work",
    "CC_MPI_STORE_HOST": "10.0.0.1",
    "CC_MPI_STORE_PORT": "20000",
    "CC_MPI_NAME": "10.0.0.2",
    "CC_MPI_SECRET": "s3cret",
}


def two_by_two(launcher: str, index: int = 1, **fields: Any) -> StepPlan:
    """The plan of one of two nodes with two workers and two devices each."""
    gang = members([2, 2])
    fields.setdefault("env", (("EPOCHS", "3"),))
    asked = launch(
        launcher,
        gang,
        index,
        device_ids=("GPU-c", "GPU-d"),
        cpu_ids=(0, 1, 2, 3),
        **fields,
    )
    return plan_step(asked, node(gang, index, cpu_map={0: 8, 1: 9, 2: 10, 3: 11}))


@pytest.mark.parametrize(
    ("launcher", "own"),
    [("command", {}), ("torchrun", SOCKETS | TORCHRUN), ("horovod", SOCKETS | HOROVOD)],
)
def test_the_whole_environment_of_a_rank(launcher: str, own: dict[str, str]) -> None:
    worker = two_by_two(launcher).workers[1]

    assert worker.env == BASE | own
    assert (worker.rank, worker.local_rank) == (3, 1)
    assert worker.argv == ("python", "train.py")
    assert worker.cwd == "/srv/leases/7/work"
    assert worker.cpu_ids == (10, 11)
    assert worker.hostname == ""


def test_the_whole_environment_of_an_mpi_node_and_of_its_ranks() -> None:
    (worker,) = two_by_two("mpi").workers
    first = BASE | {"CC_RANK": "2", "CC_LOCAL_RANK": "0", "CC_CPUS": "8,9"}
    first |= {"CC_REPORT": "/tmp/lease7/.cc-report.2"}

    assert worker.env == first | MPI
    assert worker.argv == ("/opt/agent/bin/python", "-I", "-m", "nodeagent.launchers.mpi_join")
    assert (worker.rank, worker.local_rank, worker.cpu_ids) == (2, 0, (8, 9, 10, 11))

    numbers = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    handed_on = {"OMPI_MCA_btl_tcp_if_include": "ib0"}  # by the first node's mpirun
    rank = rank_env(worker.env | numbers | handed_on)

    ours = {name: value for name, value in rank.items() if not name.startswith("OMPI_")}
    assert ours == BASE | {"PWD": "/srv/leases/7/work"}
    assert rank["OMPI_MCA_btl_tcp_if_include"] == "eth0"


@pytest.mark.parametrize("launcher", ["command", "torchrun", "horovod", "mpi"])
def test_each_attempt_knows_how_many_came_before_and_is_warned_and_started_again_as_asked(
    launcher: str,
) -> None:
    warned: dict[str, Any] = {
        "time_limit_us": 60_000_000,
        "warning_signal": "USR2",
        "warning_before_us": 9_000_000,
    }
    plan = two_by_two(launcher, attempt=3, requeue_exit_codes=(75, 85), **warned)

    assert {worker.env["CC_RESTART_COUNT"] for worker in plan.workers} == {"2"}
    assert (plan.warn_signal, plan.warn_before_ms) == (signal.SIGUSR2, 9_000)
    assert plan.requeue_exit_codes == (75, 85)
    assert StepPlan.from_json(plan.to_json()) == plan
    unwarned = two_by_two(launcher)
    assert (unwarned.warn_signal, unwarned.requeue_exit_codes) == (0, ())


def test_signals_go_to_mpirun_alone_which_hands_them_on() -> None:
    assert [two_by_two("mpi", i).workers[0].hears_signals for i in (0, 1)] == [True, False]
    assert all(worker.hears_signals for worker in two_by_two("horovod").workers)


def test_mpirun_knows_every_node_and_its_ranks() -> None:
    (worker,) = two_by_two("mpi", 0).workers

    assert worker.argv == (
        "/usr/bin/mpirun",
        "-n",
        "4",
        "-H",
        "localhost:2,10.0.0.2:2",
        "-wdir",
        "/",
        "env",
        "python",
        "train.py",
    )


def test_on_one_node_there_is_mpirun_alone() -> None:
    gang = members([3])
    plan = plan_step(launch("mpi", gang), node(gang, uid=0))
    (worker,) = plan.workers

    assert worker.argv[:5] == ("/usr/bin/mpirun", "--allow-run-as-root", "-n", "3", "-H")
    assert worker.argv[5] == "localhost:3"
    assert plan.rendezvous is None
    assert plan.wait_for is None
    assert "CC_MPI_SECRET" not in worker.env


def test_agents_that_share_an_address_get_names_of_their_own() -> None:
    gang = members([1, 1, 1, 1], ["127.0.0.1", "127.0.0.1", "127.0.0.2", "fd00::7"])

    assert host_names(launch("mpi", gang)) == ("localhost", "cc-1", "127.0.0.2", "cc-3")


# --- where they meet ------------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", ["horovod", "mpi"])
def test_the_first_node_serves_the_store_and_all_wait_for_it(launcher: str) -> None:
    head, other = two_by_two(launcher, 0), two_by_two(launcher, 1)

    assert head.rendezvous is not None
    assert (head.rendezvous.host, head.rendezvous.port) == ("10.0.0.1", 20000)
    assert other.rendezvous is None
    assert head.wait_for == other.wait_for == ("10.0.0.1", 20000)


def test_horovod_says_how_many_meet_in_each_scope() -> None:
    gang = members([1, 2])
    plan = plan_step(launch("horovod", gang), node(gang))

    assert plan.rendezvous == RendezvousPlan(
        host="10.0.0.1",
        port=20000,
        scopes={"global": 3, "local_node0": 1, "local_node1": 2, "cross_0": 2, "cross_1": 1},
        secret="s3cret",
    )


@pytest.mark.parametrize("launcher", ["command", "torchrun"])
def test_the_others_need_no_store(launcher: str) -> None:
    plan = two_by_two(launcher, 0)

    assert plan.rendezvous is None
    assert plan.wait_for is None


@pytest.mark.parametrize("launcher", ["horovod", "torchrun", "mpi"])
def test_without_a_port_it_says_which_node_lacks_one(launcher: str) -> None:
    gang = tuple(
        type(member)(
            node_display_name=member.node_display_name,
            address=member.address,
            first_rank=member.first_rank,
            workers=member.workers,
        )
        for member in members([1, 1])
    )

    with pytest.raises(LaunchError, match="needs a TCP port on node node0"):
        plan_step(launch(launcher, gang, 1), node(gang, 1))


@pytest.mark.parametrize(
    ("found", "addresses", "hostname"),
    [
        ("10.0.0.2", ["10.0.0.1", "10.0.0.2"], ""),
        ("127.0.1.1", ["10.0.0.1", "10.0.0.2"], "10.0.0.2"),
        ("", ["10.0.0.1", "10.0.0.2"], "10.0.0.2"),
        ("127.0.1.1", ["127.0.0.1", "127.0.0.1"], ""),
        ("", ["127.0.0.1", "127.0.0.1"], "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("launcher", ["horovod", "mpi"])
def test_a_hostname_that_cannot_be_reached_is_replaced_by_the_address(
    launcher: str, found: str, addresses: list[str], hostname: str
) -> None:
    gang = members([1, 1], addresses)
    plan = plan_step(launch(launcher, gang, 1), node(gang, 1, hostname_address=found))

    if launcher == "mpi" and len(set(addresses)) == 1:
        hostname = ""  # mpirun would take two daemons of one name for one host
    assert plan.workers[0].hostname == hostname


# --- devices and setup ----------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", ["command", "torchrun", "horovod"])
def test_a_worker_may_see_its_own_devices_alone(launcher: str) -> None:
    first, second = two_by_two(launcher, own_devices_only=True).workers

    for name in ("CUDA_VISIBLE_DEVICES", "CC_DEVICES"):
        assert (first.env[name], second.env[name]) == ("GPU-c", "GPU-d")


def test_a_rank_of_mpi_may_see_its_own_devices_alone() -> None:
    (worker,) = two_by_two("mpi", own_devices_only=True).workers
    numbers = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}

    env = rank_env(worker.env | numbers)

    assert env["CUDA_VISIBLE_DEVICES"] == env["CC_DEVICES"] == "GPU-d"


def test_setup_lines_stand_before_the_command_in_one_shell_that_becomes_it() -> None:
    lines = ("module load cuda/12", "source 'my venv'/bin/activate")
    worker = two_by_two("horovod", setup=lines, command=("python", "a b.py")).workers[0]

    assert worker.argv[:2] == ("/bin/bash", "-c")
    assert worker.argv[3:] == ("setup", "python", "a b.py")
    assert [line for line in worker.argv[2].splitlines() if line in lines] == list(lines)


def setup_run(*lines: str, command: tuple[str, ...] = ("echo", "a b", "$HOME")) -> Any:
    asked = launch("command", members([1]), setup=lines, command=command)
    worker = plan_step(asked, node(members([1]))).workers[0]
    return subprocess.run(
        worker.argv, env=worker.env, capture_output=True, text=True, timeout=20, check=False
    )


def test_what_setup_lines_change_is_there_for_the_command() -> None:
    done = setup_run(
        "export GREETING=hello", "cd /", "f() { false; true; }; f", command=("sh", "-c", "env; pwd")
    )

    assert done.returncode == 0
    assert "GREETING=hello" in done.stdout
    assert done.stdout.endswith("\n/\n")


def test_the_command_gets_its_arguments_as_they_are() -> None:
    assert setup_run("true").stdout == "a b $HOME\n"


def test_a_setup_line_that_fails_ends_the_worker_with_its_exit_code_and_is_named() -> None:
    done = setup_run("echo first", "(exit 7)", "echo never")

    assert done.returncode == 7
    assert done.stdout == "first\n"
    assert done.stderr == "setup line 2: exit code 7\n"


def test_a_command_that_fails_after_its_setup_is_no_fault_of_the_setup() -> None:
    done = setup_run("true", command=("sh", "-c", "exit 3"))

    assert (done.returncode, done.stderr) == (3, "")


# --- who may say what -----------------------------------------------------------------------------


def test_a_job_may_tune_but_not_lie() -> None:
    env = (
        ("HOROVOD_GLOO_TIMEOUT_SECONDS", "30"),
        ("HOROVOD_GLOO_IFACE", "ib0"),
        ("NCCL_SOCKET_IFNAME", "ib"),
        ("OMP_NUM_THREADS", "7"),
        ("PATH", "/opt/cuda/bin:/usr/bin"),
        ("HOROVOD_RANK", "0"),
        ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "6.6.6.6"),
        ("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7"),
        ("CC_RANK", "0"),
        ("CC_OWN", "x"),
    )
    found = two_by_two("horovod", env=env).workers[1].env

    for name, value in env[:5]:
        assert found[name] == value
    assert found["HOROVOD_RANK"] == found["CC_RANK"] == "3"
    assert found["HOROVOD_GLOO_RENDEZVOUS_ADDR"] == "10.0.0.1"
    assert found["CUDA_VISIBLE_DEVICES"] == "GPU-c,GPU-d"
    assert "CC_OWN" not in found


@pytest.mark.parametrize("launcher", sorted(LAUNCHERS))
def test_what_was_not_asked_for_cannot_be_used(launcher: str) -> None:
    gang = members([1])
    plan = plan_step(launch(launcher, gang), node(gang))

    assert plan.workers[0].env["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("launcher", sorted(LAUNCHERS))
@pytest.mark.parametrize("index", [0, 1])
def test_the_secret_is_where_it_must_be_and_nowhere_else(launcher: str, index: int) -> None:
    plan = two_by_two(launcher, index)

    for worker in plan.workers:
        assert not any("s3cret" in argument for argument in worker.argv)
        holders = [name for name, value in worker.env.items() if "s3cret" in value]
        assert holders == (["CC_MPI_SECRET"] if launcher == "mpi" else [])


@pytest.mark.parametrize("launcher", sorted(LAUNCHERS))
def test_limits_and_labels_come_along(launcher: str) -> None:
    plan = two_by_two(launcher, 0, time_limit_us=1_500_001, grace_period_us=3_000_000)

    assert (plan.lease_id, plan.token) == (7, 7)
    assert plan.time_limit_ms == 1501
    assert plan.grace_ms == 3000
    assert plan.job["owner"] == "ada"
    assert StepPlan.from_json(plan.to_json()) == plan


def test_an_unknown_launcher_is_named_with_those_that_are_known() -> None:
    gang = members([1])

    with pytest.raises(
        LaunchError, match=r"'ray' is not known.*command, horovod, mpi, script, torchrun"
    ):
        plan_step(launch("ray", gang), node(gang))


@pytest.mark.parametrize(
    ("fields", "command", "words"),
    [
        ({"mpirun": ""}, ("a",), "has no mpirun; install Open MPI 4.1"),
        ({}, ("a", ":", "b"), "an argument is ':'"),
        ({"python": "/opt/my agent/python"}, ("a",), "has a space"),
    ],
)
def test_mpi_says_what_it_lacks(
    fields: dict[str, str], command: tuple[str, ...], words: str
) -> None:
    gang = members([1, 1])

    with pytest.raises(LaunchError, match=words):
        plan_step(launch("mpi", gang, 1, command=command), node(gang, 1, **fields))


# --- numbers on any gang --------------------------------------------------------------------------


def _oracle(workers: list[int]) -> dict[int, dict[str, str]]:
    """What Horovod's own assignment gives each rank, counted the plain way."""
    cells = [(host, local) for host, count in enumerate(workers) for local in range(count)]
    found = {}
    for rank, (host, local) in enumerate(cells):
        found[rank] = {
            "HOROVOD_RANK": str(rank),
            "HOROVOD_SIZE": str(len(cells)),
            "HOROVOD_LOCAL_RANK": str(local),
            "HOROVOD_LOCAL_SIZE": str(len([1 for h, _ in cells if h == host])),
            "HOROVOD_CROSS_RANK": str(len([1 for h, l_ in cells if l_ == local and h < host])),
            "HOROVOD_CROSS_SIZE": str(len([1 for _, l_ in cells if l_ == local])),
        }
    return found


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_numbers_are_those_of_a_plain_count(workers: list[int]) -> None:
    gang = members(workers)
    expected, met = _oracle(workers), dict.fromkeys(scopes(launch("horovod", gang)), 0)

    found = {}
    for index in range(len(gang)):
        for worker in plan_step(launch("horovod", gang, index), node(gang, index)).workers:
            env = worker.env
            found[worker.rank] = {name: env[name] for name in expected[0]}
            met["global"] += 1
            met[f"local_{env['HOROVOD_HOSTNAME']}"] += 1
            met[f"cross_{env['HOROVOD_LOCAL_RANK']}"] += 1

    assert found == expected
    assert met == scopes(launch("horovod", gang))


@given(
    st.lists(st.integers(0, 127), unique=True, max_size=24).map(sorted),
    st.integers(1, 8),
)
def test_cores_are_shared_out_evenly_and_each_once(cpu_ids: list[int], workers: int) -> None:
    slices = core_slices(cpu_ids, workers, {core: core + 1000 for core in cpu_ids})

    assert len(slices) == workers
    if len(cpu_ids) < workers:
        assert set(slices) == {tuple(core + 1000 for core in cpu_ids)}
    else:
        assert [core - 1000 for part in slices for core in part] == cpu_ids
        assert max(map(len, slices)) - min(map(len, slices)) <= 1


@given(st.lists(st.text(max_size=4), min_size=1))
@example(["a", "a", "a.1"])
@example(["a b", "a/b", ""])
def test_labels_are_unique_and_safe_in_a_url(names: list[str]) -> None:
    found = labels(members([1] * len(names), names=names))

    assert len(set(found)) == len(found)
    assert all(name.isascii() and not set(name) & set("/:, ?%") for name in found)


# --- the line that mpirun has for a daemon --------------------------------------------------------

LINE = (
    ' orted -mca ess "env" -mca ess_base_jobid "36028" -mca ess_base_vpid 1 -mca orte_node_regex '
    '"vm,[3:127].0.0.2@0(2)" -mca orte_hnp_uri "36028.0;tcp://127.0.0.1:36677" '
    '-mca oob_tcp_if_include "lo"'
)
ARGV = [
    "orted", "-mca", "ess", "env", "-mca", "ess_base_jobid", "36028", "-mca", "ess_base_vpid", "1",
    "-mca", "orte_node_regex", "vm,[3:127].0.0.2@0(2)",
    "-mca", "orte_hnp_uri", "36028.0;tcp://127.0.0.1:36677",
]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        LINE,
        f"( test ! -r ./.profile || . ./.profile; {LINE} )",
        "PATH=/opt/ompi/bin:$PATH ; export PATH ; LD_LIBRARY_PATH=/opt/ompi/lib ; "
        f"export LD_LIBRARY_PATH ; /opt/ompi/bin/{LINE.strip()}",
    ],
)
def test_the_daemons_arguments_are_found_whatever_shell_they_were_for(line: str) -> None:
    assert daemon_argv(line, {"OMPI_MCA_oob_tcp_if_include": "eth1"}) == ARGV
    assert daemon_argv(line, {}) == [*ARGV, "-mca", "oob_tcp_if_include", "lo"]


@pytest.mark.parametrize("line", ["", "rm -rf /", 'orted-evil -mca a "b"', 'orted "unfinished'])
def test_nothing_but_the_daemon_is_ever_run(line: str) -> None:
    with pytest.raises(ValueError, match=r"orted|quotation"):
        daemon_argv(line, {})


def test_what_follows_the_daemon_is_not_taken() -> None:
    assert daemon_argv("orted -a; rm -rf /", {}) == ["orted", "-a"]
    assert daemon_argv("orted -a && rm", {}) == ["orted", "-a"]


def test_a_node_context_need_not_know_everything() -> None:
    gang = members([1])
    bare = NodeContext(
        lease_id=1,
        token=1,
        display_name="n",
        address="10.0.0.1",
        hostname_address="",
        python="python",
        uid=1,
        user="u",
        home="/",
        job_dir="/j",
        work_dir="/w",
    )

    env = plan_step(launch("horovod", gang), bare).workers[0].env

    assert "HOROVOD_GLOO_IFACE" not in env
    assert "NCCL_SOCKET_IFNAME" not in env
    assert env["OMP_NUM_THREADS"] == "1"


def test_a_script_runs_once_and_every_rank_has_its_place() -> None:
    gang = members([2, 2])
    way = {"server": "c:7600", "ca_file": "/ca.pem", "step_token_file": "/tmp/lease7/t"}
    cores = (0, 1, 2, 3)
    first = plan_step(launch("script", gang, 0, cpu_ids=cores), node(gang, 0, **way))
    (script,) = first.workers
    assert script.argv[3:] == ("first", "10.0.0.1", "20000", "node1", "python", "train.py")
    assert script.argv[2].endswith("/nodeagent/launchers/script_wait.py")
    assert script.env["CCCTL_SERVER"] == "c:7600"
    assert script.env["CCCTL_CA_FILE"] == "/ca.pem"
    assert script.env["CCCTL_TOKEN_FILE"] == "/tmp/lease7/t"
    assert script.env["CC_HOSTS"] == "node0:2,node1:2"
    assert script.env["PATH"] == "/usr/bin:/bin:/opt/agent/bin"
    assert (script.rank, first.ranks_per_worker) == (0, 2)
    assert [place.env["CC_RANK"] for place in first.places] == ["0", "1"]
    assert sum((place.cpu_ids for place in first.places), ()) == script.cpu_ids
    assert first.rendezvous is not None

    other = plan_step(launch("script", gang, 1, cpu_ids=cores), node(gang, 1, **way))
    (waits,) = other.workers
    assert waits.argv[:2] == ("/opt/agent/bin/python", "-I")
    assert waits.argv[2].endswith("/nodeagent/launchers/script_wait.py")
    assert waits.argv[3:] == ("there", "10.0.0.1", "20000", "node1")
    assert not waits.hears_signals
    assert [place.rank for place in other.places] == [2, 3]
    assert other.rendezvous is None
    assert StepPlan.from_json(other.to_json()) == other


def test_a_script_alone_on_its_node_needs_no_rendezvous() -> None:
    gang = members([3])
    plan = plan_step(launch("script", gang), node(gang))
    assert plan.workers[0].argv == ("python", "train.py")
    assert (plan.rendezvous, plan.wait_for) == (None, None)
    assert "CCCTL_SERVER" not in plan.workers[0].env
