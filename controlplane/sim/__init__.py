"""The simulator: the scheduler over a trace of jobs, on a virtual clock.

It runs the real policy over the real registry, in memory, and beside it the classic policies of the
literature as yardsticks. Time comes from one heap of events, chance from one seed: the same input
gives the same figures. Nothing here waits, dials or writes to a database.
"""

from __future__ import annotations
