"""What its table says of job.json: a JSON Schema for editors, and a page for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from controlplane.model.specfields import JOB
from controlplane.model.specshapes import REQUIRED, Field, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTRODUCTION: Final = """\
# job.json

What a job is, in one file. `ccctl submit job.json` hands it in; `--set workers=4 --set env.LR=0.1`
changes fields on the way; `--validate-only` only checks it.

```json
{
  "name": "digits",
  "launcher": "horovod",
  "command": ["python", "train.py"],
  "workers": 2,
  "resources": {"gpus": 1, "cpus": 4, "memory": "8GiB"},
  "working_dir": {"ship": "."},
  "time_limit": "2h"
}
```

Only `command` must be given. Every fault of a file is told at once, with its path, what was written
and what is allowed; a field that nobody knows is a fault. `ccctl schema` prints a JSON Schema with
which an editor completes and checks the file.

The tables are made from the one that the check itself uses. Below them stand the
[launchers](#launchers) and [recipes](#recipes).
"""


def json_schema() -> dict[str, object]:
    """Give the JSON Schema (draft 2020-12) of job.json. It takes whatever `parse_spec` takes."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "job.json",
        "description": "A job: what to run, by how many workers, and what each needs.",
        **JOB.schema(),
    }


def reference_markdown() -> str:
    """Give the first part of docs/job.md: a table for each object, with a row for each field."""
    return "\n".join([_INTRODUCTION, *_sections(JOB)])


def _sections(table: Table) -> Iterator[str]:
    yield f"## {table.title}\n"
    yield "| field | type | default | meaning | example |"
    yield "|---|---|---|---|---|"
    for field in table.fields:
        cells = (
            f"`{field.name}`",
            field.kind.words,
            _default(field),
            field.meaning,
            _code(field.example),
        )
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
    yield ""
    for field in table.fields:
        for inner in field.kind.tables:
            yield from _sections(inner)


def _default(field: Field) -> str:
    if field.default is REQUIRED:
        return "**required**"
    if field.default is None:
        return field.default_words or "none"
    return _code(field.default)


def _code(value: object) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"
