"""When tokens count, and when they are void."""

from __future__ import annotations

from dataclasses import replace

from controlplane.model.identity import JoinToken, Token

TOKEN = Token(
    sha256="ab" * 32, user="ada", label="", created_us=0, created_by="admin", expires_us=100
)
JOIN = JoinToken(sha256="cd" * 32, node_uuid="", created_us=0, created_by="admin", expires_us=100)


def test_a_token_counts_until_it_ends_or_is_revoked() -> None:
    for token in (TOKEN, JOIN):
        assert token.why_void(99) == ""
        assert token.why_void(100) == "has expired"
        assert replace(token, revoked_us=5).why_void(6) == "was revoked"
    assert replace(TOKEN, expires_us=None).why_void(1 << 62) == ""
