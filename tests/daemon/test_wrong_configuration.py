"""What the daemons say to an operator who has configured them wrongly, word for word."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controlplane.daemon.pki import PkiFiles
from controlplane.kit import pki
from controlplane.kit.credential import Credential, read_credential
from controlplane.registry.database import connect, writing
from controlplane.registry.holding import holding
from controlplane.registry.migrate import upgrade
from controlplane.registry.sql import SqlStore
from controlplane.service.auth import TokenFile
from tests.cli.golden import check
from tests.support.cluster import BIN, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

Line = tuple[str, ...]
PLAIN = ("--listen", "127.0.0.1:0", "--plaintext")


def told(folder: Path, line: Line) -> str:
    """What a command that cannot do what it should says, and its exit code."""
    environ = {"PATH": os.environ["PATH"], "NODEAGENT_DEVICES": "cpu", "LANG": "C.UTF-8"}
    if pythonpath := os.environ.get("PYTHONPATH"):
        environ["PYTHONPATH"] = pythonpath
    done = subprocess.run(
        [BIN / line[0], *line[1:]],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = re.sub(r"^\d\d:\d\d:\d\d\.\d{3}", "TIME", f"{done.stdout}{done.stderr}", flags=re.M)
    assert "Traceback (most" not in said
    assert done.returncode in (1, 2), said
    said = said.replace(str(folder), "FOLDER")
    return f"$ {' '.join(line)}\n{said}[exit code {done.returncode}]\n"


def page(folder: Path, lines: Iterable[Line], at_once: int = 8) -> str:
    with ThreadPoolExecutor(at_once) as pool:
        return "\n".join(pool.map(lambda line: told(folder, line), lines))


def private(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.write_bytes(content)
    path.chmod(mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands run, with the files that they name."""
    (tmp_path / "unknown.toml").write_text('lisen = "127.0.0.1:7600"\nsever = "127.0.0.1:7600"\n')
    (tmp_path / "types.toml").write_text(
        'hold_s = "long"\nlog_cap_mib = 1.5\nend_unmet_dependencies = "yes"\n'
    )
    (tmp_path / "agent-types.toml").write_text(
        'cpus = "two"\nport_first = 80\nlabels = { rack = 7 }\ndevices = "gpu"\n'
    )
    (tmp_path / "broken.toml").write_text("listen = \n")
    (tmp_path / "empty").touch()
    private(tmp_path / "token", b"cc_something\n")
    private(tmp_path / "open-token", b"cc_something\n", 0o644)
    private(tmp_path / "empty-token", b"\n")
    private(tmp_path / "two-words", b"one two\n")
    private(tmp_path / "binary", b"\x00\xff\n")
    private(tmp_path / "open.json", b'{"tokens": []}\n', 0o644)
    private(tmp_path / "broken.json", b"tokens\n")
    private(tmp_path / "strange.json", b'{"tokens": [{"principal": "a", "role": "boss"}]}\n')
    private(tmp_path / "rubbish.pem", b"rubbish\n")
    (tmp_path / "rubbish.db").write_bytes(b"this is no database" * 100)
    return tmp_path


def serve(*words: str, state: str = "state") -> Line:
    return ("controlplane", "serve", "--state-dir", state, *words)


