"""One small request that learns an object's length and version.

HEAD is not used: a link is signed for GET alone, and any other method gets 403. A suffix range
brings the length, the ETag and the end of the object in one round trip (RFC 9110 §14.1.2).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

import trio

from satfs.content.fetch.failures import error_for, refused
from satfs.content.fetch.links import LASTING_CODES, LinkCache
from satfs.content.fetch.tails import TAIL_BYTES, NoLength, Tail, TakeTail, hand_over, read_tail
from satfs.content.transfer.codings import BEGINNING_BYTES, encodings_of, is_object_itself
from satfs.content.transfer.error_pages import refused_page
from satfs.content.transfer.etags import is_same, version_of
from satfs.content.transfer.inloop import MAX_REDIRECTS, Streams, response_s
from satfs.content.transfer.interface import UnusableResponse
from satfs.content.transfer.parts import take_part
from satfs.content.transfer.store_responses import (
    MAX_OBJECT_BYTES,
    ResponseClass,
    ResponseKind,
    classify_error,
    classify_success,
    classify_tail,
    is_of_connection,
    request_headers,
    total_if_unsatisfied,
    unsized_part,
)
from satfs.errors import Garbled, SatfsError
from satfs.model import ByteRange, Link, Version
from satfs.net.addresses import origin_of, resolved
from satfs.net.host_connections import Crowded
from satfs.net.refused_credentials import Refusals
from satfs.net.responses import StreamedResponse
from satfs.net.retry import retry_after_s
from satfs.net.retry_loop import Retries

T = TypeVar("T")

#: Ranges that are requested for the length, one after another, until a response shows it; each with
#: its own length. Some stores support no suffix ranges. The last request is for the whole object,
#: of which only the headers are read.
_REQUESTS: Final = ((f"bytes=-{TAIL_BYTES}", TAIL_BYTES), ("bytes=0-0", 1), (None, None))
#: Statuses of a store that does not understand the range.
_NOT_UNDERSTOOD: Final = frozenset({400, 501})


class Probe:
    """Requests to the store, with retries within `deadline_s`.

    *on_response* is called with the time of each response in seconds, on a connection that was
    open: for many transfers this is the first measurement of the line.
    """

    def __init__(
        self,
        http: Streams,
        retries: Retries,
        check_url: Callable[[str], None],
        *,
        deadline_s: float,
        on_response: Callable[[float], None] = lambda response_s: None,
    ) -> None:
        self._http = http
        self._retries = retries
        self._check_url = check_url
        self._deadline_s = deadline_s
        self._on_response = on_response

    async def tail(
        self,
        links: LinkCache,
        label: str,
        take: TakeTail | None = None,
        beside: Callable[[Link], Awaitable[None]] | None = None,
    ) -> Tail:
        """Return the version of an object, and its last bytes.

        If the headers alone show the version, *take* gets it at once, and then the bytes; the
        returned tail then has none, and a body that breaks off is no failure. *beside* is called
        with the link, and the first request is sent when it has returned.

        Raises:
            NotThere: no such object.
            NotAllowed: refused, with a new link too.
            Unreachable: no response in time.
            Garbled: a response that makes no sense.
        """
        deadline_at = trio.current_time() + self._deadline_s
        if beside is not None and links.refusal is None:
            await beside(await links.get())
        return await self._tail(links, label, deadline_at, take)

    async def beginning(
        self,
        link: Link,
        span: ByteRange,
        version: Callable[[], Awaitable[Version | None]],
        receive: Callable[[bytes], None],
        learn: Callable[[Version], Awaitable[None]] | None = None,
    ) -> None:
        """Pass the bytes of *span* of the object behind *link*, in the right version, to *receive*.

        The request is sent before the version is known: *version* waits for it, and returns None
        where the bytes are not wanted. *learn* gets the version that the headers show, if they show
        one. There is one try, and a failure is not raised: a task that needs the bytes requests
        them then.
        """
        headers = request_headers(span, None)
        with contextlib.suppress(SatfsError, Crowded):
            async with self._http.stream(link.url, headers=headers) as response:
                if response.status not in (200, 206):
                    await response.read_error_body()  # its end gives the connection back
                    return
                await take_part(response)
                if learn is not None and (shown := _version_shown(response, span)) is not None:
                    await learn(shown)
                if (known := await version()) is None:
                    return
                requested = span.clip(known.size_bytes)
                response_class = classify_success(
                    response.status, response.headers, requested, known
                )
                if response_class.kind is ResponseKind.BYTES and not response_class.skip_bytes:
                    await hand_over(response, len(requested), receive)

    async def _tail(
        self, links: LinkCache, label: str, deadline_at: float, take: TakeTail | None = None
    ) -> Tail:
        response_class = ResponseClass(ResponseKind.GARBLED)
        for requested, n_requested in _REQUESTS:

            async def read(
                response: StreamedResponse, label: str, n_requested: int | None = n_requested
            ) -> Tail:
                return await read_tail(response, label, n_requested, take)

            headers = {"Accept-Encoding": "identity"}
            if requested is not None:
                headers["Range"] = requested
            try:
                tail = await self._request(links, label, headers, read, deadline_at)
            except NoLength as nothing:
                response_class = nothing.response_class
                if nothing.part is None:
                    continue
                sized = await self._sized(links, label, nothing.part, deadline_at)
                if sized is None:
                    continue
                tail = sized
            if tail.encodings:
                await self._check_label(links, label, tail, deadline_at)
            return tail
        raise _failure(response_class, label)

    async def _sized(
        self, links: LinkCache, label: str, part: Tail, deadline_at: float
    ) -> Tail | None:
        """Return *part* with the object's length, by a request for the byte behind it.

        None where there is such a byte: then the part is not the object's end.
        """
        stop = part.version.size_bytes
        headers = {"Range": f"bytes={stop}-{stop}", "Accept-Encoding": "identity"}

        async def read(response: StreamedResponse, label: str) -> Tail | None:
            if response.status != 416:
                return None
            total = total_if_unsatisfied(response.headers, await response.read_error_body())
            if total is None or total == stop:
                return part
            if not stop < total <= MAX_OBJECT_BYTES:
                return None
            version = Version(part.version.etag, total)
            return Tail(version, total, b"", part.encodings)

        try:
            return await self._request(links, label, headers, read, deadline_at)
        except NoLength:
            return None

    async def _check_label(
        self, links: LinkCache, label: str, tail: Tail, deadline_at: float
    ) -> None:
        """Return normally if a body with a content coding is the object itself.

        Raises:
            Garbled: it is a coded form of the object, though identity was requested.
        """
        span = ByteRange(0, min(BEGINNING_BYTES, tail.version.size_bytes))
        beginning = tail.data[:BEGINNING_BYTES]
        if tail.start or len(beginning) < len(span):
            headers = request_headers(span, None)

            async def read(response: StreamedResponse, label: str) -> bytes:
                response_class = classify_success(
                    response.status, response.headers, span, tail.version
                )
                if response_class.kind is not ResponseKind.BYTES or response_class.skip_bytes:
                    raise _failure(response_class, label)
                data = bytearray()
                async for chunk in response.chunks():
                    data += chunk
                    if len(data) >= len(span):
                        break
                return bytes(data[: len(span)])

            beginning = await self._request(links, label, headers, read, deadline_at)
        path = urlsplit((await links.get()).url).path
        if not is_object_itself(tail.encodings, beginning, path):
            codings = ", ".join(tail.encodings)
            raise Garbled(
                f"the object store sends {label} coded ({codings}), though identity was requested"
            )

    async def confirm(self, links: LinkCache, label: str, version: Version) -> Version:
        """Return the version that the store serves now; costs no content when it is *version*.

        Raises: as `tail`.
        """
        deadline_at = trio.current_time() + self._deadline_s
        if not version.size_bytes:
            return (await self._tail(links, label, deadline_at)).version
        headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
        if version.is_strong:
            headers["If-None-Match"] = version.etag

        async def read(response: StreamedResponse, label: str) -> Version:
            if response.status == 304:
                await response.read_error_body()  # empty; its end gives the connection back
                return version
            if unsized_part(response.status, response.headers) == ByteRange(0, 1):
                seen = version_of(response.headers, version.size_bytes)
                if version.is_strong and seen == version:
                    await response.read_error_body()
                    return version
            seen = (await read_tail(response, label, 1)).version
            return version if is_same(seen, version) else seen

        try:
            return await self._request(links, label, headers, read, deadline_at)
        except NoLength:
            return (await self._tail(links, label, deadline_at)).version

    async def _request(
        self,
        links: LinkCache,
        label: str,
        headers: dict[str, str],
        read: Callable[[StreamedResponse, str], Awaitable[T]],
        deadline_at: float,
    ) -> T:
        refusals, known = Refusals(), links.refusal
        if (believed := links.believed_refusal) is not None:
            raise refused(label, believed)
        while True:
            link = await links.get()

            async def attempt(url: str = link.url) -> T:
                return await self._attempt(url, label, headers, read)

            try:
                found = await self._retries.run(
                    attempt,
                    origin=origin_of(link.url),
                    deadline_at=deadline_at,
                    what=f"a request to the object store for {label}",
                    about=label,
                )
                links.accepted(link)
                return found
            except UnusableResponse as refusal:
                code, is_over = refusal.response_class.code, refusal.response_class.is_over
                wait_s = links.wait_after_refusal_s(link, refusals, is_over=is_over)
                if known is not None or code in LASTING_CODES:
                    wait_s = None
                    links.spent(link)
                if wait_s is None or trio.current_time() + wait_s >= deadline_at:
                    links.refused(code, is_over=is_over)
                    raise refused(label, code) from None
            await trio.sleep(wait_s)

    async def _attempt(
        self,
        url: str,
        label: str,
        headers: dict[str, str],
        read: Callable[[StreamedResponse, str], Awaitable[T]],
    ) -> T:
        path = urlsplit(url).path
        for _ in range(MAX_REDIRECTS + 1):
            async with self._http.stream(url, headers=headers) as response:
                self._on_response(response_s(response, response.took_s))
                if response.status in (200, 204, 206, 304, 416):
                    await take_part(response)
                    if (page := await refused_page(response, path)) is not None:
                        raise _failure(page, label)
                    return await read(response, label)
                response_class = classify_error(response.status, await response.read_error_body())
                if is_of_connection(response.status, response_class):
                    with contextlib.suppress(Crowded):  # the next try waits for its turn
                        response.refuses_connection()
                location = response.headers.get("location", "").strip()
                if response_class.kind is ResponseKind.REDIRECT and location:
                    url = resolved(url, location)
                    self._check_url(url)
                    continue
                if response.status in _NOT_UNDERSTOOD and response_class.kind in (
                    ResponseKind.REFUSED,
                    ResponseKind.GARBLED,
                ):
                    raise NoLength(response_class)
                wait_s = retry_after_s(response.headers, now_s=time.time())
                raise _failure(response_class, label, wait_s)
        raise Garbled(f"the object store redirects {label} without end")


def _version_shown(response: StreamedResponse, span: ByteRange) -> Version | None:
    """Return the version in a response that has *span* of an object; None for any other."""
    shown = classify_tail(response.status, response.headers)
    if isinstance(shown, ResponseClass) or response.status != 206:
        return None
    version, start, length = shown
    is_whole = ByteRange(start, start + length) == span.clip(version.size_bytes)
    return version if is_whole and not encodings_of(response.headers) else None


def _failure(response_class: ResponseClass, label: str, wait_s: float | None = None) -> Exception:
    """Return the error to raise for a refusal: a refused link may be renewed."""
    if response_class.kind is ResponseKind.RENEW:
        return UnusableResponse(response_class)
    return error_for(response_class, label, wait_s)
