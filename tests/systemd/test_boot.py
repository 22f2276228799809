"""The units under a real systemd, as an operator installs them, on a host of their own."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import sdbox
from tests.support.sdbox import Host, until

ROOT = Path(__file__).resolve().parents[2]
HERE = "/opt/controlplane"
BIN = f"{HERE}/bin"
PROGRAMS = {
    "controlplane": "controlplane.daemon.main",
    "nodeagent": "nodeagent.main",
    "ccctl": "controlplane.cli.main",
}
TOKEN = "/var/lib/controlplane/admin.token"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(lacking := sdbox.why_not()), reason=lacking or "-"),
]


def install(host: Host) -> None:
    """What the units' comments say, with this tree and its packages in place of an index."""
    python = f"/opt/python/bin/python{sysconfig.get_python_version()}"
    host.run(python, "-m", "venv", "--without-pip", HERE)
    site = f"{HERE}/lib/python{sysconfig.get_python_version()}/site-packages"
    packages = Path(sysconfig.get_path("purelib")).relative_to(ROOT)
    host.path(f"{site}/controlplane.pth").write_text(f"/opt/src\n/opt/src/{packages}\n")
    for program, module in PROGRAMS.items():
        script = host.path(f"{BIN}/{program}")
        script.write_text(
            f"#!{BIN}/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
        )
        script.chmod(0o755)
    host.path("/etc/sysusers.d").mkdir(exist_ok=True)
    shutil.copy(
        ROOT / "systemd/controlplane.sysusers", host.path("/etc/sysusers.d/controlplane.conf")
    )
    host.run("systemd-sysusers")
    for daemon in ("controlplane",):
        shutil.copy(ROOT / f"systemd/{daemon}.service", host.path("/etc/systemd/system"))
        host.path(f"/etc/{daemon}").mkdir()
        host.path(f"/etc/{daemon}/{daemon}.toml").write_text(
            host.run(f"{BIN}/{daemon}", "config", "example")
        )
    # Half a minute is right for an operator, and long for a test.
    drop_in = host.path("/etc/systemd/system/controlplane.service.d")
    drop_in.mkdir()
    (drop_in / "watchdog.conf").write_text("[Service]\nWatchdogSec=4s\n")
    host.run("systemctl", "daemon-reload")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("sdbox")
    # Python too may lie in a home folder, which the control plane's unit rightly hides.
    binds = {"/opt/src": ROOT, "/opt/python": Path(sys.base_prefix)}
    with sdbox.booted("head", folder / "box", binds=binds) as host:
        install(host)
        yield host


def start(host: Host, unit: str) -> int:
    """Start a unit, which returns when it says READY=1; give its process id."""
    try:
        host.run("systemctl", "start", unit)
    except AssertionError as error:
        error.add_note(journal(host, unit))
        raise
    return int(host.show(unit, "MainPID"))


def journal(host: Host, unit: str) -> str:
    return host.run("journalctl", "--no-pager", "-o", "cat", "-u", unit, check=False)


def ccctl(host: Host, *arguments: str) -> str:
    return host.run(f"{BIN}/ccctl", "--token-file", TOKEN, *arguments)


def test_the_control_plane_starts_confined_and_answers(host: Host) -> None:
    pid = start(host, "controlplane")

    status = host.path(f"/proc/{pid}/status").read_text()
    assert host.show("controlplane", "ActiveState") == "active"
    assert host.show("controlplane", "StatusText").startswith("serving on 127.0.0.1:7600")
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    assert "0.1.0" in ccctl(host, "version", "--remote")
    for path, mode in ((TOKEN, 0o600), ("/var/lib/controlplane", 0o700)):
        found = host.path(path).stat()
        assert (found.st_mode & 0o7777, found.st_uid) == (
            mode,
            int(host.run("id", "-u", "controlplane")),
        )


def test_the_control_plane_feeds_its_watchdog(host: Host) -> None:
    start(host, "controlplane")
    first = int(host.show("controlplane", "WatchdogTimestampMonotonic"))

    until(
        "the watchdog was fed again",
        lambda: int(host.show("controlplane", "WatchdogTimestampMonotonic")) > first,
        within_s=30,
    )


def test_a_control_plane_that_hangs_is_started_again(host: Host) -> None:
    hanging = start(host, "controlplane")

    host.run("kill", "-STOP", str(hanging))

    until(
        "another process serves",
        lambda: (
            host.show("controlplane", "ActiveState") == "active"
            and int(host.show("controlplane", "MainPID")) not in (0, hanging)
        ),
        within_s=60,
    )
    assert "0.1.0" in ccctl(host, "version", "--remote")


def test_stopping_the_control_plane_is_clean(host: Host) -> None:
    start(host, "controlplane")

    host.run("systemctl", "stop", "controlplane")

    assert host.show("controlplane", "ActiveState") == "inactive"
    assert host.show("controlplane", "Result") == "success"
    assert host.show("controlplane", "ExecMainStatus") == "0"
    assert "Traceback" not in journal(host, "controlplane")
