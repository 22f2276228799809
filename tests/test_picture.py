"""The picture in the README shows the demonstration, and nothing of the machine that drew it."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.picture import PICTURE, ROOT, draw, neutral


def words(svg: str) -> str:
    pieces = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    return html.unescape("\n".join(pieces)).replace("\xa0", " ")


def test_the_picture_is_one_and_names_no_folder_of_any_machine() -> None:
    svg = PICTURE.read_text()
    ElementTree.fromstring(svg)
    assert "@font-face" not in svg
    assert "succeeded" in words(svg)
    paths = re.findall(r"(?<![\w~.])/[a-z]+/\S+", words(svg))
    assert paths == []


def test_paths_of_this_machine_are_told_as_anybodys() -> None:
    shown = f"{Path(sys.executable).parent}/ccctl submit {ROOT}/examples/hello/job.json"
    assert neutral(shown) == ".venv/bin/ccctl submit ~/controlplane/examples/hello/job.json"
    with pytest.raises(SystemExit, match="paths of this machine"):
        neutral(f"{Path.home()}/elsewhere")


def test_colours_and_widths_of_the_terminal_come_through() -> None:
    svg = draw("\x1b[1mbold\x1b[0m \x1b[31mred\x1b[0m plain")
    ElementTree.fromstring(svg)
    assert "font-weight: bold" in svg
    assert words(svg).split()[-3:] == ["bold", "red", "plain"]
