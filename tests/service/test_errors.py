"""From an error of ours to the status that a caller gets."""

from __future__ import annotations

import errno
import logging
import os

import grpc
import pytest

from controlplane.service.errors import status_of


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_such_and_is_no_bug(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        code, status = status_of(OSError(number, os.strerror(number)))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "disk is full" in status.message
    assert [(r.getMessage(), r.exc_info) for r in caplog.records] == [(status.message, None)]


def test_another_fault_of_the_system_is_a_bug_whose_words_stay_here() -> None:
    code, status = status_of(OSError(errno.EIO, "the secret place"))

    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in status.message
