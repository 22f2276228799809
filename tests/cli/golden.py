"""Golden files: what our programs say, kept word for word. UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "golden"


def check(name: str, text: str, *, room: str = "cli") -> None:
    """Compare a text with the file that keeps it, in the folder of its room."""
    file = FOLDER / room / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text(), f"{name} has changed; UPDATE_GOLDEN=1 if that is meant"
