"""A step in a running job, as its user holds it."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Final, Self

import grpc

from controlplane.client.decode import check_version, from_rpc
from controlplane.client.errors import DeadlinePassed, Unreachable
from controlplane.v1 import step_pb2
from controlplane.v1 import step_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from controlplane.client.transport import Connection
    from controlplane.v1.step_service_pb2_grpc import StepServiceStub

LONGEST_S: Final = 30 * 86400.0
"""No step is held for longer."""
PIECE_BYTES: Final = 128 << 10
"""Bytes of standard input in one message."""


class Step:
    """A step that runs. Iterate over it for what comes from it; its last message says how it ended.

    Any thread may send; a `send` waits while the step takes nothing. Closing it hangs up.
    """

    def __init__(
        self,
        connection: Connection,
        stub: StepServiceStub,
        start: step_pb2.StepStart,
        start_s: float,
    ) -> None:
        """Start it. Raises `ClientError` when that fails, or takes longer than `start_s`."""
        self._connection = connection
        self._requests: queue.Queue[pb.ExecRequest | None] = queue.Queue(1)
        self._call = stub.Exec(self._pieces(start), timeout=LONGEST_S, metadata=connection.metadata)
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._call.cancel()

        timer = threading.Timer(start_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            first = next(self._call)
            check_version(self._call, connection.server, ended=False)
        except StopIteration:
            raise Unreachable(f"{connection.server} ended the call before the step began") from None
        except grpc.RpcError as error:
            if late.is_set():
                words = f"the step did not start within {start_s:g} s"
                raise DeadlinePassed(words) from None
            raise from_rpc(error, connection.server) from None
        finally:
            timer.cancel()
        self.started: step_pb2.StepStarted = first.output.started
        """Where it runs, and under which number."""

    def __enter__(self) -> Self:
        """Give the step itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hang up."""
        self.close()

    def close(self) -> None:
        """Hang up: a step that still runs gets SIGHUP, unless it is a detached one."""
        self._call.cancel()

    def __iter__(self) -> Iterator[step_pb2.StepOutput]:
        """Yield what comes from it, up to its end. Raises `ClientError` when the connection breaks:
        then the step was hung up on.
        """
        try:
            for message in self._call:
                yield message.output
        except grpc.RpcError as error:
            raise from_rpc(error, self._connection.server) from None

    def send(self, data: bytes) -> None:
        """Send bytes to its standard input."""
        for at in range(0, len(data), PIECE_BYTES):
            self._put(step_pb2.StepInput(data=data[at : at + PIECE_BYTES]))

    def end_input(self) -> None:
        """Say that its standard input ends here."""
        self._put(step_pb2.StepInput(end=True))

    def resize(self, rows: int, columns: int) -> None:
        """Give its terminal a new size."""
        self._put(step_pb2.StepInput(size=step_pb2.WindowSize(rows=rows, columns=columns)))

    def signal(self, name: str) -> None:
        """Send a signal to its process group: `INT`."""
        self._put(step_pb2.StepInput(signal=name))

    def _put(self, piece: step_pb2.StepInput) -> None:
        request = pb.ExecRequest(input=piece)
        while self._call.is_active():
            try:
                self._requests.put(request, timeout=1)
            except queue.Full:
                continue
            return

    def _pieces(self, start: step_pb2.StepStart) -> Iterator[pb.ExecRequest]:
        yield pb.ExecRequest(start=start)
        while True:
            try:
                request = self._requests.get(timeout=60)
            except queue.Empty:
                if self._connection.closed or not self._call.is_active():
                    return
                continue
            if request is None:
                return
            yield request


def exit_code(ended: step_pb2.StepEnded) -> int:
    """What a shell would say of a step's end."""
    if ended.HasField("signal"):
        return 128 + ended.signal
    return ended.exit_code if ended.HasField("exit_code") else 1
