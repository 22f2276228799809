"""Blobs in files under the SHA-256 of their content.

Beside a blob lies an empty file for each principal who has uploaded it, `<sha256>.<principal>`: the
same content may have several owners, and none learns of the others.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.model.errors import FieldFault, InvalidRequest, NotFound, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

PART_BYTES = 256 << 10
_HEX = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """Blobs under a folder."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """`limit_bytes`: no blob is larger."""
        self._folder = folder
        self._limit = limit_bytes

    def path(self, sha256: str) -> Path:
        """Where a blob lies, if it is there. InvalidRequest for what is no SHA-256."""
        if not _HEX.fullmatch(sha256):
            fault = f"{sha256[:80]!r} is no SHA-256: 64 lower-case hexadecimal digits"
            raise InvalidRequest(FieldFault(field="sha256", description=fault))
        return self._folder / sha256[:2] / sha256

    def size(self, sha256: str) -> int:
        """A blob's size in bytes; NotFound when it is not there."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            raise absent(sha256) from None

    def owner(self, sha256: str, principal: str) -> str | None:
        """The principal, if they have uploaded a blob; None else."""
        return principal if mark(self.path(sha256), principal).exists() else None

    def parts(self, sha256: str, offset: int) -> Iterator[bytes]:
        """A blob from an offset on, in parts."""
        if offset >= self.size(sha256):
            return
        with self.path(sha256).open("rb") as file:
            file.seek(offset)
            while part := file.read(PART_BYTES):
                yield part

    def receive(self, sha256: str) -> Receiving:
        """Begin to take a blob in."""
        return Receiving(self.path(sha256), sha256, self._limit)


def mark(path: Path, principal: str) -> Path:
    """The file that says that a principal has uploaded the blob that lies at `path`."""
    return path.with_name(f"{path.name}.{principal}")


def absent(sha256: str) -> NotFound:
    """The error for a blob that is not there."""
    return NotFound(f"there is no blob {sha256}; upload it first")


class Receiving:
    """A blob on its way in: seen by nobody until it is whole."""

    def __init__(self, path: Path, sha256: str, limit_bytes: int) -> None:
        """`path`: where it will lie."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path, self._sha256, self._limit = path, sha256, limit_bytes
        self._fd, self._name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        self._digest, self.size = hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        """The next bytes. Overloaded when it grows too large."""
        self.size += len(data)
        if self.size > self._limit:
            raise Overloaded(
                f"the blob is larger than the {self._limit} bytes that are allowed here"
            )
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def finish(self, principal: str) -> None:
        """Keep it, durably, if it is what was announced, as this principal's; InvalidRequest
        else."""
        if self._digest.hexdigest() != self._sha256:
            words = f"announced as {self._sha256}, but the content's is {self._digest.hexdigest()}"
            raise InvalidRequest(FieldFault(field="sha256", description=words))
        os.fsync(self._fd)
        os.replace(self._name, self._path)
        mark(self._path, principal).touch(mode=0o600)

    def close(self) -> None:
        """Give back what it holds; what was not finished is gone."""
        os.close(self._fd)
        Path(self._name).unlink(missing_ok=True)
