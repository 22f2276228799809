"""How calls get what came of their commands, which another thread runs."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

from controlplane.model.errors import WrongState
from controlplane.service.hub import Hub


def test_each_of_many_calls_gets_what_came_of_its_own_command() -> None:
    async def many() -> list[object]:
        hub = Hub(asyncio.get_running_loop())
        futures: list[Future[int]] = [Future() for _ in range(200)]

        def write() -> None:
            for number, future in enumerate(futures):
                if number % 10:
                    future.set_result(number)
                else:
                    future.set_exception(WrongState(str(number)))

        calls = [asyncio.ensure_future(hub.result(future, 30)) for future in futures]
        await asyncio.sleep(0)
        writer = threading.Thread(target=write)
        writer.start()
        found = await asyncio.gather(*calls, return_exceptions=True)
        writer.join()
        return [found_ if isinstance(found_, int) else str(found_) for found_ in found]

    assert asyncio.run(many()) == [n if n % 10 else str(n) for n in range(200)]


def test_a_command_that_nobody_waits_for_any_more_is_withdrawn() -> None:
    async def late() -> bool:
        future: Future[int] = Future()
        with pytest.raises(TimeoutError):
            await Hub(asyncio.get_running_loop()).result(future, 0)
        return future.cancelled()

    async def cancelled() -> bool:
        future: Future[int] = Future()
        call = asyncio.ensure_future(Hub(asyncio.get_running_loop()).result(future, 30))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return future.cancelled()

    assert asyncio.run(late())
    assert asyncio.run(cancelled())
