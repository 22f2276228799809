"""Traces, clusters and recipes: what they say, and what is said of those that are wrong."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from typing import Any

import pytest

from controlplane.sim.cluster import read_cluster, uniform
from controlplane.sim.faults import BadInput
from controlplane.sim.recipe import load
from controlplane.sim.simulate import read_jobs
from controlplane.sim.synthetic import synthetic
from controlplane.sim.trace import Window, read_trace

HEADER = "job_id,submit_s,duration_s,gpus,cpus,mem_gb,group,priority,status"
RECIPE = """
jobs: 300
seed: 3
arrivals: {process: poisson, per_hour: 60, swing: 0.5}
gpus: {0.5: 1, 1: 5, 8: 2, 16: 1}
duration: {distribution: lognormal, median: 30m, sigma: 1.5, most: 7d}
accounts: {vision: 3, speech: 1}
priorities: {100: 1, 2000: 1}
cpus_per_gpu: 4
memory_per_gpu: 32GiB
limit_factor: 1.5
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_trace_says_when_jobs_came_and_what_they_asked_for(tmp_path: Path) -> None:
    text = (
        f"{HEADER},limit_s,gpu_spec,extra\n"
        "b,1.5,60,8,32,256,vision,2000,Failed,90,V100|T4,x\n"
        "a,0,0.25,0.46,,,,LS,,,,\n"
    )
    packed = tmp_path / "trace.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))

    first, second = read_trace(packed)

    assert (first.name, first.submit_us, first.duration_us, first.gpu_milli) == (
        "a",
        0,
        250_000,
        460,
    )
    assert (first.cpu_milli, first.memory_bytes, first.account, first.priority) == (
        None,
        None,
        "",
        None,
    )
    assert (first.gpus, first.limit_us, first.gpu_models) == (1, None, ())
    assert (second.cpu_milli, second.memory_bytes, second.account) == (32_000, 256 << 30, "vision")
    assert (second.priority, second.limit_us, second.gpu_models) == (
        2000,
        90_000_000,
        ("V100", "T4"),
    )
    assert read_trace(write(tmp_path, "trace.csv", text)) == [first, second]


def test_jobs_without_a_time_limit_may_get_one(tmp_path: Path) -> None:
    text = "job_id,submit_s,duration_s,gpus,limit_s\na,0,10,1,\nb,1,10,1,50\n"

    jobs = read_jobs(write(tmp_path, "t.csv", text), Window(limit_factor=2))

    assert [job.limit_us for job in jobs] == [20_000_000, 50_000_000]


def test_a_window_takes_the_jobs_that_came_within(tmp_path: Path) -> None:
    lines = "".join(f"j{i},{i},1,1\n" for i in range(10))
    path = write(tmp_path, "t.csv", f"job_id,submit_s,duration_s,gpus\n{lines}")

    taken = read_jobs(path, Window(from_us=2_000_000, to_us=7_000_000, limit=3))

    assert [job.name for job in taken] == ["j2", "j3", "j4"]
    with pytest.raises(BadInput, match=r"the first came at 0 s and the last at 9 s"):
        read_jobs(path, Window(from_us=10_000_000))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "job_id,submit_s\n",
            ", line 1: the header has no column duration_s, gpus; it has job_id,",
        ),
        ("", ", line 1: the header has no column job_id, submit_s, duration_s, gpus; it has none"),
        (f"{HEADER}\n", " has no job: a line for each is needed below the header"),
        (f"{HEADER}\na,0,1,1\n", ", line 2: has 4 values, and the header names 9 columns"),
        (f"{HEADER}\na,0,1,1,,,,,,7\n", ", line 2: has 10 values, and the header names 9 columns"),
        (f"{HEADER}\na,x,1,1,,,,,\n", ", line 2, column submit_s: 'x' is not a number; write e.g."),
        (f"{HEADER}\na,0,-1,1,,,,,\n", ", line 2, column duration_s: '-1' is out of range"),
        (f"{HEADER}\na,0,nan,1,,,,,\n", ", line 2, column duration_s: 'nan' is not a number"),
        (f"{HEADER}\na,0,inf,1,,,,,\n", ", line 2, column duration_s: 'inf' is not a number"),
        (f"{HEADER}\na,0,1,,,,,,\n", ", line 2, column gpus: is empty, and every job needs"),
        (
            f"{HEADER}\na,0,1,1.5,,,,,\n",
            ", line 2, column gpus: '1.5' is neither a part of one GPU",
        ),
        (f"{HEADER}\n,0,1,1,,,,,\n", ", line 2, column job_id: is empty"),
        (f"{HEADER}\na,0,1,1,,,,,\na,1,1,1,,,,,\n", "column job_id: 'a' is the job of line 2, too"),
        (f'{HEADER}\n"a,0,1,1,,,,,\n', "is not CSV: unexpected end of data"),
    ],
)
def test_a_fault_of_a_trace_names_line_and_column(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, "t.csv", text)

    with pytest.raises(BadInput) as caught:
        read_trace(path)

    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


