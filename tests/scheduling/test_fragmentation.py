"""The measure of fragmentation on nodes that were worked out by hand, and where it leads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.scheduling.fragmentation import Choice, Descent, Kind, Likely, Rooms

HALF = Kind(gpus=1, gpu_milli=500, cpu_milli=4000)
ONE = Kind(gpus=1, cpu_milli=4000)
TWO = Kind(gpus=2, cpu_milli=4000)
CORES = Kind(cpu_milli=4000)


def rooms(*nodes: tuple[list[int], int], memory: int = 0) -> Rooms:
    """Nodes by what is left of their GPUs, and of their cores."""
    return Rooms(
        np.array([gpus for gpus, _ in nodes], np.int64),
        np.array([cores * 1000 for _, cores in nodes], np.int64),
        np.array([memory for _ in nodes], np.int64),
    )


def fragments(kind: Kind, gpus: list[int], cores: int = 8) -> float:
    return float(Likely([kind], [1]).fragments(rooms((gpus, cores)))[0])


@pytest.mark.parametrize(
    ("kind", "gpus", "cores", "lost"),
    [
        # Where the task fits, lost is what no single GPU has enough of.
        (HALF, [1000, 500, 499, 0], 8, 499),
        (ONE, [1000, 500, 499, 0], 8, 999),
        (TWO, [1000, 1000, 300, 0], 8, 300),
        # Where it does not, all is lost: too few GPUs, or too few cores for as many GPUs as may be.
        (TWO, [1000, 900, 900, 0], 8, 2800),
        (HALF, [499, 499, 0, 0], 8, 998),
        (ONE, [1000, 1000, 1000, 1000], 3, 4000),
        (ONE, [0, 0, 0, 0], 8, 0),
    ],
)
def test_what_one_kind_of_task_loses(kind: Kind, gpus: list[int], cores: int, lost: float) -> None:
    assert fragments(kind, gpus, cores) == lost


def test_a_node_is_measured_by_the_mean_over_the_kinds() -> None:
    likely = Likely([HALF, ONE, CORES], [3, 1, 96])

    (lost,) = likely.fragments(rooms(([1000, 500, 499, 0], 8)))

    assert lost == pytest.approx(0.75 * 499 + 0.25 * 999), "kinds without GPUs count for nothing"


def test_an_idle_node_of_eight_as_the_authors_check_it() -> None:
    """Two kinds need more than its 64 cores, and come in 1.07 % and 0.48 % of all cases."""
    kinds = [Kind(8, 1000, 64_200), Kind(8, 1000, 120_200), Kind(1, 1000, 15_700)]

    (lost,) = Likely(kinds, [1.07, 0.48, 98.45]).fragments(rooms(([1000] * 8, 64)))

    assert lost == pytest.approx(124.0)


def choose(kind: Kind, likely: Likely, *nodes: tuple[list[int], int]) -> Choice | None:
    return Descent(rooms(*nodes), [HALF, ONE, TWO, CORES], likely).choose(kind)


def test_a_part_of_a_gpu_goes_where_it_fills_one_up() -> None:
    likely = Likely([HALF, ONE], [1, 1])

    found = choose(HALF, likely, ([1000, 1000], 8), ([1000, 500], 8))

    assert found == Choice(1, (1,))


def test_whole_gpus_stay_on_the_nodes_that_pairs_need() -> None:
    likely = Likely([ONE, TWO], [1, 1])

    assert choose(ONE, likely, ([1000, 1000], 16), ([1000, 0], 16)) == Choice(1, (0,))


def test_cores_are_taken_where_no_gpu_needs_them() -> None:
    likely = Likely([ONE], [1])

    found = choose(CORES, likely, ([1000, 0], 4), ([0, 0], 4))

    assert found == Choice(1, ())


def test_of_equals_the_tightest_fit_is_taken() -> None:
    likely = Likely([ONE], [1])

    assert choose(ONE, likely, ([1000, 1000], 64), ([1000, 0], 64)) == Choice(1, (0,))


def test_what_fits_nowhere_has_no_place() -> None:
    likely = Likely([ONE], [1])

    assert choose(TWO, likely, ([1000, 900], 8)) is None
    assert choose(ONE, likely, ([1000, 900], 3)) is None


def test_only_nodes_that_may_be_used_are_chosen() -> None:
    descent = Descent(rooms(([1000], 8), ([1000], 8)), [ONE], Likely([ONE], [1]))

    assert descent.choose(ONE, np.array([False, True])) == Choice(1, (0,))
    assert descent.choose(ONE, np.array([False, False])) is None


tasks = st.sampled_from([HALF, ONE, TWO, CORES, Kind(1, 300, 1000, 2)])


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 24)), min_size=1, max_size=4),
    st.lists(tasks, max_size=30),
)
def test_nothing_is_given_out_twice(has: list[tuple[int, int]], coming: list[Kind]) -> None:
    left = rooms(*(([1000] * n + [0] * (4 - n), cores) for n, cores in has), memory=10)
    kinds = [HALF, ONE, TWO, CORES, Kind(1, 300, 1000, 2)]
    descent = Descent(left, kinds, Likely(kinds, [1] * len(kinds)))
    for kind in coming:
        before = [left.gpus.copy(), left.cpu_milli.copy(), left.memory.copy()]
        found = descent.choose(kind)
        fits = (
            [(gpus >= kind.gpu_milli).sum() >= kind.gpus for gpus in left.gpus]
            & (left.cpu_milli >= kind.cpu_milli)
            & (left.memory >= kind.memory)
        )
        assert (found is not None) == fits.any()
        if found is None:
            continue
        assert fits[found.node]
        assert len(set(found.gpus)) == len(found.gpus) == kind.gpus
        assert all(before[0][found.node, i] >= kind.gpu_milli for i in found.gpus)
        descent.take(kind, found)
        assert (left.gpus >= 0).all()
        assert (left.cpu_milli >= 0).all()
        assert before[0].sum() - left.gpus.sum() == kind.gpus * kind.gpu_milli
    assert 0 <= descent.fragments() <= left.gpus.sum() + 1e-6
