"""What is read and written field by field is what is read and written as a whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from controlplane.model.spec import canonical, canonical_json, parse_spec
from controlplane.model.specpieces import joined, piece
from controlplane.model.specstored import load_spec
from tests.model.spec_documents import BAD, EVERYTHING, good_documents


@settings(deadline=None)
@given(good_documents)
def test_the_fields_of_a_good_document_make_its_spec(document: dict[str, object]) -> None:
    assert joined(piece(name, value) for name, value in document.items()) == parse_spec(document)


@settings(deadline=None)
@given(good_documents)
def test_canonical_json_says_what_canonical_does(document: dict[str, object]) -> None:
    spec = parse_spec(document)
    whole = json.dumps(
        canonical(spec), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    assert canonical_json(spec) == whole


@settings(deadline=None)
@given(good_documents)
def test_what_was_stored_is_the_spec_that_was_written(document: dict[str, object]) -> None:
    spec = parse_spec(document)
    again = load_spec(canonical_json(spec))
    assert again == spec == parse_spec(json.loads(canonical_json(spec)))
    assert repr(again) == repr(spec), "and of the same types"


def test_a_spec_of_an_earlier_release_has_the_defaults_of_later_fields() -> None:
    whole = canonical(parse_spec({"command": ["true"]}))
    for name in ("device_visibility", "labels", "grace_period", "secret_env"):
        text = json.dumps({key: value for key, value in whole.items() if key != name})
        assert load_spec(text) == parse_spec({"command": ["true"]}), name


def test_a_document_with_every_field_is_read_and_written_field_by_field() -> None:
    spec = joined(piece(name, value) for name, value in EVERYTHING.items())
    assert spec is not None
    assert spec == parse_spec(EVERYTHING) == load_spec(canonical_json(spec))
    assert json.loads(canonical_json(spec)) == canonical(spec)


@pytest.mark.parametrize("fault", [key for key, value in BAD.items() if isinstance(value, dict)])
def test_the_fields_of_a_bad_document_make_none(fault: str) -> None:
    document: dict[str, Any] = BAD[fault]
    assert joined(piece(name, value) for name, value in document.items()) is None
