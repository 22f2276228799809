"""Words that are hard to keep as they are."""

from __future__ import annotations

EVERY_PLANE = "".join(
    chr((plane << 16) + low) for plane in range(17) for low in (0x20AC, 0xABCD, 0xE000, 0xFFFD)
) + "".join(chr((plane << 16) + 0xFFFF) for plane in range(17))
"""Of each plane of Unicode some: assigned, private, unassigned, and what is no character."""
