"""The reference in docs/cli.md says what click and the protos say; UPDATE_GOLDEN=1 renews it."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

import click

from controlplane.cli.main import ccctl as root
from controlplane.cli.settings import ENV_PREFIX, Settings
from controlplane.kit.config import settings_of

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "cli.md"
MESSAGES = (
    *("Job", "Attempt", "SentSignal", "Cause", "Lease", "Worker", "AttemptUsage", "DeviceTime"),
    *("Node", "NodeFacts", "Device", "Event", "ServerInfo", "UsageRow"),
    *("PriorityClass", "Queue", "Reservation"),
)
ENUMS = (
    "JobState",
    "AttemptState",
    "CauseKind",
    "WorkerState",
    "NodeState",
    "DeviceKind",
    "PreemptionPolicy",
)


def commands(group: click.Group, path: str = "ccctl") -> list[str]:
    """A section for each command: how it is written, what it does, its options and examples."""
    sections = []
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            sections += commands(command, f"{path} {name}")
            continue
        # With the settings of the whole: click keeps what it first finds for a command.
        settings = root.context_settings
        context = click.Context(command, info_name=f"{path} {name}", **settings)
        lines = [f"### `{path} {name}`", "", "```", *usage(command, context), "```", ""]
        lines += [inspect.cleandoc(command.help or ""), ""]
        options = [
            one for one in command.params if isinstance(one, click.Option) and not one.hidden
        ]
        if options:
            lines += ["| option | meaning |", "|---|---|"]
            lines += [f"| {flags(one, context)} | {one.help} |" for one in options]
            lines.append("")
        examples = [line.strip() for line in command.examples.strip().splitlines()]  # type: ignore[attr-defined]
        sections += [*lines, "```sh", *map(as_shell, examples), "```", ""]
    return sections


def usage(command: click.Command, context: click.Context) -> list[str]:
    return [" ".join([context.command_path, *command.collect_usage_pieces(context)])]


def as_shell(example: str) -> str:
    return re.sub(r"(\S)  +(\S)", r"\1   # \2", example, count=1)


def flags(option: click.Option, context: click.Context) -> str:
    if option.is_flag:
        metavar = ""
    elif isinstance(option.type, click.Choice):
        metavar = "\\|".join(option.type.choices)
    else:
        metavar = option.make_metavar(context)
    names = [*sorted(option.opts, key=len, reverse=True), *option.secondary_opts]
    return ", ".join(f"`{name} {metavar}`" if metavar else f"`{name}`" for name in names)


def blocks() -> dict[str, tuple[str, list[tuple[str, str, str]]]]:
    """Name of each message and enum of the protos → its comment, and (kind, name, comment) of each
    of its parts.
    """
    found: dict[str, tuple[str, list[tuple[str, str, str]]]] = {}
    for file in sorted((ROOT / "protos").rglob("*.proto")):
        comment: list[str] = []
        inside = ""
        for line in map(str.strip, file.read_text().splitlines()):
            if line.startswith("//"):
                comment.append(line.removeprefix("//").strip())
                continue
            words = " ".join(comment)
            if begun := re.match(r"(message|enum) (\w+) \{", line):
                inside = begun[2]
                found[inside] = (words, [])
            elif part := re.match(r"(.*?)\s*(\w+) = \d+;", line):
                found[inside][1].append((part[1], part[2], words))
            comment = []
    return found


def fields() -> list[str]:
    """A table for each message that is shown, and the words of each enum."""
    known = blocks()
    lines = []
    for name in MESSAGES:
        words, parts = known[name]
        lines += [f"### {name}", "", words, "", "| field | kind | meaning |", "|---|---|---|"]
        lines += [f"| `{field}` | {kind_words(kind)} | {about} |" for kind, field, about in parts]
        lines.append("")
    for name in ENUMS:
        words, parts = known[name]
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper() + "_"
        lines += [f"### {name}", "", words, "", "| word | meaning |", "|---|---|"]
        lines += [
            f"| `{value.removeprefix(prefix).lower()}` | {about} |" for _, value, about in parts
        ]
        lines.append("")
    return lines


def kind_words(kind: str) -> str:
    many = kind.startswith("repeated ")
    plain = kind.removeprefix("repeated ").removeprefix("optional ")
    words = {
        "string": "text",
        "int32": "number",
        "int64": "number",
        "google.protobuf.Timestamp": "moment",
        "google.protobuf.Duration": "seconds",
        "google.protobuf.Struct": "object",
        "map<string, string>": "object of texts",
    }.get(plain, plain)
    return f"list of {words}" if many else words


def filled(page: str) -> str:
    for name, lines in (("commands", commands(root)), ("fields", fields())):
        begin = page.index("\n", page.index(f"<!-- {name}:")) + 1
        end = page.index(f"<!-- end of {name} -->")
        body = "\n".join(line.rstrip() for line in lines)
        page = f"{page[:begin]}\n{body}\n{page[end:]}"
    return page


def test_the_reference_is_fresh() -> None:
    page = PAGE.read_text()
    if os.environ.get("UPDATE_GOLDEN"):
        page = filled(page)
        PAGE.write_text(page)
    assert page == filled(page)


def test_every_setting_is_told_with_its_option_and_its_variable() -> None:
    page = PAGE.read_text()
    for one in settings_of(Settings):
        variable = f"{ENV_PREFIX}{one.name.upper()}"
        assert re.search(rf"\| `{one.name}` \| `{one.flag}`.* \| `{variable}` \|", page), one.name


def test_every_shown_message_and_enum_is_told() -> None:
    page = PAGE.read_text()
    for name in MESSAGES + ENUMS:
        assert f"\n### {name}\n" in page
