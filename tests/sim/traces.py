"""Where the traces of the literature are, that the project does not ship."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TRACES = Path(os.environ.get("CONTROLPLANE_TRACES") or ROOT.parent / "shared" / "traces")


def published(name: str) -> Path:
    """A trace; the test is skipped where it is not there."""
    path = TRACES / name
    if not path.exists():
        pytest.skip(f"{name} is not here: CONTROLPLANE_TRACES names its folder")
    return path
