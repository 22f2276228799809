"""What this machine can do at all, just now: the limits beside which figures are told.

``python -m benchmarks.limits ADDRESS [CERTIFICATE KEY]`` serves one rpc that does nothing.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from benchmarks.callers import Door
from controlplane.service.server import OPTIONS
from tests.support.ports import free_port

SYNCS = 300


def syncs_per_s(folder: Path) -> float:
    """How often in a second a page can be written to a file and be on the disk."""
    path = folder / "syncs"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        began = time.monotonic()
        for _ in range(SYNCS):
            os.write(fd, bytes(4096))
            os.fdatasync(fd)
        return SYNCS / (time.monotonic() - began)
    finally:
        os.close(fd)
        path.unlink()


@contextmanager
def empty_server(pki: Path | None) -> Iterator[tuple[Door, int]]:
    """A server in a process of its own whose one rpc does nothing, and that process. `pki`: a
    control plane's folder of certificates, for TLS."""
    target = f"127.0.0.1:{free_port()}"
    files = [] if pki is None else [str(pki / "server.crt"), str(pki / "server.key")]
    command = [sys.executable, "-m", "benchmarks.limits", target, *files]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"serving\n"
        door = Door(target=target, ca_file=str(pki / "ca.crt") if pki is not None else "")
        yield door, process.pid
    finally:
        process.terminate()
        process.wait()


class _Empty(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(_nothing)


async def _nothing(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    return b""


async def _serve(target: str, files: list[bytes]) -> None:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((_Empty(),))
    if files:
        certificate, key = files
        server.add_secure_port(target, grpc.ssl_server_credentials([(key, certificate)]))
    else:
        server.add_insecure_port(target)
    await server.start()
    print("serving", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], [Path(name).read_bytes() for name in sys.argv[2:]]))
