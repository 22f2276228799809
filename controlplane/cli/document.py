"""From a file to a decoded job.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from controlplane.cli.failures import Failure
from controlplane.model.spec import InvalidSpec, apply_overrides

if TYPE_CHECKING:
    from collections.abc import Iterable

SIZE_LIMIT_BYTES: Final = 4 * 2**20
"""A job.json may have so many bytes."""


def read_documents(file: str, overrides: Iterable[str]) -> list[dict[str, object]]:
    """Read a file, or stdin for `-`, that holds a job or a list of them, and set in each what
    `FIELD=VALUE` overrides; raise `Failure`."""
    try:
        with open(file, "rb") if file != "-" else sys.stdin.buffer as opened:
            content = opened.read(SIZE_LIMIT_BYTES + 1)
    except OSError as error:
        raise Failure(f"{file} can't be read: {error.strerror}.") from None
    if len(content) > SIZE_LIMIT_BYTES:
        raise Failure(f"{file} is no job.json: it has more than {SIZE_LIMIT_BYTES // 2**20} MiB.")
    found = _decode(shown_name(file), content)
    documents: list[dict[str, object]] = []
    for document in found if isinstance(found, list) else [found]:
        if not isinstance(document, dict):
            words = '{"command": ["hostname"], …}, or a list of such'
            raise Failure(f"{shown_name(file)} must hold an object: {words}.")
        documents.append(document)
    if not documents:
        raise Failure(f"{shown_name(file)} is an empty list of jobs.")
    overrides = list(overrides)
    try:
        return [apply_overrides(document, overrides) for document in documents]
    except InvalidSpec as error:
        lines = "\n".join(f"  {fault}" for fault in error.faults)
        raise Failure(f"--set can't be applied:\n{lines}") from None


def shown_name(file: str) -> str:
    """What a file is called in messages."""
    return "What came on stdin" if file == "-" else Path(file).name


def _decode(name: str, content: bytes) -> object:
    try:
        return json.loads(
            content.decode("utf-8-sig"),
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError as error:
        raise Failure(f"{name} is no JSON: byte {error.start + 1} is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise Failure(
            f"{name} is no JSON: line {error.lineno}, column {error.colno}: {error.msg}."
        ) from None
    except RecursionError:
        raise Failure(f"{name} is no job.json: it is nested too deeply.") from None
    except ValueError as error:
        raise Failure(f"{name} is no JSON: {error}.") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the field {key!r} is there twice in one object")
        result[key] = value
    return result


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number in JSON")
