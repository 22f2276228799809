"""The control plane of a large-model compute centre.

The rooms, from the top down; each imports only rooms below it, and ``.importlinter`` keeps it so:

* ``cli``        ``ccctl``: reaches the daemon by gRPC alone, through ``client``;
* ``sim``        the scheduler over a trace, on a virtual clock: for ``ccctl simulate``;
* ``daemon``     wires clock, store, loops and server together: the only place that knows them all;
* ``service``    the gRPC edge: decode, ask, encode; who may call what;
* ``client``     a typed client of the gRPC API, for ``ccctl`` and for other programs;
* ``engine``     one cycle of each duty as a plain function (schedule, upkeep);
* ``scheduling`` pure decisions: ``plan(view, policy) -> plan``;
* ``registry``   the truth: facts in memory, one writer, group commits to a store;
* ``wire``       protobuf and model values, there and back, nowhere else;
* ``model``      frozen values and the tables of their legal moves; no I/O, no clock;
* ``kit``        clock, loops, configuration, logs;
* ``v1``         generated from ``protos/``.
"""

from __future__ import annotations

__version__ = "0.1.0"
