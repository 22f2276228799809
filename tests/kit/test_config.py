from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controlplane.kit.config import (
    ConfigError,
    Loaded,
    document,
    load,
    render,
    setting,
    settings_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the control plane can be told."""

    listen: str = setting("127.0.0.1:7070", help="Address to listen on.")
    tick: int = setting(1000, help="Time between ticks.", unit="ms", minimum=1, maximum=60_000)
    factor: float = setting(1.5, help="Back-off factor.", minimum=1)
    open: bool = setting(False, help="Whether anybody may look.")
    state: Path = setting(Path("/var/lib/x"), help="Folder of the state.")
    tls_key: Path | None = setting(None, help="File of the TLS key.", example="/etc/x/key.pem")
    queues: tuple[str, ...] = setting(("default",), help="Queues.")
    labels: dict[str, str] = setting({}, help="Labels.")
    weights: dict[str, int] = setting({"age": 1}, help="Weights.")
    level: str = setting("info", help="Level of logs.", choices=("debug", "info"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Needy:
    """Settings with a must."""

    server: str = setting(help="Address of the server.", example="127.0.0.1:7070")
    low: int = setting(1, help="Low mark.")
    high: int = setting(2, help="High mark.")

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not be above high ({self.high})")


def loaded(
    text: str | None = None,
    folder: Path | None = None,
    *,
    environ: dict[str, str] | None = None,
    flags: dict[str, object] | None = None,
) -> Loaded[Settings]:
    file = None
    if folder and text is not None:
        file = folder / "x.toml"
        file.write_text(text, encoding="utf-8")
    return load(Settings, file=file, environ=environ or {}, flags=flags or {}, env_prefix="CP_")


def faults(cls: type = Settings, **kwargs: Any) -> tuple[str, ...]:
    given: dict[str, Any] = {"file": None, "environ": {}, "flags": {}, "env_prefix": "CP_"}
    with pytest.raises(ConfigError) as caught:
        load(cls, **{**given, **kwargs})
    assert str(caught.value) == "\n".join(caught.value.lines)
    return caught.value.lines


def test_without_anything_all_is_default() -> None:
    result = loaded()
    assert result.value == Settings()
    assert set(result.sources.values()) == {"default"}


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    result = loaded(
        'tick = 1\nfactor = 2\nstate = "/a"\nqueues = ["a", "b"]\nweights.age = 3\nopen = true',
        tmp_path,
        environ={"CP_TICK": "2", "CP_STATE": "/b", "OTHER": "x", "CP_TLS_KEY": ""},
        flags={"tick": "3", "listen": None, "labels": ("a=b=c", "d="), "open": False},
    )
    assert result.value == Settings(
        tick=3,
        factor=2.0,
        state=Path("/b"),
        queues=("a", "b"),
        weights={"age": 3},
        open=False,
        labels={"a": "b=c", "d": ""},
    )
    assert result.sources == {
        "listen": "default",
        "tick": "flag --tick",
        "factor": str(tmp_path / "x.toml"),
        "open": "flag --open",
        "state": "environment CP_STATE",
        "tls_key": "environment CP_TLS_KEY",
        "queues": str(tmp_path / "x.toml"),
        "labels": "flag --labels",
        "weights": str(tmp_path / "x.toml"),
        "level": "default",
    }
    assert isinstance(result.value.factor, float)


def test_the_environment_writes_every_type_as_text() -> None:
    environ = {
        "CP_FACTOR": "2.5",
        "CP_OPEN": "Yes",
        "CP_TLS_KEY": "/k",
        "CP_QUEUES": "a, b,",
        "CP_LABELS": "a=1,b=x",
        "CP_WEIGHTS": "age=2,size=-3",
    }
    assert loaded(environ=environ).value == Settings(
        factor=2.5,
        open=True,
        tls_key=Path("/k"),
        queues=("a", "b"),
        labels={"a": "1", "b": "x"},
        weights={"age": 2, "size": -3},
    )


def test_every_fault_of_all_sources_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(
        'listn = "x"\ntick = "1"\nfactor = nan\nopen = 1\nstate = ""\nqueues = "a"\n'
        "weights = { age = true }\nlabels = 2026-01-01\n[power]\nlimit = 1\n",
        encoding="utf-8",
    )
    told = faults(
        file=file,
        environ={"CP_TIK": "1", "CP_OPEN": "maybe", "CP_WEIGHTS": "age", "CP_FACTOR": "inf"},
        flags={"tick": "60001", "level": "loud"},
    )
    known = "listen, tick, factor, open, state, tls_key, queues, labels, weights, level"
    assert told == (
        f"{file}: listn: unknown setting; did you mean listen?",
        f'{file}: tick: "1": must be an integer from 1 to 60000, in ms',
        f"{file}: factor: NaN: must be a number of at least 1",
        f"{file}: open: 1: must be true or false",
        f'{file}: state: "": must be a path',
        f'{file}: queues: "a": must be a list of strings',
        f'{file}: weights: {{"age": true}}: must be a table of integers',
        f'{file}: labels: "2026-01-01": must be a table of strings',
        f"{file}: power: unknown setting; known are {known}",
        'environment CP_FACTOR: "inf": must be a number of at least 1',
        'environment CP_OPEN: "maybe": must be true or false',
        "environment CP_TIK: unknown setting; did you mean CP_TICK?",
        'environment CP_WEIGHTS: "age": must be a table of integers',
        'flag --tick: "60001": must be an integer from 1 to 60000, in ms',
        'flag --level: "loud": must be one of debug, info',
    )


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert faults(file=missing) == (f"{missing}: cannot be read: No such file or directory",)
    broken = tmp_path / "broken.toml"
    broken.write_text("a = \n", encoding="utf-8")
    assert faults(file=broken)[0].startswith(f"{broken}: is no TOML file: Invalid value (at line 1")
    broken.write_bytes(b"a = '\xff'")
    assert faults(file=broken)[0].startswith(f"{broken}: is no TOML file: 'utf-8' codec")


def test_what_must_be_given_and_what_must_fit_together() -> None:
    assert faults(Needy) == (
        "server: is required; set it in the configuration file, CP_SERVER or --server",
    )
    assert faults(Needy, flags={"server": "x", "low": "3"}) == (
        "low (3) must not be above high (2)",
    )


def test_a_setting_of_a_strange_type_is_a_mistake_of_ours() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Strange:
        """Wrong."""

        when: complex = setting(1j, help="When.")

    with pytest.raises(TypeError, match="no setting can be a <class 'complex'>"):
        settings_of(Strange)


def test_the_effective_configuration_is_toml_that_loads_again(tmp_path: Path) -> None:
    first = loaded(
        environ={"CP_LISTEN": 'q"uote\\ \x7f\n手', "CP_FACTOR": "1e30"},
        flags={"labels": ("a.b=c d",), "queues": ("x", "y")},
    )
    text = render(first)
    assert "tick = 1000  # default\n" in text
    assert "# tls_key is not set  # default\n" in text
    assert 'queues = ["x", "y"]  # flag --queues\n' in text
    assert loaded(text, tmp_path).value == first.value


def test_the_example_file_holds_every_setting_with_its_default(tmp_path: Path) -> None:
    text = document(Settings)
    assert text.startswith("# What the control plane can be told.\n\n# Address to listen on.")
    assert (
        "# Time between ticks. Allowed: an integer from 1 to 60000, in ms.\n#tick = 1000\n" in text
    )
    assert tomllib.loads(text) == {}
    lines = [line.removeprefix("#") for line in text.splitlines() if not line.startswith("# ")]
    assert loaded("\n".join(lines), tmp_path).value == Settings(tls_key=Path("/etc/x/key.pem"))
    assert 'Required.\n#server = "127.0.0.1:7070"' in document(Needy)
