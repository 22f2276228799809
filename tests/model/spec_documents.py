"""Bad documents by what is wrong with them, and a strategy for good ones."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

GOOD: dict[str, object] = {"command": ["true"]}
LIMITED: dict[str, object] = {**GOOD, "time_limit": "10m"}

EVERYTHING: dict[str, object] = {
    "$schema": "./job.schema.json",
    "name": "digits, 手書き 🖋",
    "launcher": "horovod",
    "command": ["python", "train.py", "", "--note", "two words"],
    "workers": 8.0,
    "workers_per_node": 4,
    "resources": {"gpus": 1, "cpus": 1.5, "memory": "4GB", "gpu_model": "H100"},
    "device_visibility": "rank",
    "setup": ["source ~/venv/bin/activate", "if true; then\n  export A=1\nfi"],
    "env": {"B": "2", "A": "1"},
    "working_dir": {"sha256": "ab" * 32, "size": 20480.0},
    "time_limit": "90m",
    "grace_period": 0,
    "signal": "SIGUSR1@2m",
    "requeue_exit_codes": [85, 75.0, 75],
    "max_attempts": 3,
    "queue": "gpu.fast",
    "priority_class": "high",
    "account": "vision",
    "labels": {"team": "a", "example.com/run": ""},
    "comment": "two\nlines",
    "version": 1,
}

BAD: dict[str, Any] = {
    "not an object": ["command"],
    "nothing at all": {},
    "no command": {"name": "x"},
    "unknown field, near one": {**GOOD, "timelimit": "2h", "Workers": 2},
    "unknown field, near none": {**GOOD, "zzz": 1},
    "unknown field, deep": {**GOOD, "resources": {"gpu": 1}},
    "unknown field with an odd name": {**GOOD, "a b\x1b[31m": 1},
    "command is text": {"command": "python train.py"},
    "command is empty": {"command": []},
    "command without a program": {"command": ["", "x"]},
    "command with a number": {"command": ["train", 3, None]},
    "command with NUL": {"command": ["train", "a\0b"]},
    "command with a lone surrogate": {"command": ["train", "\ud800"]},
    "command too long": {"command": ["train", *["x" * 120_000] * 9]},
    "name empty": {**GOOD, "name": ""},
    "name too long": {**GOOD, "name": "n" * 201},
    "name with a line end": {**GOOD, "name": "a\nb"},
    "name is a number": {**GOOD, "name": 7},
    "launcher unknown, near one": {**GOOD, "launcher": "horovodrun"},
    "launcher unknown, near none": {**GOOD, "launcher": "ssh"},
    "launcher is null": {**GOOD, "launcher": None},
    "0 workers": {**GOOD, "workers": 0},
    "10^9 workers": {**GOOD, "workers": 10**9},
    "10^9 workers as a double": {**GOOD, "workers": 1e9},
    "2.5 workers": {**GOOD, "workers": 2.5},
    "NaN workers": {**GOOD, "workers": math.nan},
    "infinitely many workers": {**GOOD, "workers": math.inf},
    "true workers": {**GOOD, "workers": True},
    "workers in words": {**GOOD, "workers": "four"},
    "a huge number": {**GOOD, "workers": 10**5000},
    "workers do not fill nodes": {**GOOD, "workers": 8, "workers_per_node": 3},
    "more on a node than there are": {**GOOD, "workers": 2, "workers_per_node": 4},
    "resources is a list": {**GOOD, "resources": ["gpu"]},
    "negative GPUs": {**GOOD, "resources": {"gpus": -1}},
    "too many decimals": {**GOOD, "resources": {"cpus": 1.0005}},
    "cpus is text": {**GOOD, "resources": {"cpus": "2"}},
    "cpus is NaN": {**GOOD, "resources": {"cpus": math.nan}},
    "memory with a wrong unit": {**GOOD, "resources": {"memory": "8GBB"}},
    "no memory": {**GOOD, "resources": {"memory": 0}},
    "negative memory": {**GOOD, "resources": {"memory": -8}},
    "too much memory": {**GOOD, "resources": {"memory": "2PiB"}},
    "memory is an object": {
        **GOOD,
        "resources": {"memory": {"GiB": {"a": {"b": 1}}, "x": [1] * 9}},
    },
    "a model of no GPU": {**GOOD, "resources": {"gpu_model": "H100"}},
    "env is a list": {**GOOD, "env": ["TOKEN=secret"]},
    "env name with =": {**GOOD, "env": {"A=B": "x"}},
    "env name empty": {**GOOD, "env": {"": "x"}},
    "env name reserved": {**GOOD, "env": {"CC_JOB_ID": "1"}},
    "env value is a number": {**GOOD, "env": {"OMP_NUM_THREADS": 4}},
    "env value with NUL is not repeated": {**GOOD, "env": {"TOKEN": "secret\0"}},
    "env value in a list is not repeated": {**GOOD, "env": {"TOKEN": ["secret"]}},
    "env too big": {**GOOD, "env": {f"A{n}": "x" * 120_000 for n in range(9)}},
    "working_dir relative": {**GOOD, "working_dir": "src"},
    "working_dir climbs": {**GOOD, "working_dir": "/data/../etc"},
    "working_dir with NUL": {**GOOD, "working_dir": "/data\0"},
    "working_dir too long": {**GOOD, "working_dir": "/" + "d" * 4095},
    "working_dir is a number": {**GOOD, "working_dir": 5},
    "working_dir of an unknown kind": {**GOOD, "working_dir": {"path": "/data"}},
    "working_dir to ship, at the server": {**GOOD, "working_dir": {"ship": "."}},
    "working_dir ships what is above": {**GOOD, "working_dir": {"ship": "../x"}},
    "working_dir ships from the root": {**GOOD, "working_dir": {"ship": "/etc"}},
    "working_dir ships nothing": {**GOOD, "working_dir": {"ship": ""}},
    "working_dir with bad excludes": {**GOOD, "working_dir": {"ship": ".", "exclude": ["", 3]}},
    "working_dir with excludes as text": {**GOOD, "working_dir": {"ship": ".", "exclude": "*"}},
    "working_dir with a bad hash": {**GOOD, "working_dir": {"sha256": "AB" * 32, "size": -1}},
    "working_dir without size": {**GOOD, "working_dir": {"sha256": "ab" * 32}},
    "time limit negative": {**GOOD, "time_limit": -5},
    "time limit negative, in words": {**GOOD, "time_limit": "-2h"},
    "time limit of nothing": {**GOOD, "time_limit": "0s"},
    "time limit too long": {**GOOD, "time_limit": "367d"},
    "time limit of no unit": {**GOOD, "time_limit": "2"},
    "time limit empty": {**GOOD, "time_limit": ""},
    "time limit is null": {**GOOD, "time_limit": None},
    "grace period too long": {**GOOD, "grace_period": "61m"},
    "signal unknown, near one": {**LIMITED, "signal": "usr2@90s"},
    "signal unknown, near none": {**LIMITED, "signal": "12@90s"},
    "signal that kills": {**LIMITED, "signal": "SIGKILL@90s"},
    "signal that stops": {**LIMITED, "signal": "STOP"},
    "signal is a number": {**LIMITED, "signal": 12},
    "signal without a duration": {**LIMITED, "signal": "USR2@"},
    "signal before an unknown time": {**LIMITED, "signal": "USR2@soon"},
    "signal after less than a second": {**LIMITED, "signal": "USR2@0s"},
    "signal before the start": {**LIMITED, "signal": "USR2@10m"},
    "signal before the start, its time not written": {
        **GOOD,
        "time_limit": "1m",
        "signal": "USR2",
    },
    "signal without a time limit": {**GOOD, "signal": "USR2@90s"},
    "signal before a bad time limit": {**GOOD, "signal": "USR2@90s", "time_limit": "soon"},
    "signal that mpirun keeps": {**LIMITED, "launcher": "mpi", "signal": "HUP@90s"},
    "requeue code of success": {**GOOD, "requeue_exit_codes": [75, 0]},
    "requeue code too high": {**GOOD, "requeue_exit_codes": [256, -1, "75", 7.5, True]},
    "requeue code alone": {**GOOD, "requeue_exit_codes": 75},
    "too many requeue codes": {**GOOD, "requeue_exit_codes": list(range(1, 18))},
    "no attempts": {**GOOD, "max_attempts": 0},
    "queue of capitals": {**GOOD, "queue": "GPU"},
    "account too long": {**GOOD, "account": "a" * 64},
    "priority_class is a number": {**GOOD, "priority_class": 10},
    "label key": {**GOOD, "labels": {"-x": "a", "a/b/c": "b"}},
    "label value": {**GOOD, "labels": {"team": "no spaces", "n": 5}},
    "too many labels": {**GOOD, "labels": {f"l{n}": "" for n in range(65)}},
    "comment too long": {**GOOD, "comment": "c" * 4097},
    "version of the future": {**GOOD, "version": 2},
    "one argument too long": {"command": ["echo", "x" * 131_072]},
    "one env value too long": {**GOOD, "env": {"BIG": "x" * 131_068}},
    "a container, which is for later": {**GOOD, "container": {"image": "x"}},
    "setup is text": {**GOOD, "setup": "module load cuda"},
    "setup of an empty line": {**GOOD, "setup": ["true", ""]},
    "setup with NUL": {**GOOD, "setup": ["a\0b"]},
    "a setup line of 1 MB": {**GOOD, "setup": ["x" * 1_000_000]},
    "too many setup lines": {**GOOD, "setup": ["true"] * 101},
    "device_visibility of nobody": {**GOOD, "device_visibility": "ranks"},
    "env of 10,000 entries, too big": {**GOOD, "env": {f"V{n}": "x" * 120 for n in range(10_000)}},
    "many at once": {
        "command": [],
        "workers": 0,
        "resources": {"gpus": 2000, "memory": "lots", "cpu": 1},
        "env": {"1A": "x", "B": None},
        "time_limit": "soon",
        "queue": "",
    },
}

_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
_slug = st.from_regex(r"[a-z0-9]([-a-z0-9._]{0,9}[a-z0-9])?", fullmatch=True)
_argument = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
_seconds = st.integers(1, 10**6) | st.sampled_from(["2h", "90m", "1h30m", "45s", "1d", "1d2h3m4s"])
_resources = st.fixed_dictionaries(
    {"gpus": st.integers(1, 1024)},
    optional={
        "cpus": st.integers(1, 4_096_000).map(lambda n: n / 1000),
        "memory": st.integers(1, 2**50) | st.sampled_from(["8GiB", "512MiB", "4GB", "1PB", "7B"]),
        "gpu_model": _text,
    },
)
_archives = st.fixed_dictionaries(
    {"sha256": st.from_regex("[0-9a-f]{64}", fullmatch=True), "size": st.integers(0, 2**40)}
)

good_documents = st.fixed_dictionaries(
    {"command": st.lists(_argument, max_size=3).map(lambda rest: ["/bin/true", *rest])},
    optional={
        "name": _text,
        "launcher": st.sampled_from(["command", "horovod", "mpi", "torchrun"]),
        "workers": st.integers(1, 10**6) | st.integers(1, 10**6).map(float),
        "workers_per_node": st.just(1),
        "resources": _resources,
        "env": st.dictionaries(st.from_regex("[A-BD-Z_][A-Z0-9_]*", fullmatch=True), _argument),
        "working_dir": _archives | _argument.map(lambda rest: "/x" + rest.replace("..", "")),
        "time_limit": _seconds,
        "grace_period": st.integers(0, 3600) | st.just("1m30s"),
        "signal": st.sampled_from(["USR2", "SIGUSR1", "USR1@1s", "SIGUSR2@90", "USR2@1h59m59s"]),
        "requeue_exit_codes": st.lists(st.integers(1, 255), max_size=16),
        "max_attempts": st.integers(1, 100),
        "queue": _slug,
        "priority_class": _slug,
        "account": _slug,
        "labels": st.dictionaries(
            _slug | _slug.map(lambda s: f"example.com/{s}"), _slug, max_size=5
        ),
        "comment": _argument,
        "version": st.just(1) | st.just(1.0),
    },
).map(lambda found: {**found, "time_limit": "2h"} if "signal" in found else found)
"""Documents that `parse_spec` must take."""

garbage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
"""Anything that JSON can say, and some that it should not."""
