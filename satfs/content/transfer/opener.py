"""Open connections in threads, with name resolution and handshakes; for the worker process."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import select
import selectors
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, TypeAlias, cast
from urllib.parse import urlsplit

from msgspec import Struct

from satfs.content.transfer.tls_connection import CIPHERTEXT_BYTES, Connection, TlsConnection
from satfs.errors import BadSettings, NotAllowed
from satfs.net.addresses import may_connect, refusal_of_peer
from satfs.net.happy_eyeballs import Race, SlowAddresses
from satfs.net.socket_options import set_options
from satfs.net.tls_sessions import TlsSessions
from satfs.net.trust import tls_context

#: Scheme and network location.
Origin: TypeAlias = tuple[str, str]
#: Why no connection was opened: `BadSettings` where this process cannot make a TLS context,
#: `NotAllowed` where a name leads to addresses that links may not lead to.
Failure: TypeAlias = OSError | BadSettings | NotAllowed
#: The result of opening a connection.
Opened: TypeAlias = Connection | Failure
#: Family and place of an address, as `socket` has them.
_Target: TypeAlias = tuple[socket.AddressFamily, Any]
#: Wake-ups taken in at once.
_WAKE_UPS: Final = 4096


class _Opening(Struct, eq=False):
    """A connection while it is being opened, and since when it waits for the other side."""

    origin: Origin
    since_s: float | None = None  # None: it is this process's turn
    #: The sockets that are polled, and the event: if it has come, this process has not run since.
    socks: tuple[socket.socket, ...] = ()
    event: int = 0

    def wait(self, *socks: socket.socket, event: int = 0) -> None:
        """Note that the connection waits for the other side from now on."""
        self.since_s, self.socks, self.event = time.monotonic(), socks, event

    def waited_s(self, now_s: float) -> float:
        """Return how long it has waited for the other side; 0.0 if this process has to act."""
        poll, since_s = select.poll(), self.since_s
        try:
            for sock in self.socks:
                poll.register(sock, self.event)
        except (OSError, ValueError):  # closed in this moment
            return 0.0
        return 0.0 if since_s is None or poll.poll(0) else now_s - since_s


class Opener:
    """Opens connections, and wakes a selector when one is open or has failed.

    One thread calls it; it starts threads of its own. `wake_reader` is readable when `opened` has a
    connection or a failure.
    """

    def __init__(self) -> None:
        self.wake_reader, self._waker = socket.socketpair()
        self.connect_timeout_s = 5.0
        self.ca_file: str | None = None
        self.tls_strict = True
        self.allows_private = True
        self._n_opening: Counter[Origin] = Counter()
        self._n_abandoned: Counter[Origin] = Counter()
        self._openings: list[_Opening] = []
        self._opened: queue.SimpleQueue[tuple[Origin, Opened]]
        self._opened = queue.SimpleQueue()
        self._slow = SlowAddresses()
        self._slow_lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        self._sessions = TlsSessions()
        #: The buffer of all connections: they belong to one thread, and receive one after another.
        self._ciphertext = memoryview(bytearray(CIPHERTEXT_BYTES))
        self._tls_lock = threading.Lock()

    def n_opening(self, origin: Origin) -> int:
        """Return how many connections to *origin* are being opened."""
        return self._n_opening[origin]

    def open(self, origin: Origin) -> None:
        """Begin to open a connection; never waits."""
        self._n_opening[origin] += 1
        opening = _Opening(origin)
        self._openings.append(opening)
        threading.Thread(target=self._open_now, args=(opening,), daemon=True).start()

    def waited_s(self, origin: Origin, place: int = 0) -> float:
        """Return how long a connection has waited for the other side, in seconds.

        It is the connection at *place* among those that are being opened to *origin*, oldest first.
        0.0 if one of these waits for this process: its thread has not run since the host responded,
        or it is open and not taken yet.
        """
        now_s = time.monotonic()
        waited_s = [each.waited_s(now_s) for each in self._openings if each.origin == origin]
        if not waited_s or min(waited_s) == 0.0:
            return 0.0
        return sorted(waited_s, reverse=True)[min(place, len(waited_s) - 1)]

    def prepare(self) -> None:
        """Begin to make the TLS context, so that the first connection need not wait for it.

        It reads the certificates of all authorities, which takes as long as a round trip.
        """
        threading.Thread(target=self._prepare_now, daemon=True).start()

    def avoid(self, addresses: Iterable[str]) -> None:
        """Note that *addresses* are to be tried after others of the same name."""
        with self._slow_lock:
            self._slow.add(addresses, time.monotonic())

    def abandon(self, origin: Origin) -> None:
        """Close the next connection to *origin* that is opened, or ignore its failure."""
        if self._n_opening[origin] > 0:
            self._n_opening[origin] -= 1
            self._n_abandoned[origin] += 1

    def opened(self) -> Iterator[tuple[Origin, Opened]]:
        """Yield each connection that is open by now, or its failure."""
        self.wake_reader.recv(_WAKE_UPS)
        with contextlib.suppress(queue.Empty):
            while True:
                origin, found = self._opened.get_nowait()
                if self._n_abandoned[origin]:
                    self._n_abandoned[origin] -= 1
                    if not isinstance(found, Exception):
                        found.close()
                    continue
                self._n_opening[origin] -= 1
                yield origin, found

    def close(self) -> None:
        """Close the sockets that wake the reader."""
        self.wake_reader.close()
        self._waker.close()

    def _prepare_now(self) -> None:
        with contextlib.suppress(OSError, BadSettings):  # raised again where it is needed
            self._context()

    def _open_now(self, opening: _Opening) -> None:
        try:
            found: Opened = self._connected(opening)
        except (OSError, BadSettings, NotAllowed) as problem:
            found = problem
        except Exception as problem:  # every failure: a job waits for an end
            found = OSError(None, type(problem).__name__)
        self._openings.remove(opening)
        self._opened.put((opening.origin, found))
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def _connected(self, opening: _Opening) -> Connection:
        origin = opening.origin
        parts = urlsplit(f"{origin[0]}://{origin[1]}")
        host, is_tls = parts.hostname or "", origin[0] == "https"
        port = parts.port or (443 if is_tls else 80)
        if not is_tls:
            return self._first_connected(host, port, opening)
        while True:
            sock = self._first_connected(host, port, opening)
            connection, on_wait = None, partial(opening.wait, sock, event=select.POLLIN)
            try:
                connection = TlsConnection(
                    sock, self._context(), (host, port), self._ciphertext, self._sessions
                )
                connection.handshake(self.connect_timeout_s, on_wait=on_wait)
                return connection
            except ssl.SSLError:
                sock.close()
                if connection is None or not connection.is_not_resumed:
                    raise
                # The session is forgotten, and the next handshake is in full.
            except BaseException:
                sock.close()
                raise

    def _first_connected(self, host: str, port: int, opening: _Opening) -> socket.socket:
        """Return a connection to the first address that may be connected to and responds."""
        opening.wait()  # for the name's addresses
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        targets = {str(each[4][0]): (each[0], each[4]) for each in found}
        allowed = [
            each for each in targets if may_connect(each, allows_private=self.allows_private)
        ]
        if not allowed:
            raise NotAllowed(refusal_of_peer(host))
        with self._slow_lock:
            ordered = self._slow.ordered(allowed, time.monotonic())
        race = Race(ordered)
        deadline_s = time.monotonic() + self.connect_timeout_s
        on_wait = partial(opening.wait, event=select.POLLOUT)
        winner, sock = _won(race, targets, deadline_s, on_wait)
        opening.since_s = None
        with self._slow_lock:
            self._slow.connected(winner, race.losers(winner), time.monotonic())
        sock.settimeout(self.connect_timeout_s)
        set_options(sock)
        return sock

    def _context(self) -> ssl.SSLContext:
        with self._tls_lock:
            if self._tls is None:
                self._tls = tls_context(self.ca_file, is_strict=self.tls_strict)
            return self._tls


def is_refusal(problem: Failure) -> bool:
    """Return whether the other side did not let the connection through.

    A name that cannot be resolved, or silence, does not show that.
    """
    others = (
        BadSettings | NotAllowed | ssl.SSLCertVerificationError | socket.gaierror | TimeoutError
    )
    return not isinstance(problem, others)


def _won(
    race: Race,
    targets: Mapping[str, _Target],
    deadline_s: float,
    on_wait: Callable[..., None],
) -> tuple[str, socket.socket]:
    """Return the first address that responds, with a connection to it; waits until *deadline_s*.

    *on_wait* is called before each wait, with the sockets to wait for.

    Raises:
        OSError: none responds; `TimeoutError` if not all of them have failed.
    """
    last = OSError("the name has no address")
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
        while not race.is_lost:
            now_s = time.monotonic()
            if now_s >= deadline_s:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            if (address := race.due(now_s)) is not None:
                family, place = targets[address]
                try:
                    sock = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
                    sock.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        sock.connect(place)
                except OSError as problem:
                    last = problem
                    race.failed(address)
                else:
                    selector.register(sock, selectors.EVENT_WRITE, address)
                continue
            wait_s = race.wait_s(now_s)
            left_s = deadline_s - now_s
            on_wait(*(cast(socket.socket, key.fileobj) for key in selector.get_map().values()))
            for key, _ in selector.select(left_s if wait_s is None else min(wait_s, left_s)):
                sock = cast(socket.socket, key.fileobj)
                selector.unregister(sock)
                if not (code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                    # A duplicate outlives the others, which are closed on the way out.
                    return key.data, sock.dup()
                last = OSError(code, os.strerror(code))
                race.failed(key.data)
    raise last
