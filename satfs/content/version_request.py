"""The request that shows which version an object has, and the bytes that come with it.

The tail comes with the headers that show the version. Where a program is expected to read the
beginning, that is requested as well, and its headers may show the version sooner.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import trio
from msgspec import Struct, field

from satfs import read_trace
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.index import KnownVersion
from satfs.content.fetch.dispatch import Dispatcher
from satfs.content.fetch.early_bytes import (
    N_NEW,
    TAIL_WAITS_S,
    PartDelivery,
    bring_beginning,
    parts_of_beginning,
)
from satfs.content.fetch.egress_limit import EgressLimit
from satfs.content.fetch.first_reads import BEGINNING_BYTES
from satfs.content.fetch.links import LinkCaches
from satfs.content.fetch.probe import Probe
from satfs.content.fetch.tails import TAIL_BYTES, Tail
from satfs.content.open_fetchers import Key, OpenFetchers, label_of
from satfs.content.transfer.etags import is_same
from satfs.errors import Misuse, TooManyOpen
from satfs.model import ByteRange, Link, Version
from satfs.net.addresses import origin_of
from satfs.read_trace import ReadTraces


class RequestParts(Struct, frozen=True):
    """The parts of a mount that requests for versions use.

    *n_idle* returns how many connections to an origin are open and have no request, *may_open*
    whether that many may be opened now.
    """

    cache: BlockCache
    dispatcher: Dispatcher
    probe: Probe
    links: LinkCaches
    fetchers: OpenFetchers
    traces: ReadTraces
    egress: EgressLimit
    n_idle: Callable[[str], int]
    may_open: Callable[[str, int], bool]


class Learning(Struct, eq=False):
    """A version that is being learnt; settled with `known`, or with `failure`."""

    is_settled: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    known: KnownVersion | None = None
    failure: Exception | None = None

    def result(self) -> KnownVersion:
        """Return what was learnt, once it is settled; raises what went wrong before."""
        if self.known is not None:
            return self.known  # also where the tail failed
        raise self.failure or Misuse("a version that is not settled")


class VersionRequest:
    """One request for the version of *key*; `run` makes it, once.

    *settle* notes a version that was seen in *learning*, and returns it under the name that it is
    known by. *learning* is settled with the first headers, while the tail still comes.
    """

    def __init__(
        self,
        parts: RequestParts,
        key: Key,
        learning: Learning,
        settle: Callable[[Version], Awaitable[Version]],
        others_wait: contextlib.AsyncExitStack,
    ) -> None:
        self._parts = parts
        self._key = key
        self._label = label_of(*key)
        self._learning = learning
        self._settle = settle
        #: Closed when other processes of this node may look for the version in the index.
        self._others_wait = others_wait
        self._tail = PartDelivery(parts.cache, parts.egress)
        self._beginning = PartDelivery(parts.cache, parts.egress)
        self._spans: tuple[ByteRange, ...] = ()  # of the beginning, as they were requested
        self._tail_start: int | None = None  # as it is expected
        self._settling = trio.Lock()
        self._was_taken = False

    async def run(self, *, is_beginning_expected: bool) -> Tail:
        """Make the request, and return when the tail has come. Raises as `Probe.tail`."""
        parts, beside = self._parts, self._request_beginning if is_beginning_expected else None
        with parts.traces.of(self._label).request(read_trace.SIZE) as request:
            tail = await parts.probe.tail(
                parts.links.of(self._key), self._label, self._take, beside
            )
            request.received_bytes = self._tail.n_bytes + len(tail.data)
        return tail

    async def deliver(self, tail: Tail) -> None:
        """Settle the version, and deliver the tail, where only the whole response showed it."""
        version = await self._settle(tail.version)
        async with self._parts.fetchers.alone_with((self._key, version)):
            await self._begin(version, tail.start)
        self._tail.receive(tail.data)

    def end(self) -> None:
        """Wake what waits for bytes that did not come."""
        self._tail.end()
        self._beginning.is_decided.set()

    async def _announce(self, version: Version, tail_start: int) -> None:
        """Settle the version, unless another response has; what comes may be joined then."""
        parts = self._parts
        async with self._settling:
            if self._learning.is_settled.is_set():
                return
            version = await self._settle(version)
            origin = origin_of((await parts.links.of(self._key).get()).url)
            parts.dispatcher.expect_connection(origin, self._tail.has_ended)
            async with parts.fetchers.alone_with((self._key, version)):
                # A task that opens the file from now on waits until it can join the delivery.
                self._learning.is_settled.set()
                await self._begin(version, tail_start)
            self._tail_start = tail_start
            self._beginning.is_decided.set()

    async def _begin(self, version: Version, tail_start: int) -> None:
        with contextlib.suppress(TooManyOpen):  # else the bytes are fetched when they are read
            fetcher = await self._parts.fetchers.get((self._key, version))
            await self._tail.begin(fetcher, ByteRange(tail_start, version.size_bytes))
            if self._spans and tail_start >= self._spans[-1].stop:
                await self._beginning.begin(fetcher, ByteRange(0, self._spans[-1].stop))

    # -- the tail --------------------------------------------------------------------------------

    async def _take(self, tail: Tail) -> Callable[[bytes], None]:
        is_first, self._was_taken = not self._was_taken, True
        await self._announce(tail.version, tail.start)
        await self._others_wait.aclose()  # they find the version, and a claim on the tail
        known = self._learning.known
        is_known = known is not None and is_same(known.version, tail.version)
        if is_first and is_known and self._tail_start == tail.start:
            return self._tail.receive
        self._tail.end()
        return lambda data: None  # of another try, whose bytes begin again, or another version

    # -- the beginning ---------------------------------------------------------------------------

    async def _request_beginning(self, link: Link) -> None:
        """Request the beginning; return when the tail is to be requested."""
        n_idle, origin = 0, origin_of(link.url)
        left_bytes = self._parts.egress.left_bytes()
        if left_bytes is None or left_bytes > BEGINNING_BYTES + TAIL_BYTES:
            n_idle = self._parts.n_idle(origin)
            self._spans = parts_of_beginning(n_idle, may_open=self._parts.may_open(origin, N_NEW))
        if not self._spans:
            self._beginning.end()
            return
        is_free = trio.Event()  # one of the connections
        self._parts.dispatcher.run_in_background(self._bring, link, is_free)
        if not n_idle:
            if len(self._spans) == 1:  # nothing is known of the host
                self._parts.dispatcher.open_second(link)
            with trio.move_on_after(TAIL_WAITS_S):
                await is_free.wait()

    async def _bring(self, link: Link, is_free: trio.Event) -> None:
        await bring_beginning(
            self._parts.probe,
            link,
            self._spans,
            self._beginning,
            self._parts.traces.of(self._label),
            self._wanted_version,
            self._learn,
            is_free,
        )
        self._parts.fetchers.close_idle()

    async def _learn(self, version: Version) -> None:
        await self._announce(version, max(0, version.size_bytes - TAIL_BYTES))

    async def _wanted_version(self) -> Version | None:
        await self._beginning.is_decided.wait()
        known = self._learning.known
        return known.version if known is not None and self._beginning.is_wanted else None
