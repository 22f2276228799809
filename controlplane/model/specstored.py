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
_decode: Final = json.JSONDecoder().raw_decode


def load_spec(text: str) -> JobSpec:
    """The spec that this is the canonical JSON of."""
    found, _ = _decode(text)
    # What is not there was None, or there was no such field yet.
    values = dict(_DEFAULTS)
    for name, value in found.items():
        attribute, load = _LOADERS[name]
        values[attribute] = load(value) if load is not None else value
    values.pop("", None)
    return JobSpec(**values)


def _loader(field: Field) -> Callable[[Any], Any] | None:
    """What loads the values of a field, where they are not as they are written; the same value is
    read once where that takes long."""
    if field.kind.load is not None:
        return field.kind.load if field.kind.load not in (str, int) else None
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


_DEFAULTS: Final = {one.attribute: one.default_value for one in JOB.fields if one.kept}
_LOADERS: Final = {
    **{one.name: (one.attribute, _loader(one)) for one in JOB.fields if one.kept},
    "version": ("", None),
}
