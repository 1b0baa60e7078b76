"""An object store in memory, as strict as S3, and the content package on top of it.

Bytes are ramps, so that a wrong slice has wrong values. Faults have names; each meets the requests
that it is added for, and is spent. Time is trio's: stalls and waits jump under a mock clock.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import trio
import trio.testing

from satfs.content.attachments import Attachments
from satfs.content.build import open_attachments
from satfs.content.fetch.fetcher import Fetcher
from satfs.demo.contents import Content, RampContent
from satfs.model import AttachmentName, Link, SceneId, Version
from satfs.net.http import Http
from satfs.net.retry_loop import Retries
from satfs.node_locks import NodeLocks
from satfs.settings import load_settings

T = TypeVar("T")

SCENE: Final = SceneId("S1")
ZIP: Final = AttachmentName("delivery_zip")
HOST: Final = "https://store.test"
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")

#: Every fault there is; those in `PASSING` are survived without an error when they come once.
PASSING: Final = (
    "cut", "short", "stall", "hang", "refused", "expired", "expired-token", "throttled",
    "slow-down", "unavailable", "wrong-range", "html", "garbage-range", "encoded", "open-end",
)  # fmt: skip
LASTING: Final = (
    "precondition",
    "unsatisfied",
    "missing",
    "changed",
    "forbidden-for-good",
    "nowhere",
)


@dataclass
class Fault:
    """Breaks the next *count* requests after *skip* others."""

    name: str
    count: int = 1
    skip: int = 0
    at_byte: int = 20_000

    def meets(self) -> bool:
        if self.skip:
            self.skip -= 1
            return False
        self.count -= 1
        return self.count >= 0


@dataclass
class StoreRequest:
    """One request to which the store responded with bytes."""

    path: str
    start: int
    stop: int
    token: str
    sent: int = 0
    headers: dict[str, str] = field(default_factory=dict)


class _Body(httpx.AsyncByteStream):
    def __init__(
        self, store: FakeStore, request: StoreRequest, data: memoryview, fault: str, at: int
    ):
        self.store, self.request, self.data, self.fault, self.at = store, request, data, fault, at

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sent = 0
        come_s = trio.current_time()  # what is not looked at comes meanwhile, and is kept
        self.store.n_open += 1
        try:
            while sent < len(self.data):
                stop = min(len(self.data), sent + self.store.chunk_bytes)
                if self.fault in ("cut", "short", "stall"):
                    stop = min(stop, self.at)
                chunk = bytes(self.data[sent:stop])
                if self.store.bytes_per_s:
                    come_s += len(chunk) / self.store.bytes_per_s
                    await trio.sleep(max(0.0, come_s - trio.current_time()))
                else:
                    await trio.lowlevel.checkpoint()
                if chunk:
                    self.request.sent += len(chunk)
                    yield chunk
                sent = stop
                if sent == self.at and sent < len(self.data):
                    if self.fault == "cut":
                        raise httpx.ReadError("the connection was reset")
                    if self.fault == "short":
                        return
                    if self.fault == "stall":
                        await trio.sleep_forever()
            if self.fault == "open-end":
                await trio.sleep_forever()
        finally:
            self.store.n_open -= 1
            self.store.n_served -= 1


class FakeStore:
    """Objects by (scene, attachment), presigned links, and a record of the requests."""

    def __init__(self, *, latency_s: float = 0.03, bytes_per_s: float = 50e6) -> None:
        self.objects: dict[tuple[str, str], Content] = {}
        self.latency_s = latency_s
        self.bytes_per_s = bytes_per_s
        self.chunk_bytes = 48 * 1024 + 7
        self.faults: list[Fault] = []
        self.requests: list[StoreRequest] = []
        self.n_requests = 0
        #: The requested ranges, in the order in which requests were sent.
        self.sent_ranges: list[str] = []
        #: Ranges to which the store does not respond.
        self.silent_ranges: set[str] = set()
        self.n_open = 0
        #: Requests for bytes that get a response at once; others are refused as connections
        #: are.
        self.max_served: int | None = None
        self.n_served = 0
        self.n_refused = 0
        self.n_signed = 0
        self.is_down = False
        self.sends_etag = True
        #: The status for a suffix range, where that is refused.
        self.refuses_suffix: tuple[int, str] | None = None
        #: Whether the response to an unsatisfiable range has the object's length.
        self.tells_length = True
        #: Seconds until a new link is valid: the signer's clock is ahead.
        self.link_begins_s = 0.0
        #: Until when, on trio's clock, the link signed last is handed out again.
        self.repeats_links_until_s = 0.0
        self._last_link: Link | None = None
        self._valid_from_s: dict[str, float] = {}
        self._tokens: set[str] = set()
        self._numbers = itertools.count(1)

    def add(self, size_bytes: int, *, scene: str = SCENE, seed: int = 7) -> RampContent:
        content = RampContent(size_bytes, seed)
        self.objects[scene, ZIP] = content
        return content

    def break_with(self, name: str, **how: int) -> None:
        assert name in PASSING + LASTING
        self.faults.append(Fault(name, **how))

    async def sign(self, scene: SceneId, attachment: AttachmentName) -> Link:
        self.n_signed += 1
        await trio.sleep(self.latency_s)
        if self._last_link is not None and trio.current_time() < self.repeats_links_until_s:
            return self._last_link
        token = f"t{next(self._numbers)}"
        self._tokens.add(token)
        self._valid_from_s[token] = trio.current_time() + self.link_begins_s
        self._last_link = Link(f"{HOST}/{scene}/{attachment}?X-Amz-Signature={token}")
        return self._last_link

    def expire_links(self) -> None:
        self._tokens.clear()

    @property
    def bytes_sent(self) -> int:
        return sum(each.sent for each in self.requests)

    def spans(self) -> list[tuple[int, int]]:
        return [(each.start, each.stop) for each in self.requests]

    async def handle(self, request: httpx.Request) -> httpx.Response:
        self.n_requests += 1
        self.sent_ranges.append(request.headers.get("Range", ""))
        if request.headers.get("Range", "") in self.silent_ranges:
            await trio.sleep_forever()
        if self.is_down:
            await trio.sleep(self.latency_s)
            raise httpx.ConnectError("no route to host")
        fault = next((each for each in list(self.faults) if each.meets()), None)
        name = fault.name if fault else ""
        if name == "refused":
            raise httpx.ConnectError("connection refused")
        if name == "hang":
            await trio.sleep_forever()
        if self.max_served is not None and self.n_served >= self.max_served:
            self.n_refused += 1
            raise httpx.ReadError("the connection was reset")
        self.n_served += 1
        response: httpx.Response | None = None
        try:
            response = await self._respond(request, fault)
        finally:
            if response is None or not isinstance(response.stream, _Body):
                self.n_served -= 1
        return response

    async def _respond(self, request: httpx.Request, fault: Fault | None) -> httpx.Response:
        name = fault.name if fault else ""
        await trio.sleep(self.latency_s)
        if (status := _STATUSES.get(name)) is not None:
            return _error(*status)
        if name == "html":
            return httpx.Response(200, html="<h1>Maintenance</h1>")
        return self._object(request, name, fault.at_byte if fault else -1)

    def _object(self, request: httpx.Request, fault: str, at: int) -> httpx.Response:
        parts = urlsplit(str(request.url))
        token = parse_qs(parts.query)["X-Amz-Signature"][0]
        is_early = trio.current_time() < self._valid_from_s.get(token, 0.0)
        if request.method != "GET" or token not in self._tokens or is_early:
            return _error(403, "AccessDenied", {})
        if "authorization" in request.headers or "authorizationtoken" in request.headers:
            return _error(400, "InvalidArgument", {})
        _, scene, attachment = parts.path.split("/")
        if fault == "changed":
            old = self.objects[scene, attachment]
            seed = old.seed + 1 if isinstance(old, RampContent) else 1
            self.add(old.size_bytes, scene=scene, seed=seed)
        content = self.objects.get((scene, attachment))
        if content is None:
            return _error(404, "NoSuchKey", {})
        headers = {"ETag": content.etag} if self.sends_etag else {}
        headers["Last-Modified"] = f"version {content.etag}"
        if request.headers.get("if-match", content.etag) != content.etag:
            return _error(412, "PreconditionFailed", {})
        if request.headers.get("if-none-match") == content.etag:
            return httpx.Response(304, headers=headers)
        size = content.size_bytes
        if "range" not in request.headers:
            noted = StoreRequest(parts.path, 0, size, token, headers=dict(request.headers))
            headers["Content-Length"] = str(size)
            whole = memoryview(bytes(content.read(0, size)))
            return httpx.Response(200, headers=headers, stream=_Body(self, noted, whole, fault, at))
        if self.refuses_suffix is not None and request.headers["range"].startswith("bytes=-"):
            return _error(*self.refuses_suffix, {})
        found = _RANGE.fullmatch(request.headers["range"])
        assert found is not None, request.headers["range"]
        first, last = found.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start >= size:
            headers = {"Content-Range": f"bytes */{size}"} if self.tells_length else {}
            return _error(416, "InvalidRange", headers)
        assert start < stop
        noted = StoreRequest(parts.path, start, stop, token, headers=dict(request.headers))
        self.requests.append(noted)
        shift = 16384 if fault == "wrong-range" else 0
        headers["Content-Range"] = f"bytes {start + shift}-{stop - 1 + shift}/{size}"
        if fault == "garbage-range":
            headers["Content-Range"] = f"bytes 0-{'9' * 5000}/{'9' * 5000}"
        if fault == "encoded":
            headers["Content-Encoding"] = "gzip"
        headers["Content-Length"] = str(stop - start)
        data = memoryview(bytes(content.read(start, stop)))
        return httpx.Response(206, headers=headers, stream=_Body(self, noted, data, fault, at))


def _error(status: int, code: str, headers: dict[str, str]) -> httpx.Response:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'
    headers = {"Content-Type": "application/xml", **headers}
    return httpx.Response(status, headers=headers, content=body.encode())


_STATUSES: Final[dict[str, tuple[int, str, dict[str, str]]]] = {
    "expired": (403, "AccessDenied", {}),
    "expired-token": (400, "ExpiredToken", {}),
    "forbidden-for-good": (403, "InvalidObjectState", {}),
    "precondition": (412, "PreconditionFailed", {}),
    "unsatisfied": (416, "InvalidRange", {}),
    "missing": (404, "NoSuchKey", {}),
    "nowhere": (301, "PermanentRedirect", {}),
    "throttled": (429, "TooManyRequests", {"Retry-After": "1"}),
    "slow-down": (503, "SlowDown", {}),
    "unavailable": (503, "ServiceUnavailable", {"Retry-After": "2"}),
}


@asynccontextmanager
async def opened(
    store: FakeStore, directory: Path, locks: NodeLocks | None = None, **changes: Any
) -> AsyncIterator[Attachments]:
    """Yield `Attachments` on *store*; without a disk cache unless `cache_bytes` is given.

    With *locks* they take part in what processes on one directory share.
    """
    given = {"cache_dir": directory, "cache_bytes": 0, "workers": 0, "cache_free_fraction": 0.0}
    settings = load_settings({}, **{**given, **changes})
    async with (
        Http(
            connect_timeout_s=settings.connect_timeout_s,
            progress_timeout_s=settings.progress_timeout_s,
            body_timeout_s=settings.body_timeout_s,
            max_connections=settings.max_connections,
            transport=httpx.MockTransport(store.handle),
        ) as http,
        open_attachments(
            settings,
            http=http,
            retries=Retries(http.reachability, draw=lambda: 0.5),
            sign=store.sign,
            check_url=lambda url: None,
            is_proxied=lambda url: False,
            account="me",
            locks=locks,
        ) as contents,
    ):
        yield contents


async def learn(contents: Attachments, scene: str = SCENE, revision: str = "r1") -> Version:
    return await contents.version(SceneId(scene), ZIP, revision)


async def thread_in_line(
    work: Callable[..., T], *args: Any, cancellable: bool = False, **_: Any
) -> T:
    """Stand in for `trio.to_thread.run_sync`: the same checkpoints, no thread.

    A mock clock would take a running thread for idleness, and jump.
    """
    await trio.lowlevel.checkpoint()
    result = work(*args)
    await trio.lowlevel.cancel_shielded_checkpoint()
    return result


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run *main* on a clock that jumps, and threads in line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", thread_in_line)
        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(main, clock=clock)


def assert_at_rest(contents: Attachments) -> None:
    """No reader waits and no request is in flight: all reads have ended."""
    counts = contents.statistics()
    assert (counts["active"], counts["queued"]) == (0, 0)
    for fetcher in contents._fetchers.by_place.values():
        assert_idle(fetcher)


def assert_idle(fetcher: Fetcher) -> None:
    assert not fetcher._requests
    assert not fetcher._waiters
    assert not fetcher._requests._landing
    assert not +fetcher.cached.landing
    assert not fetcher.cached.leaving
