"""Wakes the calls that wait for a change, and hands them what came of their own: between the
registry's writer and the event loop."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from controlplane.service.feed import Feed, Group, Told

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator
    from concurrent.futures import Future

    from controlplane.registry.draft import Draft

T = TypeVar("T")


class Hub:
    """Waiting calls by topic: `("node", uuid)`, `("job", number)`, `("log", number)`; and the feed
    of commits for those who watch many things."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """`loop`: where the calls wait."""
        self._loop = loop
        self.feed = Feed()
        self._waiting: dict[Hashable, set[asyncio.Event]] = defaultdict(set)
        self._done: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._rung = False

    def committed(self, draft: Draft) -> None:
        """The registry's listener: tell who waits for what a group has changed. Called by the
        writer's thread."""
        topics: list[Hashable] = [("node", uuid) for uuid in draft.generations.changed]
        topics += [("job", job_id) for job_id in draft.jobs.changed]
        topics += [("job", job_id) for job_id, _, _ in draft.progress.changed]
        topics += [("job", job_id) for job_id in draft.removed.jobs]
        jobs = {number: job for number, job in draft.jobs.changed.items() if job is not None}
        events = [Told(event=event) for event in draft.events]
        group = Group(events=events, jobs=jobs) if events else None
        if topics or group is not None:
            self._loop.call_soon_threadsafe(self._take, topics, group)

    def _take(self, topics: Iterable[Hashable], group: Group | None) -> None:
        if group is not None:
            self.feed.add(group)
        self.tell(topics)

    def tell(self, topics: Iterable[Hashable]) -> None:
        """Wake who waits for these topics. Called in the loop."""
        for topic in topics:
            for event in self._waiting.get(topic, ()):
                event.set()

    @contextmanager
    def listening(self, *topics: Hashable) -> Iterator[asyncio.Event]:
        """An event that is set by each change of these topics from now on; the caller clears it."""
        event = asyncio.Event()
        for topic in topics:
            self._waiting[topic].add(event)
        try:
            yield event
        finally:
            for topic in topics:
                self._waiting[topic].discard(event)
                if not self._waiting[topic]:
                    del self._waiting[topic]

    async def result(self, future: Future[T], timeout_s: float) -> T:
        """What comes of a command. TimeoutError when it was not in time; then, and when the call
        is cancelled, the command is withdrawn unless it has begun."""
        answer: asyncio.Future[T] = self._loop.create_future()
        late = self._loop.call_later(timeout_s, _too_late, answer)
        future.add_done_callback(lambda done: self._ended(answer, done))
        try:
            return await answer
        finally:
            late.cancel()
            future.cancel()

    def _ended(self, answer: asyncio.Future[Any], done: Future[Any]) -> None:
        """Called by the writer's thread, for each command of a group in a row: one ring for all of
        them, since each costs both threads a turn."""
        self._done.append((answer, done))
        if not self._rung and not self._loop.is_closed():
            self._rung = True
            self._loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        self._rung = False  # first of all: what ends from now on rings anew
        while self._done:
            answer, done = self._done.popleft()
            if answer.done() or done.cancelled():
                continue
            if (error := done.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(done.result())


def _too_late(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


async def wait(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait until an event is set, and clear it; False when it was not in time."""
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    event.clear()
    return True
