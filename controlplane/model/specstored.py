"""Specs back from their canonical JSON, as they were stored. It was written from a spec that was
checked, so nothing is checked again."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from controlplane.model.specfaults import Faults
from controlplane.model.specfields import JOB
from controlplane.model.specvalues import JobSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.model.specshapes import Field

LOADED_REMEMBERED: Final = 1024
"""So many values of a field are remembered that are not read at once; jobs share them."""
_NONE: Final = object()


def load_spec(text: str) -> JobSpec:
    """The spec that this is the canonical JSON of."""
    found = json.loads(text)
    values = {}
    for name, attribute, load, default in _LOADERS:
        value = found.get(name, _NONE)
        # What is not there was None, or there was no such field yet.
        values[attribute] = default if value is _NONE else load(value)
    return JobSpec(**values)


def _loader(field: Field) -> Callable[[Any], Any]:
    """What loads the values of a field; the same value is read once where that takes long."""
    if field.kind.load is not None:
        return field.kind.load
    read, path = field.kind.read, field.name

    @lru_cache(LOADED_REMEMBERED)
    def known(value: Any) -> Any:
        return read(value, path, Faults())

    @lru_cache(LOADED_REMEMBERED)
    def known_object(members: tuple[tuple[str, Any], ...]) -> Any:
        return read(dict(members), path, Faults())

    def load(value: Any) -> Any:
        if type(value) is dict:
            return known_object(tuple(value.items()))
        return known(tuple(value) if type(value) is list else value)

    return load


_LOADERS: Final = tuple(
    (one.name, one.attribute, _loader(one), one.default_value) for one in JOB.fields if one.kept
)
