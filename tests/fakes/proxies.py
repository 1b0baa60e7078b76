"""A proxy whose tunnels (CONNECT) lead to this machine, and what proxies do at times."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Final

#: Bytes that are passed on at once.
_PIECE_BYTES: Final = 16 * 1024


class Proxy(socketserver.ThreadingTCPServer):
    """A running proxy.

    Attributes:
        n_refusals: so many tunnels more are refused with 407.
        cut_after_bytes: a tunnel ends when so many bytes have come back through it.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.n_tunnels = self.n_refused = self.n_refusals = 0
        self.cut_after_bytes: int | None = None

    @property
    def address(self) -> str:
        """Return its address, with a login."""
        return f"http://me:secret@127.0.0.1:{self.server_address[1]}"


class _Tunnel(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        request = self.rfile.readline().split(b" ")
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        if len(request) < 2:
            return
        if self.server.n_refusals > 0:
            self.server.n_refusals -= 1
            self.server.n_refused += 1
            self.wfile.write(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b"Proxy-Authenticate: Basic\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        self.server.n_tunnels += 1
        port = int(request[1].rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as there:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self._send_back, args=(there,), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while piece := self.connection.recv(_PIECE_BYTES):
                    there.sendall(piece)
            with contextlib.suppress(OSError):
                there.shutdown(socket.SHUT_RDWR)
            back.join()

    def _send_back(self, there: socket.socket) -> None:
        n_sent = 0
        with contextlib.suppress(OSError):
            while piece := there.recv(_PIECE_BYTES):
                self.connection.sendall(piece)
                n_sent += len(piece)
                cut_after = self.server.cut_after_bytes
                if cut_after is not None and n_sent >= cut_after:
                    break
        for sock in (there, self.connection):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def running_proxy() -> Iterator[Proxy]:
    """Run a proxy for as long as the block lasts."""
    with Proxy() as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()
