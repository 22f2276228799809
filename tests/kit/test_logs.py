from __future__ import annotations

import io
import json
import logging
import re
from typing import TYPE_CHECKING, Literal

import pytest

from controlplane.kit import logs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(
    *messages: str, format: Literal["text", "json"] = "text", stream: io.StringIO | None = None
) -> str:
    stream = stream or io.StringIO()
    logs.configure("info", format, stream=stream)
    for message in messages:
        logging.getLogger("engine").warning(message, extra={"job": 7, "node": "a b"})
    logging.getLogger("engine").debug("not at this level")
    return stream.getvalue()


def test_json_lines_carry_the_fields() -> None:
    line = json.loads(written("two\nlines", format="json"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("time"))
    assert line == {
        "level": "warning",
        "logger": "engine",
        "message": "two\nlines",
        "job": 7,
        "node": "a b",
    }


def test_json_lines_carry_what_json_cannot_say_and_exceptions() -> None:
    stream = io.StringIO()
    logs.configure("debug", "json", stream=stream)
    try:
        raise OSError("disk")
    except OSError:
        fields = {"where": {1, 2} - {2}, "level": "mine", "logger": "mine"}
        logging.getLogger("store").exception("failed", extra=fields)
    line = json.loads(stream.getvalue())
    assert (line["where"], line["level"], line["logger"]) == ("{1}", "error", "store")
    assert line["exception"].endswith("OSError: disk")


def test_text_is_one_line_that_nobody_can_forge() -> None:
    told = written("hello\n12:00:00.000 info    engine: forged\x1b[31m")
    assert told.count("\n") == 1
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} warning engine: hello\\n12:.* forged\\x1b\[31m"
        r'  job=7  node="a b"\n',
        told,
    )


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33mwarning\x1b[0m" in written("x", stream=Terminal())
    assert "\x1b" not in written("x")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in written("x", stream=Terminal())


def test_a_later_call_replaces_what_an_earlier_one_set() -> None:
    first = io.StringIO()
    written("one", stream=first)
    assert written("two").count("engine:") == 1
    assert "two" not in first.getvalue()
