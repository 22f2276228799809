"""A policy as a TOML file: what is not in it stays as it is by default."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from typing import Any

from controlplane.model.document import BadDocument, from_document
from controlplane.model.policy import DAY_US, Policy, Weights
from controlplane.model.quantity import parse_duration

LONGEST_AGE_LIMIT_US = 100 * DAY_US
"""Microseconds, times a million, must fit into 63 bits."""
TIMES = {"age_limit": "age_limit_us", "half_life": "half_life_us"}
"""Durations with a unit in the file, such as "7d"."""


def read_policy(text: str) -> Policy:
    """The policy of a file. BadDocument, a line for each fault, with its key, where it has one."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadDocument(f"is no TOML: {error}") from None
    for name, attribute in TIMES.items():
        if name in document:
            document[attribute] = _time(name, document.pop(name))
    weights = document.get("gpu_weights", {})
    if not isinstance(weights, dict):
        raise BadDocument("gpu_weights: must be a table of models and thousandths: H100 = 2500")
    if weights:
        document["gpu_weights"] = [[model, weight] for model, weight in sorted(weights.items())]
    policy = from_document(Policy, document)
    _check(policy)
    return policy


def _time(name: str, value: Any) -> int:
    try:
        if isinstance(value, str) and (length := parse_duration(value)) > 0:
            return length
    except ValueError:
        pass
    raise BadDocument(f'{name}: {value!r}: must be a duration such as "7d" or "12h"')


def _check(policy: Policy) -> None:
    if policy.age_limit_us > LONGEST_AGE_LIMIT_US:
        days = LONGEST_AGE_LIMIT_US // DAY_US
        raise BadDocument(f"age_limit: must be at most {days}d; ages are reckoned in millionths")
    negative = [f.name for f in fields(Weights) if getattr(policy.weights, f.name) < 0]
    if negative:
        raise BadDocument(f"weights.{negative[0]}: must not be below 0")
    if policy.half_life_us <= 0:
        raise BadDocument(f"half_life_us: {policy.half_life_us}: must be above 0")
    if policy.backfill_depth < 0:
        raise BadDocument(f"backfill_depth: {policy.backfill_depth}: must not be below 0")
    if any(weight < 0 for _, weight in policy.gpu_weights):
        raise BadDocument("gpu_weights: must not be below 0")
