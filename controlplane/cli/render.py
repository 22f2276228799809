"""Answers for programs: JSON and YAML with the field names of `controlplane.v1`.

The names are those of the protos, which `buf breaking` keeps; `docs/cli.md` tells them. Unlike
protobuf's own JSON: no field is left out, moments are RFC 3339 in UTC, durations are seconds, enums
are lower-case words, 64-bit numbers are numbers, and what is not set is null.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.cli import usagewords

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
    from google.protobuf.message import Message


def plain(message: Message) -> dict[str, Any]:
    """Give a message as a dictionary that JSON and YAML can write."""
    fields = cast("Iterable[FieldDescriptor]", message.DESCRIPTOR.fields)
    return {field.name: _field(message, field) for field in fields}


def write(document: object, output: str) -> str:
    """Write a document as `json` or `yaml`, in ASCII or with what can't be printed escaped."""
    if output == "json":
        return json.dumps(document, indent=2)
    import yaml

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100).rstrip("\n")


def enum_word(enum: EnumDescriptor, number: int) -> str:
    """Give the word for a value: JOB_STATE_PENDING is `pending`; an unknown one is `state_9`."""
    value = enum.values_by_number.get(number)
    if value is None:
        return f"state_{number}"
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
    return value.name.removeprefix(prefix).lower()


def struct(value: Struct) -> dict[str, Any]:
    """Give a Struct as a dictionary; whole numbers, which travel as doubles, are integers again."""
    return {key: _json(value.fields[key]) for key in sorted(value.fields)}


def _field(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return {key: value[key] for key in sorted(value)}
    if field.is_repeated:
        return [_one(item, field) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _one(value, field)


def _one(value: Any, field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return enum_word(field.enum_type, value)
    if field.message_type is None:
        return value
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Duration):
        return usagewords.seconds(value)
    if isinstance(value, Struct):
        return struct(value)
    return plain(value)


def _json(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    found = getattr(value, kind)
    if isinstance(found, Struct):
        return struct(found)
    if isinstance(found, ListValue):
        return [_json(item) for item in found.values]
    return int(found) if isinstance(found, float) and found.is_integer() else found
