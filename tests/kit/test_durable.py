"""What was acknowledged is on the disk by then: bytes, and the names that lead to them.

Power cuts of a real machine are in tests/guest; here each place is held to it without one.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from controlplane.cli.identity import _Secretly
from controlplane.daemon.main import main as daemon
from controlplane.kit.durable import put_in_place, sync
from controlplane.kit.private import replace_private
from controlplane.model.progress import Point
from controlplane.service import logstore
from controlplane.service.blobstore import BlobStore, mark
from controlplane.service.logstore import LogStore, StreamId
from controlplane.service.seriesstore import SeriesStore
from nodeagent.identity import Identity
from tests.support.disk import Synced

OUT = StreamId(job_id=1234, task_index=0, attempt=2, rank=7, stream="out")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Synced:
    return Synced(monkeypatch)


def test_what_is_not_synced_would_be_missing(synced: Synced, tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("some words")
    assert not synced.has(path, tmp_path)
    sync(path)
    assert not synced.has(path, tmp_path), "nothing leads to it"
    sync(tmp_path)
    assert synced.has(path, tmp_path)
    os.rename(path, other)
    assert not synced.has(other, tmp_path)
    sync(tmp_path)
    path.write_text("")
    other.write_text("more words")
    assert not synced.has(other, tmp_path)
    put_in_place(other, path)
    assert synced.has(path, tmp_path)


def test_a_private_file_and_a_nodes_identity(synced: Synced, tmp_path: Path) -> None:
    replace_private(tmp_path / "token", "a secret")
    replace_private(tmp_path / "token", "another")
    assert synced.has(tmp_path / "token", tmp_path)
    identity = Identity(tmp_path)
    assert synced.has(tmp_path / "node.json", tmp_path)
    identity.obey(5)
    assert synced.has(tmp_path / "node.json", tmp_path)


def test_a_token_that_was_handed_out_in_a_file(synced: Synced, tmp_path: Path) -> None:
    command = ["token", "create", "ada", "--state-dir", str(tmp_path), "--out"]
    made = CliRunner().invoke(daemon, [*command, str(tmp_path / "ada.token")])
    assert made.exit_code == 0, made.output
    assert synced.has(tmp_path / "ada.token", tmp_path)
    assert synced.has(tmp_path / "tokens.json", tmp_path)
    with _Secretly(str(tmp_path / "ada.login")) as file:
        file.write("a secret")
    assert synced.has(tmp_path / "ada.login", tmp_path)


def test_an_uploaded_blob_and_whose_it_is(synced: Synced, tmp_path: Path) -> None:
    store, data = BlobStore(tmp_path, 1 << 20), b"the content"
    sha256 = hashlib.sha256(data).hexdigest()
    receiving = store.receive(sha256)
    receiving.write(data)
    receiving.finish("alice")
    receiving.close()
    assert synced.has(store.path(sha256), tmp_path)
    assert synced.has(mark(store.path(sha256), "alice"), tmp_path)


def test_a_stream_of_output_once_it_is_settled(
    synced: Synced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logstore, "SEGMENT_BYTES", 100)
    store = LogStore(tmp_path, 1 << 20)
    for offset in range(0, 250, 50):
        store.append(OUT, offset, b"x" * 50, 1)
    segments = [path for path in tmp_path.rglob("7.out.*") if path.suffix != ".times"]
    assert len(segments) == 3
    store.settle([OUT])
    assert all(synced.has(path, tmp_path) for path in segments)
    store.settle([StreamId(job_id=1, task_index=0, attempt=1, rank=0, stream="err")])


def test_a_series_that_is_written_anew_is_never_a_part_of_itself(
    synced: Synced, tmp_path: Path
) -> None:
    store = SeriesStore(tmp_path)
    store.append((1, 0, 1), 0, [Point(time_us=1, step=1)])
    (path,) = tmp_path.rglob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole.splitlines(keepends=True)[0])
    SeriesStore(tmp_path).append((1, 0, 1), 0, [])
    (path,) = tmp_path.rglob("*.jsonl")
    assert synced.has(path, path.parent)
