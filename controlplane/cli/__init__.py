"""`ccctl`: what an operator and a researcher type.

It reaches the control plane through `controlplane.client` alone. It decides nothing and keeps
nothing: a command reads its arguments, asks, and shows the answer. What is heavy (gRPC, rich) is
imported where it is needed, so that `ccctl version` and completion are quick.
"""

from __future__ import annotations
