"""Benchmarks: each prints a table, beside a limit or a peer measured in the same run."""
