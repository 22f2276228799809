"""Made-up traces: a recipe of arrivals, sizes, durations and accounts, and a seed."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

from controlplane.sim.trace import MILLI, SECOND_US, TraceJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from controlplane.sim.recipe import Section

DAY_S: Final = 86_400
MOST_JOBS: Final = 10_000_000
MOST_GPUS: Final = 1_000_000

T = TypeVar("T")


def synthetic(recipe: Section, seed: int | None = None) -> list[TraceJob]:
    """Make a trace. `seed`: in place of the recipe's own. BadInput names the field."""
    count = recipe.whole("jobs", 1000, least=1, most=MOST_JOBS)
    own_seed = recipe.whole("seed", 1)
    chance = Random(own_seed if seed is None else seed)
    moments = _arrivals(recipe.section("arrivals"), chance)
    sizes = _sizes(recipe)
    duration = _duration(recipe.section("duration"))
    accounts = recipe.weights("accounts") or {"": 1.0}
    classes = {int(k): v for k, v in recipe.weights("priorities").items() if k.isdecimal()}
    cpus = round(recipe.number("cpus_per_gpu", 0) * MILLI)
    memory = recipe.memory("memory_per_gpu", 0)
    factor = recipe.number("limit_factor", 0)
    recipe.done()
    made = []
    for number in range(count):
        gpu_milli = _pick(chance, sizes)
        duration_us = max(SECOND_US, round(duration(chance) * SECOND_US))
        made.append(
            TraceJob(
                name=f"s{number}",
                submit_us=round(next(moments) * SECOND_US),
                duration_us=duration_us,
                gpu_milli=gpu_milli,
                cpu_milli=cpus * -(-gpu_milli // MILLI) or None,
                memory_bytes=memory * -(-gpu_milli // MILLI) or None,
                account=_pick(chance, accounts),
                priority=_pick(chance, classes) if classes else None,
                limit_us=round(duration_us * factor) or None,
            )
        )
    return made


def _pick(chance: Random, weights: dict[T, float]) -> T:
    (found,) = chance.choices(list(weights), list(weights.values()))
    return found


def _sizes(recipe: Section) -> dict[int, float]:
    sizes: dict[int, float] = {}
    for text, weight in (recipe.weights("gpus") or {"1": 1.0}).items():
        try:
            milli = round(float(text) * MILLI)
        except ValueError:
            raise recipe.fault("gpus", f"{text!r} is not a number of GPUs") from None
        whole = milli % MILLI == 0 or milli < MILLI
        if not (0 <= milli <= MOST_GPUS * MILLI and whole):
            raise recipe.fault("gpus", f"{text!r} is neither a part of one GPU nor whole ones")
        sizes[milli] = weight
    return sizes


def _arrivals(recipe: Section, chance: Random) -> Iterator[float]:
    """Moments in seconds, without end."""
    process = recipe.choice("process", ("poisson", "steady", "bursts"), "poisson")
    if process == "bursts":
        every_s, size = recipe.duration("every") / SECOND_US, recipe.whole("size", 10, least=1)
        recipe.done()
        return (i // size * every_s for i in _count())
    per_hour, swing = recipe.number("per_hour"), recipe.number("swing", 0)
    if not per_hour > 0:
        raise recipe.fault("per_hour", "must be above 0")
    if swing > 1:
        raise recipe.fault("swing", f"{swing:g} is above 1: no hour has fewer than no jobs")
    recipe.done()
    if process == "steady":
        return (i * 3600 / per_hour for i in _count())
    return _poisson(per_hour / 3600, swing, chance)


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _poisson(rate: float, swing: float, chance: Random) -> Iterator[float]:
    """A Poisson process whose rate swings with the day by this part of it: the moments of one at
    the highest rate, thinned (Lewis and Shedler, 1979)."""
    now, peak = 0.0, rate * (1 + swing)
    while True:
        now += chance.expovariate(peak)
        if chance.uniform(0, peak) <= rate * (1 + swing * math.sin(2 * math.pi * now / DAY_S)):
            yield now


def _duration(recipe: Section) -> Callable[[Random], float]:
    """Draws a duration in seconds."""
    kinds = ("lognormal", "exponential", "uniform", "fixed")
    kind = recipe.choice("distribution", kinds, "lognormal")
    if kind == "lognormal":
        median_s, sigma = recipe.duration("median") / SECOND_US, recipe.number("sigma", 1.0)
        most_s = recipe.duration("most", 365 * DAY_S * SECOND_US) / SECOND_US
        if not median_s:
            raise recipe.fault("median", "must be above 0")
        recipe.done()
        return lambda chance: min(most_s, chance.lognormvariate(math.log(median_s), sigma))
    if kind == "exponential":
        mean_s = recipe.duration("mean") / SECOND_US
        if not mean_s:
            raise recipe.fault("mean", "must be above 0")
        recipe.done()
        return lambda chance: chance.expovariate(1 / mean_s)
    if kind == "uniform":
        low_s, high_s = recipe.duration("low") / SECOND_US, recipe.duration("high") / SECOND_US
        recipe.done()
        return lambda chance: chance.uniform(low_s, high_s)
    fixed_s = recipe.duration("length") / SECOND_US
    recipe.done()
    return lambda chance: fixed_s
