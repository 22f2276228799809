"""How a site wants its jobs scheduled: with the view, all that a decision depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

DAY_US = 86_400_000_000


class Order(StrEnum):
    """Who goes first."""

    MULTIFACTOR = "multifactor"
    """By a weighted sum of factors, as Slurm's priority/multifactor."""
    FIFO = "fifo"
    """Who came first."""


class Backfill(StrEnum):
    """What may pass those ahead that have no place yet."""

    NONE = "none"
    """Nothing: strictly in order."""
    SKIP = "skip"
    """Whatever fits, though it may delay them."""
    EASY = "easy"
    """Whatever does not delay the first of them (Lifka, "The ANL/IBM SP scheduling system",
    1995)."""
    CONSERVATIVE = "conservative"
    """Whatever delays none of them (Mu'alem and Feitelson, 2001)."""


class FairShare(StrEnum):
    """How fairness among accounts is measured."""

    TREE = "tree"
    """Slurm's fair tree: past usage against shares, level by level."""
    DRF = "drf"
    """Dominant-resource fairness of what runs now (Ghodsi et al., NSDI 2011)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What each factor of the priority counts for; a factor lies between 0 and 1."""

    priority_class: int = 1000
    """For each unit of the class's value (this factor alone is no fraction): by default a class
    comes before all else."""
    age: int = 100_000
    """For having waited `Policy.age_limit_us` or longer."""
    fair_share: int = 500_000
    """For being the account and user that are furthest below their shares."""
    size: int = 0
    """For asking for the whole cluster's GPUs."""
    qos: int = 100_000
    """For the account's quality of service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a site wants its jobs scheduled."""

    order: Order = Order.MULTIFACTOR
    """Who goes first."""
    weights: Weights = field(default_factory=Weights)
    """Of the factors of `Order.MULTIFACTOR`."""
    age_limit_us: int = 7 * DAY_US
    """Having waited for longer counts no more."""
    half_life_us: int = 7 * DAY_US
    """After this time what was used counts half."""
    fair_share: FairShare = FairShare.TREE
    """How fairness is measured."""
    backfill: Backfill = Backfill.EASY
    """What may pass those ahead."""
    backfill_depth: int = 1000
    """At most so many of those that wait get a time reserved, where backfill is conservative."""
    fabric: tuple[str, ...] = ("fabric/spine", "fabric/block", "fabric/leaf")
    """Keys of the labels that tell a node's place in the fabric, the widest level first."""
    preemption: bool = True
    """Whether jobs are ended for others."""
    gpu_weights: tuple[tuple[str, int], ...] = ()
    """What a second of a GPU counts for, in thousandths, by words of its model's name; 1000 for
    others."""


DEFAULT = Policy()
"""What a site has that says nothing else."""
