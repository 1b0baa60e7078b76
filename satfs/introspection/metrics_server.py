"""The metrics on a port of this machine, for a Prometheus that scrapes instead of reading files.

Any user of the machine, and any web page in its browsers, may connect to that port. So the cost is
bounded here: a few connections, a few seconds each, in the event loop without any thread; and a
request that names another host (DNS rebinding) is refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import h11
import structlog
import trio

from satfs.errors import BadSettings
from satfs.model import Json

log = structlog.get_logger(__name__)

#: Not for other machines: metrics hold no secrets, but show habits.
HOST: Final = "127.0.0.1"
#: Connections served at once; others wait in the kernel, and take no descriptor of the mount.
MAX_CONNECTIONS: Final = 8
#: The longest time for a connection, in seconds. A scrape takes milliseconds.
CONNECTION_S: Final = 5.0
#: The longest head of a request, in bytes: that of Prometheus has some 300.
_MAX_HEAD_BYTES: Final = 8 * 1024
#: Names of this machine in a `Host` header (RFC 9110 §7.2), without the port.
_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_PATHS: Final = frozenset({"/", "/metrics"})
#: How long to wait after a connection could not be accepted (no descriptor is left), in seconds.
_PAUSE_S: Final = 0.5

Record: TypeAlias = Mapping[str, Json]


@asynccontextmanager
async def serve_metrics(port: int | None, status: Callable[[], Record]) -> AsyncIterator[None]:
    """Serve the metrics at http://127.0.0.1:*port*/metrics meanwhile; None: do not.

    *status* is called in the event loop, as everything that knows the mount must be.

    Raises:
        BadSettings: the port is taken.
    """
    if port is None:
        yield
        return
    try:
        (listener,) = await trio.open_tcp_listeners(port, host=HOST, backlog=MAX_CONNECTIONS)
    except OSError as failure:
        raise BadSettings(
            f"metrics_port {port} cannot be used ({failure.strerror}); choose another one, "
            "or none: SATFS_METRICS_PORT="
        ) from failure
    log.info("metrics served", host=HOST, port=port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve, listener, port, status, nursery)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


async def _serve(
    listener: trio.SocketListener, port: int, status: Callable[[], Record], nursery: trio.Nursery
) -> None:
    """Accept connections, `MAX_CONNECTIONS` at once, until cancelled."""
    free = trio.Semaphore(MAX_CONNECTIONS)
    async with listener:
        while True:
            await free.acquire()
            try:
                stream = await listener.accept()
            except OSError as failure:
                free.release()
                log.debug("metrics not served", reason=failure.strerror)
                await trio.sleep(_PAUSE_S)
                continue
            nursery.start_soon(_respond, stream, port, status, free)


async def _respond(
    stream: trio.SocketStream, port: int, status: Callable[[], Record], free: trio.Semaphore
) -> None:
    """Answer one request, and close the connection."""
    try:
        async with stream:
            with trio.move_on_after(CONNECTION_S):
                connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
                try:
                    await _exchange(stream, connection, port, status)
                except (h11.ProtocolError, trio.BrokenResourceError) as failure:
                    log.debug("metrics not served", reason=type(failure).__name__)
    finally:
        free.release()


async def _exchange(
    stream: trio.SocketStream, connection: h11.Connection, port: int, status: Callable[[], Record]
) -> None:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await stream.receive_some(_MAX_HEAD_BYTES))
    if not isinstance(event, h11.Request):
        return
    # Most mounts serve no metrics, and none is to wait at its start for what does.
    from prometheus_client import CONTENT_TYPE_LATEST

    from satfs.introspection.metrics import exposition

    code, text = response_to(event, port)
    body = exposition(status) if code == 200 else text.encode()
    headers = [
        ("Content-Type", CONTENT_TYPE_LATEST if code == 200 else "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    parts: list[h11.Event] = [h11.Response(status_code=code, headers=headers)]
    if event.method != b"HEAD":
        parts.append(h11.Data(data=body))
    for part in parts:
        await stream.send_all(connection.send(part) or b"")
    await stream.send_all(connection.send(h11.EndOfMessage()) or b"")


def response_to(request: h11.Request, port: int) -> tuple[int, str]:
    """Return the status code of the response to *request*, and the sentence of an error. Pure."""
    hosts = [value for name, value in request.headers if name == b"host"]
    allowed = {f"{name}:{port}" for name in _NAMES} | (_NAMES if port == 80 else frozenset())
    if len(hosts) != 1 or hosts[0].decode("ascii", "replace").lower() not in allowed:
        return 421, f"The metrics are at http://{HOST}:{port}/metrics, under no other name.\n"
    if request.method not in (b"GET", b"HEAD"):
        return 405, "Only GET and HEAD are served.\n"
    if request.target.partition(b"?")[0].decode("ascii", "replace") not in _PATHS:
        return 404, "The metrics are at /metrics.\n"
    return 200, ""
