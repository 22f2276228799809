"""How often a property is tried: as often as it says in `make test`, and a third of it in the quick
loop, whose examples differ from run to run. `EXAMPLES=20` in the environment looks 20 times longer.
"""

from __future__ import annotations

import os

_TIMES = float(os.environ.get("EXAMPLES", "0.3"))


def examples(number: int) -> int:
    """So many of them, as long as it is asked for."""
    return max(1, round(number * _TIMES))
