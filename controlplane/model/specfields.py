"""The table of job.json: every field once. Validator, schema and reference are made from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from controlplane.model import outputs
from controlplane.model import speckinds as kinds
from controlplane.model.specfaults import shown
from controlplane.model.specoutput import output_has_its_place, output_pattern
from controlplane.model.specplace import (
    dependencies,
    moment,
    node_selector,
    pairs_are_of_arrays,
)
from controlplane.model.specshapes import (
    REQUIRED,
    Field,
    Names,
    Table,
    argv,
    nested,
    secret_text,
    text_list,
    text_map,
)
from controlplane.model.specsignal import exit_codes, warning_comes_in_time, warning_signal
from controlplane.model.spectasks import task_set
from controlplane.model.specvalues import (
    DeviceVisibility,
    FabricLevel,
    Launcher,
    OnDisconnect,
    Resources,
)
from controlplane.model.specworkdir import working_dir
from controlplane.model.view import Packing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SLUG = kinds.matching(
    "^[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?$",
    words="name, at most 63 of `a-z 0-9 - . _`",
    complaint="must be a name of at most 63 characters: a-z, 0-9 and, between them, - . _",
)
_ENV_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_LABEL_NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DNS_PART = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_LABEL_KEY = f"^((?=[^/]{{1,253}}/){_DNS_PART}([.]{_DNS_PART})*/)?{_LABEL_NAME}$"
_LABEL_KEY_COMPILED = re.compile(_LABEL_KEY[1:-1])


def _env_complaint(name: str) -> str | None:
    if not _ENV_NAME.fullmatch(name):
        return "is no name of an environment variable; use A-Z, a-z, 0-9 and _, no digit first"
    if name.startswith("CC_"):
        return "names that begin with CC_ are reserved for what the system tells a job; use another"
    return None


def _label_complaint(key: str) -> str | None:
    if len(key) > 317 or not _LABEL_KEY_COMPILED.fullmatch(key):
        return (
            'is no label\'s key; write e.g. "team" or "example.com/team": after the / at most 63 '
            "of A-Z, a-z, 0-9 and, between them, - _ ."
        )
    return None


def _secrets_are_in_env(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    secret = found.get("secret_env")
    if not secret:
        return
    names = dict(found.get("env") or ())
    others = [name for name in secret if name not in names]
    if others:
        yield "secret_env", f"{shown(others[0])} is no variable of env or pass_env"


def _what_gpus_must_be_needs_gpus(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, attribute in (("gpu_model", "gpu_model"), ("gpu_memory", "gpu_memory_bytes")):
        if found.get(attribute) is not None and found.get("gpus") == 0:
            words = f"means nothing without GPUs; set gpus to 1 or more, or leave {name} out"
            yield name, words


def _workers_fill_nodes(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    per_node, workers = found.get("workers_per_node"), found.get("workers")
    if per_node and workers and workers % per_node:
        yield "workers_per_node", f"must divide workers ({workers}), so that every node has as many"


RESOURCES: Final = Table(
    title="What each worker needs: `resources`",
    rules=(_what_gpus_must_be_needs_gpus,),
    fields=(
        Field(
            name="gpus",
            kind=kinds.integer(0, 1024),
            default=0,
            meaning="Whole GPUs, of any vendor; or TPU chips, where `gpu_model` names them.",
            example=1,
        ),
        Field(
            name="cpus",
            kind=kinds.cores(),
            default=1,
            meaning="Cores; a fraction shares one.",
            example=4,
            attribute="cpu_millicores",
        ),
        Field(
            name="memory",
            kind=kinds.memory(),
            default="1GiB",
            meaning=(
                "Memory. Units: B, kB, MB, GB, TB, PB (powers of 1000) and "
                "KiB, MiB, GiB, TiB, PiB (powers of 1024)."
            ),
            example="8GiB",
            attribute="memory_bytes",
        ),
        Field(
            name="gpu_model",
            kind=kinds.text(minimum=1, maximum=200),
            meaning=(
                "The model that each GPU must be, or a part of it, as `ccctl node show` names it. "
                "TPU chips are given only to who names them: `TPU v4`, or `TPU` for any. "
                "Only with `gpus` of 1 or more."
            ),
            example="NVIDIA H100 80GB HBM3",
        ),
        Field(
            name="gpu_memory",
            kind=kinds.memory(),
            default_words="any",
            meaning="Memory that each GPU must have at least. Only with `gpus` of 1 or more.",
            example="80GB",
            attribute="gpu_memory_bytes",
        ),
    ),
)

JOB: Final = Table(
    title="Fields",
    rules=(
        _workers_fill_nodes,
        warning_comes_in_time,
        _secrets_are_in_env,
        output_has_its_place,
        pairs_are_of_arrays,
    ),
    reserved={
        "container": "is reserved for a later release: jobs run on the host itself; leave it out"
    },
    fields=(
        Field(
            name="command",
            kind=argv(),
            default=REQUIRED,
            meaning="The program and its arguments. No shell reads them.",
            example=["python", "train.py"],
        ),
        Field(
            name="name",
            kind=kinds.text(minimum=1, maximum=200),
            default_words="last part of the program's path",
            meaning="What people call the job. Need not be unique.",
            example="digits",
        ),
        Field(
            name="launcher",
            kind=kinds.choice(Launcher),
            default="command",
            meaning=(
                "How the workers are started and joined: as ranks of Horovod, torchrun or MPI, or "
                "as plain processes (`command`); or the command runs once, and starts them itself "
                "(`script`). The command has no `horovodrun` or `mpirun` in it."
            ),
            example="horovod",
        ),
        Field(
            name="workers",
            kind=kinds.integer(1, 1_000_000),
            default=1,
            meaning="Number of workers. They start together or not at all.",
            example=8,
        ),
        Field(
            name="workers_per_node",
            kind=kinds.integer(1, 1_000_000),
            default_words="as the scheduler finds room",
            meaning="Exactly so many workers on each node. Must divide `workers`.",
            example=4,
        ),
        Field(
            name="tasks",
            kind=task_set(),
            default_words="no array",
            meaning=(
                "Indexes of the tasks of a job array, as for Slurm's `--array`: each is a gang of "
                "its own, which finds its index in `CC_TASK_INDEX`; after a `%` how many may run "
                "at once."
            ),
            example="0-99%8",
        ),
        Field(
            name="resources",
            kind=nested(RESOURCES, Resources),
            default={},
            meaning="What each worker needs.",
            example={"gpus": 1, "cpus": 4, "memory": "8GiB"},
        ),
        Field(
            name="device_visibility",
            kind=kinds.choice(DeviceVisibility),
            default="job",
            meaning=(
                "Which devices a worker sees: all that the attempt holds on its node (`job`), so "
                "that `gpus[local_rank]` is its own; or its own alone (`rank`), as number 0."
            ),
            example="rank",
        ),
        Field(
            name="setup",
            kind=text_list(maximum=100, size=64 << 10, example='["module load cuda/12"]'),
            default=[],
            meaning=(
                "Lines that bash runs before each worker's command, in the same process; each must "
                "be whole. The first that fails ends the worker with its exit code."
            ),
            example=["source ~/venv/bin/activate"],
        ),
        Field(
            name="env",
            kind=text_map(
                names=Names(pattern="^(?!CC_)[A-Za-z_][A-Za-z0-9_]*$", complaint=_env_complaint),
                values=secret_text(),
                words="map of names to strings, at most 1 MiB",
                size=kinds.ARGUMENTS_LIMIT,
                hidden=True,
            ),
            default={},
            meaning="Environment variables. Names that begin with `CC_` are reserved.",
            example={"OMP_NUM_THREADS": "4"},
        ),
        Field(
            name="pass_env",
            kind=text_list(maximum=1000, example='["WANDB_API_KEY"]'),
            default=[],
            meaning=(
                "Variables whose values `ccctl submit` takes from your environment into `env`; "
                "what `env` sets itself wins. Only `ccctl` can."
            ),
            example=["WANDB_API_KEY"],
            kept=False,
        ),
        Field(
            name="secret_env",
            kind=text_list(maximum=1000, example='["WANDB_API_KEY"]'),
            default=[],
            meaning="Variables of `env` whose values are shown to nobody, yourself included.",
            example=["WANDB_API_KEY"],
        ),
        Field(
            name="working_dir",
            kind=working_dir(),
            default_words="`CC_JOB_DIR`",
            meaning="Where the workers run: a path on the nodes, or a folder that travels along.",
            example={"ship": "."},
        ),
        Field(
            name="output",
            kind=output_pattern(),
            default_words=f"`{outputs.DEFAULT}`",
            meaning=(
                "The file that each worker's standard output is appended to, below the working "
                "directory; with `%` as [below](#output-files)."
            ),
            example="logs/%j-%t.out",
        ),
        Field(
            name="error",
            kind=output_pattern(),
            default_words="where `output` goes",
            meaning="The same for standard error.",
            example="logs/%j-%t.err",
        ),
        Field(
            name="time_limit",
            kind=kinds.duration(1, 366 * 86_400),
            default_words="no limit",
            meaning="The longest that an attempt may run. Units, in this order: `d h m s`.",
            example="2h",
            attribute="time_limit_us",
        ),
        Field(
            name="grace_period",
            kind=kinds.duration(0, 3600),
            default="10s",
            meaning="Time between SIGTERM and SIGKILL when the workers are ended.",
            example="1m",
            attribute="grace_period_us",
        ),
        Field(
            name="signal",
            kind=warning_signal(),
            default_words="no signal",
            meaning=(
                "A signal to the workers so long before the time limit, as a warning; and, before "
                "they are ended to make room for others, so long to save their state. "
                "Only with `time_limit`."
            ),
            example="USR2@90s",
        ),
        Field(
            name="requeue_exit_codes",
            kind=exit_codes(),
            default=[],
            meaning=(
                "Exit codes by which the program asks to be started again, at once and without "
                "counting against `max_attempts`."
            ),
            example=[75],
        ),
        Field(
            name="on_disconnect",
            kind=kinds.choice(OnDisconnect),
            default_words="`end`",
            meaning=(
                "When a node is cut off from the control plane past its lease: its workers are "
                "ended, and the job may run elsewhere (`end`); or they run on, and the control "
                "plane waits for the node (`keep_running`)."
            ),
            example="keep_running",
        ),
        Field(
            name="max_attempts",
            kind=kinds.integer(1, 100),
            default=1,
            meaning="How often the program may be tried. Faults of nodes and network do not count.",
            example=3,
        ),
        Field(
            name="node_selector",
            kind=node_selector(),
            default_words="every node",
            meaning=(
                "The nodes that will do, by their labels: `tier=prod`, `tier!=prod`, "
                "`rack in (a,b)`, `rack notin (a,b)`, `fast`, `!fast`, with commas between; all "
                "must hold. `ccctl node list --selector` shows them."
            ),
            example="tier=prod,rack in (a,b)",
        ),
        Field(
            name="exclusive",
            kind=kinds.flag(),
            default=False,
            meaning="Its nodes are its own alone while it runs.",
            example=True,
            later=True,
        ),
        Field(
            name="packing",
            kind=kinds.choice(Packing),
            default="pack",
            meaning=(
                "Where several ways would do: on as few nodes, and behind as few switches, as will "
                "do (`pack`), or on as many nodes as will do (`spread`)."
            ),
            example="spread",
            later=True,
        ),
        Field(
            name="within",
            kind=kinds.choice(FabricLevel),
            default_words="anywhere",
            meaning=(
                "The level of the fabric of which one part must hold the whole gang: nodes with "
                "the same label `fabric/leaf`, `fabric/block` or `fabric/spine`."
            ),
            example="block",
        ),
        Field(
            name="begin",
            kind=moment(),
            default_words="at once",
            meaning="Not started before this. `18:00` is the next time that your clock says so.",
            example="2026-03-01T18:00:00+01:00",
            attribute="begin_us",
        ),
        Field(
            name="depends_on",
            kind=dependencies(),
            default=[],
            meaning=(
                "What it waits for of other jobs, or of tasks of arrays (`afterok:123_4`); all "
                "must come: [below](#dependencies)."
            ),
            example=["afterok:123"],
            later=True,
        ),
        Field(
            name="preemptible",
            kind=kinds.flag(),
            default=False,
            meaning="Any other job may end it to make room; in return it may use idle quota.",
            example=True,
            later=True,
        ),
        Field(
            name="queue",
            kind=_SLUG,
            default="default",
            meaning="The queue to wait in.",
            example="default",
        ),
        Field(
            name="priority_class",
            kind=_SLUG,
            default_words="the centre's default",
            meaning="The priority class.",
            example="high",
        ),
        Field(
            name="account",
            kind=_SLUG,
            default_words="your default account",
            meaning="The account that pays.",
            example="vision",
        ),
        Field(
            name="labels",
            kind=text_map(
                names=Names(pattern=_LABEL_KEY, complaint=_label_complaint),
                values=kinds.matching(
                    f"^({_LABEL_NAME})?$",
                    words="string",
                    complaint=(
                        "must be a string of at most 63 of A-Z, a-z, 0-9 and, between them, - _ ."
                    ),
                ),
                words="map of keys to strings, at most 64",
                entries=64,
            ),
            default={},
            meaning="Labels to find the job by; keys and values as in Kubernetes.",
            example={"team": "vision", "example.com/run": "7"},
        ),
        Field(
            name="comment",
            kind=kinds.text(maximum=4096, controls=True),
            default="",
            meaning="Free words.",
            example="Baseline for the spring report.",
        ),
        Field(
            name="version",
            kind=kinds.integer(1, 1),
            default=1,
            meaning="Version of this format.",
            example=1,
            kept=False,
        ),
        Field(
            name="$schema",
            kind=kinds.text(maximum=2000),
            meaning="Where your editor finds the JSON Schema that `ccctl schema` prints. Ignored.",
            example="./job.schema.json",
            kept=False,
        ),
    ),
)
