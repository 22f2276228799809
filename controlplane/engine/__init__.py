"""One cycle of each duty, as a plain function that can be called without its loop.

A duty looks at the registry once, decides, commits once, and says in one sentence what came of it.
Everything here is
synchronous: a cycle is a call in a test, a tick in the daemon, an event in a simulation.
"""

from __future__ import annotations
