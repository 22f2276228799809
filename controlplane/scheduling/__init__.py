"""Decisions: `plan(view) -> plan`, pure from end to end.

A decision receives everything that it may know, the time included, and returns everything that it
wants done. The same view
gives the same plan, byte for byte. Nothing here knows a clock, a database, a network or chance.
"""

from __future__ import annotations
