"""What a rendezvous store knows, and how much of it: no sockets, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class StoreFull(Exception):
    """The value or the key would take the store over one of its limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a store takes from those who can reach its port."""

    value_bytes: int
    """Largest value, in bytes."""
    total_bytes: int
    """All keys and values together, in bytes; requests on their way in have as much again."""
    keys: int
    """Number of keys."""
    path_bytes: int = 512
    """Longest scope and key, in bytes."""
    connections: int = 1024
    """Connections at one time."""

    @staticmethod
    def for_gang(size: int) -> Limits:
        """Ample for `size` ranks.

        Gloo stores about 150 bytes for each pair of ranks and scope, with all that a rank has to
        say under one key; a process set adds three scopes for as long as it is being made.
        """
        value = (64 << 10) + 256 * size
        return Limits(
            value_bytes=value, total_bytes=(8 << 20) + 4 * 256 * size * size, keys=4096 + 16 * size
        )


@dataclass(slots=True)
class KeyValues:
    """Scopes of keys with their values, and who has finished with which scope."""

    scopes: Mapping[str, int]
    """Members of each scope that is known beforehand."""
    limits: Limits
    """What it takes."""
    values: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The values by scope and key."""
    finished: dict[str, set[str]] = field(default_factory=dict)
    """Members that have finished with a known scope."""
    used_bytes: int = 0
    """Size of all keys and values, in bytes."""
    keys: int = 0
    """Number of keys."""

    def get(self, scope: str, key: str) -> bytes | None:
        """The value, or None while there is none."""
        return self.values.get(scope, {}).get(key)

    def put(self, scope: str, key: str, value: bytes) -> None:
        """Keep a value in place of an earlier one. `StoreFull` over a limit, and no change."""
        old = self.get(scope, key)
        added = len(value) - len(old) if old is not None else len(value) + len(scope) + len(key)
        if len(value) > self.limits.value_bytes:
            raise StoreFull(f"a value may have {self.limits.value_bytes} bytes")
        if self.used_bytes + added > self.limits.total_bytes:
            raise StoreFull(f"the store may have {self.limits.total_bytes} bytes")
        if old is None and self.keys >= self.limits.keys:
            raise StoreFull(f"the store may have {self.limits.keys} keys")
        self.values.setdefault(scope, {})[key] = value
        self.used_bytes += added
        self.keys += old is None

    def finish(self, scope: str, key: str) -> None:
        """A member says that it has finished with a scope.

        A scope known beforehand is emptied when all its members have said so; of any other, such as
        a process set's, the key is removed.
        """
        if scope not in self.scopes:
            self._remove(scope, key)
            return
        done = self.finished.setdefault(scope, set())
        if key.isdecimal() and int(key) < self.scopes[scope]:
            done.add(str(int(key)))
        if len(done) >= self.scopes[scope]:
            del self.finished[scope]
            for gone in list(self.values.get(scope, {})):
                self._remove(scope, gone)

    def _remove(self, scope: str, key: str) -> None:
        inner = self.values.get(scope, {})
        value = inner.pop(key, None)
        if value is None:
            return
        self.used_bytes -= len(value) + len(scope) + len(key)
        self.keys -= 1
        if not inner:
            del self.values[scope]
