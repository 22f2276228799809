"""Odd requests of any message type: strategies for Hypothesis, from the descriptors of protobuf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

F = FieldDescriptor
DEPTH = 4
"""Messages within messages."""
WORDS = (
    "",
    "jobs/1",
    "jobs/2/tasks/0/attempts/1",
    "jobs/0",
    "jobs/999999999999999999",
    "jobs/²",
    "jobs/-1",
    "nodes/a",
    "nodes/",
    "principals",
    "1",
    "²",
    "9" * 30,
    "9" * 5000,
    "0" * 64,
    "../../../etc/passwd",
    "a\0b",
    "*" * 300,
    "%_\\",
    "ñ日本\u202e\x1b[31m",
    "x" * 20_000,
    "00000000-0000-4000-8000-00000000000a",
    "boot",
    "other",
)
INTEGERS = (0, 1, -1, 2, 1000, 2**31 - 1, -(2**31))
LONGS = (*INTEGERS, 2**53, 2**62, 2**63 - 1, -(2**63), 253_402_300_800)
DOUBLES = (0.0, -0.0, 0.5, 1e308, -1e308, float("inf"), float("nan"), 2.0**63)


def field_values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    """One value of a field."""
    kind = field.type
    if kind == F.TYPE_MESSAGE:
        assert field.message_type is not None
        return messages(field.message_type, depth - 1)
    if kind == F.TYPE_STRING:
        return st.one_of(st.sampled_from(WORDS), st.text(max_size=40))
    if kind == F.TYPE_BYTES:
        return st.binary(max_size=200)
    if kind == F.TYPE_BOOL:
        return st.booleans()
    if kind == F.TYPE_ENUM:
        return st.integers(-2, 12)
    if kind == F.TYPE_DOUBLE:
        return st.sampled_from(DOUBLES)
    if kind == F.TYPE_INT32:
        return st.sampled_from(INTEGERS)
    assert kind == F.TYPE_INT64, field.full_name
    return st.sampled_from(LONGS)


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = DEPTH) -> Message:
    """A message with some of its fields set, to values that are seldom sent."""
    made = message_factory.GetMessageClass(descriptor)()
    if depth <= 0:
        return made
    for field in descriptor.fields:
        if not draw(st.booleans()):
            continue
        if field.is_repeated and field.message_type and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields
            keys = draw(st.lists(field_values(key, depth), max_size=2))
            for each in keys:
                given = draw(field_values(value, depth))
                if value.type == F.TYPE_MESSAGE:
                    getattr(made, field.name)[each].CopyFrom(given)
                else:
                    getattr(made, field.name)[each] = given
        elif field.is_repeated:
            getattr(made, field.name).extend(draw(st.lists(field_values(field, depth), max_size=3)))
        elif field.type == F.TYPE_MESSAGE:
            getattr(made, field.name).CopyFrom(draw(field_values(field, depth)))
        else:
            setattr(made, field.name, draw(field_values(field, depth)))
    return made


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def bad_text(descriptor: Descriptor) -> list[bytes]:
    """Messages with a string that is no UTF-8, one for each field of that kind."""
    return [
        varint(field.number << 3 | 2) + b"\x04a\xff\xfe\xc3"
        for field in descriptor.fields
        if field.type == F.TYPE_STRING
    ]


def deep_struct(levels: int, *, lists: bool) -> bytes:
    """A serialised SubmitJobRequest whose spec is nested so deeply."""
    value = b"\x11" + b"\0" * 8
    for _ in range(levels):
        if lists:
            inner = b"\x0a" + varint(len(value)) + value
            value = b"\x32" + varint(len(inner)) + inner
        else:
            entry = b"\x0a\x01a\x12" + varint(len(value)) + value
            inner = b"\x0a" + varint(len(entry)) + entry
            value = b"\x2a" + varint(len(inner)) + inner
    entry = b"\x0a\x03env\x12" + varint(len(value)) + value
    struct = b"\x0a" + varint(len(entry)) + entry
    return b"\x0a" + varint(len(struct)) + struct


def rubbish(rng: Any, count: int) -> Sequence[bytes]:
    """Bytes at random, of all lengths up to some hundred, and some that begin like messages."""
    found = []
    for _ in range(count):
        data = rng.randbytes(rng.choice((0, 1, 2, 3, 7, 20, 100, 400)))
        if rng.random() < 0.5:
            data = bytes([rng.choice((0x08, 0x0A, 0x10, 0x12, 0x1A, 0x22))]) + data
        found.append(data)
    return found
