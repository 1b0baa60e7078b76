"""A relay that passes bytes on late: for machines that let us make no line with a delay.

    python -m benchmarks.relay DELAY_NS RATE LISTEN:TARGET[:paced] ...

Stands before the origin on loopback. Bytes leave half a round trip after they came, each way, so
every exchange takes a round trip: of TLS, of HTTP. Connecting itself takes none on loopback, so
the first bytes of a connection wait one round trip more. Paced connections keep to RATE bytes per
second from their first byte (SO_MAX_PACING_RATE, which needs no permission).

Less than a real line: there is no slow start, and acknowledgements come at once.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque

#: asm-generic/socket.h; not in Python's socket module.
SO_MAX_PACING_RATE = 47


class _Side(asyncio.Protocol):
    """One end of a relayed connection: what comes in here goes out at the other end, later."""

    def __init__(self, delay_s: float, most_waiting: int) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._delay_s = delay_s
        self._most_waiting = most_waiting
        self._waiting = 0
        self._is_full_beyond = False
        #: Received pieces, each with the time at which it leaves; None for the end of the
        #: connection.
        self._queue: deque[tuple[float, bytes | None]] = deque()
        self.extra_delay_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += len(data)
        self._enqueue(data)
        self._regulate()

    def connection_lost(self, exc: Exception | None) -> None:
        self._enqueue(None)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other._is_full_beyond = True
            self.other._regulate()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other._is_full_beyond = False
            self.other._regulate()

    def _enqueue(self, data: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._delay_s + self.extra_delay_s
        self._queue.append((due_s, data))
        if len(self._queue) == 1:
            loop.call_at(due_s, self._pass_on)

    def _pass_on(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue and self._queue[0][0] <= loop.time():
            _, data = self._queue.popleft()
            self._waiting -= len(data or b"")
            if self.other is None or self.other.transport is None:
                continue
            if data is None:
                self.other.transport.close()
            else:
                self.other.transport.write(data)
        if self._queue:
            loop.call_at(self._queue[0][0], self._pass_on)
        self._regulate()

    def _regulate(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if self._waiting > self._most_waiting or self._is_full_beyond:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


async def _relay(delay_s: float, rate: int, listen: int, target: int, *, paced: bool) -> None:
    loop = asyncio.get_running_loop()
    # The bytes in flight at the full rate, twice over. The origin counts them as sent.
    most_waiting = max(256 * 1024, int(2 * rate * delay_s)) if paced else 1 << 20
    pairs = set()

    async def join(client: _Side) -> None:
        _, side = await loop.create_connection(
            lambda: _Side(delay_s, most_waiting), "127.0.0.1", target
        )
        client.other, side.other = side, client
        assert client.transport is not None
        client.transport.resume_reading()

    class Client(_Side):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            assert self.transport is not None
            self.transport.pause_reading()
            accepted = transport.get_extra_info("socket")
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if paced:
                accepted.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)
            # The round trip that connecting would have taken.
            self.extra_delay_s = 2 * delay_s
            loop.call_later(2 * delay_s, self._forget_extra)
            task = loop.create_task(join(self))
            pairs.add(task)
            task.add_done_callback(pairs.discard)

        def _forget_extra(self) -> None:
            self.extra_delay_s = 0.0

    server = await loop.create_server(
        lambda: Client(delay_s, most_waiting), "127.0.0.1", listen, backlog=512
    )
    await server.serve_forever()


async def _main(words: list[str]) -> None:
    delay_s, rate = int(words[0]) / 1e9, int(words[1])
    async with asyncio.TaskGroup() as group:
        for word in words[2:]:
            listen, target, *paced = word.split(":")
            group.create_task(_relay(delay_s, rate, int(listen), int(target), paced=bool(paced)))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
