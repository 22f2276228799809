"""Puts Horovod into a virtual environment, built from its published source.

Horovod is published as source alone, and a build is good for one framework in one version on one
Python. The wheel is kept in `$XDG_CACHE_HOME/controlplane/wheels/<key>/` (default `~/.cache`), so
that only the first build on a machine takes minutes. It is built with NCCL where the CUDA toolkit
and NCCL's header are installed, and with Gloo alone elsewhere. Any `HOROVOD_*` variable of the
environment reaches the build and becomes part of the key.

Uses the standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOROVOD = "0.28.1"
BUILD_DEADLINE_S = 45 * 60
INSTALL_DEADLINE_S = 20 * 60
TOOLCHAIN = Path(__file__).resolve().parent / "horovod-cxx17.cmake"
# Horovod's setup.py imports these, or its CMake files do: the build runs without isolation, because
# it must see the very framework that it is built against. Also what Horovod needs at run time.
BUILD_NEEDS = ("setuptools", "wheel", "packaging", "psutil", "cloudpickle", "pyyaml", "cffi")
# Half-precision sums use these, where the processor has them. Never -march=native: a wheel may be
# kept on a shared home folder, and meet an older processor there.
X86_FLAGS = ("avx", "f16c", "fma")


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """What Horovod is built against."""

    package: str
    """Name of the framework's package."""
    requirements: tuple[str, ...]
    """What pip installs before the build; the example programs' needs are among them."""
    module: str
    """Horovod's module for it, which must import and have Gloo once all is done."""
    newest_python: tuple[int, int]
    """The last minor version of Python that the framework is published for."""
    expected: str
    """How long a build takes on two cores, for people."""
    switches: Mapping[str, str]
    """Environment of Horovod's build."""


FRAMEWORKS = {
    "torch": Framework(
        package="torch",
        requirements=("torch==2.13.0", "numpy", "scikit-learn"),
        module="horovod.torch",
        newest_python=(3, 14),
        expected="about 2 minutes",
        switches={"HOROVOD_WITH_PYTORCH": "1", "HOROVOD_WITHOUT_TENSORFLOW": "1"},
    ),
    "tensorflow": Framework(
        package="tensorflow-cpu",
        # Keras 3, which TensorFlow 2.16 brings, breaks Horovod's Keras callbacks.
        requirements=("tensorflow-cpu==2.15.1", "numpy<2", "scikit-learn"),
        module="horovod.tensorflow",
        newest_python=(3, 11),
        expected="about 5 minutes",
        switches={"HOROVOD_WITH_TENSORFLOW": "1", "HOROVOD_WITHOUT_PYTORCH": "1"},
    ),
}
COMMON_SWITCHES = {
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_WITHOUT_MPI": "1",
    "HOROVOD_CPU_OPERATIONS": "GLOO",
}


class BuildError(Exception):
    """Something that a person must put right; the message says what."""


def say(text: str) -> None:
    """Tell the person who waits, at once even when the output is a pipe."""
    print(f"horovod: {text}", flush=True)


def arch_flags(machine: str, processor_flags: Sequence[str]) -> str:
    """Compiler flags for `machine`; never empty, since Horovod then asks the compiler itself."""
    wanted = [flag for flag in X86_FLAGS if flag in processor_flags]
    if machine != "x86_64" or len(wanted) != len(X86_FLAGS):
        return "-fPIC"
    return " ".join(f"-m{flag}" for flag in wanted)


def switches(framework: Framework, environ: Mapping[str, str]) -> dict[str, str]:
    """Horovod's build settings: ours, and over them the caller's own `HOROVOD_*`."""
    info = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^flags\s*:(.*)$", info, re.MULTILINE)
    flags = found.group(1).split() if found else []
    theirs = {name: value for name, value in environ.items() if name.startswith("HOROVOD_")}
    ours = {"HOROVOD_BUILD_ARCH_FLAGS": arch_flags(platform.machine(), flags)}
    if has_nccl(environ):
        ours["HOROVOD_GPU_OPERATIONS"] = "NCCL"
    return ours | COMMON_SWITCHES | dict(framework.switches) | theirs


