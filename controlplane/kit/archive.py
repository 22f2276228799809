"""Folders as archives that have the same bytes wherever and whenever they are made.

`pack` writes an uncompressed tar without owners and times, so that an unchanged folder has an
unchanged SHA-256 and travels once. `unpack` trusts nothing in an archive: it makes regular files,
folders and inner symlinks, and writes through no link.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import stat
import tarfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SIZE_LIMIT_BYTES: Final = 256 * 2**20
"""An archive's content may have so many bytes unless the caller says otherwise."""

ENTRIES_LIMIT: Final = 100_000
"""An archive may have so many files, folders and links."""

_NAMED_WHEN_TOO_BIG = 5
_PART_BYTES = 2**20


class ArchiveFault(ValueError):
    """A folder can't be packed, or an archive can't be unpacked; the text says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What `pack` has written."""

    sha256: str
    """SHA-256 of the archive, in lower-case hex."""
    size_bytes: int
    """Size of the archive."""
    entries: int
    """Number of files, folders and links in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One thing below the folder."""

    name: str
    """Path relative to the folder, with `/`."""
    path: str
    """Where it is."""
    mode: int
    """Its type and permissions."""
    size_bytes: int
    """Bytes of content; 0 for folders and links."""


def pack(
    folder: Path,
    into: BinaryIO,
    *,
    exclude: Sequence[str] = (),
    limit_bytes: int = SIZE_LIMIT_BYTES,
) -> Packed:
    """Write a folder's content to `into` as a tar; raise `ArchiveFault` for what can't travel.

    A pattern of `exclude` is matched with a path relative to the folder and with each bare name; a
    folder that matches stays out with all that it holds. Only the owner's execute bit of a file's
    mode travels.
    """
    entries = sorted(_entries(folder, exclude), key=lambda entry: os.fsencode(entry.name))
    _check_size(folder, entries, limit_bytes)
    root = os.path.realpath(folder)
    digest = _Digest(into)
    with tarfile.open(
        fileobj=cast("IO[bytes]", digest), mode="w|", format=tarfile.PAX_FORMAT
    ) as tar:
        for entry in entries:
            _add(tar, entry, root)
    return Packed(sha256=digest.sha256(), size_bytes=digest.size_bytes, entries=len(entries))


