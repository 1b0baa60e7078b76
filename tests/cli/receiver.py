"""A receiver of webhooks: a real server, which records each request and responds as configured."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class Receiver:
    """Listens on 127.0.0.1 while its `with` lasts.

    `answers` are the statuses of the next responses, the last one first; without one a response is
    204. `before_answer` is called with each request before its response. `location` is where a
    redirect leads to. While `is_silent` is not set there is a response; else the connection stays
    open without one, or with a byte of a body now and then where `is_dripping`. *tls* is the
    server's side of TLS.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.answers: list[int] = []
        self.before_answer: Callable[[Received], None] = lambda _: None
        self.is_silent = False
        self.is_dripping = False
        self._ended = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = Received(self.path, dict(self.headers), body)
                receiver.received.append(request)
                receiver.before_answer(request)
                if receiver.is_silent:
                    receiver._ended.wait()
                    return
                status = receiver.answers.pop() if receiver.answers else 204
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                if receiver.is_dripping:
                    self.send_header("Content-Length", "1000000")
                    self.end_headers()
                    while not receiver._ended.wait(0.02):
                        self.wfile.write(b".")
                    return
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Be silent about a client that has gone."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """Return the address, with a secret in it."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}/hook?key=of-the-user"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