def has_nccl(environ: Mapping[str, str]) -> bool:
    """Whether what Horovod needs for GPUs is installed: the CUDA compiler, and NCCL's header."""
    cuda = Path(environ.get("HOROVOD_CUDA_HOME") or environ.get("CUDA_HOME") or "/usr/local/cuda")
    nccl = environ.get("HOROVOD_NCCL_HOME")
    places = [Path(nccl) / "include"] if nccl else [Path("/usr/include"), cuda / "include"]
    compiler = shutil.which("nvcc") or (cuda / "bin" / "nvcc").exists()
    return bool(compiler) and any((place / "nccl.h").exists() for place in places)


def key_of(abi: str, framework: str, version: str, settings: Mapping[str, str]) -> str:
    """Name of the cache folder: everything that a wheel depends on."""
    text = TOOLCHAIN.read_text(encoding="utf-8") + repr(sorted(settings.items()))
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"horovod-{HOROVOD}-{framework}-{version}-{abi}-{digest}"


def run(
    what: str, command: Sequence[str], *, log: Path, deadline_s: int, env: Mapping[str, str]
) -> None:
    """Run `command` with its output in `log`, with a sign of life; raise BuildError if it fails."""
    begun = time.monotonic()
    beat_s = 10 if sys.stdout.isatty() else 30
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            start_new_session=True,  # so that an interrupt ends the compilers too
        ) as process,
    ):
        try:
            while True:
                elapsed_s = time.monotonic() - begun
                try:
                    code = process.wait(min(beat_s, max(0.1, deadline_s - elapsed_s)))
                    break
                except subprocess.TimeoutExpired:
                    elapsed_s = time.monotonic() - begun
                    if elapsed_s >= deadline_s:
                        raise BuildError(f"{what}: not done in {deadline_s} s; see {log}") from None
                    say(f"  … {what}: {elapsed_s:.0f} s")
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        # The cause stands far above the end: pip and CMake have many words after it.
        causes = [line for line in lines if re.search(r"\berror\b[: ]", line, re.IGNORECASE)][:10]
        head = f"{what} failed with exit code {code}. First errors, and the last lines:"
        raise BuildError("\n".join([head, *causes, "…", *lines[-10:], f"All of it: {log}"]))
    say(f"  {what}: done after {time.monotonic() - begun:.0f} s")


