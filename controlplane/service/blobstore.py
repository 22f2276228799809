"""Blobs in files under the SHA-256 of their content.

Beside a blob lies an empty file for each principal who has uploaded it, `<sha256>.<principal>`: the
same content may have several owners, and none learns of the others. When a blob was used last is
its file's time of modification.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.kit.durable import sync
from controlplane.model.errors import FieldFault, InvalidRequest, NotFound, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

PART_BYTES = 256 << 10
PART_PREFIX = ".part-"
"""Of the name of a blob that is on its way in."""
_HEX = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """Blobs under a folder."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """`limit_bytes`: no blob is larger."""
        self._folder = folder
        self._limit = limit_bytes
        # What was found in use is not removed a moment later, and what is new is not taken for old.
        self._lock = threading.Lock()

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

    def use(self, sha256: str) -> bool:
        """Mark a blob as used by now, so that nobody takes it for an old one; False when it is not
        there."""
        with self._lock:
            try:
                os.utime(self.path(sha256))
            except FileNotFoundError:
                return False
            return True

    def unused(self, before_us: int) -> list[str]:
        """Blobs that nobody has uploaded or used since. Parts that an upload left behind as long
        ago are removed in passing."""
        found = []
        for path in sorted(self._folder.glob("[0-9a-f][0-9a-f]/*")):
            if path.name.startswith(PART_PREFIX):
                with self._lock:
                    _remove_unused(path, before_us)
            elif _HEX.fullmatch(path.name) and _used_us(path) < before_us:
                found.append(path.name)
        return found

    def remove(self, sha256: str, before_us: int) -> bool:
        """Remove a blob, unless somebody has used it since after all; whether it went."""
        path = self.path(sha256)
        with self._lock:
            if _used_us(path) >= before_us:
                return False
            # First: a blob that is nobody's is found again, a mark without its blob would not be.
            for owned in path.parent.glob(f"{sha256}.*"):
                owned.unlink(missing_ok=True)
            return _remove_unused(path, before_us)

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
        return Receiving(self.path(sha256), sha256, self._limit, self._lock)


def _used_us(path: Path) -> int:
    """When a file was written or used last, UTC in microseconds; 0 when it is not there."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns // 1000
    return 0


def _remove_unused(path: Path, before_us: int) -> bool:
    there = 0 < _used_us(path) < before_us
    if there:
        path.unlink()
    return there


def mark(path: Path, principal: str) -> Path:
    """The file that says that a principal has uploaded the blob that lies at `path`."""
    return path.with_name(f"{path.name}.{principal}")


def absent(sha256: str) -> NotFound:
    """The error for a blob that is not there."""
    return NotFound(f"there is no blob {sha256}; upload it first")


class Receiving:
    """A blob on its way in: seen by nobody until it is whole."""

    def __init__(self, path: Path, sha256: str, limit_bytes: int, lock: threading.Lock) -> None:
        """`path`: where it will lie. `lock`: held while it is put there."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path, self._sha256, self._limit = path, sha256, limit_bytes
        self._lock = lock
        self._fd, self._name = tempfile.mkstemp(dir=path.parent, prefix=PART_PREFIX)
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

    def check(self) -> None:
        """InvalidRequest unless it is what was announced."""
        if self._digest.hexdigest() != self._sha256:
            words = f"announced as {self._sha256}, but the content's is {self._digest.hexdigest()}"
            raise InvalidRequest(FieldFault(field="sha256", description=words))

    def finish(self, principal: str) -> None:
        """Keep it, durably, if it is what was announced, as this principal's; InvalidRequest
        else."""
        self.check()
        os.fsync(self._fd)
        with self._lock:
            os.utime(self._fd)
            os.replace(self._name, self._path)
            mark(self._path, principal).touch(mode=0o600)
        sync(self._path.parent)
        sync(self._path.parent.parent)  # it may have been the first blob of its folder

    def close(self) -> None:
        """Give back what it holds; what was not finished is gone."""
        os.close(self._fd)
        Path(self._name).unlink(missing_ok=True)
