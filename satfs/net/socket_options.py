"""The options of each socket, in the loop and in workers. *Pure* except for the socket.

A connection may be lost without notice to either end: a router that translates addresses drops idle
ones, a tunnel is opened again, the other side loses its power. Nothing reports that, and the kernel
repeats a request for a quarter of an hour (tcp(7), tcp_retries2). The kernel of a slow host
acknowledges a request at once. So a request that is not acknowledged for seconds is lost, and its
connection with it.
"""

from __future__ import annotations

import errno
import socket
from typing import Final, Protocol

#: Longest time without an acknowledgement of what was sent, in seconds. A lost packet is sent again
#: after 0.2 s and a round trip at first, so that this allows for three losses in a row on a line of
#: 300 ms. Of the 15 s in which a name is to be answered, enough are left for a new connection.
#: Where up to a fifth of the packets are lost, a limit of 30 s is no faster (docs/RELIABILITY.md).
UNACKNOWLEDGED_S: Final = 3.0


class HasOptions(Protocol):
    """A socket, of the standard library or of trio."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """Set *option*."""


def set_options(sock: HasOptions) -> None:
    """Have a request leave at once, and break the connection where it is not acknowledged."""
    # A request is one small packet, and is not to wait for another.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNACKNOWLEDGED_S * 1000))


def is_unacknowledged(problem: BaseException | None) -> bool:
    """Return whether the kernel broke the connection since sent bytes were not acknowledged.

    A limit of a call's time raises the same exception, without a number.
    """
    return isinstance(problem, OSError) and problem.errno == errno.ETIMEDOUT