def test_every_wrong_setting_of_the_control_plane(folder: Path) -> None:
    for state in ("certified", "half-certified"):
        init = ("controlplane", "init", "--state-dir", state)
        subprocess.run([BIN / init[0], *init[1:]], cwd=folder, check=True, timeout=60)
    (folder / "half-certified" / "pki" / "ca.key").write_text("rubbish")
    lines = [
        serve("--config", "none.toml"),
        serve("--config", "broken.toml"),
        serve("--config", "unknown.toml"),
        serve("--config", "types.toml"),
        serve("--hold-s", "20"),
        serve("--hold-s", "31", "--node-lease-s", "60"),
        serve("--tls-key", "key.pem"),
        serve("--keep-jobs-days", "30", "--keep-logs-days", "60", "--keep-usage-days", "7"),
        serve("--keep-usage-days", "365"),
        serve("--listen", "0.0.0.0:7600", state="a"),
        serve("--listen", "nonsense", state="b"),
        serve("--listen", "127.0.0.1", state="c"),
        serve("--listen", "127.0.0.1:99999", state="d"),
        serve("--listen", "::1:7600", state="e"),
        serve("--listen", "http://127.0.0.1:7600", state="f"),
        serve("--listen", "192.0.2.77:7600", *tls("rubbish.pem", "rubbish.pem"), state="g"),
        serve("--listen", "unix:none/socket", state="h"),
        serve("--listen", "unix:" + "x" * 108, state="i"),
        serve(*tls("none.pem", "rubbish.pem"), state="j"),
        serve(*tls("rubbish.pem", "none.pem"), state="k"),
        serve(state="empty"),
        serve(state="/proc/none"),
        serve("--tokens-file", "open.json", state="l"),
        serve("--tokens-file", "broken.json", state="m"),
        serve("--tokens-file", "strange.json", state="n"),
        serve("--tokens-file", ".", state="o"),
        serve(*PLAIN, "--database-url", "nonsense", state="p"),
        serve(*PLAIN, "--database-url", "mongodb://host/name", state="q"),
        serve(*PLAIN, "--database-url", "sqlite:///rubbish.db", state="r"),
        serve(*PLAIN, "--database-url", "sqlite:///none/x.db", state="s"),
        serve("--listen", "0.0.0.0:7600", "--plaintext", state="t"),
        serve(*PLAIN, *tls("rubbish.pem", "rubbish.pem"), state="u"),
        serve("--listen", "127.0.0.1:0", "--listen-agents", "nonsense", state="certified"),
        serve("--listen", "127.0.0.1:0", state="half-certified"),
    ]
    check("controlplane-serve.txt", page(folder, lines), room="daemons")


def test_every_database_that_cannot_be_used(folder: Path) -> None:
    url = f"sqlite:///{folder}/newer.db"
    upgrade(url)
    engine = connect(url)
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    for name in ("used", "unsound", "full"):
        upgrade(f"sqlite:///{folder}/{name}.db")
        SqlStore(f"sqlite:///{folder}/{name}.db").open()
    engine = connect(f"sqlite:///{folder}/unsound.db")
    with writing(engine) as connection:
        connection.exec_driver_sql("DROP INDEX ix_lease_job_id")
    engine.dispose()
    nowhere = "postgresql://ada:secret@127.0.0.1:1/x"

    def db(*words: str) -> Line:
        return ("controlplane", "db", *words)

    lines = [
        serve(*PLAIN, "--database-url", "sqlite:///newer.db", state="v"),
        db("check", "nonsense"),
        db("check", "sqlite:///none.db"),
        db("check", "sqlite:///rubbish.db"),
        db("check", "sqlite:///newer.db"),
        db("check", "sqlite:///unsound.db"),
        db("check", nowhere),
        db("check", "--state-dir", "empty-folder"),
        db("upgrade", "sqlite:///newer.db"),
        db("upgrade", "sqlite:///none/x.db"),
        db("move", "nonsense", "--database-url", "sqlite:///full.db"),
        db("move", "sqlite:///full.db", "--database-url", "sqlite:///full.db"),
        db("move", "sqlite:///full.db", "--database-url", "sqlite:///newer.db"),
        db("move", "sqlite:///unsound.db", "--database-url", "sqlite:///full.db"),
        db("move", nowhere, "--database-url", "sqlite:///full.db"),
    ]
    with holding(f"sqlite:///{folder}/used.db", "a control plane"):
        lines_in_use = [
            serve(*PLAIN, "--database-url", "sqlite:///used.db", state="x"),
            db("upgrade", "sqlite:///used.db"),
            db("move", "sqlite:///fresh.db", "--database-url", "sqlite:///used.db"),
        ]
        # One by one: two that name the same database would keep each other from it.
        said = page(folder, [*lines, *lines_in_use], 1)
    who = f"process {os.getpid()} on {socket.gethostname()}"
    said = re.sub(
        r"(server +SQLite )[\d.]+", r"\1VERSION", said.replace(who, "process PID on HOST")
    )
    said = re.sub(r"(schema {2,})\d+", r"\1HEAD", said)
    check("controlplane-db.txt", said, room="daemons")


def tls(certificate: str, key: str) -> Line:
    return ("--tls-certificate", certificate, "--tls-key", key)


