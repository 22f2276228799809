"""Settings of the agent: TOML ← environment `NODEAGENT_*` ← flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controlplane.kit.config import setting

ENV_PREFIX = "NODEAGENT_"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator may set."""

    state_dir: Path = setting(
        Path("/var/lib/nodeagent"),
        help="folder for identity, leases and jobs' files; made if missing, for its owner alone",
    )
    runtime_dir: Path | None = setting(
        None,
        help="folder for what holds until the next boot: the control files of leases; best on a"
        " tmpfs. Not set: `run` in state_dir",
        example="/run/nodeagent",
    )
    server: str = setting(
        "",
        help="address at which the control plane listens to agents: host:port or unix:PATH; empty:"
        " as told when the host joined",
        example="controlplane.example.com:7601",
    )
    token_file: Path | None = setting(
        None,
        help="file with an agent's token, for a control plane on this host that listens in"
        " plaintext; not set: the certificate that `nodeagent join` got",
        example="/etc/nodeagent/token",
    )
    name: str = setting("", help="display name of the node; empty: the hostname")
    address: str = setting(
        "", help="address at which other nodes reach this one; empty: the one towards the server"
    )
    cpus: int = setting(0, minimum=0, help="cores offered to jobs; 0: all that the agent may use")
    memory_mib: int = setting(
        0, unit="MiB", minimum=0, help="memory offered to jobs; 0: nine tenths of the host's"
    )
    devices: str = setting(
        "auto",
        choices=("auto", "nvml", "rocm", "tpu", "cpu", "simulated"),
        help="where devices come from; auto: all that NVML and the kernel show",
    )
    offered_devices: tuple[str, ...] = setting(
        (), help="which devices are offered to jobs, by id or index; empty: all that are found"
    )
    simulated_count: int = setting(
        0, minimum=0, maximum=64, help="with simulated: how many devices"
    )
    simulated_model: str = setting("H100", help="with simulated: their model")
    simulated_memory_mib: int = setting(
        81920, unit="MiB", minimum=1, help="with simulated: memory of each"
    )
    port_first: int = setting(
        20000, minimum=1024, maximum=65535, help="first TCP port that jobs may lease"
    )
    port_last: int = setting(
        20999, minimum=1024, maximum=65535, help="last TCP port that jobs may lease"
    )
    labels: dict[str, str] = setting({}, help="labels of the node")
    run_as: str = setting(
        "owner",
        choices=("owner", "agent"),
        help="as whom workers run: owner: the account of the job's owner on this host, which takes"
        " an agent with root for any user but its own; agent: all as the agent's own user",
    )
    allow_root: bool = setting(
        False, help="with run_as owner: whether jobs whose owner is root may run, as root"
    )
    cages: str = setting(
        "auto",
        choices=("auto", "required", "off"),
        help="control groups for leases (memory, processes, cores, devices); auto: where the host"
        " lets the agent make them; required: do not start without",
    )
    lease_pids: int = setting(
        32768, minimum=0, help="processes and threads that a lease may have; 0: no limit"
    )
    prolog: Path | None = setting(
        None,
        help="program that is run as the agent's user before each lease's workers start; if it"
        " fails, the job is started elsewhere",
        example="/etc/nodeagent/prolog",
    )
    epilog: Path | None = setting(
        None,
        help="program that is run after each lease's workers have ended, before its devices are"
        " free; if it fails, the node takes no work until the agent is restarted",
        example="/etc/nodeagent/epilog",
    )
    prolog_deadline_s: float = setting(
        60.0, unit="s", minimum=0.1, maximum=3600, help="how long prolog and epilog may take, each"
    )
    min_free_mib: int = setting(
        256, unit="MiB", minimum=0, help="room in state_dir without which no lease is started"
    )
    min_free_inodes: int = setting(
        10_000,
        unit="files",
        minimum=0,
        help="files more that state_dir must have room for, or no lease is started",
    )
    limits: dict[str, str] = setting(
        {},
        help='limits of workers, as ulimit knows them: memlock = "unlimited", nofile = "1048576";'
        " others are the agent's own",
    )
    path: str = setting(
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        help="PATH of workers, unless their job sets another",
    )
    mpirun: str = setting("", help="Open MPI's mpirun; empty: the one on PATH, if there is one")
    keep_job_dirs_days: float = setting(
        0.0,
        unit="days",
        minimum=0,
        help="folders of jobs (CC_JOB_DIR) that nothing has changed for so long are removed;"
        " 0: never",
    )
    keep_blobs_days: float = setting(
        7.0,
        unit="days",
        minimum=0.01,
        help="fetched working directories that no job has used for so long are removed",
    )
    log_cap_mib: int = setting(
        64,
        unit="MiB",
        minimum=1,
        help="kept on the node of each worker's output stream, the newest",
    )
    discover_period_s: float = setting(
        30.0, unit="s", minimum=1, help="how often devices are looked at anew"
    )
    log_level: str = setting(
        "info", choices=("debug", "info", "warning", "error"), help="least level that is logged"
    )
    log_format: str = setting("text", choices=("text", "json"), help="form of the agent's own log")

    def __post_init__(self) -> None:
        """ValueError for settings that contradict each other."""
        if self.port_last < self.port_first:
            raise ValueError(
                f"port_last: {self.port_last}: must be at least port_first ({self.port_first})"
            )
