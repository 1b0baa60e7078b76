"""The metrics on a port of this machine, for a Prometheus that rather asks than reads files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
import trio
from prometheus_client import start_http_server

from satfs.about.metrics import Record, registry_of
from satfs.errors import BadSettings

log = structlog.get_logger(__name__)

#: Other machines are nobody's business: what is told has no secrets in it, but habits.
HOST: Final = "127.0.0.1"
#: Longest wait for the server to stop, in seconds; it looks twice a second.
_STOPPING_S: Final = 2.0


@asynccontextmanager
async def metrics_port(port: int | None, status: Callable[[], Record]) -> AsyncIterator[None]:
    """Serve the metrics at http://127.0.0.1:*port*/metrics meanwhile; None: do not.

    *status* is called in the event loop, as everything that knows the mount must be.

    Raises:
        BadSettings: the port is taken.
    """
    if port is None:
        yield
        return
    token = trio.lowlevel.current_trio_token()

    def ask() -> Record:  # in a thread of the server's
        return trio.from_thread.run_sync(status, trio_token=token)

    def start() -> Callable[[], None]:
        # In a thread of ours: it asks for the machine's name, which may take its time.
        server, thread = start_http_server(port, addr=HOST, registry=registry_of(ask))

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop

    try:
        stop = await trio.to_thread.run_sync(start)
    except OSError as failure:
        raise BadSettings(
            f"metrics_port {port} cannot be used ({failure.strerror}); choose another one, "
            "or none: SATFS_METRICS_PORT="
        ) from failure
    log.info("metrics served", host=HOST, port=port)
    try:
        yield
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _STOPPING_S):
            await trio.to_thread.run_sync(stop, abandon_on_cancel=True)
