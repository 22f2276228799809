from __future__ import annotations

import json
import os
import re
from pathlib import Path

from hypothesis import given
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from controlplane.model.spec import InvalidSpec, json_schema, parse_spec, reference_markdown
from controlplane.model.specfields import JOB
from controlplane.model.specshapes import REQUIRED, Table
from controlplane.model.specvalues import Launcher
from tests.model.spec_documents import BAD, EVERYTHING, GOOD, good_documents

PAGE = Path(__file__).parents[2] / "docs" / "job.md"
MARK = "\n<!-- made by UPDATE_GOLDEN=1 pytest tests/model/test_spec_docs.py as far as here -->\n"
SCHEMA = Draft202012Validator(json_schema())


def tables(table: Table) -> list[Table]:
    return [table, *(t for f in table.fields for inner in f.kind.tables for t in tables(inner))]


def test_the_page_is_fresh() -> None:
    made, mark, by_hand = PAGE.read_text(encoding="utf-8").partition(MARK)
    if os.environ.get("UPDATE_GOLDEN"):
        made = reference_markdown()
        PAGE.write_text(made + MARK + by_hand, encoding="utf-8")
    assert mark
    assert made == reference_markdown()


def test_every_job_json_on_the_page_is_one() -> None:
    blocks = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S)
    assert len(blocks) >= 5
    for block in blocks:
        document = json.loads(block)
        parse_spec(document, allow_ship=True)
        SCHEMA.validate(document)


def test_every_launcher_has_its_section() -> None:
    told = re.findall(r"^### `(\w+)`$", PAGE.read_text(), flags=re.M)
    assert sorted(told) == sorted(Launcher)


def test_every_field_has_a_row_on_the_page_and_a_place_in_the_schema() -> None:
    page = reference_markdown()
    assert len(tables(JOB)) == 4
    for table in tables(JOB):
        for field in table.fields:
            assert f"| `{field.name}` |" in page
            assert field.meaning in page
            assert table.schema()["additionalProperties"] is False


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


def test_every_example_is_good_for_validator_and_schema() -> None:
    for field in JOB.fields:
        document = {**GOOD, "workers": 8, "time_limit": "2h", field.name: field.example}
        if field.name == "secret_env":
            document["env"] = {"WANDB_API_KEY": "x"}
        parse_spec(document, allow_ship=True)
        SCHEMA.validate(document)
        if field.default is not None and field.default is not REQUIRED:
            SCHEMA.validate({**GOOD, field.name: field.default})
    parse_spec(EVERYTHING)
    SCHEMA.validate(EVERYTHING)


@given(good_documents)
def test_the_schema_takes_what_the_validator_takes(document: dict[str, object]) -> None:
    parse_spec(document)
    SCHEMA.validate(document)


def test_the_schema_refuses_nearly_all_that_the_validator_refuses() -> None:
    # What a schema cannot say, or editors should not be troubled with.
    beyond = {
        "a model of no GPU",
        "a selector of nothing",
        "a selector with faults",
        "begin without a zone",
        "begin in words",
        "begin on a day that is not",
        "begin after the last year",
        "memory of no GPU",
        "pairs without tasks",
        "a pair of one task",
        "two pairs",
        "a task that cannot be",
        "command too long",
        "one argument too long",
        "one env value too long",
        "command with NUL",
        "command with a lone surrogate",
        "command without a program",
        "a setup line of 1 MB",
        "env of 10,000 entries, too big",
        "env too big",
        "setup with NUL",
        "env value with NUL is not repeated",
        "more on a node than there are",
        "output of an array in one file",
        "tasks of which none may run",
        "tasks in two ranges",
        "tasks that go down",
        "too many tasks",
        "output absolute without a folder of the nodes",
        "output of several workers in one file",
        "signal after less than a second",
        "signal before the start",
        "signal before the start, its time not written",
        "signal that mpirun keeps",
        "signal without a time limit",
        "time limit of nothing",
        "time limit too long",
        "too many decimals",
        "too much memory",
        "grace period too long",
        "workers do not fill nodes",
        "working_dir climbs",
        "working_dir ships from the root",
        "working_dir ships what is above",
        "secrets that are none",
        "variables taken from nowhere",
        "working_dir to ship, at the server",
        "working_dir with NUL",
    }
    # No JSON says NaN, and the library cannot write so huge a number in its message.
    odd = ("a huge number", "cpus is NaN")
    documents = {title: document for title, document in BAD.items() if title not in odd}
    assert beyond == {title for title, document in documents.items() if SCHEMA.is_valid(document)}


def test_bad_documents_are_refused_with_shipping_allowed_too() -> None:
    for title, document in BAD.items():
        if title not in ("working_dir to ship, at the server", "variables taken from nowhere"):
            try:
                parse_spec(document, allow_ship=True)
            except InvalidSpec:
                continue
            raise AssertionError(title)