@contextlib.contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_port_in_use_is_told_with_the_command_that_finds_who_uses_it(folder: Path) -> None:
    with listening() as port:
        lines = [
            serve("--listen", f"{host}:{port}", state=host) for host in ("127.0.0.1", "localhost")
        ]
        said = page(folder, lines).replace(str(port), "PORT")
    check("controlplane-port.txt", said, room="daemons")


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_a_key_that_is_not_the_certificates_own_is_told(folder: Path) -> None:
    for name in ("one", "two"):
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-subj", f"/CN={name}"),
                *("-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
            ],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=30,
        )
    said = told(folder, serve("--listen", "127.0.0.1:0", *tls("one.pem", "two.key")))
    check("controlplane-key.txt", said, room="daemons")


def test_every_token_that_cannot_be_made(folder: Path) -> None:
    def create(principal: str, out: str, *words: str, state: str = "state") -> Line:
        where = ("--out", out, "--state-dir", state)
        return ("controlplane", "token", "create", principal, *where, *words)

    (folder / "state").mkdir()
    lines = [
        ("controlplane", "init", "--state-dir", "empty"),
        ("controlplane", "init", "--state-dir", "other", "--tokens-file", "broken.json"),
        create("", "a.token"),
        create("two words", "b.token"),
        create("control-plane", "c.token"),
        create("ada", "d.token", "--role", "boss"),
        create("ada", "token"),
        create("ada", "none/e.token"),
        create("ada", "f.token", "--tokens-file", "open.json"),
        create("ada", "g.token", state="none"),
    ]
    check("controlplane-token.txt", page(folder, lines), room="daemons")
    assert (folder / "token").read_bytes() == b"cc_something\n"
    assert not list(folder.glob("?.token"))
    assert not (folder / "state" / "tokens.json").exists()


def run(*words: str, state: str = "node", token: str = "token") -> Line:
    return ("nodeagent", "run", "--state-dir", state, "--token-file", token, *words)


def test_every_wrong_setting_of_the_agent(folder: Path) -> None:
    for state, mode in (("damaged", 0o600), ("open", 0o644)):
        (folder / state).mkdir()
        private(folder / state / "credential.json", b'{"server": "x"}', mode)
    line = Credential(kind="join", server="127.0.0.1:9", authority=b"", secret="x").write()
    private(folder / "nobody.join", line.encode())
    lines = [
        run("--config", "none.toml"),
        run("--config", "unknown.toml"),
        run("--config", "agent-types.toml"),
        run("--port-first", "3000", "--port-last", "2000"),
        run(state="b", token="none"),
        run(state="c", token="."),
        run(state="d", token="open-token"),
        run(state="e", token="empty-token"),
        run(state="f", token="two-words"),
        run(state="g", token="binary"),
        run("--server", "nonsense", state="h"),
        run("--server", "127.0.0.1", state="i"),
        run("--server", "127.0.0.1:99999", state="j"),
        run("--server", "https://127.0.0.1:7600", state="k"),
        run("--server", "192.0.2.77:7600", state="l"),
        run("--address", "gpu-07", "--mpirun", "/none", state="m"),
        ("nodeagent", "run", "--state-dir", "n"),
        ("nodeagent", "run", "--state-dir", "damaged"),
        ("nodeagent", "run", "--state-dir", "open"),
        ("nodeagent", "join", "token", "--state-dir", "o"),
        ("nodeagent", "join", "none", "--state-dir", "p"),
        ("nodeagent", "join", "nobody.join", "--state-dir", "q"),
        run(state="empty"),
        run(state="/proc/none"),
    ]
    check("nodeagent-run.txt", page(folder, lines), room="daemons")


