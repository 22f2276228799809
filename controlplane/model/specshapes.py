"""Lists, maps and objects of a job.json, and the declarative table that an object's fields make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from controlplane.model.specfaults import Faults, join, shown
from controlplane.model.speckinds import ARGUMENTS_LIMIT, Kind, read_text, unusable

_TEXT_LIST: Final = '["*.pt", "data/"]'
LONGEST_ARGUMENT: Final = 131_071
"""Bytes in one argument, or one NAME=value: Linux runs nothing with more (MAX_ARG_STRLEN)."""
REQUIRED: Final = ...
"""In place of a default: the field must be there."""

Rule = Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]]
"""Looks at an object's good values by attribute; yields (field name, message) for each fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field: a row of the table that validator, schema and reference are made from."""

    name: str
    """As in job.json."""
    kind: Kind
    """What it may hold."""
    default: object = None
    """In JSON; None leaves the field out, `REQUIRED` makes it one that must be given."""
    default_words: str = ""
    """Words for a default that is worked out."""
    meaning: str
    """One or two sentences, in Markdown."""
    example: object
    """A good value, in JSON."""
    attribute: str = ""
    """Name of the value's attribute, with its unit; empty when it is the same as `name`."""
    kept: bool = True
    """Whether the value goes into the spec; else it is only checked."""
    later: bool = False
    """Whether specs were kept before there was this field: its default is left out of the canonical
    form, so that their hashes stay."""
    default_value: Any = field(init=False, repr=False)
    """The default, parsed once."""

    def __post_init__(self) -> None:
        """Parse the default; a bad one is a mistake in the table, and raises `InvalidSpec`."""
        object.__setattr__(self, "attribute", self.attribute or self.name)
        parsed = None
        if self.default is not None and self.default is not REQUIRED:
            faults = Faults()
            parsed = self.kind.read(self.default, self.name, faults)
            faults.raise_if_any()
        object.__setattr__(self, "default_value", parsed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An object with known fields."""

    title: str
    """What the object is, for the reference."""
    fields: tuple[Field, ...]
    """Its fields, in the order in which the reference shows them."""
    rules: tuple[Rule, ...] = ()
    """What must hold between fields."""
    reserved: Mapping[str, str] = field(default_factory=dict)
    """Names that are kept for later, each with what is said to who uses it."""
    by_name: Mapping[str, Field] = field(init=False, repr=False)
    """The fields by their names."""

    def __post_init__(self) -> None:
        """Index the fields."""
        object.__setattr__(self, "by_name", {one.name: one for one in self.fields})

    def read(self, value: object, path: str, faults: Faults) -> dict[str, Any] | None:
        """Give the good values by attribute, defaults included; None if `value` is no object."""
        if not isinstance(value, Mapping):
            faults.add(path, value, 'must be an object: {"field": value, …}')
            return None
        for key in value:
            if key in self.reserved:
                faults.add(join(path, key), value[key], self.reserved[key])
            elif key not in self.by_name:
                faults.unknown(path, key, self.by_name)
        prefix = f"{path}." if path else ""
        found: dict[str, Any] = {}
        for one in self.fields:
            if one.name in value:
                parsed = one.kind.read(value[one.name], prefix + one.name, faults)
                if parsed is not None and one.kept:
                    found[one.attribute] = parsed
            elif one.default is REQUIRED:
                faults.note(prefix + one.name, f"is required; write e.g. {shown(one.example)}")
            elif one.kept:
                found[one.attribute] = one.default_value
        for rule in self.rules:
            for name, message in rule(found):
                faults.add(prefix + name, value[name], message)
        return found

    def write(self, made: object) -> dict[str, object]:
        """Give the canonical JSON form of the value that was made from this table."""
        pairs = ((one, getattr(made, one.attribute)) for one in self.fields if one.kept)
        return {
            one.name: one.kind.write(value)
            for one, value in pairs
            if value is not None and not (one.later and value == one.default_value)
        }

    def schema(self) -> dict[str, object]:
        """Give the JSON Schema of the object."""
        properties = {}
        for one in self.fields:
            described: dict[str, object] = {**one.kind.schema, "description": one.meaning}
            if one.default is not None and one.default is not REQUIRED:
                described["default"] = one.default
            properties[one.name] = {**described, "examples": [one.example]}
        schema: dict[str, object] = {"type": "object", "properties": properties}
        if required := [one.name for one in self.fields if one.default is REQUIRED]:
            schema["required"] = required
        return {**schema, "additionalProperties": False}


def nested(table: Table, make: Callable[..., object]) -> Kind:
    """An object with known fields, made into a value by `make` from its attributes."""

    def read(value: object, path: str, faults: Faults) -> object | None:
        before = faults.count
        found = table.read(value, path, faults)
        return make(**found) if found is not None and faults.count == before else None

    return Kind(
        words="object, see below",
        schema=table.schema(),
        read=read,
        write=table.write,
        tables=(table,),
    )


def _plain(items: list[Any] | tuple[Any, ...]) -> bool:
    """Whether these are short strings of ASCII, as nearly all are: then nothing is wrong with one
    of them, nor with all of them together."""
    try:
        text = "\0".join(items)
    except TypeError:
        return False
    return text.isascii() and len(text) < LONGEST_ARGUMENT and text.count("\0") == len(items) - 1


def text_list(*, maximum: int, size: int | None = None, example: str = "") -> Kind:
    """A list of so many non-empty strings at most, and of so many bytes in all."""
    wanted = f"must be a list of strings, e.g. {example or _TEXT_LIST}"

    def read(value: object, path: str, faults: Faults) -> tuple[str, ...] | None:
        if not isinstance(value, list | tuple):
            faults.add(path, value, wanted)
            return None
        if len(value) > maximum:
            faults.add(path, value, f"must have at most {maximum} items, not {len(value)}")
            return None
        if value and _plain(value) and "" not in value and size is None:
            return tuple(value)
        before = faults.count
        items = []
        for index, item in enumerate(value):
            found = read_text(item, f"{path}[{index}]", faults)
            if found == "":
                faults.add(f"{path}[{index}]", item, "must not be empty")
            items.append(found or "")
        used = sum(len(item.encode()) for item in items)
        if faults.count == before and size is not None and used > size:
            faults.add(path, value, f"must have at most {size} bytes in all, not {used}")
        return tuple(items) if faults.count == before else None

    schema = {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": maximum}
    words = f"list of at most {maximum} strings"
    if size is not None:
        words += f", {size >> 10} KiB in all"
    return Kind(words=words, schema=schema, read=read, write=list, load=tuple)


def argv() -> Kind:
    """A program and its arguments, as a list of strings."""
    wanted = 'must be a list of strings, e.g. ["python", "train.py"]; no shell reads it'

    def read(value: object, path: str, faults: Faults) -> tuple[str, ...] | None:
        if not isinstance(value, list | tuple):
            faults.add(path, value, wanted)
            return None
        if not value or value[0] == "":
            faults.add(path, value, 'must name a program, e.g. ["python", "train.py"]')
            return None
        if _plain(value):
            return tuple(value)
        before = faults.count
        items = [read_text(item, f"{path}[{index}]", faults) for index, item in enumerate(value)]
        for index, item in enumerate(items):
            if item is not None and (size := len(item.encode())) > LONGEST_ARGUMENT:
                words = (
                    f"must have at most {LONGEST_ARGUMENT} bytes, not {size}: put it into a file"
                )
                faults.add(f"{path}[{index}]", value[index], words)
        if faults.count > before:
            return None
        found = tuple(item for item in items if item is not None)
        if (size := sum(len(item.encode()) + 1 for item in found)) > ARGUMENTS_LIMIT:
            faults.add(path, value, f"must have at most {ARGUMENTS_LIMIT} bytes in all, not {size}")
            return None
        return found

    schema = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    words = "list of strings, at most 1 MiB"
    return Kind(words=words, schema=schema, read=read, write=list, load=tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the keys of a map may be."""

    pattern: str
    """As a regular expression for JSON Schema."""
    complaint: Callable[[str], str | None]
    """Says what is wrong with a key, or None."""


def text_map(
    *,
    names: Names,
    values: Kind,
    words: str,
    entries: int | None = None,
    size: int | None = None,
    hidden: bool = False,
) -> Kind:
    """A map of free keys to strings, as pairs sorted by key once parsed.

    At most `entries` pairs, and `size` bytes in all. `hidden`: no fault repeats what is in it.
    """

    def read(value: object, path: str, faults: Faults) -> tuple[tuple[str, str], ...] | None:
        if not isinstance(value, Mapping):
            faults.add(path, ... if hidden else value, 'must be an object: {"name": "text", …}')
            return None
        if entries is not None and len(value) > entries:
            faults.add(path, value, f"must have at most {entries} entries, not {len(value)}")
            return None
        before = faults.count
        pairs = []
        for key, item in value.items():
            at = join(path, key)
            complaint = (
                names.complaint(key) if isinstance(key, str) else "its name must be a string"
            )
            if complaint:
                faults.note(at, complaint)
            text = values.read(item, at, faults)
            if size is not None and text and len(key) + 1 + len(text.encode()) > LONGEST_ARGUMENT:
                faults.note(at, f"must have at most {LONGEST_ARGUMENT} bytes with its name")
            pairs.append((key, text))
        if faults.count > before:
            return None
        used = sum(len(key) + len(item.encode()) + 2 for key, item in pairs)
        if size is not None and used > size:
            faults.add(path, ..., f"must have at most {size} bytes in all, not {used}")
            return None
        return tuple(sorted(pairs))

    schema: dict[str, object] = {
        "type": "object",
        "propertyNames": {"pattern": names.pattern},
        "additionalProperties": values.schema,
    }
    if entries is not None:
        schema["maxProperties"] = entries
    return Kind(words=words, schema=schema, read=read, write=dict, load=_pairs, entries=values)


def _pairs(found: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(found.items()))


def secret_text() -> Kind:
    """Text of any length that no fault repeats."""

    def read(value: object, path: str, faults: Faults) -> str | None:
        if not isinstance(value, str):
            faults.add_hidden(path, value, "must be a string, in quotation marks")
        elif complaint := unusable(value):
            faults.add_hidden(path, value, complaint)
        else:
            return value
        return None

    return Kind(words="string", schema={"type": "string"}, read=read, takes_text=True)
