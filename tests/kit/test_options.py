from __future__ import annotations

import json
from dataclasses import dataclass

import click
from click.testing import CliRunner

from controlplane.kit.config import load, setting
from controlplane.kit.options import settings_options


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Some settings."""

    listen_on: str = setting("127.0.0.1:7070", help="Address to listen on.")
    tick: int = setting(1000, help="Time between ticks.", unit="ms")
    open: bool = setting(True, help="Whether anybody may look.")
    queues: tuple[str, ...] = setting((), help="Queues.")
    weights: dict[str, int] = setting({"age": 1}, help="Weights.")
    level: str = setting("info", help="Level of logs.", choices=("debug", "info"))
    server: str = setting(help="Address of the server.")


@click.command()
@click.argument("name")
@settings_options(Settings)
def serve(name: str, flags: dict[str, object]) -> None:
    """Serve."""
    click.echo(json.dumps([name, flags]))


def flags(*arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(serve, ["x", *arguments])
    assert result.exit_code == 0, result.output
    name, given = json.loads(result.output)
    assert name == "x"
    return {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}


def test_only_flags_that_were_given_count() -> None:
    assert flags() == {}
    assert flags("--listen-on", "a", "--no-open") == {"listen_on": "a", "open": False}


def test_what_flags_say_arrives_in_the_settings() -> None:
    given = flags(
        *("--tick", "5", "--queues", "a", "--queues", "b"),
        *("--weights", "age=2", "--weights", "size=3", "--server", "s", "--open"),
    )
    result = load(Settings, file=None, environ={}, flags=given, env_prefix="X_")
    assert result.value == Settings(
        tick=5, queues=("a", "b"), weights={"age": 2, "size": 3}, server="s", open=True
    )
    assert result.sources["weights"] == "flag --weights"


def test_help_names_unit_and_default() -> None:
    text = " ".join(CliRunner().invoke(serve, ["--help"], terminal_width=200).output.split())
    assert "--listen-on TEXT Address to listen on. [default: 127.0.0.1:7070]" in text
    assert "--tick N Time between ticks. [unit: ms; default: 1000]" in text
    assert "--open / --no-open Whether anybody may look. [default: on]" in text
    assert "--queues TEXT Queues. [may be repeated; default: none]" in text
    assert "--weights NAME=VALUE Weights. [may be repeated; default: age=1]" in text
    assert "--level debug|info Level of logs. [default: info]" in text
    assert "--server TEXT Address of the server. [required]" in text
