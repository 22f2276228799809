"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.support.examples import examples

# No test asserts a wall time: the machine may have other work.
settings.register_profile(
    "timed",
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("timed")
