"""From a job.json as its author wrote it to what a server takes: variables of the environment,
times of the author's clock, and the folder that is meant by `{"ship": "folder"}`."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from controlplane.client.errors import InvalidInput
from controlplane.model.errors import FieldFault
from controlplane.model.moments import format_moment, moment_from, parse_moment
from controlplane.model.spec import InvalidSpec, JobSpec, parse_spec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def with_passed_env(
    document: Mapping[str, object], environ: Mapping[str, str]
) -> dict[str, object]:
    """The document with the variables that `pass_env` names in its `env`; raise `InvalidInput`
    where one is not set. What is no list of names is left for the check to tell."""
    names, env = document.get("pass_env", ()), document.get("env", {})
    plain = dict(document)
    if not isinstance(names, list | tuple) or not isinstance(env, dict):
        return plain
    passed = [name for name in names if isinstance(name, str) and name not in env]
    if unset := [name for name in passed if name not in environ]:
        raise InvalidInput.of(
            *(
                FieldFault(
                    field=f"pass_env[{names.index(name)}]",
                    description=f'"{name}": is not set here; set it, or leave it out',
                )
                for name in unset
            )
        )
    plain["env"] = {**{name: environ[name] for name in passed}, **env}
    return plain


def with_moment(document: Mapping[str, object], now_us: int) -> dict[str, object]:
    """The document with the moment that is meant by a `begin` such as `now+2h` or `18:00`, in the
    author's zone. What is no time is left for the check to tell."""
    begin, plain = document.get("begin"), dict(document)
    if isinstance(begin, str):
        try:
            parse_moment(begin)
        except ValueError:
            with suppress(ValueError):
                plain["begin"] = format_moment(moment_from(begin, now_us))
    return plain


def check_document(document: Mapping[str, object]) -> JobSpec:
    """Check a decoded job.json as the server will; raise `InvalidInput` with every fault."""
    try:
        return parse_spec(document, allow_ship=True)
    except InvalidSpec as error:
        raise invalid_input(error) from None


def invalid_input(error: InvalidSpec) -> InvalidInput:
    """Give the faults of a job.json as the error that the server would have answered."""
    return InvalidInput.of(
        *(
            FieldFault(
                field=fault.path,
                description=": ".join(filter(None, (fault.value_repr, fault.message))),
            )
            for fault in error.faults
        )
    )


def folder_to_ship(base: Path, folder: str) -> Path:
    """Give the folder below `base`; raise `InvalidInput` when there is none or it is elsewhere."""

    def fault(words: str) -> InvalidInput:
        description = f'"{folder}": {words}'
        return InvalidInput.of(FieldFault(field="working_dir.ship", description=description))

    path = base / folder
    root, real = os.path.realpath(base), os.path.realpath(path)
    if real != root and not real.startswith(root.rstrip("/") + "/"):
        raise fault(f"leads out of the folder of job.json, to {real}; ship a folder inside it")
    if not path.exists():
        raise fault(f"there is no such folder in {root}")
    if not path.is_dir():
        raise fault("is no folder; name the folder that the file lies in")
    return path
