"""The rendezvous store: Horovod's protocol, and what it does with those who do not keep to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.launchers.http_request import BadRequest, parse_head
from nodeagent.launchers.rendezvous import Rendezvous, listen
from nodeagent.launchers.rendezvous_client import Store, StoreError
from nodeagent.launchers.store import KeyValues, Limits, StoreFull
from tests.support.ports import free_port

SECRET = "open sesame"
SMALL = Limits(value_bytes=1000, total_bytes=20_000, keys=20, connections=8)


class Clock:
    """Time that tests move."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


class Served:
    """A store in a thread, and a client that speaks bytes to it."""

    def __init__(self, limits: Limits) -> None:
        self.clock = Clock()
        listener = listen("127.0.0.1", 0)
        self.port: int = listener.getsockname()[1]
        self.rendezvous = Rendezvous(listener, {"global": 2}, SECRET, limits, self.clock)
        self._stop = False
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self) -> None:
        while not self._stop:
            self.rendezvous.step(0.02)

    def close(self) -> None:
        self._stop = True
        self._thread.join(10)
        self.rendezvous.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def send(self, data: bytes) -> bytes:
        with self.connect() as sock:
            sock.sendall(data)
            return read_all(sock)

    def ask(self, method: str, path: str, body: bytes = b"", *headers: str) -> tuple[int, bytes]:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
        head, _, value = self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body).partition(
            b"\r\n\r\n"
        )
        return int(head.split()[1]), value

    def store(self, secret: str = SECRET) -> Store:
        return Store(host="127.0.0.1", port=self.port, secret=secret)

    def still_serves(self) -> bool:
        return self.ask("PUT", "/alive/0", b"yes")[0] == 200 and self.ask("GET", "/alive/0") == (
            200,
            b"yes",
        )


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while part := sock.recv(1 << 16):
        data += part
    return data


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def served() -> Iterator[Served]:
    server = Served(SMALL)
    yield server
    server.close()


# --- the protocol ---------------------------------------------------------------------------------


def test_a_value_is_404_until_it_is_put(served: Served) -> None:
    assert served.ask("GET", "/global/0") == (404, b"")
    assert served.ask("PUT", "/global/0", b"\x00\xff\r\n\r\n") == (200, b"")
    assert served.ask("GET", "/global/0") == (200, b"\x00\xff\r\n\r\n")


def test_an_empty_value_is_a_value(served: Served) -> None:
    served.ask("PUT", "/global/0", b"")

    assert served.ask("GET", "/global/0") == (200, b"")


def test_a_known_scope_is_emptied_when_all_have_finished(served: Served) -> None:
    served.ask("PUT", "/global/0", b"a")
    served.ask("PUT", "/other/0", b"b")

    assert served.ask("DELETE", "/global/0") == (200, b"")
    assert served.ask("DELETE", "/global/0") == (200, b"")
    assert served.ask("GET", "/global/0")[0] == 200
    assert served.ask("DELETE", "/global/1") == (200, b"")
    assert served.ask("GET", "/global/0")[0] == 404
    assert served.ask("GET", "/other/0")[0] == 200


def test_of_a_process_set_only_the_finished_key_goes(served: Served) -> None:
    for key in "01":
        served.ask("PUT", f"/global_process_set_hash_ab/{key}", b"x")

    served.ask("DELETE", "/global_process_set_hash_ab/0")

    assert served.ask("GET", "/global_process_set_hash_ab/0")[0] == 404
    assert served.ask("GET", "/global_process_set_hash_ab/1")[0] == 200


def test_a_request_may_come_byte_by_byte(served: Served) -> None:
    with served.connect() as sock:
        for byte in b"PUT /global/1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc":
            sock.sendall(bytes([byte]))
        assert read_all(sock).startswith(b"HTTP/1.0 200 OK\r\n")

    assert served.ask("GET", "/global/1") == (200, b"abc")


def test_a_value_larger_than_the_sockets_buffers_arrives_whole() -> None:
    value = os.urandom(8 << 20)
    server = Served(Limits(value_bytes=len(value), total_bytes=4 * len(value), keys=4))
    try:
        assert server.ask("PUT", "/global/0", value)[0] == 200
        assert server.ask("GET", "/global/0") == (200, value)
    finally:
        server.close()


