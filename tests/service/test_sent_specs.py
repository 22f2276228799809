"""Specs as they travel: what is remembered of their members changes neither what is read nor what
is shown."""

from __future__ import annotations

import hashlib

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings

from controlplane.model.spec import InvalidSpec, canonical, canonical_json, parse_spec
from controlplane.service.jobchanges import _read
from controlplane.wire.basics import document, member, members, struct
from controlplane.wire.jobs import SECRET, shown_spec
from tests.model.spec_documents import EVERYTHING, good_documents


def sent(of: dict[str, object]) -> bytes:
    return struct(of).SerializeToString(deterministic=True)


@settings(deadline=None)
@given(good_documents)
def test_what_is_sent_is_read_as_it_is_written(of: dict[str, object]) -> None:
    data = sent(of)
    parts = members(data)
    assert parts is not None
    assert dict(map(member, parts)) == document(Struct.FromString(data))
    spec = parse_spec(of)
    text = canonical_json(spec)
    assert _read(data) == (spec, text, hashlib.sha256(text.encode()).hexdigest())


@settings(deadline=None)
@given(good_documents)
def test_a_spec_is_shown_as_its_canonical_document(of: dict[str, object]) -> None:
    spec = parse_spec(of)
    assert shown_spec(spec) == struct(canonical(spec))


def test_secrets_are_shown_to_nobody() -> None:
    spec = parse_spec(EVERYTHING)
    wanted = canonical(spec)
    wanted["env"] = {"A": "1", "B": SECRET}
    assert shown_spec(spec) == struct(wanted)


def test_a_member_of_any_size_is_found() -> None:
    for size in (0, 1, 100, 127, 128, 129, 16_383, 16_384, 2_100_000):
        data = sent({"comment": "x" * size, "command": ["true"]})
        parts = members(data)
        assert parts is not None
        assert dict(map(member, parts)) == {"comment": "x" * size, "command": ["true"]}


def test_what_is_no_member_is_left_to_who_reads_the_whole() -> None:
    stranger = b"\x12\x01x"  # a field that no Struct has
    assert members(sent({"command": ["true"]}) + stranger) is None
    assert _read(sent({"command": ["true"]}) + stranger)[0] == parse_spec({"command": ["true"]})


def test_faults_are_told_of_the_whole_document_each_time() -> None:
    for _ in range(2):
        with pytest.raises(InvalidSpec) as caught:
            _read(sent({"command": ["true"], "workers": 0, "time": 1}))
        assert [fault.path for fault in caught.value.faults] == ["time", "workers"]
