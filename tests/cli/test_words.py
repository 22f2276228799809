"""Moments, sizes, states and filters as they are written and read."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import click
import pytest

from controlplane.cli import text
from controlplane.cli.accounts import MEMBERS_MAY
from controlplane.cli.accounttables import MAY
from controlplane.cli.arguments import (
    FINAL_STATES,
    LIVING_STATES,
    Wanted,
    byte_size,
    job_name,
    moment,
)
from controlplane.cli.render import enum_word, plain, struct, write
from controlplane.model.account import MembersMay
from controlplane.model.job import FINAL_JOB_STATES, JobState
from controlplane.v1 import job_pb2, job_service_pb2, usage_pb2
from tests.cli import fake_server


def test_what_members_may_is_the_models() -> None:
    assert tuple(MembersMay) == MEMBERS_MAY
    assert tuple(MAY) == MEMBERS_MAY


def test_states_are_those_of_the_model() -> None:
    assert set(FINAL_STATES) == set(FINAL_JOB_STATES)
    assert tuple(JobState) == LIVING_STATES + FINAL_STATES


@pytest.mark.parametrize(
    ("length_us", "words"),
    [
        (-5, "0ms"),
        (850_000, "850ms"),
        (12_345_678, "12.3s"),
        (59_999_999, "59.9s"),
        (245_000_000, "4m05s"),
        (11_220_000_000, "3h07m"),
        (187_200_000_000, "2d04h"),
    ],
)
def test_durations(length_us: int, words: str) -> None:
    assert text.duration(length_us) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0B"), (1023, "1023B"), (1536, "1.5KiB"), (80 << 30, "80GiB"), (3 << 60, "3072PiB")],
)
def test_sizes(count: int, words: str) -> None:
    assert text.size(count) == words


def test_what_could_play_with_a_terminal_is_visible() -> None:
    assert text.visible("plain wörds\n\t日本") == "plain wörds\n\t日本"
    assert text.visible("\x1b]0;x\x07 \x9b1m \u202eevil\r") == (
        "\\x1b]0;x\\x07 \\x9b1m \\u202eevil\\r"
    )
    assert text.visible_line("a\nb\tc") == "a b c"


def test_jobs_are_numbers_or_names() -> None:
    assert job_name("123") == job_name("jobs/123") == "jobs/123"
    assert job_name("123_4") == job_name("jobs/123/tasks/4") == "jobs/123/tasks/4"
    for wrong in ("", "jobs/", "-1", "1.5", "jobs/1/tasks/", "1_", "1_x", "9" * 19, "٣"):
        with pytest.raises(click.BadParameter, match="is no job"):
            job_name(wrong)


def test_times_are_ages_or_dates() -> None:
    now = datetime.now(UTC).timestamp() * 1e6
    assert abs(now - 7_200_000_000 - moment("2h")) < 60_000_000
    assert moment("2026-03-01T12:00:00Z") == 1_772_366_400_000_000
    assert moment("2026-03-01T13:00:00+01:00") == 1_772_366_400_000_000
    assert moment("2026-03-01") == datetime(2026, 3, 1).astimezone().timestamp() * 1_000_000


def test_sizes_are_read_with_units_or_without() -> None:
    assert byte_size("4KiB") == byte_size("4096") == 4096
    for wrong in ("0", "-1", "x", "1e3", "9" * 30):
        with pytest.raises(click.BadParameter, match="is no size"):
            byte_size(wrong)


def test_a_filter_says_what_was_wanted() -> None:
    assert Wanted().everything
    wanted = Wanted(
        state=("pending",), owner="ada", name="a*", label=(("k", "v"),), since=5_000_000
    )
    made = wanted.filter()
    assert list(made.states) == [job_pb2.JOB_STATE_PENDING]
    assert (made.owner, made.display_name, dict(made.labels)) == ("ada", "a*", {"k": "v"})
    assert made.created_after.seconds == 5
    assert not made.HasField("created_before")


def test_messages_become_plain_values_with_nothing_left_out() -> None:
    found = plain(job_pb2.Job(job_id=2**60, spec=fake_server.struct({"a": [1.0, 0.5, None, True]})))
    assert set(found) == {field.name for field in job_pb2.Job.DESCRIPTOR.fields}
    assert found["job_id"] == 2**60
    assert found["spec"] == {"a": [1, 0.5, None, True]}
    assert (found["state"], found["end_time"], found["exit_code"]) == ("unspecified", None, None)
    assert plain(job_service_pb2.JobFilter(labels={"b": "2", "a": "1"}))["labels"] == {
        "a": "1",
        "b": "2",
    }


def test_durations_for_programs_are_as_short_as_they_were_written() -> None:
    used = usage_pb2.AttemptUsage()
    used.running_time.FromMicroseconds(2_475_468)  # 2 + 475468000 / 1e9 is 2.4754680000000002.
    assert plain(used)["running_time"] == 2.475468


def test_a_newer_servers_enum_value_is_told_as_its_number() -> None:
    assert enum_word(job_pb2.JobState.DESCRIPTOR, 99) == "state_99"
    assert (
        enum_word(job_pb2.AttemptState.DESCRIPTOR, job_pb2.ATTEMPT_STATE_TIMED_OUT) == "timed_out"
    )


def test_json_and_yaml_can_be_read_on_any_terminal() -> None:
    document = {"name": "\x9b1m é"}
    assert write(document, "json").isascii()
    assert "\x9b" not in write(document, "yaml")
    assert struct(fake_server.struct({"n": 3})) == {"n": 3}


def test_version_and_help_load_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from controlplane.cli.main import run\n"
        "run(['version'], clock=None)\n"
        "run(['submit', '--help'], clock=None)\n"
        "print([m for m in ('grpc', 'rich', 'google.protobuf', 'yaml', 'asyncio') "
        "if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