def test_a_state_folder_in_use_is_refused_by_both_daemons(folder: Path) -> None:
    started = [
        subprocess.Popen(
            [BIN / name, *words, "--state-dir", name],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name, words in {
            "controlplane": ("serve", *PLAIN),
            "nodeagent": ("run", "--token-file", "token", "--devices", "cpu"),
        }.items()
    ]
    try:
        said = "\n".join(
            until_it_holds(folder / name / "lock", lambda line=line: told(folder, line))  # type: ignore[misc]
            for name, line in {
                "controlplane": serve(*PLAIN, state="controlplane"),
                "nodeagent": run(state="nodeagent"),
            }.items()
        )
    finally:
        for process in started:
            process.terminate()
            process.wait(30)
    check("state-in-use.txt", said, room="daemons")


def until_it_holds(lock: Path, then: Callable[[], str]) -> str:
    def held() -> bool:
        inode = lock.stat().st_ino if lock.exists() else 0
        return bool(inode) and f":{inode} " in Path("/proc/locks").read_text()

    until(held, f"{lock} to be held")
    return then()


def test_what_the_control_plane_makes_is_its_owners_alone(folder: Path) -> None:
    state = folder / "wide"
    state.mkdir(mode=0o755)
    subprocess.run([BIN / "controlplane", "init", "--state-dir", state], check=True, timeout=60)
    process = subprocess.Popen(
        [
            *(BIN / "controlplane", "serve", "--state-dir", state, "--listen", "127.0.0.1:0"),
            *("--listen-agents", "127.0.0.1:0"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = ""
        while "serving" not in said:
            said = process.stderr.readline()
            assert said, "it ended before it served"
        made = [path for path in state.rglob("*") if path.exists()]
        assert state / "controlplane.db" in made
        assert [path for path in made if path.stat().st_mode & 0o077] == []
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_makes_in_the_daemons_folder_is_the_daemons_and_follows_no_link(
    folder: Path,
) -> None:
    """The daemon's user could have root overwrite what it likes, and give it away."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)  # pytest's own folders let no other user through
        state, victim = Path(place) / "state", Path(place) / "victim"
        state.mkdir(mode=0o700)
        (state / "pki").mkdir(mode=0o700)
        private(victim, b"root's own")
        for name in ("admin.login", "admin.token.new", "tokens.json.new", "pki/ca.key.new"):
            (state / name).symlink_to(victim)
        for path in (state, state / "pki"):
            os.chown(path, 12345, 12345)
        init: list[str | Path] = [BIN / "controlplane", "init", "--state-dir", state]
        subprocess.run(init, check=True, capture_output=True, timeout=60)
        out = folder / "ada.token"
        create: list[str | Path] = [BIN / "controlplane", "token", "create", "ada", "--out", out]
        subprocess.run([*create, "--state-dir", state], check=True, capture_output=True, timeout=30)
        assert victim.read_bytes() == b"root's own"
        assert (victim.stat().st_uid, out.stat().st_uid) == (0, 0)
        made = [path for path in state.rglob("*") if path.is_file() and not path.is_symlink()]
        assert {"ca.key", "server.key", "tokens.json", "admin.token", "admin.login"} <= {
            path.name for path in made
        }
        for path in made:
            status = path.stat()
            assert (status.st_uid, status.st_mode & 0o077) == (12345, 0), path


def test_an_init_that_was_cut_off_is_made_whole_by_the_next(folder: Path) -> None:
    init: list[str | Path] = [BIN / "controlplane", "init", "--state-dir", folder / "s"]
    subprocess.run(init, check=True, capture_output=True, timeout=60)
    state = folder / "s"
    whole = (state / "pki" / "server.crt").read_bytes()
    private(state / "admin.token", b"")
    (state / "tokens.json").unlink()
    other = folder / "t"
    subprocess.run([*init[:-1], other], check=True, capture_output=True, timeout=60)
    private(state / "pki" / "server.key", (other / "pki" / "server.key").read_bytes())
    subprocess.run(init, check=True, capture_output=True, timeout=60)
    assert (state / "pki" / "server.crt").read_bytes() != whole
    pki.check_pair(
        pki.KeyPair(
            certificate=(state / "pki" / "server.crt").read_bytes(),
            key=(state / "pki" / "server.key").read_bytes(),
        )
    )
    token = (state / "admin.token").read_text().strip()
    assert TokenFile(state / "tokens.json").principal(token) is not None
    line = read_credential((state / "admin.login").read_text(), "login")
    assert line.secret == token


def test_inits_at_once_make_one_authority(folder: Path) -> None:
    init: list[str | Path] = [BIN / "controlplane", "init", "--state-dir", folder / "s"]
    started = [subprocess.Popen(init, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0] * 4
    files = PkiFiles(folder / "s")
    files.authority()
    checked = subprocess.run(
        ["openssl", "verify", "-CAfile", files.authority_file, files.certificate],
        capture_output=True,
        timeout=30,
    )
    assert checked.returncode == 0, checked.stderr
