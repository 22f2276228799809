"""Single fields of a job.json changed from the command line: `--set workers=4`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from controlplane.model.specfaults import Faults, join
from controlplane.model.specfields import JOB

if TYPE_CHECKING:
    from controlplane.model.speckinds import Kind
    from controlplane.model.specshapes import Table


def apply_overrides(document: Mapping[str, object], overrides: Iterable[str]) -> dict[str, object]:
    """Give a copy of a decoded job.json in which each `path=value` is set, in order.

    The path goes down by dots (`resources.memory`, `env.FOO`, `labels.example.com/team`). A value
    is JSON when it parses as such and the field is not always text; else it is taken as text. The
    result is not checked yet: `parse_spec` does that.

    Raises `InvalidSpec` with every path that nobody knows.
    """
    faults = Faults()
    result = dict(document)
    for override in overrides:
        path, equals, value = override.partition("=")
        if not equals or not path:
            faults.add("--set", override, "must be FIELD=VALUE, e.g. workers=4")
        elif found := _locate(path, faults):
            keys, kind = found
            _put(result, keys, value if kind.takes_text else _json_or_text(value))
    faults.raise_if_any()
    return result


def _locate(path: str, faults: Faults) -> tuple[list[str], Kind] | None:
    keys: list[str] = []
    tables: tuple[Table, ...] = (JOB,)
    at, rest = "", path
    while True:
        key, dot, below = rest.partition(".")
        known = {name: field for table in tables for name, field in table.by_name.items()}
        if key not in known:
            faults.unknown(at, key, known)
            return None
        kind = known[key].kind
        keys.append(key)
        if not dot:
            return keys, kind
        if kind.entries is not None:
            return [*keys, below], kind.entries
        at, rest, tables = join(at, key), below, kind.tables
        if not tables:
            faults.note(f"{at}.{below}", f"unknown field; {at} has no fields of its own")
            return None


def _put(document: dict[str, Any], keys: list[str], value: object) -> None:
    for key in keys[:-1]:
        below = document.get(key)
        document[key] = dict(below) if isinstance(below, Mapping) else {}
        document = document[key]
    document[keys[-1]] = value


def _json_or_text(value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
