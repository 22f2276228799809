from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.dependencies import Dependency, DependencyKind
from controlplane.model.spec import (
    Archive,
    InvalidSpec,
    Launcher,
    NodePath,
    Resources,
    Ship,
    WarningSignal,
    canonical,
    canonical_json,
    parse_spec,
    spec_sha256,
)
from controlplane.model.specfields import JOB
from tests.model.spec_documents import BAD, EVERYTHING, GOOD, garbage, good_documents

GOLDEN = Path(__file__).parents[1] / "golden" / "spec_faults.txt"


def faults_of(document: Any) -> str:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(document)
    return str(caught.value)


def test_bad_documents_get_exactly_these_messages() -> None:
    told = "\n".join(f"# {title}\n{faults_of(document)}\n" for title, document in BAD.items())
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(told, encoding="utf-8")
    assert told == GOLDEN.read_text(encoding="utf-8")


def test_after_a_hundred_faults_the_rest_is_counted() -> None:
    told = faults_of({**GOOD, **{f"{n}": n for n in range(150)}, "workers": 0}).split("\n")
    assert len(told) == 101
    assert told[100] == "and 51 more faults"


def test_faults_can_be_read_by_programs_and_travel_between_processes() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec({**GOOD, "resources": {"memory": "8GBB", "gpu": 1}})
    assert [fault.path for fault in caught.value.faults] == ["resources.gpu", "resources.memory"]
    assert caught.value.faults[1].value_repr == '"8GBB"'
    assert pickle.loads(pickle.dumps(caught.value)).faults == caught.value.faults


def test_a_command_is_enough() -> None:
    spec = parse_spec({"command": ["/usr/bin/train.sh", "x"]})
    assert spec.name == "train.sh"
    assert spec.launcher is Launcher.COMMAND
    assert (spec.workers, spec.workers_per_node, spec.max_attempts) == (1, None, 1)
    assert spec.resources == Resources(
        gpus=0, cpu_millicores=1000, memory_bytes=2**30, gpu_model=None
    )
    assert (spec.time_limit_us, spec.grace_period_us) == (None, 10_000_000)
    assert (spec.queue, spec.account, spec.priority_class) == ("default", None, None)
    assert (spec.signal, spec.requeue_exit_codes) == (None, ())
    assert (spec.env, spec.labels, spec.comment, spec.working_dir) == ((), (), "", None)


def test_every_field_arrives() -> None:
    spec = parse_spec(EVERYTHING)
    assert spec.command == ("python", "train.py", "", "--note", "two words")
    assert (spec.workers, spec.workers_per_node) == (8, 4)
    assert isinstance(spec.workers, int)
    assert spec.resources == Resources(
        gpus=1,
        cpu_millicores=1500,
        memory_bytes=4 * 10**9,
        gpu_model="H100",
        gpu_memory_bytes=80 * 10**9,
    )
    assert spec.env == (("A", "1"), ("B", "2"))
    assert spec.working_dir == Archive(sha256="ab" * 32, size_bytes=20480)
    assert (spec.time_limit_us, spec.grace_period_us) == (5400 * 10**6, 0)
    assert spec.signal == WarningSignal(name="USR1", before_us=120 * 10**6)
    assert spec.requeue_exit_codes == (75, 85)
    assert dict(spec.labels) == {"team": "a", "example.com/run": ""}
    assert spec.priority_class == "high"
    assert (str(spec.node_selector), spec.within) == ("tier=prod,rack in (a,b),!old", "block")
    assert (spec.exclusive, spec.packing, spec.preemptible) == (True, "spread", True)
    assert spec.begin_us == 1_772_384_400_000_000
    assert spec.depends_on == (
        Dependency(kind=DependencyKind.AFTER_OK, job_id=3),
        Dependency(kind=DependencyKind.AFTER_ANY, job_id=4, task_index=7),
    )
    assert hash(spec) == hash(parse_spec(EVERYTHING))
    assert not hasattr(spec, "__dict__")


