"""`ccctl simulate`: its table, its JSON and its page, word for word, and what it says of faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.golden import check

if TYPE_CHECKING:
    from tests.cli.conftest import Ccctl

TRACE = """job_id,submit_s,duration_s,gpus,cpus,mem_gb,group,priority,status
a,0,3600,4,,,vision,,
b,0,1800,4,,,speech,,
c,60,600,8,,,vision,,
d,120,60,1,,,speech,,
e,180,7200,0.5,,,speech,,
f,240,60,99,,,vision,,
"""
NODES = ("--nodes", "2", "--gpus-per-node", "4")


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    return str(path)


def test_the_figures_word_for_word(ccctl: Ccctl, trace: str) -> None:
    arguments = ("simulate", "--trace", trace, *NODES, "--policy", "srtf")

    told = ccctl(*arguments, "--output", "json")

    assert told.code == 0
    assert "1 jobs ask for a part of a GPU" in told.err
    assert "f can never run: " in told.err
    check("simulate.json", told.out)
    assert ccctl(*arguments, "-o", "json").out == told.out
    check("simulate.txt", ccctl(*arguments).out)


def test_the_centres_own_policy_has_the_same_figures(ccctl: Ccctl, trace: str) -> None:
    told = ccctl("simulate", "--trace", trace, *NODES, "-o", "json")
    yardstick = ccctl("simulate", "--trace", trace, *NODES, "--policy", "fifo", "-o", "json")

    figures = json.loads(told.out)
    assert figures["policy"] == "default"
    assert figures.keys() == json.loads(yardstick.out).keys()
    assert (figures["jobs"], figures["never_jobs"], figures["shared_jobs"]) == (5, 1, 1)
    assert ccctl("simulate", "--trace", trace, *NODES, "-o", "json").out == told.out


def test_checked_and_with_costs(ccctl: Ccctl, trace: str) -> None:
    told = ccctl("simulate", "--trace", trace, *NODES, "--check", "-o", "json")
    assert json.loads(told.out)["broken_promises"] == 0
    free = ccctl("simulate", "--trace", trace, *NODES, "--policy", "srtf", "-o", "json")
    dear = ccctl(
        *("simulate", "--trace", trace, *NODES, "--policy", "srtf", "-o", "json"),
        *("--preemption-cost", "30s,1m"),
    )
    assert json.loads(free.out)["lost_gpu_hours"] == 0
    assert json.loads(dear.out)["lost_gpu_hours"] > 0


def test_a_page_with_plots_needs_nothing_from_elsewhere(
    ccctl: Ccctl, trace: str, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.html"

    told = ccctl("simulate", "--trace", trace, *NODES, "--policy", "srtf", "--report", str(page))

    assert told.code == 0
    text = page.read_text()
    assert text.count("<svg") == 5
    assert "src=" not in text
    assert "<link" not in text
    assert "vision" in text
    ccctl("simulate", "--trace", trace, *NODES, "--policy", "srtf", "--report", str(page))
    assert page.read_text() == text, "the same simulation gives the same page"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name the cluster: --nodes and --gpus-per-node, or --cluster FILE."),
        (("--nodes", "2"), "name the cluster: --nodes and --gpus-per-node"),
        (("--cluster", "TRACE", "--nodes", "2"), "--cluster names the nodes; leave --nodes"),
        (("--cluster", "TRACE"), "line 1: the header needs the columns node and gpus"),
        ((*NODES, "--policy", "lottery"), "'lottery' is not one of 'fifo', 'fifo-skip', 'sjf'"),
        ((*NODES, "--policy", "sjf", "--check"), "--check: the invariants are the centre's own"),
        ((*NODES, "--from", "soon"), "'soon' is not a duration"),
        ((*NODES, "--from", "1d"), "came within --from and --to: the first came at 0 s"),
        ((*NODES, "--seed", "1"), "is no recipe in YAML"),
        ((*NODES, "--preemption-cost", "30s"), "'30s' is not two durations"),
        ((*NODES, "--nodes", "0"), "0 is not in the range 1<=x<=200000"),
    ],
)
def test_wrong_input_is_named(
    ccctl: Ccctl, trace: str, arguments: tuple[str, ...], words: str
) -> None:
    told = ccctl("simulate", "--trace", trace, *(a.replace("TRACE", trace) for a in arguments))

    assert (told.code, told.out) == (2, "")
    assert words in " ".join(told.err.split())


def test_a_wrong_trace_is_named_by_line_and_column(ccctl: Ccctl, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE.replace("1800", "long"))

    told = ccctl("simulate", "--trace", str(path), *NODES)

    assert told.code == 2
    assert told.err == (
        f"Error: {path}, line 3, column duration_s: 'long' is not a number; write e.g. 8 or 0.5.\n"
    )
