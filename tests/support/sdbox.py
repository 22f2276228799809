"""A host of its own with a real systemd as process 1, out of namespaces of this machine.

It sees this machine's root below a layer that takes all writes, and has no network but a loopback.
Needs root, and a kernel that lets it make namespaces, overlays and control groups.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

INIT = Path(__file__).with_name("sdbox_init.sh")
CGROUPS = Path("/sys/fs/cgroup")
NAMESPACES = ("--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup")


def until(what: str, condition: Callable[[], object], *, within_s: float) -> None:
    """Wait until a condition of another process holds; raise AssertionError past the deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"after {within_s} s still not so: {what}"
        time.sleep(0.05)


def why_not() -> str:
    """What this machine lacks for such a host, in words; empty when nothing."""
    if os.geteuid() != 0:
        return "needs root"
    programs = ("unshare", "nsenter", "systemctl", "ip", "/lib/systemd/systemd")
    lacking = [program for program in programs if shutil.which(program) is None]
    if lacking:
        return f"needs {', '.join(lacking)}"
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return f"may not make namespaces: {tried.stderr.strip()}" if tried.returncode else ""


def own_cgroups() -> dict[str, Path]:
    """The folder of this process in each v1 hierarchy (and `unified`); only `""` on v2."""
    found = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        name = controllers.removeprefix("name=")
        if (CGROUPS / "cgroup.procs").exists():
            return {"": CGROUPS / path.lstrip("/")}
        if (CGROUPS / (name or "unified")).is_dir():
            found[name or "unified"] = CGROUPS / (name or "unified") / path.lstrip("/")
    return found


class Host:
    """One such host, while it runs."""

    def __init__(self, process: subprocess.Popen[bytes], init: int) -> None:
        """Speak to the systemd that is process `init` of this machine, held by `process`."""
        self.process = process
        self.init = init

    def run(self, *command: str, check: bool = True, timeout_s: float = 60) -> str:
        """Run a command there and give what it prints; raise CalledProcessError when it fails."""
        entered = [
            "nsenter",
            f"--target={self.init}",
            "-m",
            "-u",
            "-i",
            "-n",
            "-p",
            "-C",
            "-r",
            "-w",
        ]
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run(
            [*entered, "--", "env", "-i", f"PATH={path}", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command} -> {done.returncode}:\n{done.stdout}"
        return done.stdout

    def path(self, path: str) -> Path:
        """A file of that host, as this machine sees it."""
        return Path(f"/proc/{self.init}/root") / path.lstrip("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file there."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return self.path(path).exists()

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()


@contextmanager
def booted(name: str, folder: Path, *, binds: Mapping[str, Path]) -> Iterator[Host]:
    """A host that sees folders of this machine, read-only, at the paths of `binds`; gone after."""
    cgroups = {key: path / f"sdbox-{name}-{os.getpid()}" for key, path in own_cgroups().items()}
    for key, path in cgroups.items():
        path.mkdir()
        if key == "cpuset":  # which lets nobody in while it is empty
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (path / setting).write_text((path.parent / setting).read_text())
    procs = [str(path / "cgroup.procs") for path in cgroups.values()]
    hierarchies = [key for key in cgroups if key]
    shown = [f"{here}:{there}" for there, here in binds.items()]
    start = [str(INIT), name, str(folder), *shown, "--", *hierarchies]
    # First into the control groups, then into the namespaces, whose root they become.
    enter = 'for f in "${@:2:$1}"; do echo $$ > "$f"; done; shift $(($1 + 1)); exec "$@"'
    command = ["bash", "-c", enter, "bash", str(len(procs)), *procs]
    command += ["unshare", "--fork", "--kill-child", *NAMESPACES, *start]
    folder.mkdir(parents=True, exist_ok=True)
    console = folder.with_name(f"{folder.name}.console")
    with (
        console.open("wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield _wait_for_boot(process, console)
        finally:
            _end(process)
            for path in cgroups.values():
                _remove(path)


def _wait_for_boot(process: subprocess.Popen[bytes], console: Path) -> Host:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def up() -> bool:
        words = console.read_text(errors="replace")
        assert process.poll() is None, f"the host ended while it started:\n{words}"
        ids = children.read_text().split()
        return bool(ids) and Path(f"/proc/{ids[0]}/root/run/systemd/private").exists()

    until("systemd listens", up, within_s=30)
    host = Host(process, int(children.read_text().split()[0]))
    state = host.run("systemctl", "is-system-running", "--wait", check=False).strip()
    assert state in ("running", "degraded"), f"{state}:\n{console.read_text(errors='replace')}"
    return host


def _end(process: subprocess.Popen[bytes]) -> None:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        os.kill(int(children.read_text().split()[0]), signal.SIGRTMIN + 4)  # "power off"
        process.wait(15)
    except (OSError, IndexError, subprocess.TimeoutExpired):
        process.kill()  # takes process 1, and so the whole host, along
        process.wait(15)


def _remove(cgroup: Path) -> None:
    """Remove a control group and all below it, once the kernel has let go of the last process."""

    def gone() -> bool:
        try:
            for folder, _, _ in os.walk(cgroup, topdown=False):
                Path(folder).rmdir()
        except OSError:
            return False
        return True

    until(f"{cgroup} is empty", gone, within_s=10)