class Environment:
    """A virtual environment, asked and changed through its own interpreter."""

    def __init__(self, folder: Path) -> None:
        """Speak of `folder`, which need not exist yet."""
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.stamp = folder / "horovod.key"

    def ask(self, code: str) -> str:
        """What a line of Python prints there; raise CalledProcessError when it fails."""
        answer = subprocess.run(
            [self.python, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=120
        )
        return answer.stdout.strip()

    def version(self, package: str) -> str:
        """Version of an installed package; empty when there is none."""
        return self.ask(
            "import importlib.metadata as m\n"
            f"print(next((d.version for d in m.distributions(name={package!r})), ''))"
        )

    def abi(self) -> str:
        """Python's name for what its extension modules depend on: version, machine, C library."""
        return self.ask("import sysconfig; print(sysconfig.get_config_var('SOABI'))")


def find_cmake(log: Path, environment: Environment) -> str:
    """A CMake of 3.21 or later: the system's, or PyPI's put into the environment."""
    system = shutil.which("cmake")
    if system:
        words = subprocess.run([system, "--version"], capture_output=True, text=True, timeout=30)
        found = re.search(r"version (\d+)\.(\d+)", words.stdout)
        if found and (int(found[1]), int(found[2])) >= (3, 21):
            return system
    say("no CMake of 3.21 or later on this system: taking the one from PyPI")
    pip_install(environment, ["cmake>=3.21,<4"], log)
    return str(environment.folder / "bin" / "cmake")


def pip_install(environment: Environment, requirements: Sequence[str], log: Path) -> None:
    """Install requirements into the environment, where they are not there already."""
    run(
        f"installing {requirements[0]}" + (" and more" if len(requirements) > 1 else ""),
        [str(environment.python), "-m", "pip", "install", *requirements],
        log=log,
        deadline_s=INSTALL_DEADLINE_S,
        env=os.environ,
    )


def build(
    environment: Environment,
    framework: Framework,
    settings: Mapping[str, str],
    log: Path,
    kept: Path,
) -> Path:
    """Build the wheel, put it into the folder `kept`, and give its path."""
    for tool in ("gcc", "g++", "make"):
        if not shutil.which(tool):
            raise BuildError(f"{tool} is needed to build Horovod: apt-get install gcc g++ make")
    jobs = len(os.sched_getaffinity(0))
    env = dict(os.environ) | dict(settings)
    env |= {
        "HOROVOD_CMAKE": find_cmake(log, environment),
        "CMAKE_TOOLCHAIN_FILE": str(TOOLCHAIN),
        # CMake 4 refuses the files of Horovod's third parties without this.
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
        "MAKEFLAGS": f"-j{jobs}",
        "PATH": f"{environment.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    say(f"building {HOROVOD} for {framework.package}: {framework.expected} on two idle cores")
    wanted = f"horovod=={HOROVOD}"
    with tempfile.TemporaryDirectory(dir=kept) as scratch:
        pip = [str(environment.python), "-m", "pip", "wheel", "-v", "--no-deps", "-w", scratch]
        run(
            "building Horovod",
            # Without pip's cache: it knows nothing of HOROVOD_*, and would hand out another build.
            [*pip, "--no-cache-dir", "--no-build-isolation", "--no-binary", "horovod", wanted],
            log=log,
            deadline_s=BUILD_DEADLINE_S,
            env=env,
        )
        (wheel,) = Path(scratch).glob("horovod-*.whl")
        return wheel.replace(kept / wheel.name)


def install(name: str, environment: Environment, cache: Path) -> None:
    """Put framework and Horovod into the environment, with as little work as will do."""
    framework = FRAMEWORKS[name]
    settings = switches(framework, os.environ)
    if environment.python.exists() and environment.stamp.exists():
        version = environment.version(framework.package)
        key = key_of(environment.abi(), name, version, settings)
        if environment.stamp.read_text(encoding="utf-8") == key and environment.version("horovod"):
            say(f"{HOROVOD} for {framework.package} {version} is installed in {environment.folder}")
            return

    cache.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(prefix="horovod-", suffix=".log")
    os.close(handle)
    log = Path(path)
    if not environment.python.exists():
        if sys.version_info[:2] > framework.newest_python:
            newest = ".".join(map(str, framework.newest_python))
            raise BuildError(
                f"{framework.requirements[0]} is published for Python up to {newest}, and this is "
                f"{platform.python_version()}: install python{newest} with its venv module, and "
                f"run this with python{newest}"
            )
        command = [sys.executable, "-m", "venv", str(environment.folder)]
        run(f"making {environment.folder}", command, log=log, deadline_s=120, env=os.environ)
    say("installing the framework: some 200 MB to fetch the first time, a minute or two")
    pip_install(environment, [*framework.requirements, *BUILD_NEEDS], log)

    version = environment.version(framework.package)
    key = key_of(environment.abi(), name, version, settings)
    kept = cache / key
    kept.mkdir(exist_ok=True)
    with (kept / "lock").open("w") as lock:
        # Of two builds at once, the second waits, and finds the wheel of the first.
        fcntl.flock(lock, fcntl.LOCK_EX)
        wheel = next(kept.glob("horovod-*.whl"), None)
        if wheel:
            say(f"taking the wheel that an earlier build left in {kept}")
        else:
            wheel = build(environment, framework, settings=settings, log=log, kept=kept)
    pip = [str(environment.python), "-m", "pip", "install", "--no-deps", "--force-reinstall"]
    run("installing the wheel", [*pip, str(wheel)], log=log, deadline_s=120, env=os.environ)
    try:
        environment.ask(f"import {framework.module} as hvd; assert hvd.gloo_built()")
    except subprocess.CalledProcessError as error:
        raise BuildError(
            f"Horovod was installed but does not start:\n{error.stderr[-2000:]}\n"
            f"Remove {kept} and run this again to build it anew."
        ) from None
    environment.stamp.write_text(key, encoding="utf-8")
    log.unlink()
    say(f"{HOROVOD} for {framework.package} {version} works in {environment.folder}")


def main() -> None:
    """Read the command line; end with words and exit code 1 when it cannot be done."""
    parser = argparse.ArgumentParser(
        description="Install Horovod; build it where no wheel is kept."
    )
    parser.add_argument("--framework", choices=sorted(FRAMEWORKS), required=True)
    parser.add_argument("--venv", type=Path, required=True, help="made where it does not exist")
    options = parser.parse_args()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        install(
            options.framework,
            Environment(options.venv.absolute()),
            caches / "controlplane" / "wheels",
        )
    except BuildError as error:
        sys.exit(f"horovod: {error}")
    except KeyboardInterrupt:
        sys.exit("horovod: interrupted; nothing half-built is kept")


if __name__ == "__main__":
    main()
