"""Frozen values as documents of plain JSON, and back: by their fields and annotations.

Fields that have their default are left out, so that a later release reads what an earlier one
wrote.
"""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class BadDocument(ValueError):
    """A document that no value of the wanted kind makes, with the path of what is wrong."""


def to_document(value: Any) -> Any:
    """A value as what `json` writes."""
    if value is None or isinstance(value, str | int | bool):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, tuple | list):
        return [to_document(each) for each in value]
    if isinstance(value, frozenset):
        return sorted(to_document(each) for each in value)
    found = {}
    kind: Any = type(value)
    for name, default in _fields(kind):
        held = getattr(value, name)
        if default is dataclasses.MISSING or held != default:
            found[name] = to_document(held)
    return found


def from_document(kind: type[T], document: Any, path: str = "") -> T:
    """The value that a document tells of. BadDocument, with the path, where it tells of none."""
    wanted: Any = kind
    made: T = _reader(wanted)(document, path)
    return made


@cache
def _fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"{kind.__name__} is no value that can be written down")
    return tuple(
        (
            each.name,
            each.default if each.default_factory is dataclasses.MISSING else each.default_factory(),
        )
        for each in dataclasses.fields(kind)
    )


Reader = Callable[[Any, str], Any]


@cache
def _reader(kind: Any) -> Reader:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in arguments if each is not types.NoneType)
        some = _reader(inner)
        return lambda document, path: None if document is None else some(document, path)
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        return _many(_reader(arguments[0]), tuple)
    if origin is tuple:
        return _row(tuple(map(_reader, arguments)))
    if origin is frozenset:
        return _many(_reader(arguments[0]), frozenset)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _choice(kind)
    if kind in (str, int, bool):
        return _plain(kind)
    return _record(kind)


def _plain(kind: type) -> Reader:
    def read(document: Any, path: str) -> Any:
        if type(document) is not kind:
            raise BadDocument(f"{path or 'the document'}: must be of type {kind.__name__}")
        return document

    return read


def _choice(kind: type[enum.Enum]) -> Reader:
    def read(document: Any, path: str) -> Any:
        try:
            return kind(document)
        except ValueError:
            known = ", ".join(str(each.value) for each in kind)
            raise BadDocument(f"{path}: {document!r}: must be one of {known}") from None

    return read


def _many(each: Reader, made: Callable[[Any], Any]) -> Reader:
    def read(document: Any, path: str) -> Any:
        if not isinstance(document, list):
            raise BadDocument(f"{path or 'the document'}: must be a list")
        return made([each(one, f"{path}[{i}]") for i, one in enumerate(document)])

    return read


def _row(each: tuple[Reader, ...]) -> Reader:
    def read(document: Any, path: str) -> Any:
        if not isinstance(document, list) or len(document) != len(each):
            raise BadDocument(f"{path or 'the document'}: must be a list of {len(each)}")
        pairs = zip(each, document, strict=True)
        return tuple(one(value, f"{path}[{i}]") for i, (one, value) in enumerate(pairs))

    return read


def _record(kind: Any) -> Reader:
    known = _fields(kind)
    namespace = _names()
    hints = get_type_hints(kind, localns=namespace)
    readers = {name: _reader(hints[name]) for name, _ in known}
    needed = {name for name, default in known if default is dataclasses.MISSING}

    def read(document: Any, path: str) -> Any:
        if type(document) is kind:
            return document
        where = path or "the document"
        if not isinstance(document, dict):
            raise BadDocument(f"{where}: must be an object")
        dot = f"{path}." if path else ""
        for name in document.keys() - readers.keys():
            raise BadDocument(f"{dot}{name}: is not known; known are {', '.join(sorted(readers))}")
        for name in sorted(needed - document.keys()):
            raise BadDocument(f"{dot}{name}: is missing")
        try:
            return kind(**{n: readers[n](v, f"{dot}{n}") for n, v in document.items()})
        except BadDocument:
            raise
        except ValueError as error:
            raise BadDocument(f"{where}: {error}") from None

    return read


@cache
def _names() -> dict[str, Any]:
    """What annotations may name that their modules import for type checkers alone."""
    from controlplane.model import node, spec, view

    return {**vars(view), **vars(node), "Resources": spec.Resources}
