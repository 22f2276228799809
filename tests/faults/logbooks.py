"""What daemons wrote into their own logs, as far as it must never be there."""

from __future__ import annotations

import re

_RECORD = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} (\w+)", re.MULTILINE)
_ENDS = re.compile(r"^([A-Za-z_][\w.]*)(?:: .*)?$", re.MULTILINE)
BORNE = ("StoreUnavailable", "StoreRefused", "Overloaded", "OSError")
"""Errors that come of a database that is away, of a full disk, or of a failpoint."""


def suspicious(text: str) -> list[str]:
    """Records of a log that tell of a mistake of ours."""
    starts = [match.start() for match in _RECORD.finditer(text)] + [len(text)]
    records = [text[a:b] for a, b in zip([0, *starts], starts, strict=False) if a < b]
    return [record.splitlines()[0] + " … " + _last(record) for record in records if _is_bad(record)]


def _is_bad(record: str) -> bool:
    match = _RECORD.match(record)
    if match is not None and match[1] == "critical":
        return True
    if "Traceback (most recent call last)" in record:
        return _last(record).partition(":")[0].rpartition(".")[2] not in BORNE
    return "internal error" in record


def _last(record: str) -> str:
    """The line that ends its traceback."""
    lines = [line for line in record.splitlines()[1:] if _ENDS.match(line)]
    return lines[-1] if lines else ""
