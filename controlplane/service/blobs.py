"""BlobService: working directories that travel with a job."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from controlplane.model.errors import FieldFault, InvalidRequest
from controlplane.model.identity import Role
from controlplane.registry import audit
from controlplane.service.auth import CALLER
from controlplane.service.blobstore import absent
from controlplane.service.errors import answers, streams
from controlplane.service.permissions import RPC, may
from controlplane.v1 import blob_service_pb2 as pb
from controlplane.v1.blob_service_pb2_grpc import BlobServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.service.blobstore import Receiving
    from controlplane.service.context import House


class BlobService(BlobServiceServicer):
    """Keeps blobs under the SHA-256 of their content."""

    def __init__(self, house: House) -> None:
        """`house`: the rooms to speak to."""
        self._house = house

    @answers
    async def GetBlob(self, request: pb.GetBlobRequest, context: Any) -> pb.Blob:
        """Tell whether a blob is there."""
        self._claim(request.sha256)
        return pb.Blob(sha256=request.sha256, size_bytes=self._house.blobs.size(request.sha256))

    @answers
    async def UploadBlob(
        self, requests: AsyncIterator[pb.UploadBlobRequest], context: Any
    ) -> pb.Blob:
        """Take a blob in."""
        receiving: Receiving | None = None
        sha256 = ""
        try:
            async for request in requests:
                if receiving is None:
                    sha256 = request.sha256
                    receiving = self._house.blobs.receive(sha256)
                await asyncio.to_thread(receiving.write, request.data)
            if receiving is None:
                words = "the upload carried no message; the first one names the blob"
                raise InvalidRequest(FieldFault(field="sha256", description=words))
            await self._write_down(receiving, sha256, context)
            await asyncio.to_thread(receiving.finish, CALLER.get().name)
            return pb.Blob(sha256=sha256, size_bytes=receiving.size)
        finally:
            if receiving is not None:
                receiving.close()

    async def _write_down(self, receiving: Receiving, sha256: str, context: Any) -> None:
        house, caller = self._house, CALLER.get()
        receiving.check()
        if house.blobs.owner(sha256, caller.name) is None:
            size = receiving.size
            await house.write(lambda d: audit.uploaded(d, sha256, size), house.actor(context))

    @streams
    async def DownloadBlob(
        self, request: pb.DownloadBlobRequest, context: Any
    ) -> AsyncIterator[pb.DownloadBlobResponse]:
        """Hand a blob out."""
        self._claim(request.sha256)
        parts = self._house.blobs.parts(request.sha256, max(request.offset, 0))
        while (part := await asyncio.to_thread(next, parts, b"")) != b"":
            yield pb.DownloadBlobResponse(data=part)

    def _claim(self, sha256: str) -> None:
        """NotFound for a blob that is none of the caller's, as for one that is not there: which
        contents others have is told to nobody."""
        house, caller = self._house, CALLER.get()
        if caller.role is Role.AGENT:
            house.blobs.path(sha256)
            owner = caller.name if house.registry.leases_blob(caller.name, sha256) else None
        else:
            owner = house.blobs.owner(sha256, caller.name)
        # Who is told that it is there will not upload it: it must stay for the submit that follows.
        if not may(caller, RPC.get(), owner) or not house.blobs.use(sha256):
            raise absent(sha256)