# --- those who do not keep to it ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /global/0 HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"OPTIONS /global/0 HTTP/1.1\r\n\r\n", 405),
        (b"GET /global HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /global/ HTTP/1.1\r\n\r\n", 400),
        (b"GET //0 HTTP/1.1\r\n\r\n", 400),
        (b"GET global/0 HTTP/1.1\r\n\r\n", 400),
        (b"GET http://elsewhere/0/1 HTTP/1.1\r\n\r\n", 400),
        (b"GET /global/0\r\n\r\n", 400),
        (b"GET /global/0 HTTP/2.0\r\n\r\n", 400),
        (b"GET /gl\xc3\xb6bal/0 HTTP/1.1\r\n\r\n", 400),
        (b"GET /global/0?wait_ms=x HTTP/1.1\r\n\r\n", 400),
        (b"GET /global/0 HTTP/1.1\r\nno header\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"PUT /global/0 HTTP/1.1\r\n\r\n", 411),
        (b"PUT /global/0 HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PUT /global/0 HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n", 400),
        (b"PUT /global/0 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"PUT /global/0 HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        (b"PUT /global/0 HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"PUT /global/0 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"GET /global/" + b"0" * 600 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /global/0 HTTP/1.1\r\nX: " + b"y" * 5000 + b"\r\n\r\n", 431),
        (b"z" * 5000, 431),
    ],
)
def test_a_request_that_is_not_served_is_told_why(served: Served, sent: bytes, status: int) -> None:
    assert served.send(sent).startswith(b"HTTP/1.0 %d " % status)
    assert served.still_serves()


@given(st.binary(max_size=300))
def test_no_bytes_confuse_the_parser(head: bytes) -> None:
    try:
        request = parse_head(head, 512)
    except BadRequest as refusal:
        assert 400 <= refusal.status < 600  # noqa: PT017 - any refusal will do, nothing else
    else:
        assert request.scope


def test_a_body_too_large_is_refused_though_the_client_goes_on_sending(served: Served) -> None:
    status, _ = served.ask("PUT", "/global/0", b"x" * 300_000)

    assert status == 413
    assert served.still_serves()


def test_the_store_has_bounds_and_keeps_what_it_has(served: Served) -> None:
    statuses = [served.ask("PUT", f"/global/{i}", b"x" * 1000)[0] for i in range(25)]

    assert set(statuses) == {200, 507}
    assert statuses == sorted(statuses)
    assert served.ask("GET", "/global/0")[0] == 200
    assert served.ask("PUT", "/global/0", b"smaller")[0] == 200


def test_keys_are_bounded_too(served: Served) -> None:
    statuses = [served.ask("PUT", f"/s{i}/0", b"")[0] for i in range(25)]

    assert statuses == [200] * 20 + [507] * 5


def test_who_sends_too_slowly_is_told_to_go(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(b"PUT /global/0 HTTP/1.1\r\nContent-Length: 5\r\n\r\nab")
        until(lambda: any(c.inbox for c in list(served.rendezvous._connections)))
        served.clock.skipped += 11
        assert read_all(sock).startswith(b"HTTP/1.0 408 ")

    assert served.ask("GET", "/global/0")[0] == 404


def test_idle_connections_do_not_keep_others_out(served: Served) -> None:
    idle = [served.connect() for _ in range(3 * SMALL.connections)]
    try:
        assert served.still_serves()
        assert len(served.rendezvous._connections) <= SMALL.connections + 1
    finally:
        for sock in idle:
            sock.close()


def test_connections_that_are_cut_leave_nothing_behind(served: Served) -> None:
    for sent in (b"", b"PUT /global/0", b"PUT /global/0 HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"):
        with served.connect() as sock:
            sock.sendall(sent)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    until(lambda: not served.rendezvous._connections)
    assert served.rendezvous._inbound == 0
    assert served.still_serves()


def test_requests_on_their_way_in_are_bounded_together() -> None:
    limits = Limits(value_bytes=6000, total_bytes=10_000, keys=20, connections=8)
    server = Served(limits)
    head = b"PUT /global/%d HTTP/1.1\r\nContent-Length: 6000\r\n\r\n"
    try:
        with server.connect() as one, server.connect() as two:
            one.sendall(head % 0 + b"x" * 5500)
            until(lambda: server.rendezvous._inbound == 5500)
            two.sendall(head % 1 + b"x" * 5500)
            assert read_all(two).startswith(b"HTTP/1.0 503 ")
            one.sendall(b"x" * 500)
            assert read_all(one).startswith(b"HTTP/1.0 200 ")
    finally:
        server.close()


# --- our own scopes -------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["", "open", "open sesamé", SECRET + " "])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_our_scopes_need_the_secret(served: Served, method: str, secret: str) -> None:
    header = f"Authorization: Bearer {secret}" if secret.strip() else "X: y"
    if secret == SECRET + " ":
        header = f"Authorization: Basic {SECRET}"

    assert served.ask(method, "/_cc/mpi/node1", b"", header)[0] == 401
    assert served.ask(method, "/_ccx/mpi/node1", b"", header)[0] == 401


def test_without_a_secret_our_scopes_are_closed() -> None:
    listener = listen("127.0.0.1", 0)
    rendezvous = Rendezvous(listener, {}, "")
    try:
        assert not rendezvous._authorised("")
    finally:
        rendezvous.close()


def test_a_get_waits_for_a_put(served: Served) -> None:
    got: list[bytes] = []
    deadline = time.monotonic() + 10
    reader = threading.Thread(
        target=lambda: got.append(served.store().get("_cc/mpi", "node1", deadline=deadline))
    )
    reader.start()
    until(lambda: any(c.parked for c in list(served.rendezvous._connections)))

    served.store().put("_cc/mpi", "node1", b"orted", deadline=deadline)
    reader.join(5)

    assert got == [b"orted"]


def test_a_get_gives_up_in_time(served: Served) -> None:
    with pytest.raises(TimeoutError, match="no answer"):
        served.store().get("_cc/mpi", "node1", deadline=time.monotonic() + 0.3)


def test_a_wrong_secret_is_said_at_once(served: Served) -> None:
    with pytest.raises(StoreError, match="401"):
        served.store("wrong").get("_cc/mpi", "node1", deadline=time.monotonic() + 30)
    with pytest.raises(StoreError, match="401"):
        served.store("wrong").put("_cc/mpi", "node1", b"", deadline=time.monotonic() + 30)


def test_a_store_that_is_not_there_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(TimeoutError, match=f"127.0.0.1:{port}"):
            Store(host="127.0.0.1", port=port, secret="s").put(
                "_cc/mpi", "k", b"", deadline=time.monotonic() + 0.2
            )


# --- what it keeps --------------------------------------------------------------------------------

_SCOPES = {"global": 2, "local_a": 1}
_calls = st.lists(
    st.tuples(
        st.sampled_from(["put", "finish"]),
        st.sampled_from([*_SCOPES, "global_process_set_hash_1"]),
        st.sampled_from(["0", "1", "9"]),
        st.binary(max_size=8),
    ),
    max_size=60,
)


@given(_calls)
def test_accounts_agree_with_what_is_kept(calls: list[tuple[str, str, str, bytes]]) -> None:
    limits = Limits(value_bytes=6, total_bytes=80, keys=5)
    store = KeyValues(_SCOPES, limits)
    for verb, scope, key, value in calls:
        if verb == "finish":
            store.finish(scope, key)
        else:
            before = store.get(scope, key)
            try:
                store.put(scope, key, value)
                assert store.get(scope, key) == value
            except StoreFull:
                assert store.get(scope, key) == before
        kept = [(s, k, v) for s, inner in store.values.items() for k, v in inner.items()]
        assert store.keys == len(kept) <= limits.keys
        assert store.used_bytes == sum(len(s) + len(k) + len(v) for s, k, v in kept)
        assert store.used_bytes <= limits.total_bytes
        assert all(len(v) <= limits.value_bytes for _, _, v in kept)


def test_a_stranger_cannot_finish_a_scope_with_made_up_ranks() -> None:
    store = KeyValues({"global": 2}, SMALL)
    store.put("global", "0", b"x")

    for key in ("2", "01", "1x", "-1", "٣"):
        store.finish("global", key)

    assert store.get("global", "0") == b"x"


def test_the_limits_hold_what_gloo_stores_for_large_gangs() -> None:
    for size in (1, 2, 64, 1024):
        limits = Limits.for_gang(size)
        one = 150 * size

        assert one <= limits.value_bytes
        assert 4 * size * (one + 100) <= limits.total_bytes
        assert 8 * size <= limits.keys


# --- a process of its own -------------------------------------------------------------------------

_SERVE = """
import os, sys
from nodeagent.launchers.rendezvous import serve
serve("127.0.0.1", int(sys.argv[1]), {"global": 1}, "s", lambda: os.write(1, b"ready\\n"))
"""


def test_it_serves_in_a_small_process_that_outlives_its_clients() -> None:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", _SERVE, str(port)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        store = Store(host="127.0.0.1", port=port, secret="s")
        store.put("_cc/mpi", "k", b"v", deadline=time.monotonic() + 10)
        assert store.get("_cc/mpi", "k", deadline=time.monotonic() + 10) == b"v"
        with open(f"/proc/{process.pid}/status") as status:
            rss = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
        assert rss << 10 < 16 << 20
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_out_of_descriptors_it_makes_room() -> None:
    script = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n" + _SERVE
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", script, str(port)], stdout=subprocess.PIPE)
    idle: list[socket.socket] = []
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        idle = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(60)]
        store = Store(host="127.0.0.1", port=port, secret="s")
        store.put("_cc/mpi", "k", b"v", deadline=time.monotonic() + 10)
        assert process.poll() is None
    finally:
        for sock in idle:
            sock.close()
        process.kill()
        process.communicate(timeout=10)
