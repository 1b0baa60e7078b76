"""TLS of a worker's connection: one large receive, then every record in it.

`ssl.SSLSocket` makes two system calls for each record of at most 16 KiB, one for its head and one
for its body, and the kernel answers the sender after each of them. Here one call receives up to
`CIPHERTEXT_BYTES`, which OpenSSL then takes apart in memory (`ssl.MemoryBIO`).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final, Protocol, cast

from satfs.net.tls_sessions import LONG_RECORD_BYTES, Place, TlsSessions

#: Encrypted bytes received at once. They are copied twice before they are decrypted, so that they
#: should stay in the processor's own cache.
CIPHERTEXT_BYTES: Final = 256 * 1024


class Connection(Protocol):
    """The interface of a worker's connection: a `socket.socket`, or a `TlsConnection`."""

    def fileno(self) -> int:
        """Return the descriptor that a selector waits for."""

    def settimeout(self, value: float | None, /) -> None:
        """Limit the time of each call from now on, in seconds."""

    def setblocking(self, flag: bool, /) -> None:
        """Make calls wait, or raise `BlockingIOError` where they would wait."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of *data*; raises OSError."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Copy received bytes to the beginning of *buffer*, and return how many; 0 is the end.

        If they do not fill *buffer*, no more bytes have come so far.

        Raises:
            BlockingIOError: nothing has come.
            OSError: the connection is broken.
        """

    def close(self) -> None:
        """Close it."""


class TlsConnection:
    """TLS over the connected socket *sock*, which this owns from `connect` on.

    *ciphertext* is where encrypted bytes are received: connections of one thread share it, since
    none of them keeps anything there between two calls. *sessions* are those of *context*.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        place: Place,
        ciphertext: memoryview,
        sessions: TlsSessions,
    ) -> None:
        self._sock = sock
        self._ciphertext = ciphertext
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._place, self._sessions = place, sessions
        session = sessions.to_resume(place)
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=place[0], session=session
        )
        self._is_resuming = session is not None
        #: The handshake failed because of the session that it was to resume: a full one may
        #: succeed.
        self.is_not_resumed = False
        self._has_received = False
        #: Encrypted bytes that have come since the last request.
        self.n_encrypted_bytes = 0
        self._problem: OSError | None = None
        self.fileno, self.close = sock.fileno, sock.close
        self.settimeout, self.setblocking = sock.settimeout, sock.setblocking

    def handshake(self, timeout_s: float, on_wait: Callable[[], None] = lambda: None) -> None:
        """Shake hands, which may wait for *timeout_s* seconds in all.

        *on_wait* is called before each wait for the other side.

        Raises:
            OSError: `ssl.SSLCertVerificationError` where the host is not trusted, `TimeoutError`
                where it is silent.
        """
        until_s = time.monotonic() + timeout_s
        private = bytearray(16 * 1024)  # other threads shake hands at the same time
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                if self._is_resuming:
                    self.is_not_resumed = self._sessions.failed(
                        self._place, has_responded=self.n_encrypted_bytes > 0
                    )
                with contextlib.suppress(OSError):
                    self._flush()  # the alert with the reason, for the other side
                raise
            else:
                self._flush()
                self._sessions.keep(self._place, self._tls)
                return
            self._flush()
            if (left_s := until_s - time.monotonic()) <= 0:
                raise TimeoutError("no TLS handshake in time")
            self._sock.settimeout(left_s)
            on_wait()
            self._feed(memoryview(private))

    def sendall(self, data: bytes) -> None:
        """See `Connection.sendall`."""
        self._tls.write(data)
        self.n_encrypted_bytes = 0
        self._flush()

    def recv_into(self, buffer: memoryview) -> int:
        """See `Connection.recv_into`."""
        if self._problem is not None:
            raise self._problem
        read, size_bytes, n_bytes = self._tls.read, len(buffer), 0
        is_all_taken = False  # no more had come at the last look
        try:
            # 65,536 times for each GiB: nothing else belongs into this loop.
            while n_bytes < size_bytes:
                try:
                    n_read = read(size_bytes - n_bytes, buffer[n_bytes:])
                except ssl.SSLWantReadError:
                    if is_all_taken:
                        if not n_bytes:
                            raise BlockingIOError from None  # a part of a record
                        break
                    is_all_taken = self._feed(self._ciphertext)
                    continue
                if not n_read:
                    self._wake()
                    break
                n_bytes += cast(int, n_read)
        except BlockingIOError:
            if not n_bytes:
                raise
        except ssl.SSLEOFError:
            pass  # the end, without the alert that TLS has for it
        except OSError as problem:
            if not n_bytes:
                raise
            self._problem = problem  # for the next call: what came before it is good
            self._wake()
        finally:
            if self._outgoing.pending:
                self._flush()  # our part of another handshake (TLS 1.2)
        if n_bytes and not self._has_received:
            self._has_received = True
            self._sessions.keep(self._place, self._tls)
        return n_bytes

    def _wake(self) -> None:
        """Make a selector find the connection readable, as it does at the end of a plain one."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    def _feed(self, ciphertext: memoryview) -> bool:
        """Receive encrypted bytes, or the end.

        Returns whether all bytes that had come are received: they do not fill *ciphertext*.
        """
        n_bytes = self._sock.recv_into(ciphertext)
        if not n_bytes:
            self._incoming.write_eof()
            return False
        self.n_encrypted_bytes += n_bytes
        self._incoming.write(ciphertext[:n_bytes])
        return n_bytes < len(ciphertext)

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._sock.sendall(data)


def is_body_coming(sock: Connection) -> bool:
    """Return whether a response has begun of which nothing can be decrypted so far."""
    return isinstance(sock, TlsConnection) and sock.n_encrypted_bytes >= LONG_RECORD_BYTES