def unpack(
    archive: Path,
    into: Path,
    *,
    limit_bytes: int = SIZE_LIMIT_BYTES,
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Unpack an archive into a new folder; raise `ArchiveFault` for what `pack` never writes.

    `into` must not exist yet. After a fault it may hold a part; the caller removes it. `wanted`:
    asked all the while; once it says no, that is a fault too.
    """
    links: list[tuple[Path, str]] = []
    left, entries = limit_bytes, 0
    into.mkdir(mode=0o700)
    try:
        with tarfile.open(archive, mode="r:") as tar:
            for member in tar:
                _check_wanted(archive, wanted)
                entries += 1
                left -= member.size
                if left < 0 or entries > ENTRIES_LIMIT:
                    raise ArchiveFault(
                        f"{archive.name} holds more than {limit_bytes} bytes or "
                        f"{ENTRIES_LIMIT} entries"
                    )
                target = into / _inner(member.name)
                if member.issym():
                    links.append((target, member.linkname))
                else:
                    _extract(tar, member, target, lambda: _check_wanted(archive, wanted))
        # Links come last, so that nothing above could be written through one.
        _link(into, links)
    except (tarfile.TarError, EOFError) as error:
        raise ArchiveFault(f"{archive.name} is no intact tar: {error}") from error
    except FileExistsError as error:
        raise ArchiveFault(f"{archive.name} names the same file twice: {error.filename}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArchiveFault(f"{archive.name} has no folder for {error.filename}") from error


def _entries(folder: Path, exclude: Sequence[str]) -> Iterator[_Entry]:
    """Everything below a folder that is not excluded, in any order."""
    waiting = [("", os.fspath(folder))]
    while waiting:
        prefix, path = waiting.pop()
        try:
            found = list(os.scandir(path))
        except OSError as error:
            raise ArchiveFault(f"{path} can't be read: {error.strerror}") from error
        for item in found:
            name = f"{prefix}{item.name}"
            if _excluded(name, item.name, exclude):
                continue
            status = item.stat(follow_symlinks=False)
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            yield _Entry(name=name, path=item.path, mode=status.st_mode, size_bytes=size)
            if stat.S_ISDIR(status.st_mode):
                waiting.append((f"{name}/", item.path))


def _excluded(name: str, base: str, patterns: Sequence[str]) -> bool:
    for pattern in patterns:
        bare = pattern.removeprefix("./").rstrip("/")
        if fnmatchcase(name, bare) or ("/" not in bare and fnmatchcase(base, bare)):
            return True
    return False


def _check_size(folder: Path, entries: Sequence[_Entry], limit_bytes: int) -> None:
    if len(entries) > ENTRIES_LIMIT:
        raise ArchiveFault(
            f"{folder} holds {len(entries)} files and folders; at most {ENTRIES_LIMIT} can be "
            'shipped: leave some out with "exclude"'
        )
    total = sum(entry.size_bytes for entry in entries)
    if total <= limit_bytes:
        return
    biggest = heapq.nlargest(_NAMED_WHEN_TOO_BIG, entries, key=lambda entry: entry.size_bytes)
    named = ", ".join(f"{entry.name} ({_mebibytes(entry.size_bytes)})" for entry in biggest)
    raise ArchiveFault(
        f"{folder} holds {_mebibytes(total)}; at most {_mebibytes(limit_bytes)} can be shipped: "
        f'leave some out with "exclude", or put data where the nodes can read it. '
        f"The biggest: {named}"
    )


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def _add(tar: tarfile.TarFile, entry: _Entry, root: str) -> None:
    """Write one entry: what it is and holds, and nothing of who made it and when."""
    info = tarfile.TarInfo(entry.name)
    try:
        if stat.S_ISLNK(entry.mode):
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(entry.path), 0o777
            if os.path.isabs(info.linkname) or not _is_below(root, os.path.realpath(entry.path)):
                raise ArchiveFault(
                    f"{entry.path} is a link out of the folder, to {info.linkname}: "
                    'copy what it points to, or leave it out with "exclude"'
                )
            tar.addfile(info)
        elif stat.S_ISDIR(entry.mode):
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        elif stat.S_ISREG(entry.mode):
            info.size = entry.size_bytes
            info.mode = 0o755 if entry.mode & stat.S_IXUSR else 0o644
            # O_NOFOLLOW: what was a file when it was listed must not be a link out by now.
            with open(
                os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb"
            ) as file:
                tar.addfile(info, file)
        else:
            raise ArchiveFault(
                f"{entry.path} is a socket, a pipe or a device, which can't be shipped: "
                'leave it out with "exclude"'
            )
    except OSError as error:
        # tarfile's own errors have no strerror: a file that shrank while it was being read.
        why = error.strerror or "it changed while it was being read; try again"
        raise ArchiveFault(f"{entry.path} can't be read: {why}") from error


def _check_wanted(archive: Path, wanted: Callable[[], bool]) -> None:
    if not wanted():
        raise ArchiveFault(f"{archive.name} is not wanted any more")


def _extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, go_on: Callable[[], None]
) -> None:
    """Make one folder or file; anything else is a fault. `go_on`: raises when nobody waits."""
    if member.isdir():
        target.mkdir(mode=0o755)
        return
    content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
    if content is None:
        raise ArchiveFault(f"{member.name!r} is neither a file nor a folder nor an inner link")
    mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with content, open(os.open(target, flags, mode), "wb") as file:
        while part := content.read(_PART_BYTES):
            file.write(part)
            go_on()


def _link(into: Path, links: Sequence[tuple[Path, str]]) -> None:
    """Make the links, none through another; refuse those that lead out, alone or together."""
    root = Path(os.path.realpath(into))
    for target, linkname in links:
        if Path(os.path.realpath(target.parent)) != root / target.parent.relative_to(into):
            raise ArchiveFault(f"{target.name!r} would be made through a link")
        target.symlink_to(linkname)
    for target, linkname in links:
        if os.path.isabs(linkname) or not _is_below(str(root), os.path.realpath(target)):
            raise ArchiveFault(f"the link {target.name!r} leads out, to {linkname!r}")


def _inner(name: str) -> str:
    """The name, when it stays inside."""
    parts = name.split("/")
    if not name or name.startswith("/") or "\0" in name or not {"", ".", ".."}.isdisjoint(parts):
        raise ArchiveFault(f"{name!r} is no path inside an archive")
    return name


def _is_below(root: str, path: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


class _Digest:
    """A file to write to that hashes and counts what passes."""

    def __init__(self, into: BinaryIO) -> None:
        self._into = into
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        """Hash, count and pass on."""
        self._hash.update(data)
        self.size_bytes += len(data)
        return self._into.write(data)

    def sha256(self) -> str:
        """SHA-256 of all that has passed, in lower-case hex."""
        return self._hash.hexdigest()
