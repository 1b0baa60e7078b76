"""Which version an attachment has: remembered, learnt from its tail, or confirmed.

A version is learnt by one ranged GET of the object's tail, which is where a zip keeps its central
directory; it is remembered with the record's revision, in memory and in the cache's index, and
confirmed again when a file is opened after `confirm_after_s`. Longer than 400 lines, since what is
known of a version, and each way to learn it, have one owner.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

import structlog
import trio
from cachetools import TTLCache

from satfs import read_trace
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.index import KnownVersion
from satfs.content.cache.open_objects import alone_with
from satfs.content.fetch.beginning import N_NEW, TAIL_WAITS_S, bring_beginning, parts_of_beginning
from satfs.content.fetch.dispatch import Dispatcher
from satfs.content.fetch.egress_limit import EgressLimit
from satfs.content.fetch.first_reads import BEGINNING_BYTES, FirstReads
from satfs.content.fetch.links import LinkCaches
from satfs.content.fetch.probe import Probe
from satfs.content.fetch.tail_delivery import Learning, PartDelivery
from satfs.content.fetch.tails import TAIL_BYTES, Tail
from satfs.content.open_fetchers import Key, OpenFetchers, label_of
from satfs.content.transfer.etags import is_same
from satfs.errors import (
    Changed,
    Garbled,
    NotAllowed,
    NotThere,
    SatfsError,
    TooManyOpen,
    Unreachable,
)
from satfs.model import AttachmentName, ByteRange, Link, SceneId, Version
from satfs.net.addresses import origin_of
from satfs.node_locks import NodeLocks
from satfs.read_trace import ReadTraces
from satfs.refreshable import Refreshable
from satfs.request_slots import RequestSlots

log = structlog.get_logger(__name__)

#: Learnt versions kept in memory; the index keeps all of them.
MAX_VERSIONS: Final = 100_000
#: Objects of which versions are being learnt at once.
PROBES_AT_ONCE: Final = 16
#: Versions that are learnt before a program looks them up, at once, and for how long one is tried,
#: in seconds.
MAX_LEARNT_AHEAD: Final = 64
LEARN_AHEAD_S: Final = 10.0


class Versions:
    """The versions of all attachments of one *account*.

    *n_idle* returns how many connections to an origin are open and have no request, *may_open*
    whether that many may be opened now. An object that is not there is looked for again after
    *absent_s*.

    Invariants:
        A version is learnt once, however many callers wait for it (`_learning`).
    """

    def __init__(
        self,
        *,
        cache: BlockCache,
        dispatcher: Dispatcher,
        probe: Probe,
        links: LinkCaches,
        fetchers: OpenFetchers,
        account: str,
        confirm_after_s: float,
        traces: ReadTraces,
        egress: EgressLimit,
        locks: NodeLocks,
        n_idle: Callable[[str], int],
        may_open: Callable[[str, int], bool],
        absent_s: float,
    ) -> None:
        self._cache = cache
        self._dispatcher = dispatcher
        self._probe = probe
        self._links = links
        self._fetchers = fetchers
        self._account = account
        self._confirm_after_s = confirm_after_s
        self._now = time.time
        self._traces = traces
        self._egress = egress
        self._locks = locks
        self._known: OrderedDict[Key, KnownVersion] = OrderedDict()
        #: Attachments without an object, with the revision of the record, while that is believed.
        self._absent: TTLCache[Key, tuple[str, str]] = TTLCache(
            MAX_VERSIONS, absent_s, timer=trio.current_time
        )
        self._learning: dict[tuple[SceneId, AttachmentName, str], Refreshable[KnownVersion]] = {}
        self._n_learners: Counter[tuple[SceneId, AttachmentName, str]] = Counter()
        self._forgetting: Counter[Key] = Counter()
        self._confirming: dict[Key, trio.Lock] = {}
        self._probing = RequestSlots(PROBES_AT_ONCE)
        self._n_ahead = 0
        self._n_idle = n_idle
        self._may_open = may_open
        self._first_reads = FirstReads()

    async def get(self, scene: SceneId, attachment: AttachmentName, revision: str) -> Version:
        """Return the version of an attachment: its ETag and exact length.

        Known from before while the record's *revision* is the same; else learnt with one request.

        Raises:
            NotThere: the vendor has no such attachment, or the store no such object (yet).
            NotAllowed: it is refused.
            Unreachable: the store does not respond now.
            Garbled: what it responds makes no sense.
            The last three only when no version is known from before.
        """
        since_s = self._now()
        known = await self._recall((scene, attachment))
        if known is not None and known.revision == revision:
            return known.version
        if (absent := self._absent.get((scene, attachment))) is not None:
            absent_revision, why = absent
            if absent_revision == revision:
                raise NotThere(why)
        try:
            return (await self._learn(scene, attachment, revision, since_s)).version
        except NotThere as gone:
            self._absent[scene, attachment] = revision, str(gone)
            raise
        except (Unreachable, NotAllowed, Garbled):
            if known is None:
                raise
            # A known version is better than no file; a newer one is noticed by a later look-up.
            return known.version

    def learn_ahead(self, scene: SceneId, attachment: AttachmentName, revision: str) -> None:
        """Learn a version in the background, for a look-up that will probably come.

        Does nothing while `MAX_LEARNT_AHEAD` versions are being learnt.
        """
        if self._n_ahead >= MAX_LEARNT_AHEAD:
            return

        async def learn() -> None:
            try:
                with trio.move_on_after(LEARN_AHEAD_S):
                    await self.get(scene, attachment, revision)
            except SatfsError as failure:
                log.debug("version not learnt ahead", scene=scene, error=type(failure).__name__)
            finally:
                self._n_ahead -= 1

        self._n_ahead += 1
        self._dispatcher.run_in_background(learn)

    async def renew(self, scene: SceneId, attachment: AttachmentName, revision: str) -> Version:
        """Return the version that the store has now; what it responded before is not believed.

        Neither an earlier version nor a refusal of a moment ago.

        Raises:
            NotThere, NotAllowed: as `get`.
            Unreachable: the store does not respond now; a version known from before stays known.
        """
        self._links.forget_refusal((scene, attachment))
        return (await self._learn(scene, attachment, revision, self._now())).version

    async def _recall(self, key: Key) -> KnownVersion | None:
        known = self._known.get(key)
        index = self._cache.index
        if known is None and index is not None and not self._forgetting[key]:
            known = await self._cache.on_index(lambda: index.version(self._account, *key))
            if self._forgetting[key] or key in self._known:
                known = self._known.get(key)  # something newer came during the wait
            elif known is not None:
                self._remember(key, known)
        return known

    def _remember(self, key: Key, known: KnownVersion) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > MAX_VERSIONS:
            self._known.popitem(last=False)

    async def _learn(
        self, scene: SceneId, attachment: AttachmentName, revision: str, since_s: float
    ) -> KnownVersion:
        """Return what a request shows that any process of this node made since *since_s*."""
        key = (scene, attachment, revision)

        async def renew() -> tuple[KnownVersion, float]:
            learning = Learning()
            self._dispatcher.run_in_background(self._learn_version, key, learning, since_s)
            try:
                await learning.is_settled.wait()
            except trio.Cancelled:
                learning.scope.cancel()
                raise
            return learning.result(), 0.0

        learning = self._learning.setdefault(key, Refreshable(renew))
        self._n_learners[key] += 1
        try:
            return await learning.get()
        finally:
            # The last task clears up: one that gives up must not hide it from the next task.
            self._n_learners[key] -= 1
            if not self._n_learners[key]:
                del self._learning[key], self._n_learners[key]

    async def _learn_version(
        self, wanted: tuple[SceneId, AttachmentName, str], learning: Learning, since_s: float
    ) -> None:
        """Make the request for a version: settled with its headers, while the tail still comes."""
        scene, attachment, revision = wanted
        key, label = (scene, attachment), label_of(scene, attachment)
        self._dispatcher.expect_reads()
        delivery = PartDelivery(self._cache, self._egress)
        beginning = PartDelivery(self._cache, self._egress)
        is_beginning_expected = self._first_reads.looked_up(key, trio.current_time())
        parts: tuple[ByteRange, ...] = ()
        starts: list[int] = []  # of the tail, as it is expected
        turn, settling, n_takers = contextlib.AsyncExitStack(), trio.Lock(), itertools.count()

        async def settle(tail: Tail) -> Version:
            before = await self._recall(key)
            version = tail.version
            if before is not None:
                # Under one name, or the cache would hold the object twice.
                old = before.version
                version = old if is_same(old, version) else version
            learning.known = await self._note(key, version, revision)
            return version

        async def announce(tail: Tail) -> None:
            """Settle the version, unless another response has; what comes may be joined then."""
            async with settling:
                if learning.is_settled.is_set():
                    return
                version = await settle(tail)
                origin = origin_of((await self._links.of(key).get()).url)
                self._dispatcher.expect_connection(origin, delivery.has_ended)
                async with self._fetchers.alone_with((key, version)):
                    # A task that opens the file from now on waits until it can join the delivery.
                    learning.is_settled.set()
                    await begin(version, tail.start)
                starts.append(tail.start)
                beginning.is_decided.set()

        async def take(tail: Tail) -> Callable[[bytes], None]:
            is_first = next(n_takers) == 0
            await announce(tail)
            await turn.aclose()  # others of this node find the version, and a claim on the tail
            known = learning.known
            is_known = known is not None and is_same(known.version, tail.version)
            if is_first and is_known and starts == [tail.start]:
                return delivery.receive
            delivery.end()
            return lambda data: None  # of another try, whose bytes begin again, or another version

        async def learn(version: Version) -> None:
            await announce(Tail(version, max(0, version.size_bytes - TAIL_BYTES), b""))

        async def bring(link: Link, is_free: trio.Event) -> None:
            trace = self._traces.of(label)
            await bring_beginning(
                self._probe, link, parts, beginning, trace, wanted_version, learn, is_free
            )
            self._fetchers.close_idle()

        async def beside(link: Link) -> None:
            """Request the beginning; return when the tail is to be requested."""
            nonlocal parts
            n_idle, origin = 0, origin_of(link.url)
            left_bytes = self._egress.left_bytes()
            if left_bytes is None or left_bytes > BEGINNING_BYTES + TAIL_BYTES:
                n_idle, may_open = self._n_idle(origin), self._may_open(origin, N_NEW)
                parts = parts_of_beginning(n_idle, may_open=may_open)
            if not parts:
                beginning.end()
                return
            is_free = trio.Event()  # one of the connections
            self._dispatcher.run_in_background(bring, link, is_free)
            if not n_idle:
                with trio.move_on_after(TAIL_WAITS_S):
                    await is_free.wait()

        async def wanted_version() -> Version | None:
            await beginning.is_decided.wait()
            known = learning.known
            return known.version if known is not None and beginning.is_wanted else None

        async def begin(version: Version, start: int) -> None:
            with contextlib.suppress(TooManyOpen):  # else the bytes are fetched when they are read
                fetcher = await self._fetchers.get((key, version))
                await delivery.begin(fetcher, ByteRange(start, version.size_bytes))
                if parts and start >= parts[-1].stop:
                    await beginning.begin(fetcher, ByteRange(0, parts[-1].stop))

        try:
            with learning.scope:
                async with turn:
                    async with self._probing.held():
                        if await self._is_learnt_elsewhere(wanted, learning, turn, since_s):
                            return
                        with self._traces.of(label).request(read_trace.SIZE) as request:
                            tail = await self._probe.tail(
                                self._links.of(key),
                                label,
                                take,
                                beside if is_beginning_expected else None,
                            )
                            request.received_bytes = delivery.n_bytes + len(tail.data)
                    if learning.known is None:
                        version = await settle(tail)
                        async with self._fetchers.alone_with((key, version)):
                            await begin(version, tail.start)
                        delivery.receive(tail.data)
        except Exception as failure:  # raised in the tasks that wait; the mount goes on
            if learning.is_settled.is_set() and not isinstance(failure, SatfsError):
                log.exception("the rest of a tail was lost", label=label)
            learning.failure = failure
        finally:
            delivery.end()
            beginning.is_decided.set()
            if learning.known is None and learning.failure is None:
                learning.failure = Unreachable(f"the request for {label} was cancelled")
            learning.is_settled.set()
            self._fetchers.close_idle()

    def expect_read(self) -> None:
        """Expect that the first object of which the version is learnt is read."""
        self._first_reads.expect()

    def note_listing(self) -> None:
        """Note that a program lists a directory."""
        self._first_reads.listed()

    def note_first_read(self, key: Key, start: int) -> None:
        """Note that the first read of a handle on *key* begins at the offset *start*."""
        self._first_reads.read(key, start, trio.current_time())

    async def _is_learnt_elsewhere(
        self,
        wanted: tuple[SceneId, AttachmentName, str],
        learning: Learning,
        turn: contextlib.AsyncExitStack,
        since_s: float,
    ) -> bool:
        """Return whether another process of this node has learnt the version since *since_s*.

        Then *learning* has it. Otherwise the others wait until *turn* is closed.
        """
        scene, attachment, revision = wanted
        index = self._cache.index
        if index is None or not self._locks.is_shared(trio.current_time()):
            return False
        name = f"version {self._account} {label_of(scene, attachment)}"
        await turn.enter_async_context(self._locks.alone(name))
        known = await self._cache.on_index(lambda: index.version(self._account, scene, attachment))
        if known is None or known.revision != revision or known.confirmed_at_s < since_s:
            return False
        self._remember((scene, attachment), known)
        learning.known = known
        return True

    async def _note(self, key: Key, version: Version, revision: str) -> KnownVersion:
        known = KnownVersion(revision, version.etag, version.size_bytes, self._now())
        self._remember(key, known)
        self._absent.pop(key, None)
        index = self._cache.index
        if index is not None:
            await self._cache.on_index(lambda: index.note_version(self._account, *key, known))
        return known

    def forget(self, scene: SceneId, attachment: AttachmentName) -> None:
        """Forget an attachment's version: the next caller learns it with a request."""
        key = (scene, attachment)
        self._known.pop(key, None)
        self._absent.pop(key, None)
        self._links.forget_refusal(key)
        index = self._cache.index
        if index is None:
            return
        # Until the index has forgotten it too, it must not be recalled from there.
        self._forgetting[key] += 1

        async def forget_in_index() -> None:
            await self._cache.on_index(lambda: index.forget_version(self._account, *key))
            self._forgetting[key] -= 1
            self._forgetting += Counter()  # drops zeros

        self._dispatcher.run_in_background(forget_in_index)

    def outdated(self, key: Key, version: Version) -> None:
        """Forget *version*, which the store serves no more: the next look-up learns the new one.

        At once, and not when the last handle is closed: a program that opens the file meanwhile
        must not get the old version as the present one.
        """
        known = self._known.get(key)
        if known is None or known.version == version:
            self.forget(*key)

    async def confirm(self, key: Key, version: Version) -> None:
        """Return if *version* is the one that the vendor serves, as far as can be known.

        Raises:
            Changed: it is not.
        """
        if await self._is_confirmed(key, version):
            return
        # One task makes the request; others that open the file meanwhile use its result.
        async with alone_with(self._confirming, key):
            if await self._is_confirmed(key, version):
                return
            try:
                label = label_of(*key)
                async with self._probing.held():
                    with self._traces.of(label).request(read_trace.CONFIRM):
                        seen = await self._probe.confirm(self._links.of(key), label, version)
            except (Unreachable, NotAllowed, Garbled):
                return  # what the cache holds of this version stays readable
            except NotThere as gone:
                self.forget(*key)
                raise Changed(str(gone)) from gone
            known = self._known.get(key)
            revision = known.revision if known is not None else ""
            await self._note(key, seen, revision)
        if seen != version:
            raise Changed(f"{label_of(*key)} was replaced")

    async def _is_confirmed(self, key: Key, version: Version) -> bool:
        known = await self._recall(key)
        if known is None:
            return False
        if known.version != version:
            raise Changed(f"{label_of(*key)} was replaced")
        # A moment in the future is one of a clock that was set back since.
        return 0 <= self._now() - known.confirmed_at_s <= self._confirm_after_s
