"""Bringing a folder to the control plane, once per content."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Final

from controlplane.client.errors import InvalidInput, NotFound
from controlplane.kit.archive import SIZE_LIMIT_BYTES, ArchiveFault, Packed, pack
from controlplane.model.errors import FieldFault
from controlplane.v1 import blob_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from controlplane.client.transport import Connection
    from controlplane.v1.blob_service_pb2_grpc import BlobServiceStub

PART_BYTES: Final = 512 * 1024
"""Bytes of a blob in one message."""
SLOWEST_BYTES_PER_S: Final = 2**20
"""An upload may be as slow as this before it counts as stuck."""


def upload_dir(
    connection: Connection,
    stub: BlobServiceStub,
    folder: Path,
    exclude: Sequence[str],
    *,
    timeout_s: float,
    on_upload: Callable[[int, int], None],
    dry_run: bool = False,
    limit_bytes: int = SIZE_LIMIT_BYTES,
) -> Packed:
    """Pack a folder, and upload it where the server lacks it; raise `InvalidInput` for faults.

    `on_upload` gets the bytes sent so far and in all. With `dry_run` nothing is sent.
    """
    with tempfile.TemporaryFile(prefix="controlplane-") as file:
        try:
            packed = pack(folder, file, exclude=exclude, limit_bytes=limit_bytes)
        except ArchiveFault as fault:
            raise InvalidInput.of(
                FieldFault(field="working_dir.ship", description=str(fault))
            ) from fault
        file.flush()
        if dry_run or _is_there(connection, stub, packed, timeout_s):
            return packed

        def parts() -> Iterator[pb.UploadBlobRequest]:
            # By position: an upload that broke may still be reading while the next one begins.
            for start in range(0, packed.size_bytes, PART_BYTES):
                data = os.pread(file.fileno(), PART_BYTES, start)
                sha256 = packed.sha256 if start == 0 else ""
                yield pb.UploadBlobRequest(sha256=sha256, data=data)
                on_upload(start + len(data), packed.size_bytes)

        connection.attempt(
            lambda left_s: stub.UploadBlob.with_call(
                parts(), timeout=left_s, metadata=connection.metadata
            ),
            timeout_s + packed.size_bytes / SLOWEST_BYTES_PER_S,
        )
        return packed


def _is_there(
    connection: Connection, stub: BlobServiceStub, packed: Packed, timeout_s: float
) -> bool:
    try:
        connection.call(stub.GetBlob, pb.GetBlobRequest(sha256=packed.sha256), timeout_s)
    except NotFound:
        return False
    return True
