"""The best client of a host with few connections: it knows their number, and one link.

    python -m benchmarks.best_client N SIZE_BYTES URL [CA_FILE]

Opens N connections together, each of which requests its share of the object in one range, and
prints the seconds until the last byte. Run where the client is: what names, handshakes, TCP's slow
start and this machine cost is the same for satfs.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

RECEIVE_BYTES = 256 * 1024


def main(arguments: Sequence[str]) -> int:
    """Print how long it takes; return 1 where a byte is missing."""
    n, size_bytes, url = int(arguments[0]), int(arguments[1]), arguments[2]
    context = ssl.create_default_context(cafile=arguments[3]) if arguments[3:] else None
    received = [0] * n
    edges = [size_bytes * number // n for number in range(n + 1)]

    def fetch(number: int) -> None:
        received[number] = _receive(url, context, edges[number], edges[number + 1])

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(n)]
    began_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{time.monotonic() - began_s:.3f}")
    return int(sum(received) != size_bytes)


def _receive(url: str, context: ssl.SSLContext | None, start: int, stop: int) -> int:
    parts = urlsplit(url)
    port = parts.port or (80 if context is None else 443)
    with socket.create_connection((parts.hostname or "", port)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plug = plain
        if context is not None:
            plug = context.wrap_socket(plain, server_hostname=parts.hostname)
        target = f"{parts.path}?{parts.query}"
        plug.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Range: bytes={start}-{stop - 1}\r\nAccept-Encoding: identity\r\n\r\n".encode()
        )
        response = http.client.HTTPResponse(plug)
        response.begin()
        n_bytes, buffer = 0, bytearray(RECEIVE_BYTES)
        while response.status == 206 and (n_read := response.readinto(buffer)):
            n_bytes += n_read
        return n_bytes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
