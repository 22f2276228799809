"""From a plan's worker to a process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import termios
from typing import TYPE_CHECKING, NoReturn

from nodeagent.supervision import cage, kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nodeagent.plan import Identity, WorkerPlan

NOT_FOUND = 127
"""Exit code when the program is not there, as a shell gives it."""
NOT_RUNNABLE = 126
"""Exit code when it cannot be run, or its folder cannot be entered."""
NOT_PREPARED = 125
"""Exit code when the host refused what the plan asks for; the words are in the faults pipe."""

_TOUCHED = (
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)
"""What we or Python catch or ignore."""
_ALL = frozenset(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
"""Whoever started the agent may have had more of them ignored, as shells do for what they put into
the background."""


def start(
    worker: WorkerPlan,
    identity: Identity | None,
    stdout: int,
    stderr: int,
    faults: int,
    *,
    stdin: int | None = None,
    terminal: bool = False,
    groups: Sequence[str] = (),
) -> int:
    """Start the worker and return its pid. OSError when the host has no room for a process.

    It writes to the ends of pipes `stdout` and `stderr`, and reads from `stdin`, or nothing. With
    `terminal` these are one terminal, which controls a session of the worker's own. `groups` are
    the control groups that it belongs to, and enters by itself: this process must not, or it could
    be ended there for want of memory in the worker's place. What goes wrong shows as its end: words
    on its stderr and exit code 126 or 127 when the program is to blame, words on `faults` and 125
    when the host is.
    """
    changes = worker.hostname or terminal or groups
    pid = None if changes else _spawn(worker, identity, stdin, stdout, stderr)
    # The long way also tells in words why the short one failed.
    if pid is None:
        return _fork(worker, identity, stdin, stdout, stderr, faults, terminal, groups)
    return pid


def _spawn(
    worker: WorkerPlan, identity: Identity | None, stdin: int | None, stdout: int, stderr: int
) -> int | None:
    """Start it without a copy of this process, which costs a third of a fork; None if it fails.

    What `posix_spawn` cannot change is changed here and inherited. The cores stay changed: a
    supervisor keeps to those of its own lease.
    """
    streams = [(os.POSIX_SPAWN_DUP2, stdout, 1), (os.POSIX_SPAWN_DUP2, stderr, 2)]
    if stdin is not None:
        streams.append((os.POSIX_SPAWN_DUP2, stdin, 0))
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    before = os.umask(0o022)
    try:
        if worker.cpu_ids:
            os.sched_setaffinity(0, worker.cpu_ids)
        with _worn(identity):
            os.chdir(worker.cwd)
            return os.posix_spawn(
                _find(worker.argv[0], worker.env),
                worker.argv,
                worker.env,
                file_actions=streams,
                setpgroup=0,
                setsigmask=(),
                setsigdef=_ALL,
            )
    except (OSError, ValueError):
        return None
    finally:
        os.umask(before)
        os.fchdir(here)
        os.close(here)


@contextlib.contextmanager
def _worn(identity: Identity | None) -> Iterator[None]:
    """Be somebody but for the saved user and group, by which we come back.

    Who is started meanwhile is that one for good: with its program the kernel puts the effective
    user and group in the place of the saved ones (execve(2)), and drops all capabilities
    (capabilities(7)). Nobody can trace us in between, for our saved user is another one's.
    """
    if identity is None:
        yield
        return
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    try:
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, gid)
        os.setresuid(identity.uid, identity.uid, uid)
        yield
    finally:
        os.setresuid(uid, uid, uid)
        os.setresgid(gid, gid, gid)
        os.setgroups(groups)


def _find(program: str, env: Mapping[str, str]) -> str:
    """The file that `execvp` would run under this PATH; the bare name when there is none."""
    if "/" in program:
        return program
    for folder in env.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder, program)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return program


def _fork(
    worker: WorkerPlan,
    identity: Identity | None,
    stdin: int | None,
    stdout: int,
    stderr: int,
    faults: int,
    terminal: bool,
    groups: Sequence[str],
) -> int:
    # Blocked until the child has its own handlers: a SIGTERM in between must end it, not vanish
    # in ours.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TOUCHED)
    try:
        pid = os.fork()
        if pid == 0:
            _become(worker, identity, stdin, stdout, stderr, faults, terminal, groups)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    # Here too: whoever comes first, the group is there when we return.
    with contextlib.suppress(OSError):
        if not terminal:
            os.setpgid(pid, pid)
    return pid


def reset_signals() -> None:
    """Give back to a child what its parent caught, ignored or blocked."""
    for number in _ALL:
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _become(
    worker: WorkerPlan,
    identity: Identity | None,
    stdin: int | None,
    stdout: int,
    stderr: int,
    faults: int,
    terminal: bool,
    groups: Sequence[str],
) -> NoReturn:
    code = NOT_PREPARED
    try:
        if terminal:
            os.setsid()
            fcntl.ioctl(stdout, termios.TIOCSCTTY, 0)
        else:
            os.setpgid(0, 0)
        if stdin is not None:
            os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        try:
            for folder in groups:
                cage.enter(folder)
        except OSError as error:
            words = f"cannot enter its control group {error.filename}: {error.strerror}"
            os.write(faults, f"rank {worker.rank}: {words}\n".encode())
            os._exit(NOT_PREPARED)
        try:
            if worker.hostname:
                kernel.take_hostname(worker.hostname)
            if worker.cpu_ids:
                os.sched_setaffinity(0, worker.cpu_ids)
            if identity is not None:
                _drop_to(identity)
        except OSError as error:
            os.write(faults, f"rank {worker.rank}: {_wish(worker)}: {error.strerror}\n".encode())
            os._exit(NOT_PREPARED)
        os.umask(0o022)
        reset_signals()
        code, words = _execute(worker)
        os.write(2, f"{words}\n".encode(errors="replace"))
    finally:
        os._exit(code)


def _drop_to(identity: Identity) -> None:
    """Become somebody, for good: groups first, while we may still change them."""
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)


def _wish(worker: WorkerPlan) -> str:
    host = f"hostname {worker.hostname!r} " if worker.hostname else ""
    cores = f"cores {','.join(map(str, worker.cpu_ids))} " if worker.cpu_ids else ""
    return f"this host cannot give it {host}{'and ' if host and cores else ''}{cores}".rstrip()


def _execute(worker: WorkerPlan) -> tuple[int, str]:
    """Run the program in our place; comes back only with what was wrong."""
    try:
        os.chdir(worker.cwd)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return NOT_RUNNABLE, f"cannot enter the working directory {worker.cwd!r}: {why}"
    program = worker.argv[0]
    try:
        os.execvpe(program, list(worker.argv), worker.env)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            if "/" in program:
                return NOT_FOUND, f"cannot run {program!r}: {error.strerror}"
            path = worker.env.get("PATH", os.defpath)
            return NOT_FOUND, f"cannot run {program!r}: not found in PATH={path}"
        hint = " (a script needs a #! line)" if error.errno == errno.ENOEXEC else ""
        return NOT_RUNNABLE, f"cannot run {program!r}: {error.strerror}{hint}"
    except ValueError as error:
        return NOT_RUNNABLE, f"cannot run {program!r}: {error}"
