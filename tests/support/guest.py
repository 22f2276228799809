"""A machine with a kernel of its own: user-mode Linux, Debian's systemd as process 1, and disks
whose page cache dies with it.

`cut()` is a power cut: SIGKILL to all of its processes at once. What the guest had written and not
synced was in its own memory alone, and is gone; what had reached the disk is in the image, which
this machine keeps. (The guest's disk has no cache of its own, so that a write which was issued and
not flushed survives: what is proved is that somebody asked for it to be written, and not that
barriers are in order.)

What a guest *says* is out of its reach at once: what it wrote to a serial line lies in a pipe of
ours, and nothing that befalls the guest afterwards takes it back. A line that was on its way when
the power went is missing, so that we hear less than what happened, and never more.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import guestimage
from tests.support.sdbox import until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
MEMORY = "1024M"
BOOT_S = 180.0
"""Some 10 s on an idle machine."""
SAY = "/dev/ttyS1"
"""In the guest: what is written here is heard."""
DISK = "/srv/disk"
"""In the guest: a disk for nothing but the state folders of both daemons, so that nobody else's
sync brings what is theirs to it."""
PYTHON = "/opt/controlplane/bin/python"
"""In the guest, once the centre is installed: sees this tree and its packages."""

why_not = guestimage.why_not


class Guest:
    """One such machine: its disks, and whether it runs."""

    def __init__(self, folder: Path) -> None:
        """Lay out its disks in a folder; it does not run yet."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._root, self._disk = folder / "root.img", folder / "disk.img"
        self.share = folder / "share"
        """A folder that the guest sees at /mnt/share, past its page cache."""
        self.share.mkdir(exist_ok=True)
        self.console = folder / "console.log"
        """What the kernel and systemd printed, over all boots."""
        subprocess.run(
            ["cp", "--sparse=always", guestimage.image(), self._root], check=True, timeout=120
        )
        guestimage.make_disk(self._disk)
        self.boots: list[float] = []
        """Seconds that each boot took."""
        self._heard: list[dict[str, Any]] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._orders = -1

    # --- power ---------------------------------------------------------------------------------

    def boot(self) -> None:
        """Switch it on, and wait until it takes commands."""
        began = time.monotonic()
        self._answers.clear()
        orders, self._orders = os.pipe()
        answers, answered = os.pipe()
        said, saying = os.pipe()
        os.set_blocking(self._orders, True)
        words = [
            *("linux.uml", f"mem={MEMORY}", f"ubd0={self._root}", f"ubd1={self._disk}"),
            *("root=/dev/ubda", "rw", "rootfstype=ext4", f"uml_dir={self._folder}/uml"),
            *("con=null", "con0=null,fd:1", "ssl=null"),
            *(f"ssl0=fd:{orders},fd:{answered}", f"ssl1=null,fd:{saying}"),
            *("systemd.unified_cgroup_hierarchy=1", "systemd.show_status=0", "panic=-1"),
            *(f"guest.src={ROOT}", f"guest.share={self.share}"),
            f"guest.packages={Path(sysconfig.get_path('purelib')).resolve()}",
        ]
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=(orders, answered, saying),
                start_new_session=True,  # so that one signal reaches all of its processes
            )
        for fd in (orders, answered, saying):
            os.close(fd)
        threading.Thread(target=self._listen, args=(answers, self._answer), daemon=True).start()
        threading.Thread(target=self._listen, args=(said, self._hear), daemon=True).start()
        self._wait_for(0, BOOT_S)
        self.boots.append(time.monotonic() - began)

    def cut(self) -> None:
        """Take its power away."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        until("all of the guest is gone", lambda: not _session(self._process_id), within_s=30)
        os.close(self._orders)
        self._process = None

    @property
    def _process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def close(self) -> None:
        """Switch it off, as far as it is on."""
        if self._process is not None:
            self.cut()

    # --- what it says --------------------------------------------------------------------------

    def heard(self) -> list[dict[str, Any]]:
        """All that was said on the channel so far, over all boots."""
        with self._news:
            return list(self._heard)

    def _hear(self, line: bytes) -> None:
        with contextlib.suppress(ValueError):  # cut in the middle
            told = json.loads(line)
            if isinstance(told, dict):
                self._heard.append(told)

    def _answer(self, line: bytes) -> None:
        with contextlib.suppress(ValueError):
            told = json.loads(line)
            self._answers[told["id"]] = told

    def _listen(self, fd: int, take: Any) -> None:
        with os.fdopen(fd, "rb") as lines:
            for line in lines:
                with self._news:
                    take(line)
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _wait_for(self, number: int, within_s: float) -> dict[str, Any]:
        assert self._process is not None
        deadline = time.monotonic() + within_s
        with self._news:
            while number not in self._answers:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    tail = self.console.read_text(errors="replace")[-3000:]
                    raise AssertionError(f"no answer from the guest within {within_s} s:\n{tail}")
                self._news.wait(0.2)
            return self._answers.pop(number)

    # --- what it does, as `sdbox.Host` does it ---------------------------------------------------

    def run(self, *command: str, check: bool = True, timeout_s: float = 120) -> str:
        """Run a command there as root and give what it prints; AssertionError when it fails."""
        with self._news:
            self._number += 1
            number = self._number
        order = {"id": number, "command": command, "timeout_s": timeout_s}
        os.write(self._orders, json.dumps(order).encode() + b"\n")
        told = self._wait_for(number, timeout_s + 30)
        printed: str = told["printed"]
        assert not check or told["code"] == 0, f"{command} -> {told['code']}:\n{printed}"
        return printed

    def start(self, *command: str) -> None:
        """Have a command run beside others, until it ends or the power goes."""
        with self._news:
            self._number += 1
            number = self._number
        order = {"id": number, "command": command, "timeout_s": 3600}
        os.write(self._orders, json.dumps(order).encode() + b"\n")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file there."""
        with tempfile.NamedTemporaryFile("w", dir=self.share) as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            source = f"/mnt/share/{Path(file.name).name}"
            self.run("install", "-D", "-m", f"{mode:o}", source, path)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return "yes" in self.run("sh", "-c", 'test -e "$1" && echo yes', "sh", path, check=False)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()


def _session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state, _, _, session = (
                    entry.joinpath("stat").read_text().rpartition(")")[2].split()[:4]
                )
                if session == str(leader) and state not in "ZX":
                    found.append(int(entry.name))
    return found


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Guest]:
    """A guest that is on; gone after, with its disks. What it printed stays in `console.log`."""
    guest = Guest(folder)
    try:
        guest.boot()
        yield guest
    finally:
        guest.close()
        for image in folder.glob("*.img"):
            image.unlink()
        shutil.rmtree(folder / "uml", ignore_errors=True)
