"""Addresses of this machine where a port swallows packets, as those of a dead route do."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Final

#: Connections that fill a listener's queue of length 0 (Linux takes one more than listen(2) is
#: given), so that the kernel drops all that come later (tcp(7), `tcp_abort_on_overflow`).
_FILLERS: Final = 3


@contextlib.contextmanager
def silent_addresses(n_addresses: int, port: int = 0) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield a port (*port*, if not 0), and addresses of loopback where it responds to nothing.

    They are silent until the end of the block; 127.0.0.1 is not among them.
    """
    with contextlib.ExitStack() as stack:
        listeners = []
        for number in range(n_addresses):
            listener = stack.enter_context(socket.socket())
            listener.bind((f"127.0.0.{number + 2}", port))
            port = listener.getsockname()[1]
            listeners.append(listener)
        for listener in listeners:
            listener.listen(0)
            for _ in range(_FILLERS):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(listener.getsockname())
        yield port, [listener.getsockname()[0] for listener in listeners]
