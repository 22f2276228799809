"""The gRPC edge: who calls, what they may, decode, ask the registry, encode.

Handlers decide nothing: they hand commands to the registry and wait. Only here and in `daemon` does
anything await.
"""

from __future__ import annotations
