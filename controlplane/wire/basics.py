"""Times, durations, enums and documents on the wire."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

E = TypeVar("E", bound=StrEnum)
MICRO = 1_000_000
FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799
"""Seconds since 1970 at which the years 1 and 9999 begin and end: what a Timestamp may hold."""


def timestamp(us: int | None) -> Timestamp | None:
    """UTC in microseconds as a Timestamp; None stays None."""
    if us is None:
        return None
    return Timestamp(seconds=us // MICRO, nanos=us % MICRO * 1000)


def from_timestamp(message: Any, field: str) -> int | None:
    """The Timestamp in a field of a message, in microseconds; None when it is not set.

    ValueError beyond the years 1 to 9999.
    """
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    if not FIRST_S <= value.seconds <= LAST_S or not 0 <= value.nanos < 1_000_000_000:
        words = f"{value.seconds} s and {value.nanos} ns since 1970"
        raise ValueError(f"{words} is no moment of the years 1 to 9999")
    return value.seconds * MICRO + value.nanos // 1000


def duration(us: int) -> Duration:
    """Microseconds as a Duration."""
    return Duration(seconds=us // MICRO, nanos=us % MICRO * 1000)


def from_duration(value: Duration) -> int:
    """A Duration in microseconds."""
    return value.seconds * MICRO + value.nanos // 1000


class EnumWire:
    """One enum of the model beside its enum on the wire, whose members carry a prefix."""

    def __init__(self, kind: type[StrEnum], wire: Any, prefix: str, zero: str = "") -> None:
        """`zero`: the member that travels as UNSPECIFIED, where there is one."""
        self._out: dict[StrEnum, Any] = {}
        self._in: dict[int, StrEnum] = {}
        for member in kind:
            name = "UNSPECIFIED" if member.name == zero else member.name
            number = wire.Value(f"{prefix}_{name}")
            self._out[member] = number
            self._in[number] = member

    def out(self, member: StrEnum) -> Any:
        """The number that travels."""
        return self._out[member]

    def into(self, number: int) -> Any:
        """The member of a number. ValueError for one that this release does not know."""
        try:
            return self._in[number]
        except KeyError:
            raise ValueError(f"unknown enum value {number}") from None


def struct(document: Mapping[str, Any]) -> Struct:
    """A JSON document as a Struct."""
    message = Struct()
    message.update(document)
    return message


def members(data: bytes) -> list[bytes] | None:
    """The members of a Struct that was serialized, each by itself: `member` reads one. None where
    it has something that is no member."""
    found, at, end = [], 0, len(data)
    while at < end:
        if data[at] != _MEMBER:
            return None
        size, shift, at = data[at + 1] & 0x7F, 7, at + 1
        while data[at] & 0x80:
            at += 1
            size |= (data[at] & 0x7F) << shift
            shift += 7
        at += 1
        found.append(data[at : at + size])
        at += size
    return found


_MEMBER = Struct.FIELDS_FIELD_NUMBER << 3 | 2
"""Stands before each member, whose size follows in groups of seven bits."""


def member(data: bytes) -> tuple[str, object]:
    """One of the `members`: its name, and its value as `document` gives it."""
    entry = Struct.FieldsEntry.FromString(data)
    return entry.key, _plain(entry.value)


def document(message: Struct) -> dict[str, object]:
    """A Struct as a JSON document. Its numbers are doubles; whole ones come back as integers."""
    return {name: _plain(value) for name, value in message.fields.items()}


def _plain(value: Value) -> object:
    kind = value.WhichOneof("kind")
    if kind == "string_value":  # most of them
        return value.string_value
    if kind == "struct_value":
        return document(value.struct_value)
    if kind == "list_value":
        return [_plain(each) for each in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    return value.bool_value if kind == "bool_value" else None
