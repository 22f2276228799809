"""The disk that guests (`guest.py`) boot from: Debian with systemd and Python, made once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

CACHE = "GUEST_CACHE"
"""Names the folder for it; ~/.cache/controlplane-guest else."""
SUITE, PYTHON = "bookworm", "3.11"
"""Debian's release, and its Python, for which our packages must have been installed."""
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "procps", "iproute2")
PROGRAMS = {"debootstrap": "debootstrap", "linux.uml": "user-mode-linux", "mke2fs": "e2fsprogs"}
"""What must be here: the Debian package that brings it."""
DOOR = "/opt/src/tests/support/guestdoor.py"

FILES = {
    "/etc/hostname": "guest\n",
    "/etc/hosts": "127.0.0.1 localhost guest\n",
    "/usr/local/sbin/guest-mounts": """\
#!/bin/sh -e
ip link set lo up
# The file system's own mending of renames without a sync is off: others have none.
mount -t ext4 -o noauto_da_alloc /dev/ubdb /srv/disk
for daemon in controlplane nodeagent; do
    mount --bind /srv/disk/$daemon /var/lib/$daemon
done
for word in $(cat /proc/cmdline); do
    case $word in
        guest.src=*) mount -t hostfs -o "${word#*=}" none /opt/src ;;
        guest.packages=*) mount -t hostfs -o "${word#*=}" none /opt/packages ;;
        guest.share=*) mount -t hostfs -o "${word#*=}" none /mnt/share ;;
    esac
done
mount -o remount,ro /opt/src
mount -o remount,ro /opt/packages
""",
    "/etc/systemd/system/guest-mounts.service": """\
[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service
Before=local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /usr/local/sbin/guest-mounts
""",
    "/etc/systemd/system/door.service": f"""\
[Unit]
Description=Takes commands from the machine that this is a guest of
Requires=guest-mounts.service
After=guest-mounts.service dbus.service
[Service]
ExecStart=/usr/bin/python3 {DOOR}
KillMode=process
""",
}
FOLDERS = (
    *("/srv/disk", "/var/lib/controlplane", "/var/lib/nodeagent"),
    *("/opt/src", "/opt/packages", "/mnt/share"),
)
WANTED = {
    "guest-mounts.service": "local-fs.target.wants",
    "door.service": "multi-user.target.wants",
}
IDLE: tuple[str, ...] = ("getty.target", "systemd-networkd.service", "systemd-logind.service")
IDLE += ("e2scrub_reap.service", "systemd-user-sessions.service", "systemd-random-seed.service")
IDLE += ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer")
IDLE += ("fstrim.timer",)
"""Nobody needs them here, and each costs a part of a second at every boot."""


def why_not() -> str:
    """What this machine lacks for a guest, in words; empty when nothing."""
    if sysconfig.get_python_version() != PYTHON:
        return f"needs packages of Python {PYTHON}, which the guest has; this is {sys.version[:6]}"
    there = _path().exists()
    lacking = [name for name in PROGRAMS if not there or name != "debootstrap"]
    packages = [PROGRAMS[name] for name in lacking if shutil.which(name) is None]
    if packages:
        return f"needs {', '.join(packages)}: apt-get install {' '.join(packages)}"
    return "" if there or os.geteuid() == 0 else "needs root, to make the guest's disk"


def image() -> Path:
    """The disk, which is made if it is not there: some 2 minutes, and 200 MB from Debian."""
    path = _path()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            _make(Path(scratch)).rename(path)
    return path


def make_disk(path: Path) -> None:
    """An empty disk for the state of daemons."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        for name in ("controlplane", "nodeagent"):
            Path(scratch, name).mkdir()
        _format(path, "1G", Path(scratch))


def _path() -> Path:
    folder = os.environ.get(CACHE) or Path.home() / ".cache/controlplane-guest"
    recipe = repr((SUITE, PACKAGES, sorted(FILES.items()), FOLDERS, sorted(WANTED.items()), IDLE))
    return Path(folder, f"{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.img")


def _make(scratch: Path) -> Path:
    root, made = scratch / "root", scratch / "made.img"
    _say(f"debootstrap of {SUITE} (a minute or two)")
    include = f"--include={','.join(PACKAGES)}"
    _run("debootstrap", "--variant=minbase", include, SUITE, str(root))
    for folder in FOLDERS:
        (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (root / name.lstrip("/")).write_text(text)
    (root / "opt/python").symlink_to("/usr")
    units = root / "etc/systemd/system"
    for unit in IDLE:
        _link(units / unit, "/dev/null")
    for unit, wants in WANTED.items():
        _link(units / wants / unit, f"../{unit}")
    _say("making a disk of it")
    _format(made, "2G", root)
    return made


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _format(path: Path, size: str, content: Path) -> None:
    _run("truncate", "-s", size, str(path))
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-d", str(content), str(path))


def _say(words: str) -> None:
    print(f"guest: {words}", file=sys.stderr, flush=True)


def _run(*command: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        told = (done.stdout + done.stderr)[-3000:]
        raise AssertionError(f"{' '.join(command)} -> {done.returncode}:\n{told}")
