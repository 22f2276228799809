"""The agent of one host: it reports what the host has, and does what the control plane decided.

It dials out and has no open port. It shares ``model``, ``wire``, ``kit`` and ``v1`` with the
control plane.
Its workers' lives do not hang on its own: each lease has a supervisor process that outlives the
agent.
"""

from __future__ import annotations
