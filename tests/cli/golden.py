"""Golden files: what `ccctl` says, kept word for word. UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "golden" / "cli"


def check(name: str, text: str) -> None:
    """Compare a text with the file that keeps it."""
    file = FOLDER / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text(), f"{name} has changed; UPDATE_GOLDEN=1 if that is meant"
