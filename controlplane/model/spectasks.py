"""The field of job.json that makes an array of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.quantity import whole_number
from controlplane.model.speckinds import Kind
from controlplane.model.tasks import TaskSet, parse_tasks

if TYPE_CHECKING:
    from controlplane.model.specfaults import Faults

_LONGEST = 4096


def task_set() -> Kind:
    """Indexes and ranges of them; one number stands for itself."""

    def read(value: object, path: str, faults: Faults) -> TaskSet | None:
        number = whole_number(value)
        text = str(number) if number is not None else value
        if not isinstance(text, str) or len(text) > _LONGEST:
            faults.add(path, value, 'must be text such as "0-99" or "0-99%8"')
            return None
        try:
            return parse_tasks(text)
        except ValueError as problem:
            faults.add(path, value, str(problem))
            return None

    return Kind(
        words="indexes such as `0-99`, `1,5,7-9`, `0-90:10` or `0-99%8`, at most 100,000",
        schema={
            "anyOf": [
                {"type": "string", "pattern": "^[0-9]+(-[0-9]+(:[0-9]+)?)?(,[0-9:-]+)*(%[0-9]+)?$"},
                {"type": "integer", "minimum": 0},
            ]
        },
        read=read,
        write=str,
        takes_text=True,
    )
