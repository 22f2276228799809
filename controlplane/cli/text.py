"""Words for moments, durations and sizes, and text that can't play with the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

_KEPT: Final = frozenset("\n\t\u00a0")
_SECOND_US: Final = 1_000_000


def visible(text: str) -> str:
    """Give text in which every control character and direction mark can be seen, and does nothing.

    Line feeds and tabs stay. `ESC` becomes `\\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _KEPT else _escaped(c) for c in text)


def visible_line(text: str) -> str:
    """As `visible`, on one line."""
    return visible(text).replace("\n", " ").replace("\t", " ")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def duration(length_us: int) -> str:
    """Write a duration with its two biggest units: `850ms`, `12.3s`, `4m05s`, `3h07m`, `2d04h`."""
    length_us = max(0, length_us)
    if length_us < _SECOND_US:
        return f"{length_us // 1000}ms"
    if length_us < 60 * _SECOND_US:
        return f"{length_us // 100_000 / 10}s"
    minutes, seconds = divmod(length_us // _SECOND_US, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"


def size(count: int) -> str:
    """Write a number of bytes for people: `512B`, `1.5KiB`, `80GiB`."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024 or unit == "PiB":
            break
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + unit


def cores(millicores: int) -> str:
    """Write thousandths of a core as cores: `4`, `0.5`."""
    return f"{millicores / 1000:g}"


def micros(moment: Timestamp) -> int:
    """Give a moment as microseconds since 1970 in UTC."""
    return moment.seconds * _SECOND_US + moment.nanos // 1000


def local_time(moment_us: int) -> str:
    """Write a moment in the reader's zone: `2026-03-01 14:05:09`."""
    moment = datetime.fromtimestamp(moment_us / _SECOND_US, UTC).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def clock_time(moment_us: int) -> str:
    """Write the time of day of a moment in the reader's zone: `14:05:09`."""
    return local_time(moment_us)[11:]


def shell_words(words: object) -> str:
    """Write an argument list as it would be typed."""
    import shlex

    return shlex.join(map(str, words)) if isinstance(words, list | tuple) else ""


def request_words(spec: Mapping[str, object]) -> str:
    """Say what a spec asks for: `2 workers, each 1 GPU, 4 cores, 8GiB`."""
    resources = spec.get("resources")
    needs = resources if isinstance(resources, Mapping) else {}
    workers, gpus = spec.get("workers", 1), needs.get("gpus", 0)
    parts = [f"{gpus} GPU{'s' if gpus != 1 else ''}"] if gpus else []
    parts.append(f"{needs.get('cpus', 1)} core{'s' if needs.get('cpus', 1) != 1 else ''}")
    parts.append(str(needs.get("memory", "")))
    each = ", ".join(filter(None, parts))
    return f"1 worker with {each}" if workers == 1 else f"{workers} workers, each with {each}"