def test_a_file_that_is_no_text_is_told_as_such(tmp_path: Path) -> None:
    packed = tmp_path / "t.csv"
    packed.write_bytes(gzip.compress(HEADER.encode()))
    with pytest.raises(BadInput, match="is not text in UTF-8: is it packed"):
        read_trace(packed)
    with pytest.raises(BadInput, match=r"is named .gz, and gzip can't read it"):
        read_trace(write(tmp_path, "t.csv.gz", HEADER))
    with pytest.raises(BadInput, match="can't be read: No such file"):
        read_trace(tmp_path / "none.csv")


def test_nodes_come_from_a_table_of_nodes_or_of_groups(tmp_path: Path) -> None:
    nodes = read_cluster(
        write(tmp_path, "n.csv", "node,cpus,mem_gb,gpus,gpu_model\na,32,256,0,\nb,64,512,2,T4\n")
    )
    assert [(n.name, n.cpus, n.memory_bytes >> 30, n.gpus) for n in nodes] == [
        ("a", 32, 256, 0),
        ("b", 64, 512, 2),
    ]
    assert nodes[1].gpu_model == "T4"
    groups = read_cluster(write(tmp_path, "g.csv", "vc,nodes,gpus_per_node\nx,2,8\ny,1,4\n"))
    assert [(n.name, n.gpus) for n in groups] == [("x-0", 8), ("x-1", 8), ("y-0", 4)]


def test_a_recipe_makes_groups_of_nodes_behind_switches(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "c.yaml",
        """
nodes:
  - {name: a, count: 3, gpus: 8, model: H100, cpus: 96, memory: 1TiB, fabric: {fabric/leaf: 2}}
  - {count: 1, labels: {zone: west}}
""",
    )

    nodes = read_cluster(path)

    assert [n.name for n in nodes] == ["a0", "a1", "a2", "g1-0"]
    assert [dict(n.labels).get("fabric/leaf") for n in nodes[:3]] == [
        "fabric/leaf-0",
        "fabric/leaf-0",
        "fabric/leaf-1",
    ]
    assert (nodes[0].cpus, nodes[0].memory_bytes, nodes[0].gpu_model) == (96, 1 << 40, "H100")
    assert (nodes[3].gpus, nodes[3].labels) == (0, (("zone", "west"),))
    facts = nodes[0].facts()
    assert (len(facts.devices), facts.devices[0].model, facts.labels) == (
        8,
        "H100",
        nodes[0].labels,
    )


