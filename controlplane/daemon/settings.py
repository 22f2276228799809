"""Settings of the control plane: TOML ← environment `CONTROLPLANE_*` ← flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controlplane.kit.config import setting
from controlplane.model.keep import DAY_US, Keep

ENV_PREFIX = "CONTROLPLANE_"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator may set."""

    state_dir: Path = setting(
        Path("/var/lib/controlplane"),
        help="folder for database, tokens, logs and blobs; made if missing, for its owner alone",
    )
    listen: str = setting(
        "127.0.0.1:7600",
        help="where people are listened to: address and port, or unix:PATH",
    )
    listen_agents: str = setting(
        "",
        help="address and port where agents are listened to, which show certificates; empty: the"
        " port after that of listen",
        example="0.0.0.0:7601",
    )
    agents_address: str = setting(
        "",
        help="host:port by which agents reach listen_agents, told to hosts that join; empty: the"
        " host that they joined at",
        example="controlplane.example.com:7601",
    )
    plaintext: bool = setting(
        False,
        help="listen without TLS, on loopback only, to people and to agents that have tokens",
    )
    node_certificate_days: int = setting(
        30,
        unit="days",
        minimum=1,
        maximum=366,
        help="how long a node's certificate lasts; its agent renews it when a third is left",
    )
    database_url: str = setting(
        "", help="SQLAlchemy URL of the registry; empty: SQLite in state_dir"
    )
    tls_certificate: Path | None = setting(
        None,
        help="PEM file with a certificate chain to show to people; not set: the one that"
        " `controlplane init` made",
        example="/etc/controlplane/tls.crt",
    )
    tls_key: Path | None = setting(
        None, help="PEM file with the certificate's key", example="/etc/controlplane/tls.key"
    )
    tokens_file: Path | None = setting(
        None,
        help="file with hashed tokens; not set: tokens.json in state_dir",
        example="/etc/controlplane/tokens.json",
    )
    node_lease_s: float = setting(
        20.0,
        unit="s",
        minimum=2,
        help="a node that is silent for longer is unknown, and ends its jobs",
    )
    node_lease_margin_s: float = setting(
        5.0,
        unit="s",
        minimum=1,
        help="waited after a node's lease before its jobs may run elsewhere",
    )
    hold_s: float = setting(
        5.0,
        unit="s",
        minimum=0.1,
        maximum=30,
        help="the longest that an agent's call is held; below node_lease_s",
    )
    schedule_period_s: float = setting(
        1.0,
        unit="s",
        minimum=0.05,
        help="the scheduler looks at least so often; changes wake it at once",
    )
    log_cap_mib: int = setting(
        16, unit="MiB", minimum=1, help="kept of each worker's output stream, the newest"
    )
    blob_limit_mib: int = setting(
        1024, unit="MiB", minimum=1, help="largest working directory that may travel with a job"
    )
    keep_jobs_days: float = setting(
        0.0,
        unit="days",
        minimum=0,
        help="jobs that ended so long ago are removed, with their events, output and progress;"
        " 0: never",
    )
    keep_logs_days: float = setting(
        0.0,
        unit="days",
        minimum=0,
        help="output of jobs that ended so long ago is removed; 0: with its job",
    )
    keep_usage_days: float = setting(
        0.0,
        unit="days",
        minimum=0,
        help="what attempts used that ended so long ago counts no longer in sums; at least"
        " keep_jobs_days; 0: counts for ever",
    )
    keep_events_days: float = setting(
        0.0,
        unit="days",
        minimum=0,
        help="events so old that belong to no kept job (nodes, users, denials) are removed;"
        " 0: never",
    )
    keep_blobs_days: float = setting(
        30.0,
        unit="days",
        minimum=0,
        help="working directories that travelled, that no kept job refers to, and that nobody"
        " uploaded or used for so long, are removed; 0: never",
    )
    end_unmet_dependencies: bool = setting(
        False,
        help="end jobs that wait for others whose end makes that vain, as afterok of one that"
        " failed; else they wait until somebody ends them, and say so",
    )
    policy_file: Path | None = setting(
        None,
        help="TOML file that says how jobs are scheduled (docs/scheduling.md); not set: by default",
        example="/etc/controlplane/policy.toml",
    )
    log_level: str = setting(
        "info", choices=("debug", "info", "warning", "error"), help="least level that is logged"
    )
    log_format: str = setting("text", choices=("text", "json"), help="form of the daemon's own log")

    def __post_init__(self) -> None:
        """ValueError, a line each, for settings that contradict each other."""
        faults = []
        if self.hold_s >= self.node_lease_s:
            faults.append(
                f"hold_s: {self.hold_s}: must be below node_lease_s ({self.node_lease_s}),"
                " or every node would fall silent"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing = "tls_certificate" if self.tls_certificate is None else "tls_key"
            faults.append(f"{missing}: is required, since the other of the two is set")
        if self.plaintext and self.tls_certificate is not None:
            faults.append("plaintext: true: contradicts tls_certificate; unset one of the two")
        if self.keep_jobs_days and self.keep_logs_days > self.keep_jobs_days:
            faults.append(
                f"keep_logs_days: {self.keep_logs_days:g}: output goes with its job at the latest:"
                f" at most keep_jobs_days ({self.keep_jobs_days:g}), or 0"
            )
        if self.keep_usage_days and not 0 < self.keep_jobs_days <= self.keep_usage_days:
            jobs = f"{self.keep_jobs_days:g}" if self.keep_jobs_days else "0: for ever"
            faults.append(
                f"keep_usage_days: {self.keep_usage_days:g}: usage is kept for no shorter than its"
                f" job: at least keep_jobs_days ({jobs}), or 0 for ever"
            )
        if faults:
            raise ValueError("\n".join(faults))

    @property
    def keep(self) -> Keep:
        """For how long what is over is kept."""
        return Keep(
            jobs_us=round(self.keep_jobs_days * DAY_US),
            logs_us=round(self.keep_logs_days * DAY_US),
            usage_us=round(self.keep_usage_days * DAY_US),
            events_us=round(self.keep_events_days * DAY_US),
            blobs_us=round(self.keep_blobs_days * DAY_US),
        )

    @property
    def database(self) -> str:
        """URL of the registry's database."""
        return self.database_url or f"sqlite:///{(self.state_dir / 'controlplane.db').absolute()}"

    @property
    def agents(self) -> str:
        """Where agents are listened to."""
        if self.listen_agents:
            return self.listen_agents
        host, _, port = self.listen.rpartition(":")
        if self.listen.startswith("unix:") or not port.isdecimal():
            return "127.0.0.1:7601"
        return f"{host}:{int(port) + 1}"

    @property
    def tokens(self) -> Path:
        """File with the hashed tokens."""
        return self.tokens_file or self.state_dir / "tokens.json"
