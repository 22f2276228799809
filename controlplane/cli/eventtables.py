"""Events on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.cli import text
from controlplane.cli.eventwords import sentence
from controlplane.cli.jobtables import cell, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from controlplane.v1.event_pb2 import Event


def draw_history(console: Console, events: Iterable[Event], *, array: bool) -> None:
    """The story of one job, a sentence for each event."""
    for event in events:
        words = text.visible_line(sentence(event, array=array))
        console.print(f"{_time(event)}  {words}", soft_wrap=True)


def draw_events(console: Console, events: Iterable[Event]) -> None:
    """One line for each event."""
    made = table("TIME", "RESOURCE", "WHAT HAPPENED", wide="WHAT HAPPENED")
    for event in events:
        made.add_row(cell(_time(event)), cell(event.resource), cell(sentence(event)))
    console.print(made)


def line(event: Event) -> str:
    """One event on a line of its own."""
    return text.visible_line(f"{_time(event)}  {event.resource}: {sentence(event)}")


def _time(event: Event) -> str:
    return text.local_time(text.micros(event.time))
