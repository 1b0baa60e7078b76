"""Open connections in threads, with name resolution and handshakes; for the worker process."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from satfs.errors import BadSettings, NotAllowed
from satfs.net.addresses import may_connect, refusal_of_peer
from satfs.net.trust import tls_context

#: Scheme and network location.
Origin: TypeAlias = tuple[str, str]
#: What came of opening a connection: `BadSettings` where this process cannot make a TLS context.
#: `NotAllowed` where a name leads to addresses that links may not lead to.
Opened: TypeAlias = socket.socket | OSError | BadSettings | NotAllowed
#: Wake-ups taken in at once.
_WAKE_UPS: Final = 4096


class Opener:
    """Opens connections, and wakes a selector when one is there or cannot be had.

    To be called by one thread, but for what runs in the threads that it starts. `wake_reader` is
    readable when `opened` has something.
    """

    def __init__(self) -> None:
        self.wake_reader, self._waker = socket.socketpair()
        self.connect_timeout_s = 5.0
        self.ca_file: str | None = None
        self.tls_strict = True
        self.allows_private = True
        self._n_opening: Counter[Origin] = Counter()
        self._opened: queue.SimpleQueue[tuple[Origin, Opened]]
        self._opened = queue.SimpleQueue()
        self._tls: ssl.SSLContext | None = None
        self._tls_lock = threading.Lock()

    def n_opening(self, origin: Origin) -> int:
        """Return how many connections to *origin* are being opened."""
        return self._n_opening[origin]

    def open(self, origin: Origin) -> None:
        """Begin to open a connection; waits for nothing."""
        self._n_opening[origin] += 1
        threading.Thread(target=self._open_now, args=(origin,), daemon=True).start()

    def opened(self) -> Iterator[tuple[Origin, Opened]]:
        """Yield each connection that is there by now, or why there is none."""
        self.wake_reader.recv(_WAKE_UPS)
        with contextlib.suppress(queue.Empty):
            while True:
                origin, found = self._opened.get_nowait()
                self._n_opening[origin] -= 1
                yield origin, found

    def close(self) -> None:
        """Let go of what wakes."""
        self.wake_reader.close()
        self._waker.close()

    def _open_now(self, origin: Origin) -> None:
        try:
            found: Opened = self._connected(origin)
        except (OSError, BadSettings, NotAllowed) as problem:
            found = problem
        except Exception as problem:  # whatever it is: somebody waits for an end
            found = OSError(None, type(problem).__name__)
        self._opened.put((origin, found))
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def _connected(self, origin: Origin) -> socket.socket:
        parts = urlsplit(f"{origin[0]}://{origin[1]}")
        host, is_tls = parts.hostname or "", origin[0] == "https"
        port = parts.port or (443 if is_tls else 80)
        sock = self._first_to_answer(host, port)
        try:
            # A request is one small packet, and is not to wait for another.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._context().wrap_socket(sock, server_hostname=host) if is_tls else sock
        except BaseException:
            sock.close()
            raise

    def _first_to_answer(self, host: str, port: int) -> socket.socket:
        """Return a connection to the first address that may be connected to and answers."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys(str(each[4][0]) for each in found)
        allowed = [
            each for each in addresses if may_connect(each, allows_private=self.allows_private)
        ]
        if not allowed:
            raise NotAllowed(refusal_of_peer(host))
        last: OSError | None = None
        for address in allowed:
            try:
                return socket.create_connection((address, port), self.connect_timeout_s)
            except OSError as problem:
                last = problem
        raise last or OSError("the name has no address")

    def _context(self) -> ssl.SSLContext:
        with self._tls_lock:
            if self._tls is None:
                self._tls = tls_context(self.ca_file, is_strict=self.tls_strict)
            return self._tls
