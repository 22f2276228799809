"""The control plane as a process: the only place that knows clock, store, loops and server
together."""

from __future__ import annotations
