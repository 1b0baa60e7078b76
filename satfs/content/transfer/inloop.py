"""Move a range in the event loop: for heads, tails, random and small reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import trio

from satfs.content.transfer.interface import Download, UnusableResponse
from satfs.content.transfer.parts import take_part
from satfs.content.transfer.store_responses import (
    ResponseClass,
    ResponseKind,
    classify_error,
    classify_success,
    is_of_connection,
    is_whole_without_length,
    request_headers,
)
from satfs.model import Link, Version
from satfs.net.addresses import resolved
from satfs.net.host_connections import Permit
from satfs.net.responses import StreamedResponse
from satfs.net.retry import retry_after_s

#: A region's redirect leads to the object in one hop. Each balancer or mirror on the way may add
#: one; fetch (WHATWG) follows 20, most clients 5 to 10.
MAX_REDIRECTS: Final = 10
#: Least bytes of a long range to receive at once. With less, on a line where bytes come evenly,
#: receiving takes most of the processor time: some 100 µs for each call, for 10 KB as for 100 KB.
ENOUGH_BYTES: Final = 96 * 1024
#: If less came, the loop receives again after this share of the store's response time, and at most
#: after the second number, in seconds: 150 KB at 50 MB/s.
PAUSE_SHARE: Final = 0.1
MAX_PAUSE_S: Final = 0.003
#: Round trips of a first response: TCP's handshake, that of TLS 1.3, the request (RFC 8446 §2).
NEW_LINE_TRIPS: Final = 3


class Streams(Protocol):
    """The part of `net.http.Http` that moving bytes needs."""

    def stream(
        self, url: str, *, headers: dict[str, str], permit: Permit | None = None
    ) -> AbstractAsyncContextManager[StreamedResponse]:
        """Open the response to a GET; its body is read as it comes."""


def response_s(response: StreamedResponse, took_s: float) -> float:
    """Return how long *response* took on a connection that was open, or would have, in seconds.

    *took_s* is the time since it was requested, which may have opened a connection.
    """
    return took_s / NEW_LINE_TRIPS if response.has_connected else took_s


def pause_s(n_bytes: int, n_missing: int, response_s: float | None) -> float:
    """Return how long to wait after *n_bytes* were received at once, in seconds: 0 for not at all.

    *n_missing* bytes have not come, and the store took *response_s* to respond. There is no wait at
    the end of a range, nor on near lines, which bring enough at once.
    """
    if n_bytes >= ENOUGH_BYTES or n_missing < ENOUGH_BYTES or response_s is None:
        return 0.0
    return min(MAX_PAUSE_S, PAUSE_SHARE * response_s)


class InLoopMover:
    """Moves bytes with the mount's own HTTP client.

    *check_url* raises when an address must not be followed; redirects pass it like links do. No
    credential is known here, so none can be sent.
    """

    def __init__(self, http: Streams, check_url: Callable[[str], None]) -> None:
        self._http = http
        self._check_url = check_url

    async def move(self, link: Link, delivery: Download, version: Version) -> None:
        """See `Mover.move`."""
        url = link.url
        for _ in range(MAX_REDIRECTS + 1):
            delivery.begin()
            delivery.resume()
            is_conditional = delivery.attempt.is_conditional
            headers = request_headers(delivery.missing, version, is_conditional=is_conditional)
            requested_s = trio.current_time()
            permit = delivery.attempt.permit
            async with self._http.stream(url, headers=headers, permit=permit) as response:
                delivery.attempt.response_s = response_s(
                    response, trio.current_time() - requested_s
                )
                if response.status not in (200, 206):
                    response_class = classify_error(
                        response.status, await response.read_error_body()
                    )
                    if is_of_connection(response.status, response_class):
                        response.refuses_connection()
                    location = response.headers.get("location", "").strip()
                    if response_class.kind is not ResponseKind.REDIRECT or not location:
                        wait_s = retry_after_s(response.headers, now_s=time.time())
                        raise UnusableResponse(response_class, wait_s)
                    url = resolved(url, location)
                    self._check_url(url)
                    continue
                await take_part(response)
                response_class = classify_success(
                    response.status,
                    response.headers,
                    delivery.missing,
                    version,
                    is_conditional=is_conditional,
                    max_skipped_bytes=delivery.attempt.max_skipped_bytes,
                )
                if response_class.kind is not ResponseKind.BYTES:
                    raise UnusableResponse(response_class)
                if permit is not None:
                    permit.responded()
                if is_whole_without_length(response.status, response.headers):
                    await self._receive_whole(
                        response, delivery, response_class.skip_bytes, version.size_bytes
                    )
                    return
                await self._receive(response, delivery, response_class.skip_bytes)
            return
        raise UnusableResponse(ResponseClass(ResponseKind.GARBLED, "too many redirects"))

    async def _receive_whole(
        self, response: StreamedResponse, delivery: Download, skip_bytes: int, size_bytes: int
    ) -> None:
        """Take the bytes out of a whole object without a length, once all of it has come.

        A proxy may have made it of the range alone, and then it is shorter.
        """
        stop, received, wanted = skip_bytes + len(delivery.missing), 0, bytearray()
        async for chunk in response.chunks():
            wanted += chunk[max(0, skip_bytes - received) : max(0, stop - received)]
            received += len(chunk)
            if received > size_bytes:
                break
        if received != size_bytes:
            raise UnusableResponse(ResponseClass(ResponseKind.GARBLED, "200 for a range"))
        delivery.receive(memoryview(wanted))

    async def _receive(
        self, response: StreamedResponse, delivery: Download, skip_bytes: int
    ) -> None:
        expected = skip_bytes + len(delivery.missing)
        received = 0
        async for chunk in response.chunks():
            received += len(chunk)
            if skip_bytes:
                skipped = min(skip_bytes, len(chunk))
                skip_bytes -= skipped
                chunk = chunk[skipped:]
            delivery.receive(chunk)
            if delivery.is_done:
                if received == expected:
                    await response.end()
                return  # a body that goes on is cut off
            n_missing, took_s = len(delivery.missing), delivery.attempt.response_s
            if wait_s := pause_s(len(chunk), n_missing, took_s):
                await trio.sleep(wait_s)
        if not delivery.is_done:
            raise UnusableResponse(ResponseClass(ResponseKind.RETRY, "body cut short"))