@pytest.mark.parametrize(
    ("command", "name"),
    [("/bin/true", "true"), ("a/b/", "b"), ("/", "mpi"), ("a\nb", "mpi"), ("n" * 201, "mpi")],
)
def test_the_name_comes_from_the_command_or_else_from_the_launcher(command: str, name: str) -> None:
    assert parse_spec({"command": [command], "launcher": "mpi"}).name == name


def test_a_name_may_be_of_every_plane() -> None:
    name = "".join(chr(plane * 0x10000 + 0x21) for plane in range(17))
    assert parse_spec({**GOOD, "name": name}).name == name


def test_only_the_client_may_leave_a_folder_to_be_shipped() -> None:
    document = {**GOOD, "working_dir": {"ship": ".", "exclude": ["*.pt"]}}
    spec = parse_spec(document, allow_ship=True)
    assert spec.working_dir == Ship(folder=".", exclude=("*.pt",))
    assert parse_spec(canonical(spec), allow_ship=True) == spec
    assert "only ccctl can ship a folder" in faults_of(document)
    assert parse_spec({**GOOD, "working_dir": "/data"}).working_dir == NodePath(path="/data")


def test_the_canonical_form_fills_in_defaults_and_reads_well() -> None:
    assert canonical_json(parse_spec({**GOOD, "time_limit": 5400, "workers": 2.0})) == (
        '{"command":["true"],"comment":"","device_visibility":"job",'
        '"env":{},"grace_period":"10s","labels":{},"launcher":"command","max_attempts":1,'
        '"name":"true","queue":"default","requeue_exit_codes":[],'
        '"resources":{"cpus":1,"gpus":0,"memory":"1GiB"},'
        '"secret_env":[],"setup":[],"time_limit":"1h30m","version":1,"workers":2}'
    )


def test_a_field_of_a_later_release_leaves_the_form_of_those_who_do_not_use_it() -> None:
    defaults = {"exclusive": False, "packing": "pack", "depends_on": [], "preemptible": False}
    assert canonical_json(parse_spec({**GOOD, **defaults})) == canonical_json(parse_spec(GOOD))
    written = canonical(parse_spec({**EVERYTHING, "working_dir": "/x"}))
    assert (written["begin"], written["packing"]) == ("2026-03-01T17:00:00Z", "spread")
    assert written["node_selector"] == "tier=prod,rack in (a,b),!old"
    assert written["depends_on"] == ["afterok:3", "afterany:4_7"]


def test_the_hash_is_of_what_is_meant_and_not_of_how_it_is_written() -> None:
    one = parse_spec({**GOOD, "time_limit": "90m", "env": {"B": "2", "A": "1"}})
    two = parse_spec({"env": {"A": "1", "B": "2"}, "time_limit": 5400.0, "workers": 1, **GOOD})
    assert spec_sha256(one) == spec_sha256(two)
    assert spec_sha256(one) != spec_sha256(parse_spec({**GOOD, "time_limit": "91m"}))


@pytest.mark.parametrize(
    ("written", "canonical_form"),
    [
        ("USR2@90s", "USR2@90s"),
        ("SIGUSR2@1m30s", "USR2@90s"),
        ("TERM@5", "TERM@5s"),
        ("USR2", "USR2@60s"),
        ("SIGHUP", "HUP@60s"),
    ],
)
def test_a_warning_has_one_canonical_form(written: str, canonical_form: str) -> None:
    spec = parse_spec({**GOOD, "time_limit": "2h", "signal": written})
    assert canonical(spec)["signal"] == canonical_form
    assert parse_spec(canonical(spec)) == spec


@given(good_documents)
def test_canonical_parses_back_to_the_same_spec(document: dict[str, object]) -> None:
    spec = parse_spec(document)
    again = parse_spec(canonical(spec))
    assert again == spec
    assert canonical_json(again) == canonical_json(spec)


@given(garbage | st.dictionaries(st.sampled_from([f.name for f in JOB.fields]), garbage))
def test_garbage_is_refused_in_words_or_taken(document: Any) -> None:
    try:
        parse_spec(document, allow_ship=True)
    except InvalidSpec as refusal:
        faults, told = refusal.faults, str(refusal)
    else:
        return
    assert faults
    assert all(fault.message for fault in faults)
    assert all(line.isprintable() for line in told.split("\n"))
    told.encode()
