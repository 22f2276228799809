"""One line of a progress report: what it says, and what is wrong with it, in words.

    {"step": 1200, "progress": 0.42, "metrics": {"loss": 0.3}}
    {"checkpoint": {"path": "/shared/run-7/1200.pt", "step": 1200}}

What is wrong is passed over, and the rest of the line counts.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from controlplane.model.progress import LARGEST_STEP, LONGEST_NAME, LONGEST_PATH, MOST_METRICS
from controlplane.model.specfaults import nearest, shown

LONGEST_LINE = 16 << 10
"""Bytes of a line."""
KEYS = ("step", "progress", "metrics", "checkpoint")
"""What a line may say."""
_MOST_TOLD = 4
"""Unknown keys of a line that are told."""
_EXAMPLE = '{"step": 1200, "progress": 0.42, "metrics": {"loss": 0.3}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint that a line tells of."""

    path: str
    """Where."""
    step: int | None
    """At which step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a line says."""

    step: int | None = None
    """Number of the step."""
    fraction: float | None = None
    """How much is done, 0 to 1."""
    metrics: tuple[tuple[str, float], ...] = ()
    """Measurements by name, sorted."""
    checkpoint: Saved | None = None
    """What was saved."""
    faults: tuple[str, ...] = ()
    """What is wrong with it, in words."""

    @property
    def says_something(self) -> bool:
        """Whether it tells of progress, and not of a checkpoint alone."""
        return self.step is not None or self.fraction is not None or bool(self.metrics)


def parse_line(data: bytes) -> Line:
    """What a line of a report says; never raises, whatever it is."""
    if len(data) > LONGEST_LINE:
        return Line(faults=(f"has {len(data)} bytes; at most {LONGEST_LINE} are read of a line",))
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return Line(faults=(f"is no JSON; write e.g. {_EXAMPLE}",))
    if not isinstance(found, dict):
        return Line(faults=(f"must be an object: {_EXAMPLE}",))
    faults: list[str] = []
    for key in [key for key in found if key not in KEYS][:_MOST_TOLD]:
        near = nearest(key, KEYS)
        hint = f"did you mean {shown(near)}?" if near else f"there are {', '.join(KEYS)}"
        faults.append(f"{shown(key)}: is passed over; {hint}")
    step = _step(found, "step", faults)
    return Line(
        step=step,
        fraction=_fraction(found, faults),
        metrics=_metrics(found.get("metrics", {}), faults),
        checkpoint=_checkpoint(found["checkpoint"], step, faults)
        if "checkpoint" in found
        else None,
        faults=tuple(faults),
    )


def _step(found: dict[str, Any], path: str, faults: list[str]) -> int | None:
    value = found.get("step")
    if value is None and "step" not in found:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_STEP:
        faults.append(f"{path}: {_shown(value)}: must be a whole number from 0 to {LARGEST_STEP}")
        return None
    return value


def _fraction(found: dict[str, Any], faults: list[str]) -> float | None:
    if "progress" not in found:
        return None
    value = _number(found["progress"])
    if value is None or not 0 <= value <= 1:
        faults.append(f"progress: {_shown(found['progress'])}: must be 0 to 1")
        return None
    return value


def _metrics(found: object, faults: list[str]) -> tuple[tuple[str, float], ...]:
    if not isinstance(found, dict):
        faults.append(f'metrics: {_shown(found)}: must be an object: {{"loss": 0.3}}')
        return ()
    if len(found) > MOST_METRICS:
        faults.append(f"metrics: has {len(found)} names; the first {MOST_METRICS} are taken")
    good = {}
    for name, value in list(found.items())[:MOST_METRICS]:
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            words = f"must be 1 to {LONGEST_NAME} printable characters"
            faults.append(f"metrics: the name {shown(name)} {words}")
            continue
        number = _number(value)
        if number is None:
            faults.append(f"metrics.{name}: {_shown(value)}: must be a finite number")
        else:
            good[name] = number
    return tuple(sorted(good.items()))


def _checkpoint(found: object, step: int | None, faults: list[str]) -> Saved | None:
    if not isinstance(found, dict) or not isinstance(found.get("path"), str):
        faults.append(f'checkpoint: {_shown(found)}: must be an object: {{"path": "…", "step": 1}}')
        return None
    path = found["path"]
    if not 0 < len(path.encode(errors="replace")) <= LONGEST_PATH or not path.isprintable():
        words = f"must be 1 to {LONGEST_PATH} bytes of printable characters"
        faults.append(f"checkpoint.path: {shown(path)}: {words}")
        return None
    odd = [key for key in found if key not in ("path", "step")][:_MOST_TOLD]
    faults += [f"checkpoint: {shown(key)}: is passed over; there are path, step" for key in odd]
    own = _step(found, "checkpoint.step", faults)
    return Saved(path=path, step=step if own is None else own)


def _number(value: object) -> float | None:
    """A finite number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _shown(value: object) -> str:
    """A value as a fault repeats it: short, and NaN by its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**40:
        return "a number of more than 40 digits"
    return shown(value)
