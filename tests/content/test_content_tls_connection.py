"""TLS of a worker's connection: the sent bytes come out, in any pieces of their arrival."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from fakes.tls_servers import serving_by_openssl, serving_in_turn
from hypothesis import given, settings
from hypothesis import strategies as st

from satfs.content.transfer.opener import Opener
from satfs.content.transfer.tls_connection import TlsConnection
from satfs.net.tls_sessions import TlsSessions

HOST = "store.example"
PLACE = (HOST, 443)
DATA = bytes(range(256)) * 1024


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts of a server and of a client that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


class Server:
    """The other side: TLS in memory, so that a test decides which bytes arrive, and when."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send(self.encrypted())
                self._incoming.write(self.sock.recv(65536))
            else:
                self.send(self.encrypted())
                return

    def encrypted(self, data: bytes = b"") -> bytes:
        if data:
            self.tls.write(data)
        return self._outgoing.read()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)


@contextmanager
def connected(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    ciphertext_bytes: int = 4096,
    sessions: TlsSessions | None = None,
) -> Iterator[tuple[Server, TlsConnection]]:
    theirs, ours = socket.socketpair()
    theirs.settimeout(10)
    server = Server(theirs, contexts[0])
    room = memoryview(bytearray(ciphertext_bytes))
    with theirs, ours:
        connection = TlsConnection(ours, contexts[1], PLACE, room, sessions or TlsSessions())
        thread = threading.Thread(target=server.handshake)
        thread.start()
        connection.handshake(10.0)
        thread.join()
        connection.setblocking(False)
        yield server, connection


def taken(connection: TlsConnection, room_bytes: int) -> tuple[bytes, bool]:
    """Take all that is there; return it, and whether the connection has ended."""
    found = b""
    while True:
        room = memoryview(bytearray(room_bytes))
        try:
            n_bytes = connection.recv_into(room)
        except BlockingIOError:
            return found, False
        if not n_bytes:
            return found, True
        found += room[:n_bytes]


@pytest.mark.slow
@given(
    records=st.lists(st.integers(1, 20_000), min_size=1, max_size=8),
    pieces=st.lists(st.integers(1, 30_000), min_size=1, max_size=8),
    room_bytes=st.integers(1, 70_000),
)
@settings(max_examples=60, deadline=None)
def test_what_was_sent_comes_out_in_order(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    records: list[int],
    pieces: list[int],
    room_bytes: int,
) -> None:
    with connected(contexts) as (server, connection):
        sent = [DATA[number : number + size] for number, size in enumerate(records)]
        left = b"".join(server.encrypted(record) for record in sent)
        found, turn = b"", 0
        while left:
            n_bytes = pieces[turn % len(pieces)]
            server.send(left[:n_bytes])
            left, turn = left[n_bytes:], turn + 1
            data, has_ended = taken(connection, room_bytes)
            found += data
            assert not has_ended
        assert found == b"".join(sent)


def test_a_buffer_that_is_not_filled_means_that_nothing_more_is_there(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """A wait for the socket then misses no byte that is decrypted in memory."""
    with connected(contexts) as (server, connection):
        server.send(server.encrypted(DATA[:50_000]))
        room = memoryview(bytearray(40_000))
        assert connection.recv_into(room) == 40_000
        assert connection.recv_into(room) == 10_000
        with pytest.raises(BlockingIOError):
            connection.recv_into(room)


def closed_without_a_word(server: Server) -> None:
    server.sock.shutdown(socket.SHUT_WR)


def said_that_it_ends(server: Server) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        server.tls.unwrap()
    server.send(server.encrypted())


@pytest.mark.parametrize("end", [closed_without_a_word, said_that_it_ends])
def test_the_end_is_told_after_what_came_before_it(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], end: Callable[[Server], None]
) -> None:
    with connected(contexts) as (server, connection):
        server.send(server.encrypted(DATA[:1000]))
        end(server)
        room = memoryview(bytearray(4000))
        assert connection.recv_into(room) == 1000
        assert readable(connection)
        assert connection.recv_into(room) == 0
        assert connection.recv_into(room) == 0


