"""TLS sessions, which later connections to the same host resume.

A handshake that resumes a session needs no certificate: with TLS 1.2 it takes one round trip
instead of two (RFC 5077 §3.1), and with every version it spares the processors of both sides the
signature and its check, a millisecond or two (RFC 8446 §2.2). A bulk transfer opens thirty
connections within half a second.

Several connections may resume one session: the tickets of a server are valid until they expire. RFC
8446 §C.4 advises against it because an observer could tell that these connections belong to one
client; here they have the same address and begin at the same moment.
"""

from __future__ import annotations

import ssl
import threading
from typing import Final, TypeAlias

#: A host as the certificate names it, and its port.
Place: TypeAlias = tuple[str, int]
#: Hosts whose sessions are kept; an account's objects lie at one or two.
MAX_PLACES: Final = 16
#: Handshakes that were to resume a session and ended without a byte of the host, after which it is
#: offered none again. Hosts end connections that they do not let through in this way, and some
#: routers connections that they do not understand.
MAX_UNEXPLAINED: Final = 2
#: Encrypted bytes after a request that are the beginning of a long record, of which nothing can be
#: decrypted before its end: a body comes. TLS's own records and those of refusals are shorter. A
#: server sends as much in the first round trip, and the record's end, 16 KiB, in the next one.
LONG_RECORD_BYTES: Final = 8 * 1024


class TlsSessions:
    """The latest session with each host, for connections of one context. For any thread.

    A host with which the resumption of a session failed is offered none again: some routers on the
    way do not understand it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The oldest first; None where a handshake failed.
        self._sessions: dict[Place, ssl.SSLSession | None] = {}
        self._n_unexplained: dict[Place, int] = {}

    def to_resume(self, place: Place) -> ssl.SSLSession | None:
        """Return the session that a new connection to *place* is to resume, if there is one."""
        with self._lock:
            return self._sessions.get(place)

    def keep(self, place: Place, tls: ssl.SSLObject) -> None:
        """Keep the session of *tls* for further connections, if it can be resumed.

        To be called after the handshake, and once more when bytes have come: with TLS 1.3 a server
        sends what is needed for it after the handshake (RFC 8446 §4.6.1).
        """
        session = tls.session
        if session is None or not (session.has_ticket or session.id):
            return
        with self._lock:
            if self._sessions.get(place, session) is not None:
                self._set(place, session)

    def failed(self, place: Place, *, has_responded: bool) -> bool:
        """Note that a handshake failed in which a session was offered to *place*.

        *has_responded*: bytes came from there. Returns whether the session is the reason; otherwise
        the host may have refused the connection, and another one would be refused as well.
        """
        with self._lock:
            n_unexplained = 0 if has_responded else self._n_unexplained.pop(place, 0) + 1
            if has_responded or n_unexplained >= MAX_UNEXPLAINED:
                self._set(place, None)
                return has_responded
            self._sessions.pop(place, None)  # the next handshake is in full
            self._n_unexplained[place] = n_unexplained
            while len(self._n_unexplained) > MAX_PLACES:
                del self._n_unexplained[next(iter(self._n_unexplained))]
            return False

    def _set(self, place: Place, session: ssl.SSLSession | None) -> None:
        self._sessions.pop(place, None)
        self._sessions[place] = session
        while len(self._sessions) > MAX_PLACES:
            del self._sessions[next(iter(self._sessions))]
