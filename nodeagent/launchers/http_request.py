"""Reading one HTTP request of the rendezvous protocol out of bytes that anyone may have sent."""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_BYTES = 4096
"""Longest request line and headers together, in bytes."""
_LINE = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.[01]\Z")
_METHODS = ("GET", "PUT", "DELETE")


class BadRequest(Exception):
    """The request is refused with this HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        """With a reason in words."""
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, its body left out."""

    method: str
    """GET, PUT or DELETE."""
    scope: str
    """The scope it is about."""
    key: str
    """The key in it."""
    body_bytes: int
    """Size of the body that follows, in bytes."""
    bearer: str = ""
    """What came with `Authorization: Bearer`; empty for none."""
    wait_ms: int = 0
    """How long a GET may wait for the key, in milliseconds; only our own scopes ask for it."""

    @property
    def private(self) -> bool:
        """Whether it needs the gang's secret."""
        return self.scope.startswith("_cc")


def parse_head(head: bytes, path_bytes: int) -> Request:
    """Read the request line and headers, without the empty line behind them. `BadRequest` if
    unfit."""
    first, *lines = head.split(b"\r\n")
    match = _LINE.match(first)
    if match is None:
        raise BadRequest(400, "not a request line")
    method, target = match[1].decode(), match[2].decode()
    if method not in _METHODS:
        raise BadRequest(405, f"{method} is not served here")
    if len(target) > path_bytes:
        raise BadRequest(414, f"a path may have {path_bytes} bytes")
    path, _, query = target.partition("?")
    headers = _headers(lines)
    if "transfer-encoding" in headers:
        raise BadRequest(501, "send a Content-Length")
    length = headers.get("content-length", "" if method == "PUT" else "0")
    if not length:
        raise BadRequest(411, "send a Content-Length")
    if not re.fullmatch(r"[0-9]{1,15}", length):
        raise BadRequest(400, "not a Content-Length")
    scope, key = _scope_and_key(path)
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    wait = re.fullmatch(r"wait_ms=([0-9]{1,6})", query)
    if query and wait is None:
        raise BadRequest(400, "unknown query")
    return Request(
        method=method,
        scope=scope,
        key=key,
        body_bytes=int(length),
        bearer=bearer if scheme.lower() == "bearer" else "",
        wait_ms=int(wait[1]) if wait else 0,
    )


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise BadRequest(400, "not a header")
        if headers.setdefault(name.strip().lower(), value.strip()) != value.strip():
            raise BadRequest(400, f"header {name.strip()[:40]!a} came twice")
    return headers


def _scope_and_key(path: str) -> tuple[str, str]:
    """`/SCOPE/KEY`; our own scopes have a slash inside: `/_cc/NAME/KEY`."""
    depth = 2 if path.startswith("/_cc") else 1
    parts = path[1:].split("/", depth)
    if len(parts) != depth + 1 or not all(parts):
        raise BadRequest(400, "the path is /SCOPE/KEY")
    return "/".join(parts[:depth]), parts[depth]