def test_a_record_that_was_tampered_with_is_an_error_after_what_came_before_it(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    with connected(contexts) as (server, connection):
        good = server.encrypted(DATA[:1000])
        bad = bytearray(server.encrypted(DATA[:1000]))
        bad[-1] ^= 1
        server.send(good + bytes(bad))
        room = memoryview(bytearray(4000))
        assert connection.recv_into(room) == 1000
        assert readable(connection)  # or no call would get the error
        for _ in range(2):
            with pytest.raises(ssl.SSLError):
                connection.recv_into(room)


def readable(connection: TlsConnection) -> bool:
    return bool(select.select([connection.fileno()], [], [], 5)[0])


def test_a_host_that_is_not_trusted_is_refused() -> None:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert(HOST).configure_cert(server)
        other = Server(theirs, server)
        thread = threading.Thread(target=swallow, args=(other.handshake,))
        thread.start()
        room = memoryview(bytearray(4096))
        with pytest.raises(ssl.SSLCertVerificationError):
            TlsConnection(ours, ssl.create_default_context(), PLACE, room, TlsSessions()).handshake(
                10.0
            )
        thread.join()


def swallow(work: Callable[[], None]) -> None:
    try:
        work()
    except ssl.SSLError:
        return
    raise AssertionError("the other side was not told that it is not trusted")


def test_a_silent_host_is_given_up_in_time(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        room = memoryview(bytearray(4096))
        with pytest.raises(TimeoutError):
            TlsConnection(ours, contexts[1], PLACE, room, TlsSessions()).handshake(0.05)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_later_connection_resumes_the_session_of_an_earlier_one(
    version: ssl.TLSVersion,
) -> None:
    """Connections to another port of the host shake hands in full."""
    authority, sessions = trustme.CA(), TlsSessions()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.maximum_version = version
    authority.issue_cert(HOST).configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    for is_resumed in (False, True, True):
        with connected((server_context, client_context), sessions=sessions) as (server, connection):
            assert bool(server.tls.session_reused) is is_resumed
            server.send(server.encrypted(DATA[:1000]))
            assert taken(connection, 4096) == (DATA[:1000], False)
    assert sessions.to_resume(PLACE) is not None
    assert sessions.to_resume((HOST, 8443)) is None


def test_a_host_that_resumes_no_session_is_offered_none_again(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    sessions = TlsSessions()
    with connected(contexts, sessions=sessions) as (server, connection):
        server.send(server.encrypted(DATA[:1000]))
        taken(connection, 4096)
    theirs, ours = socket.socketpair()
    with theirs, ours:
        theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        room = memoryview(bytearray(4096))
        with pytest.raises(ssl.SSLError):
            TlsConnection(ours, contexts[1], PLACE, room, sessions).handshake(10.0)
    for _ in range(2):
        with connected(contexts, sessions=sessions) as (server, connection):
            assert not server.tls.session_reused
            server.send(server.encrypted(DATA[:1000]))
            taken(connection, 4096)


def test_a_worker_connects_again_in_full_where_no_session_is_resumed(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    opener = Opener()
    opener.ca_file = str(tmp_path / "ca.pem")
    with serving_in_turn(server, [True, False, True]) as (port, resumed):
        for _ in range(2):
            opener.open(("https", f"127.0.0.1:{port}"))
            assert select.select([opener.wake_reader], [], [], 10)[0]
            [(_, connection)] = opener.opened()
            assert isinstance(connection, TlsConnection)
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            connection.setblocking(False)
            found = b""
            while not found:  # tickets come before it
                assert readable(connection)
                found, has_ended = taken(connection, 4096)
                assert not has_ended
            assert found.endswith(b"x")
            connection.close()
    assert resumed == [False, False]
    opener.close()


def test_a_worker_does_not_try_a_refused_connection_again_in_full(tmp_path: Path) -> None:
    """It was closed without a byte: that is one refusal, and is to count as one."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    opener = Opener()
    opener.ca_file = str(tmp_path / "ca.pem")
    with serving_in_turn(server, [True, None, True]) as (port, resumed):
        for is_refused in (False, True, False):
            opener.open(("https", f"127.0.0.1:{port}"))
            assert select.select([opener.wake_reader], [], [], 10)[0]
            [(_, connection)] = opener.opened()
            if is_refused:
                assert isinstance(connection, ssl.SSLError)
                continue
            assert isinstance(connection, TlsConnection)
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            connection.setblocking(False)
            while not taken(connection, 4096)[0]:  # tickets come before it
                assert readable(connection)
            connection.close()
    assert resumed == [False, False]
    opener.close()


def test_a_server_may_begin_another_handshake_in_the_middle_of_a_body(tmp_path: Path) -> None:
    """It waits for our part, which is sent while nothing of the body comes (TLS 1.2)."""
    authority, pem = trustme.CA(), tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    client = ssl.create_default_context()
    authority.configure_trust(client)
    pieces = [b"-" * 1000, b"r", b"-" * 1000]
    with (
        serving_by_openssl(pem, ["-tls1_2"], pieces) as port,
        socket.create_connection(("127.0.0.1", port)) as sock,
    ):
        place, room = ("127.0.0.1", port), memoryview(bytearray(4096))
        connection = TlsConnection(sock, client, place, room, TlsSessions())
        connection.handshake(10.0)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.setblocking(False)
        found = b""
        while len(found) < 2000:
            assert select.select([sock], [], [], 4.0)[0], f"nothing comes after {len(found)} bytes"
            found += taken(connection, 4096)[0]
        assert found == b"-" * 2000
