"""The nouns of the house, as frozen values, and the tables of their legal moves.

Nothing here does I/O, reads a clock, or knows protobuf or SQL. Units are integers: bytes,
millicores, microseconds.
"""

from __future__ import annotations
