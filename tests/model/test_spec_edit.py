from __future__ import annotations

import pytest

from controlplane.model.spec import InvalidSpec, apply_overrides, parse_spec


def test_overrides_set_fields_at_any_depth_and_leave_the_document_alone() -> None:
    document: dict[str, object] = {"command": ["true"], "resources": {"gpus": 1, "cpus": 2}}
    changed = apply_overrides(
        document,
        [
            "workers=4",
            "resources.memory=8GiB",
            "resources.gpus=2",
            "env.FOO=bar=baz",
            "env.N=4",
            "labels.example.com/team=7",
            "working_dir.ship=.",
            'working_dir.exclude=["*.pt"]',
            "name=5",
            "time_limit=2h",
            "grace_period=30",
            "comment=",
            'command=["echo", "hi"]',
        ],
    )
    assert changed == {
        "command": ["echo", "hi"],
        "workers": 4,
        "resources": {"gpus": 2, "cpus": 2, "memory": "8GiB"},
        "env": {"FOO": "bar=baz", "N": "4"},
        "labels": {"example.com/team": "7"},
        "working_dir": {"ship": ".", "exclude": ["*.pt"]},
        "name": "5",
        "time_limit": "2h",
        "grace_period": 30,
        "comment": "",
    }
    assert document == {"command": ["true"], "resources": {"gpus": 1, "cpus": 2}}
    assert parse_spec(changed, allow_ship=True).resources.gpus == 2


def test_an_override_takes_the_place_of_another_form() -> None:
    before: dict[str, object] = {"command": ["true"], "working_dir": "/data", "env": {"A": "1"}}
    after = apply_overrides(before, ["working_dir.ship=src", 'env={"B": "2"}'])
    assert after == {"command": ["true"], "working_dir": {"ship": "src"}, "env": {"B": "2"}}
    assert apply_overrides(after, ["working_dir=/x"])["working_dir"] == "/x"


def test_every_unknown_path_is_told() -> None:
    bad = ["workrs=4", "resources.gpu=1", "name.first=x", "workers", "=4", "resources.=1", "zzz=1"]
    with pytest.raises(InvalidSpec) as caught:
        apply_overrides({}, bad)
    told = str(caught.value).splitlines()
    assert told[:6] == [
        'workrs: unknown field; did you mean "workers"?',
        'resources.gpu: unknown field; did you mean "gpus"?',
        "name.first: unknown field; name has no fields of its own",
        '--set: "workers": must be FIELD=VALUE, e.g. workers=4',
        '--set: "=4": must be FIELD=VALUE, e.g. workers=4',
        'resources[""]: unknown field; known here: gpus, cpus, memory, gpu_model, gpu_memory',
    ]
    assert told[6].startswith("zzz: unknown field; known here: command, name, launcher,")


@pytest.mark.parametrize("value", ["[" * 100_000, "NaN", "{", "1e999"])
def test_odd_values_are_left_to_the_check(value: str) -> None:
    document = apply_overrides({"command": ["true"]}, [f"workers={value}"])
    with pytest.raises(InvalidSpec, match="workers: "):
        parse_spec(document)