def test_nodes_alike_have_enough_of_all_but_gpus() -> None:
    (node,) = uniform(1, 8)

    assert (node.cpus, node.memory_bytes) == (128, 2048 << 30)
    assert uniform(2, 0, cpus=4, memory_bytes=7)[1].cpus == 4


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.csv", "node,gpus\n", "has no node"),
        ("c.csv", "host,gpu\na,1\n", "the header needs the columns node and gpus"),
        ("c.csv", "node,gpus\na,1.5\n", "line 2, column gpus: '1.5' is not a whole number"),
        ("c.csv", "node,gpus\na,1\na,1\n", "names the node 'a' twice"),
        ("c.csv", "vc,gpus_per_node\na,1\n", "the header has no column nodes"),
        ("c.yaml", "nodes: 3", "nodes: is not a list of mappings"),
        ("c.yaml", "{}", "nodes: is missing"),
        ("c.yaml", "- 1", "is no recipe: a mapping of fields is needed at the top"),
        ("c.yaml", "nodes: [{gpus: many}]", "nodes[0].gpus: 'many' is not a whole number"),
        ("c.yaml", "nodes: [{memory: 1 lot}]", "nodes[0].memory: '1 lot' is not an amount"),
        ("c.yaml", "nodes: [{gpu: 1}]", "nodes[0].gpu: there is no such field; there are name,"),
        ("c.yaml", "nodes: []\nnode: 1", "node: there is no such field; there are nodes"),
        ("c.yaml", "nodes: [{", ", line 1, column 10: is not YAML"),
    ],
)
def test_a_fault_of_a_cluster_names_its_place(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    with pytest.raises(BadInput) as caught:
        read_cluster(write(tmp_path, name, text))

    assert words in str(caught.value)


def test_a_recipe_makes_up_the_same_trace_from_the_same_seed(tmp_path: Path) -> None:
    path = write(tmp_path, "t.yaml", RECIPE)

    jobs = synthetic(load(path))

    assert jobs == synthetic(load(path)) == synthetic(load(path), 3)
    assert jobs != synthetic(load(path), 4)
    assert len(jobs) == 300
    assert {job.gpu_milli for job in jobs} == {500, 1000, 8000, 16000}
    assert {job.account for job in jobs} == {"vision", "speech"}
    assert {job.priority for job in jobs} == {100, 2000}
    assert all(job.limit_us == round(job.duration_us * 1.5) for job in jobs)
    assert all((job.cpu_milli or 0) == 4000 * job.gpus for job in jobs)
    assert all(a.submit_us <= b.submit_us for a, b in itertools.pairwise(jobs))
    assert 3 < jobs[-1].submit_us / 3.6e9 < 8, "300 jobs at some 60 an hour"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arrivals": "{process: rain}"}, "arrivals.process: 'rain' is none of poisson, steady"),
        ({"arrivals": "{per_hour: 0}"}, "arrivals.per_hour: must be above 0"),
        ({"arrivals": "{}"}, "arrivals.per_hour: is missing"),
        ({"arrivals": "{per_hour: 1, swing: 2}"}, "arrivals.swing: 2 is above 1"),
        ({"gpus": "{two: 1}"}, "gpus: 'two' is not a number of GPUs"),
        ({"gpus": "{1.5: 1}"}, "gpus: '1.5' is neither a part of one GPU nor whole ones"),
        ({"gpus": "{1: -1}"}, "gpus.1: -1 is not a number of at least 0"),
        ({"gpus": "{1: 0}"}, "gpus: needs at least one weight above 0"),
        ({"duration": "{distribution: fixed}"}, "duration.length: is missing"),
        ({"duration": "{median: soon}"}, "duration.median: 'soon' is not a duration"),
        ({"jobs": "0"}, "jobs: 0 is not a whole number from 1"),
        ({"jubs": "1"}, "jubs: there is no such field; there are jobs, seed, arrivals"),
    ],
)
def test_a_fault_of_a_recipe_names_its_field(
    tmp_path: Path, change: dict[str, str], words: str
) -> None:
    fields: dict[str, Any] = {
        "jobs": "3",
        "arrivals": "{per_hour: 60}",
        "duration": "{median: 1h}",
    } | change
    path = write(tmp_path, "t.yaml", "".join(f"{key}: {value}\n" for key, value in fields.items()))

    with pytest.raises(BadInput) as caught:
        synthetic(load(path))

    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arrivals", "duration"),
    [
        ("{process: steady, per_hour: 3600}", "{distribution: uniform, low: 10s, high: 20s}"),
        ("{process: bursts, every: 1m, size: 5}", "{distribution: fixed, length: 15s}"),
        ("{per_hour: 60}", "{distribution: exponential, mean: 15s}"),
    ],
)
def test_the_other_processes_and_distributions(
    tmp_path: Path, arrivals: str, duration: str
) -> None:
    text = f"jobs: 10\narrivals: {arrivals}\nduration: {duration}\n"

    jobs = synthetic(load(write(tmp_path, "t.yaml", text)))

    if "steady" in arrivals:
        assert [job.submit_us for job in jobs] == [i * 1_000_000 for i in range(10)]
        assert all(10e6 <= job.duration_us <= 20e6 for job in jobs)
    elif "bursts" in arrivals:
        assert [job.submit_us for job in jobs] == [0] * 5 + [60_000_000] * 5
        assert all(job.duration_us == 15e6 for job in jobs)


def test_a_seed_is_for_a_recipe_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", f"{HEADER}\na,0,1,1,,,,,\n")

    with pytest.raises(BadInput, match=r"--seed 3: .* is no recipe in YAML"):
        read_jobs(path, Window(), 3)
