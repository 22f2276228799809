"""TensorFlow's Keras trains with Horovod across two nodes, in an environment of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.cluster import ROOT, cluster

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(300)]
PYTHON = ROOT / ".venv-tensorflow" / "bin" / "python"


def test_keras_trains_across_two_nodes(tmp_path: Path) -> None:
    with cluster(tmp_path, python=PYTHON) as made:
        made.agent("a", gpus=1)
        made.agent("b", gpus=1)
        done = made.ccctl("submit", ROOT / "examples/digits-tensorflow/job.json", "--follow")
        assert done.returncode == 0, done.stdout + done.stderr
        job = made.client.get("jobs/1")
        assert sorted(w.node_display_name for w in job.attempts[-1].workers) == ["a", "b"]
        (result,) = made.folder.glob("*/jobs/1/result.json")
        assert json.loads(result.read_text())["test_accuracy"] > 0.95
