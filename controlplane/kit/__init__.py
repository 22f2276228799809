"""What every daemon needs and no noun owns: clock, loops, configuration, logs.

Nothing here knows jobs, nodes, gRPC or SQL; the rooms above bring their own meaning.
"""

from __future__ import annotations
