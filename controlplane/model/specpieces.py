"""Specs field by field: what one value came to is remembered, for jobs that are submitted one after
the other are alike in most of their fields, and hardly ever in all.

What is wrong is not told here: whoever finds no spec has `parse_spec` say why.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from json.encoder import JSONEncoder
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from controlplane.model.specfaults import Faults
from controlplane.model.specfields import JOB
from controlplane.model.specshapes import REQUIRED
from controlplane.model.specvalues import JobSpec, Launcher, Ship

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION: Final = 1
"""Version of the format that `canonical_text` writes."""
OWN: Final = frozenset(("command", "comment", "env", "error", "labels", "name", "output")) | {
    "begin",
    "depends_on",
    "requeue_exit_codes",
    "secret_env",
    "setup",
    "working_dir",
}
"""Fields that tell one job of a sweep from the next, or may be long."""
PIECES_REMEMBERED: Final = 4096
"""Values of fields that are remembered, each of some kilobytes at most."""

SHARED_REMEMBERED: Final = 256
"""Of so many sets of the values that jobs share it is remembered how they are written."""

_encode = JSONEncoder(
    sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
).encode
_DEFAULTS: Final = {
    one.attribute: one.default_value
    for one in JOB.fields
    if one.kept and one.default is not REQUIRED
}
_NEEDED: Final = tuple(one.attribute for one in JOB.fields if one.default is REQUIRED)
_KEPT: Final = tuple(one for one in JOB.fields if one.kept)
_OWN: Final = tuple(one for one in _KEPT if one.name in OWN)
_SHARED: Final = tuple(one for one in _KEPT if one.name not in OWN)
_own_values: Final = attrgetter(*(one.attribute for one in _OWN))
_shared_values: Final = attrgetter(*(one.attribute for one in _SHARED))


@dataclass(frozen=True, slots=True)
class Piece:
    """A field's value, checked by itself."""

    attribute: str
    """Where it goes in the spec; empty for a field that is only checked."""
    value: Any
    """It, parsed."""


def piece(name: str, value: object) -> Piece | None:
    """The good value of a field; None where a server has something to say against it."""
    field = JOB.by_name.get(name)
    if field is None:
        return None
    faults = Faults()
    parsed = field.kind.read(value, name, faults)
    if (
        parsed is None
        or faults.count
        or isinstance(parsed, Ship)
        or (parsed and name == "pass_env")
    ):
        return None
    return Piece(field.attribute if field.kept else "", parsed)


def joined(pieces: Iterable[Piece | None]) -> JobSpec | None:
    """The spec of these fields and the defaults of all others; None where it would be none."""
    found = dict(_DEFAULTS)
    for each in pieces:
        if each is None:
            return None
        if each.attribute:
            found[each.attribute] = each.value
    if any(attribute not in found for attribute in _NEEDED):
        return None
    for rule in JOB.rules:
        for _ in rule(found):
            return None
    return made(found)


def made(found: dict[str, Any]) -> JobSpec:
    """The spec of these values, by attribute, all of them good."""
    if found["name"] is None:
        found["name"] = _default_name(found["command"], found["launcher"])
    return JobSpec(**found)


def _default_name(command: tuple[str, ...], launcher: Launcher) -> str:
    name = command[0].rstrip("/").rpartition("/")[2]
    fits = 1 <= len(name) <= 200 and JOB.by_name["name"].kind.read(name, "", Faults()) is not None
    return name if fits else str(launcher)


def parted(spec: JobSpec) -> tuple[list[tuple[str, object]], tuple[object, ...]]:
    """What a spec has of its own: names and canonical JSON forms. And the rest, by its values,
    which is the same in many jobs: `shared_fields` writes it."""
    own: list[tuple[str, object]] = []
    rest = list(_shared_values(spec))
    for one, value in zip(_OWN, _own_values(spec), strict=True):
        if value:
            own.append((one.name, one.kind.write(value)))
            rest.append(...)
        else:
            rest.append(value)
    return own, tuple(rest)


def shared_fields(rest: tuple[object, ...]) -> list[tuple[str, object]]:
    """Names and canonical JSON forms of the fields that are no job's own, and the version."""
    written = [
        (one.name, one.kind.write(value))
        for one, value in zip((*_SHARED, *_OWN), rest, strict=True)
        if value is not None and value is not ... and not (one.later and value == one.default_value)
    ]
    return [*written, ("version", VERSION)]


def canonical_text(spec: JobSpec) -> str:
    """The canonical document as compact JSON with sorted keys."""
    own, rest = parted(spec)
    texts = [f'"{name}":{_encode(value)}' for name, value in own]
    texts += _shared_texts(rest)
    texts.sort()  # as their names: what follows a name comes before all that a name may have
    return "{" + ",".join(texts) + "}"


@lru_cache(SHARED_REMEMBERED)
def _shared_texts(rest: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(f'"{name}":{_encode(value)}' for name, value in shared_fields(rest))
