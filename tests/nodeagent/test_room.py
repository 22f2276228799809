"""Room for leases, on small file systems of the tests' own; and looks that do not come back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodeagent.behalf import act_for
from nodeagent.launchers import LaunchError, LaunchRefused
from nodeagent.looking import MOST_HANGING, Looks, Place
from nodeagent.room import Room, enter, make_a_file
from tests.support.cluster import ROOT
from tests.support.disk import small_disk

NOBODY = 65534
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def room(*folders: Path, free_bytes: int = 0, free_inodes: int = 0) -> Room:
    return Room(folders=folders, free_bytes=free_bytes, free_inodes=free_inodes)


def test_too_little_is_told_with_the_floor_and_its_setting_until_there_is_enough(
    tmp_path: Path,
) -> None:
    assert room(tmp_path, free_bytes=1, free_inodes=0).look() == ""
    short = room(tmp_path, free_bytes=1 << 50)
    words = short.look()
    assert words.startswith(f"{tmp_path} has ")
    assert words.endswith(
        " MiB free, and 1073741824 are needed; make room there, or lower min_free_mib"
    )
    assert short.trouble == words
    short.free_bytes = 1 << 51
    assert short.look() != words
    assert short.trouble == words, "it is told once"
    short.free_bytes = 1
    assert short.look() == short.trouble == ""


def test_a_folder_that_has_gone_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert room(gone).look() == (
        f"{gone} cannot be used: No such file or directory; make it anew, or mount it"
    )


@root
@pytest.mark.root
def test_inodes_run_out_too_and_a_file_system_may_be_read_only(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "nr_inodes=100") as disk:
        assert room(disk, free_inodes=50).look() == ""
        assert room(disk, tmp_path, free_inodes=10_000).look() == (
            f"{disk} has room for 99 files more, and 10000 are needed; remove some there, or lower"
            " min_free_inodes"
        )
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True, timeout=10)
        assert room(disk).look() == (
            f"{disk} is mounted read-only; look why, and mount it for writing"
        )


@root
@pytest.mark.root
def test_a_file_needs_a_block_and_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        make_a_file(disk, "look")
        (disk / "ballast").write_bytes(bytes(64 << 10))
        with pytest.raises(OSError, match="No space left"):
            make_a_file(disk, "look")
        assert [path.name for path in disk.iterdir()] == ["ballast"]


def apart(work: Callable[[], object]) -> object:
    """What a function gives in a thread that ends with it, or the error's words."""
    found: list[object] = []

    def body() -> None:
        try:
            found.append(work())
        except OSError as error:
            found.append(error.strerror)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that others get to: pytest's own are closed to them."""
    folder = Path("/tmp") / f"cc-{os.getpid()}-{tmp_path.name}"
    folder.mkdir(mode=0o755)
    yield folder
    subprocess.run(["rm", "-r", folder], check=True, timeout=10)


@root
@pytest.mark.root
def test_a_thread_uses_files_as_somebody_else_and_the_others_do_not(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    group = open_folder / "group"
    group.mkdir()
    group.chmod(0o770)
    os.chown(group, 0, 4242)

    def tried(uid: int, groups: tuple[int, ...], folder: Path) -> object:
        def work() -> int:
            act_for(uid, NOBODY, groups)
            enter(folder)
            make_a_file(folder, "look")
            return 0

        return apart(work)

    assert tried(NOBODY, (), closed) == "Permission denied"
    assert tried(NOBODY, (), group) == "Permission denied"
    assert tried(NOBODY, (4242,), group) == 0
    assert tried(NOBODY, (), open_folder) == "Permission denied", "its rights are another's"
    make_a_file(closed, "mine")
    with open("/proc/thread-self/status") as file:
        assert "Uid:\t0\t0\t0\t0\n" in file.read()


@root
@pytest.mark.root
def test_what_a_thread_makes_for_somebody_is_theirs_and_it_has_no_privilege(
    open_folder: Path,
) -> None:
    open_folder.chmod(0o777)

    def work() -> str:
        act_for(NOBODY, NOBODY, ())
        (open_folder / "theirs").touch()
        with open("/proc/thread-self/status") as file:
            return file.read()

    status = str(apart(work))
    made = (open_folder / "theirs").stat()
    assert (made.st_uid, made.st_gid) == (NOBODY, NOBODY)
    assert "CapEff:\t0000000000000000" in status


def test_without_root_one_cannot_be_somebody_else(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "from nodeagent.behalf import act_for\n"
        f"if os.geteuid() == 0: os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try: act_for(1, 1, [])\n"
        "except PermissionError as error: print(error.strerror)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "Operation not permitted\n", done.stderr


def test_a_look_gives_what_it_found_or_raises() -> None:
    looks = Looks()

    def fails(_: Place) -> None:
        raise LaunchRefused("no")

    assert asyncio.run(looks.within("ada", lambda place: 7)) == 7
    with pytest.raises(LaunchRefused, match="no"):
        asyncio.run(looks.within("ada", fails))


def test_a_look_that_hangs_is_told_with_its_folder_and_holds_up_no_other() -> None:
    let_go = threading.Event()
    looks = Looks(deadline_s=0.05)

    def hang(place: Place) -> None:
        place.folder, place.fault = Path("/nfs/home"), LaunchRefused
        let_go.wait(60)

    async def look() -> None:
        for _ in range(MOST_HANGING):
            with pytest.raises(LaunchRefused, match=r"^/nfs/home did not answer within 0.05 s"):
                await looks.within("ada", hang)
        words = "4 looks at folders for ada still hang: mend the file system"
        with pytest.raises(LaunchRefused, match=words):
            await looks.within("ada", hang)
        assert await looks.within("bob", lambda place: 7) == 7
        let_go.set()
        while looks.hanging("ada"):  # noqa: ASYNC110 - threads tell nobody
            await asyncio.sleep(0.01)
        assert await looks.within("ada", lambda place: 7) == 7

    asyncio.run(look())


def test_a_node_whose_folders_hang_is_in_trouble() -> None:
    let_go = threading.Event()

    class Hangs(Room):
        def look(self) -> str:
            let_go.wait(60)
            return ""

    hangs = Hangs(folders=(Path("/state"),), free_bytes=0, free_inodes=0)
    assert asyncio.run(hangs.look_within(Looks(deadline_s=0.05)))
    assert hangs.trouble.startswith("/state did not answer within 0.05 s")
    let_go.set()


def test_a_call_that_is_given_up_leaves_its_thread_to_itself() -> None:
    let_go = threading.Event()
    looks = Looks()

    async def look() -> None:
        task = asyncio.create_task(looks.within("ada", lambda place: let_go.wait(60)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert looks.hanging("ada") == 1
        let_go.set()
        while looks.hanging("ada"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    asyncio.run(look())


def test_the_end_of_the_loop_does_not_wait_for_one_that_hangs() -> None:
    let_go = threading.Event()

    async def look() -> None:
        with pytest.raises(LaunchError):
            await Looks(deadline_s=0.01).within("ada", lambda place: let_go.wait(60))

    asyncio.run(look())
    let_go.set()
