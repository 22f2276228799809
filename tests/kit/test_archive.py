"""Folders become the same bytes everywhere, and nothing in an archive gets out of its folder."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from controlplane.kit.archive import ArchiveFault, Packed, pack, unpack


def packed(folder: Path, **options: object) -> tuple[Packed, bytes]:
    into = io.BytesIO()
    return pack(folder, into, **options), into.getvalue()  # type: ignore[arg-type]


def filled(folder: Path) -> Path:
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "train.py").write_text("print('hello')\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o700)
    (folder / "src" / "deep" / "größe.txt").write_bytes(b"\x00\xff" * 5000)
    (folder / "src" / "empty").touch()
    (folder / "latest").symlink_to("src/deep")
    return folder


def tree(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return into.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_what_was_packed_is_what_is_unpacked(tmp_path: Path) -> None:
    folder = filled(tmp_path / "a")
    result, data = packed(folder)
    (tmp_path / "archive").write_bytes(data)

    unpack(tmp_path / "archive", tmp_path / "b")

    assert tree(tmp_path / "b") == tree(folder)
    assert result.size_bytes == len(data)
    assert result.entries == 7


def test_time_place_owner_and_order_do_not_change_the_bytes(tmp_path: Path) -> None:
    first, filled_again = filled(tmp_path / "a"), filled(tmp_path / "elsewhere" / "c")
    for path in filled_again.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1, 1))
    (filled_again / "train.py").chmod(0o600)

    assert packed(first)[1] == packed(filled_again)[1]
    with tarfile.open(fileobj=io.BytesIO(packed(first)[1])) as tar:
        for info in tar:
            assert (info.uid, info.gid, info.uname, info.gname, info.mtime) == (0, 0, "", "", 0)


def test_a_changed_byte_changes_the_hash(tmp_path: Path) -> None:
    folder = filled(tmp_path / "a")
    before = packed(folder)[0].sha256
    (folder / "train.py").write_text("print('hullo')\n")
    assert packed(folder)[0].sha256 != before


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (["*.pt"], {"keep.py", "out", "out/keep.txt"}),
        (["out"], {"keep.py", "a.pt"}),
        (["out/"], {"keep.py", "a.pt"}),
        (["./out/*.pt"], {"keep.py", "a.pt", "out", "out/keep.txt"}),
        (["*.PT"], {"keep.py", "a.pt", "out", "out/b.pt", "out/keep.txt"}),
        (["*"], set()),
    ],
)
def test_excluded_names_stay_at_home(tmp_path: Path, exclude: list[str], left: set[str]) -> None:
    (tmp_path / "out").mkdir()
    for name in ("keep.py", "a.pt", "out/b.pt", "out/keep.txt"):
        (tmp_path / name).touch()
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path, exclude=exclude)[1])) as tar:
        assert set(tar.getnames()) == left


def test_a_file_whose_name_is_no_text_travels(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).write_text("x")
    (tmp_path / "archive").write_bytes(packed(folder)[1])
    unpack(tmp_path / "archive", tmp_path / "b")
    assert os.listdir(os.fsencode(tmp_path / "b")) == [b"\xff\xfe"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "inner/../../secret"])
def test_a_link_out_of_the_folder_is_a_fault(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "a"
    (folder / "inner").mkdir(parents=True)
    (tmp_path / "secret").touch()
    (folder / "link").symlink_to(target)
    with pytest.raises(ArchiveFault, match="is a link out of the folder"):
        packed(folder)
    packed(folder, exclude=["link"])


def test_a_socket_and_a_pipe_are_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArchiveFault, match="pipe is a socket, a pipe or a device"):
        packed(tmp_path)
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
        with pytest.raises(ArchiveFault, match="sock is a socket, a pipe or a device"):
            packed(tmp_path, exclude=["pipe"])


def test_a_folder_that_is_too_big_names_what_is_biggest(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"model-{number}").write_bytes(b"x" * (2**20 + number * 2**18))
    with pytest.raises(ArchiveFault) as caught:
        packed(tmp_path, limit_bytes=2 * 2**20)
    message = str(caught.value)
    assert "12.2 MiB; at most 2.0 MiB" in message
    assert "model-6 (2.5 MiB), model-5" in message
    assert "model-1" not in message


def test_a_folder_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ArchiveFault, match="No such file or directory"):
        packed(tmp_path / "nowhere")


HOSTILE = {
    "absolute": ([(member("/etc/x"), b"x")], "is no path inside"),
    "climbs": ([(member("a/../../x"), b"x")], "is no path inside"),
    "device": ([(member("dev", tarfile.CHRTYPE), b"")], "neither a file nor a folder"),
    "hard link": ([(member("h", tarfile.LNKTYPE, "/etc/passwd"), b"")], "neither a file"),
    "absolute link": ([(member("l", tarfile.SYMTYPE, "/etc"), b"")], "leads out"),
    "climbing link": ([(member("l", tarfile.SYMTYPE, "../x"), b"")], "leads out"),
    "through a link": (
        [(member("l", tarfile.SYMTYPE, "/tmp"), b""), (member("l/x"), b"x")],
        "has no folder for",
    ),
    "a link through a link": (
        [(member("l", tarfile.SYMTYPE, "."), b""), (member("l/x", tarfile.SYMTYPE, "a"), b"")],
        "through a link",
    ),
    "links in a row": (
        [
            (member("c", tarfile.DIRTYPE), b""),
            (member("c/d", tarfile.SYMTYPE, ".."), b""),
            (member("e", tarfile.SYMTYPE, "c/d/.."), b""),
        ],
        "leads out",
    ),
    "twice": ([(member("a"), b"1"), (member("a"), b"2")], "the same file twice"),
    "link and file": (
        [(member("a"), b"1"), (member("a", tarfile.SYMTYPE, "b"), b"")],
        "the same file twice",
    ),
    "no folder": ([(member("a/b"), b"1")], "has no folder for"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(tmp_path: Path, name: str) -> None:
    members, words = HOSTILE[name]
    (tmp_path / "archive").write_bytes(tar_of(*members))
    with pytest.raises(ArchiveFault, match=words):
        unpack(tmp_path / "archive", tmp_path / "into")
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "into"}


def test_an_archive_that_is_too_big_or_broken_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(tar_of((member("a"), b"x" * 100)))
    with pytest.raises(ArchiveFault, match="holds more than 99 bytes"):
        unpack(archive, tmp_path / "1", limit_bytes=99)
    archive.write_bytes(b"no tar at all" * 100)
    with pytest.raises(ArchiveFault, match="is no intact tar"):
        unpack(archive, tmp_path / "2")
    archive.write_bytes(tar_of((member("a"), b"x" * 5000))[:2000])
    with pytest.raises(ArchiveFault, match="is no intact tar"):
        unpack(archive, tmp_path / "3")


def test_no_set_user_id_bit_comes_out(tmp_path: Path) -> None:
    info = member("a")
    info.mode = 0o6777
    (tmp_path / "archive").write_bytes(tar_of((info, b"x")))
    unpack(tmp_path / "archive", tmp_path / "b")
    assert (tmp_path / "b" / "a").stat().st_mode & 0o7022 == 0


def test_unpacking_ends_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    (large / "a").write_bytes(bytes(8 << 20))
    (large / "b").touch()
    (tmp_path / "x.tar").write_bytes(packed(large)[1])
    answers = iter([True, True, True, False])
    with pytest.raises(ArchiveFault, match=r"x\.tar is not wanted any more"):
        unpack(tmp_path / "x.tar", tmp_path / "out", wanted=lambda: next(answers))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]
    assert (tmp_path / "out" / "a").stat().st_size == 3 << 20
