"""TLS servers of a few lines, which stop, fail at times or exchange keys."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

#: Bytes of a record as long as they may be (RFC 8446 §5.1), and of it those that are sent first.
RECORD_BYTES = 16 * 1024
FIRST_BYTES = 10_000
#: What `openssl s_server -msg` writes when another handshake begins.
_HELLO = re.compile(rb"<<<.* ClientHello")


@dataclass
class HalfRecord:
    """One connection to the server: what has been sent, and whether the rest may follow."""

    port: int
    body: bytes
    half_sent: threading.Event = field(default_factory=threading.Event)
    may_go_on: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving_half_a_record(context: ssl.SSLContext, n_bytes: int) -> Iterator[HalfRecord]:
    """Serve one request for the first *n_bytes*, at least a record, of an object with ETag "e"."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        half = HalfRecord(listener.getsockname()[1], bytes(n_bytes))
        thread = threading.Thread(target=_serve, args=(listener, context, half))
        thread.start()
        try:
            yield half
        finally:
            half.may_go_on.set()
            thread.join(10)


def _serve(listener: socket.socket, context: ssl.SSLContext, half: HalfRecord) -> None:
    n_bytes = len(half.body)
    head = (
        f"HTTP/1.1 206 Partial Content\r\nContent-Length: {n_bytes}\r\n"
        f'Content-Range: bytes 0-{n_bytes - 1}/{n_bytes}\r\nETag: "e"\r\n\r\n'
    ).encode()
    sock, _ = listener.accept()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_side=True)
    with sock:
        sock.settimeout(10)
        for step in (session.do_handshake, lambda: session.read(65536)):
            while True:
                try:
                    step()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))
        sock.sendall(outgoing.read())
        first = RECORD_BYTES - len(head)
        session.write(head + half.body[:first])
        session.write(half.body[first:])
        encrypted = outgoing.read()
        sock.sendall(encrypted[:FIRST_BYTES])
        half.half_sent.set()
        half.may_go_on.wait(10)
        sock.sendall(encrypted[FIRST_BYTES:])
        sock.recv(1)


@contextmanager
def serving_in_turn(
    context: ssl.SSLContext, turns: Sequence[bool | None]
) -> Iterator[tuple[int, list[bool]]]:
    """Serve one byte over each connection whose turn is true; garbage comes over the others.

    Those of which the turn is None are closed without a byte.

    Yields the port, and for each handshake that was made whether it resumed a session.
    """
    resumed: list[bool] = []

    def serve(listener: socket.socket) -> None:
        for is_served in turns:
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(10)
                if is_served is None:
                    sock.shutdown(socket.SHUT_WR)
                    sock.recv(65536)
                    continue
                if not is_served:
                    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    sock.recv(65536)
                    continue
                with context.wrap_socket(sock, server_side=True) as tls:
                    resumed.append(bool(tls.session_reused))
                    tls.recv(65536)
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
                    tls.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1], resumed
        thread.join(10)


@contextmanager
def serving_by_openssl(pem: Path, options: Sequence[str], pieces: Sequence[bytes]) -> Iterator[int]:
    """Serve one connection by `openssl s_server`, which can do what `ssl` offers no call for.

    *pem* holds certificate and key. When a request has come, *pieces* are typed. Those of one
    letter are orders: `r` requests another handshake (TLS 1.2), and the next piece waits for it;
    `K` changes the keys (TLS 1.3), and the reply may come with the next request. Others are sent,
    and must not begin with such a letter. Yields the port.
    """
    words = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-msg", *options]
    words += ["-cert", str(pem)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        line = b""
        while not line.startswith(b"ACCEPT"):
            line = server.stdout.readline()
            assert line, "openssl has ended"

        def serve(orders: IO[bytes], seen: IO[bytes]) -> None:
            line = b"-"
            while line and not line.startswith(b"Host:"):
                line = seen.readline()
            for piece in pieces:
                is_order = len(piece) == 1
                with contextlib.suppress(BrokenPipeError):
                    orders.write(piece + b"\n" * is_order)
                time.sleep(0.1)  # one call of read(2) there for each piece
                while piece == b"r" and line and not _HELLO.match(line):
                    line = seen.readline()
            while seen.readline():
                pass

        thread = threading.Thread(target=serve, args=(server.stdin, server.stdout))
        thread.start()
        try:
            yield int(line.rsplit(b":", 1)[1])
        finally:
            server.terminate()
            thread.join(10)
