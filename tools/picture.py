"""`make picture`: runs the demonstration in a terminal, and draws what it shows into docs/demo.svg.

What is of this machine alone, its paths, is told as anybody's: the repository as ~/controlplane.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "demo.svg"
COLUMNS, LINES = 116, 50
DEMO_S = 600.0
NAMES = "demo"
"""Begins the names inside the picture, which would else follow from its content."""
_FETCHED = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
"""Fonts that would be fetched from elsewhere: a picture in a page may not, and needs none."""
FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def main() -> int:
    """Run, draw, and say where the picture lies; the exit code is the demonstration's."""
    shown, code = in_terminal([sys.executable, str(ROOT / "tools" / "demo.py")])
    if code:
        sys.stderr.write(shown)
        return code
    PICTURE.write_text(draw(neutral(f"$ make demo\n{shown}")))
    print(f"{PICTURE.relative_to(ROOT)} is drawn")
    return 0


def in_terminal(command: list[str]) -> tuple[str, int]:
    """Run a command in a pseudo-terminal; what it showed, and its exit code."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", LINES, COLUMNS, 0, 0))
        environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={**environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)},
        )
    finally:
        os.close(theirs)
    shown = bytearray()
    try:
        while data := os.read(ours, 65536):
            shown += data
            sys.stdout.write(data.decode(errors="replace"))
            sys.stdout.flush()
    except OSError:  # EIO: the last process has closed the terminal
        pass
    finally:
        os.close(ours)
    return shown.decode(errors="replace").replace("\r\n", "\n"), process.wait(DEMO_S)


def neutral(shown: str) -> str:
    """The same without this machine's paths."""
    ways = {str(Path(sys.executable).parent), str(Path(sys.executable).resolve().parent)}
    for bin_folder in sorted(ways, key=len, reverse=True):
        shown = shown.replace(bin_folder, ".venv/bin")
    shown = shown.replace(str(ROOT), "~/controlplane")
    left = re.findall(rf"{re.escape(str(Path.home()))}\S*", shown)
    if left:
        raise SystemExit(f"the picture would show paths of this machine: {', '.join(left)}")
    return shown


def draw(shown: str) -> str:
    """What a terminal showed, colours and all, as SVG."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(Text.from_ansi(shown.rstrip()), soft_wrap=False)
        drawn = console.export_svg(title="make demo", unique_id=NAMES)
    return _FETCHED.sub("", drawn).replace("Fira Code, monospace", FONTS)


if __name__ == "__main__":
    sys.exit(main())
