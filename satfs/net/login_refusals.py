"""When a login that a proxy has refused (407) is sent again. *Pure*.

Moments come in as seconds on any clock that never runs backwards. Every request with a wrong
password counts at the proxy, and directory services lock an account after a few: commonly after
five to ten failures within half an hour. The environment of a process never changes, so that only
a change at the proxy can make the same password right.

A login that was accepted before is most likely right: the directory service of the proxy may have
been out of reach for a moment. Its first refusals are temporary failures, after which callers try
again within their deadlines.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from satfs.errors import Unreachable

#: Time without a request after a refusal, in seconds; doubled with each refusal in a row.
REFUSED_S: Final = 600.0
#: The same after the refusals of a login that was accepted before and is not forgiven any more:
#: all of these are forgotten by the directory service before the next one.
PROVEN_REFUSED_S: Final = 1800.0
#: Limit of that time, in seconds.
MAX_REFUSED_S: Final = 3600.0
#: The waits before: two of them end well within the 15 s in which a name is to be answered, all
#: within the 60 s of a read. With the refusal after the last one that is four failures, one less
#: than locks an account.
PROVEN_WAITS_S: Final = (1.0, 5.0, 20.0)


class LoginForgotten(Unreachable):
    """A proxy refuses a login that it has accepted before; nothing was sent to the host.

    `wait_s`: seconds until the login is sent again; a try before then fails without a request.
    """

    def __init__(self, message: str, *, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class LoginRefusals(Struct):
    """One login at one proxy, as accepted or refused so far.

    Attributes:
        is_accepted: the proxy has accepted it, at any time.
        n_refused: refusals in a row.
    """

    is_accepted: bool = False
    n_refused: int = 0
    _refused_at_s: float = float("-inf")
    _next_at_s: float = float("-inf")

    @property
    def is_certain(self) -> bool:
        """Return whether several requests may be sent at once: the last one was accepted."""
        return self.is_accepted and not self.n_refused

    @property
    def is_forgiven(self) -> bool:
        """Return whether a refusal may be temporary, and not for the user to correct."""
        return self.is_accepted and self.n_refused <= len(PROVEN_WAITS_S)

    def wait_s(self, now_s: float) -> float:
        """Return for how many seconds no request is to be sent; 0.0 when one may be."""
        return max(0.0, self._next_at_s - now_s)

    def accepted(self) -> None:
        """Note that the proxy let a request through."""
        self.is_accepted, self.n_refused = True, 0
        self._next_at_s = float("-inf")

    def refused(self, sent_at_s: float, now_s: float) -> None:
        """Note a refusal of a request sent at *sent_at_s*.

        Requests that were in flight when the first of them was refused count once.
        """
        if self.n_refused and sent_at_s <= self._refused_at_s:
            return
        self.n_refused += 1
        self._refused_at_s = now_s
        self._next_at_s = now_s + self._pause_s()

    def _pause_s(self) -> float:
        waits, last_s = (PROVEN_WAITS_S, PROVEN_REFUSED_S) if self.is_accepted else ((), REFUSED_S)
        n_before = self.n_refused - 1
        if n_before < len(waits):
            return waits[n_before]
        # The exponent is bounded because 2**2000 is no float.
        return min(MAX_REFUSED_S, last_s * 2.0 ** min(n_before - len(waits), 20))
