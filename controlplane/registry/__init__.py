"""The truth about nodes, jobs, leases and events, and the one writer that may change it.

The database is the truth; `Facts` is its projection in memory, rebuilt at start, from which
decisions read. Every change is a command: a plain function of a `Draft`, run by the one writer,
which groups commands into transactions: validate against the facts plus what is pending, write,
commit under the epoch, apply to the facts, publish, answer. Nothing reads an uncommitted fact; one
bad command does not fail its group; no transaction is open while anything thinks.

The same commands and the same writer run over every `Store`: SQL (`registry.sql`) and memory
(`registry.memory`). This room never speaks gRPC and never reads a clock: time comes in as a
function.
"""

from __future__ import annotations
