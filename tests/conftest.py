"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

from tests.support.examples import examples

settings.register_profile("timed", max_examples=examples(100))
settings.load_profile("timed")
