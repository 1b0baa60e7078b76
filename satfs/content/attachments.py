"""Which version an attachment has, and an open handle on it: what the tree needs of `content`.

One per mount. A version is learnt by one ranged GET of the object's tail, which is where a zip
keeps its central directory; it is remembered with the record's revision, in memory and in the
cache's index, and confirmed again when a file is opened after `confirm_after_s`.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import structlog
import trio

from satfs import read_trace
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.derived import Derived
from satfs.content.cache.directory import object_name
from satfs.content.cache.index import KnownVersion
from satfs.content.cache.open_objects import alone_with
from satfs.content.cache.pins import Pins, StoredObject
from satfs.content.fetch.budget import Budget
from satfs.content.fetch.dispatch import Dispatcher
from satfs.content.fetch.fetcher import Fetcher
from satfs.content.fetch.links import LinkCache, Sign
from satfs.content.fetch.probe import Probe, Tail
from satfs.content.fetch.range_request import ObjectSource, TransferStatus
from satfs.content.fetch.reader import ObjectReader
from satfs.content.fetch.store_responses import is_same
from satfs.content.fetch.tail_delivery import Learning, TailDelivery
from satfs.errors import Changed, NotAllowed, NotThere, SatfsError, TooManyOpen, Unreachable
from satfs.model import AttachmentName, ByteRange, RemoteReader, SceneId, Version
from satfs.net.addresses import origin_of
from satfs.node_locks import NodeLocks
from satfs.read_trace import ReadTraces
from satfs.refreshable import Refreshable
from satfs.request_slots import RequestSlots

log = structlog.get_logger(__name__)

#: Objects kept open after their last handle, the least recently used closed first: programs open
#: and close the same file many times, and blocks in memory go with their object.
IDLE_OBJECTS: Final = 48
#: Learnt versions kept in memory; the index keeps all of them.
MAX_VERSIONS: Final = 100_000
#: Objects of which versions are being learnt at once.
PROBES_AT_ONCE: Final = 16
#: Versions that are learnt before a program looks them up, at once, and for how long one is tried,
#: in seconds.
MAX_LEARNT_AHEAD: Final = 64
LEARN_AHEAD_S: Final = 10.0

_Key = tuple[SceneId, AttachmentName]
_Place = tuple[_Key, Version]


class Attachments:
    """The attachments of all scenes, as bytes.

    Invariants:
        An object is open once, however many handles look at it (`_open`).
        A version is learnt once, however many ask (`_learning`).
    """

    def __init__(
        self,
        *,
        cache: BlockCache,
        dispatcher: Dispatcher,
        probe: Probe,
        sign: Sign,
        account: str,
        confirm_after_s: float,
        wall_clock: Callable[[], float] = time.time,
        traces: ReadTraces | None = None,
        budget: Budget | None = None,
        locks: NodeLocks | None = None,
    ) -> None:
        #: What reading took, object by object, for people to look at.
        self.traces = traces or ReadTraces()
        #: What may be fetched in a day, and what has been.
        self.budget = budget or Budget()
        self._cache = cache
        self._dispatcher = dispatcher
        self._probe = probe
        self._sign = sign
        self._account = account
        self._locks = locks or NodeLocks()
        self._confirm_after_s = confirm_after_s
        self._now = wall_clock
        self._known: OrderedDict[_Key, KnownVersion] = OrderedDict()
        self._learning: dict[tuple[SceneId, AttachmentName, str], Refreshable[KnownVersion]] = {}
        self._n_learners: Counter[tuple[SceneId, AttachmentName, str]] = Counter()
        self._forgetting: Counter[_Key] = Counter()
        self._links: OrderedDict[_Key, LinkCache] = OrderedDict()
        self._open: OrderedDict[_Place, Fetcher] = OrderedDict()
        self._n_handles: dict[_Place, int] = {}
        self._opening: dict[_Place, trio.Lock] = {}
        self._confirming: dict[_Key, trio.Lock] = {}
        self._probing = RequestSlots(PROBES_AT_ONCE)
        self._n_ahead = 0
        #: What others make out of these bytes, kept in the same cache.
        self.derived = Derived(cache, account)
        cache.objects.make_room = self._close_all_idle

    # -- versions --------------------------------------------------------------------------------

    async def version(self, scene: SceneId, attachment: AttachmentName, revision: str) -> Version:
        """Return the version of an attachment: its ETag and exact length.

        Known from before while the record's *revision* is the same; else learnt with one request.

        Raises:
            NotThere: the vendor has no such attachment, or the store no such object (yet).
            NotAllowed: it is refused.
            Unreachable: it cannot be asked now.
            The last two only when no version is known from before.
        """
        known = await self._recall((scene, attachment))
        if known is not None and known.revision == revision:
            return Version(known.etag, known.size_bytes)
        try:
            learnt = await self._learn(scene, attachment, revision)
        except (Unreachable, NotAllowed):
            if known is None:
                raise
            # Better the version we hold than none; a newer one is noticed when it can be.
            return Version(known.etag, known.size_bytes)
        return Version(learnt.etag, learnt.size_bytes)

    def learn_ahead(self, scene: SceneId, attachment: AttachmentName, revision: str) -> None:
        """Learn a version in the background, for a look-up that will probably come.

        Does nothing while `MAX_LEARNT_AHEAD` versions are being learnt.
        """
        if self._n_ahead >= MAX_LEARNT_AHEAD:
            return

        async def learn() -> None:
            try:
                with trio.move_on_after(LEARN_AHEAD_S):
                    await self.version(scene, attachment, revision)
            except SatfsError as failure:
                log.debug("version not learnt ahead", scene=scene, error=type(failure).__name__)
            finally:
                self._n_ahead -= 1

        self._n_ahead += 1
        self._dispatcher.run_in_background(learn)

    async def renew(self, scene: SceneId, attachment: AttachmentName, revision: str) -> Version:
        """Return the version that the store has now, whatever is known from before.

        Raises:
            NotThere, NotAllowed: as `version`.
            Unreachable: the store cannot be asked now; what is known stays so.
        """
        learnt = await self._learn(scene, attachment, revision)
        return Version(learnt.etag, learnt.size_bytes)

    async def _recall(self, key: _Key) -> KnownVersion | None:
        known = self._known.get(key)
        index = self._cache.index
        if known is None and index is not None and not self._forgetting[key]:
            known = await self._cache.ask(lambda: index.version(self._account, *key))
            if self._forgetting[key] or key in self._known:
                known = self._known.get(key)  # something newer came while we asked
            elif known is not None:
                self._remember(key, known)
        return known

    def _remember(self, key: _Key, known: KnownVersion) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > MAX_VERSIONS:
            self._known.popitem(last=False)

    async def _learn(
        self, scene: SceneId, attachment: AttachmentName, revision: str
    ) -> KnownVersion:
        key = (scene, attachment, revision)

        async def renew() -> tuple[KnownVersion, float]:
            learning = Learning()
            self._dispatcher.run_in_background(self._learn_version, key, learning)
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
            # The last one clears up: whoever gives up first must not hide it from who comes next.
            self._n_learners[key] -= 1
            if not self._n_learners[key]:
                del self._learning[key], self._n_learners[key]

    async def _learn_version(
        self, key: tuple[SceneId, AttachmentName, str], learning: Learning
    ) -> None:
        """Make the request for a version: settled with its headers, while the tail still comes."""
        scene, attachment, revision = key
        place, label = (scene, attachment), _label(*key)
        delivery = TailDelivery(self._cache, self.budget)
        turn = contextlib.AsyncExitStack()

        async def settle(tail: Tail) -> Version:
            before = await self._recall(place)
            version = tail.version
            if before is not None:
                # Under one name, or the cache would hold the object twice.
                old = Version(before.etag, before.size_bytes)
                version = old if is_same(old, version) else version
            learning.known = await self._note(place, version, revision)
            return version

        async def take(tail: Tail) -> Callable[[bytes], None]:
            if learning.is_settled.is_set():
                return lambda data: None  # of another try: the bytes would begin anew
            version = await settle(tail)
            origin = origin_of((await self._links_of(place).get()).url)
            self._dispatcher.expect_connection(origin, delivery.has_ended)
            async with alone_with(self._opening, (place, version)):
                # Who opens the file from now on waits until the delivery can be joined.
                learning.is_settled.set()
                with contextlib.suppress(TooManyOpen):  # else the tail is fetched when it is read
                    await delivery.begin(await self._fetcher((place, version)), tail.start)
            await turn.aclose()  # others of this node find the version, and a claim on the tail
            return delivery.receive

        try:
            with learning.scope:
                async with turn:
                    async with self._probing.held():
                        if await self._is_learnt_elsewhere(key, learning, turn):
                            return
                        with self.traces.of(label).request(read_trace.SIZE) as request:
                            tail = await self._probe.tail(self._links_of(place), label, take)
                            request.received_bytes = delivery.n_bytes + len(tail.data)
                    if learning.known is None:
                        version = await settle(tail)
                        async with alone_with(self._opening, (place, version)):
                            with contextlib.suppress(TooManyOpen):
                                fetcher = await self._fetcher((place, version))
                                await delivery.begin(fetcher, tail.start)
                        delivery.receive(tail.data)
        except Exception as failure:  # for who waits; the mount goes on
            if learning.is_settled.is_set():
                log.exception("the rest of a tail was lost", label=label)
            learning.failure = failure
        finally:
            delivery.end()
            if learning.known is None and learning.failure is None:
                learning.failure = Unreachable(f"asking the object store for {label} was given up")
            learning.is_settled.set()
            self._close_idle()

    async def _is_learnt_elsewhere(
        self,
        key: tuple[SceneId, AttachmentName, str],
        learning: Learning,
        turn: contextlib.AsyncExitStack,
    ) -> bool:
        """Return whether another process of this node learns the version at the same time.

        Then *learning* has it. Otherwise the others wait until *turn* is closed.
        """
        scene, attachment, revision = key
        index, since_s = self._cache.index, self._now()
        if index is None or not self._locks.is_shared(trio.current_time()):
            return False
        name = f"version {self._account} {_label(*key)}"
        await turn.enter_async_context(self._locks.alone(name))
        known = await self._cache.ask(lambda: index.version(self._account, scene, attachment))
        if known is None or known.revision != revision or known.confirmed_at_s < since_s:
            return False
        self._remember((scene, attachment), known)
        learning.known = known
        return True

    async def _note(self, key: _Key, version: Version, revision: str) -> KnownVersion:
        known = KnownVersion(revision, version.etag, version.size_bytes, self._now())
        self._remember(key, known)
        index = self._cache.index
        if index is not None:
            await self._cache.ask(lambda: index.note_version(self._account, *key, known))
        return known

    def forget(self, scene: SceneId, attachment: AttachmentName) -> None:
        """Forget what is known of an attachment's version: it is asked for anew."""
        key = (scene, attachment)
        self._known.pop(key, None)
        if (links := self._links.get(key)) is not None:
            links.forget_refusal()
        index = self._cache.index
        if index is None:
            return
        # Until the index has forgotten it too, it must not be recalled from there.
        self._forgetting[key] += 1

        async def forget_in_index() -> None:
            await self._cache.ask(lambda: index.forget_version(self._account, *key))
            self._forgetting[key] -= 1
            self._forgetting += Counter()  # drops zeros

        self._dispatcher.run_in_background(forget_in_index)

    async def is_held(self, scene: SceneId, attachment: AttachmentName, version: Version) -> bool:
        """Return whether all of that version is in the cache. Waits for the disk, asks nobody."""
        place = ((scene, attachment), version)
        async with alone_with(self._opening, place):
            cached = (await self._fetcher(place)).cached
            is_held = next(cached.gaps(ByteRange(0, version.size_bytes)), None) is None
        self._close_idle()
        return is_held

    # -- handles ---------------------------------------------------------------------------------

    async def open(
        self,
        scene: SceneId,
        attachment: AttachmentName,
        version: Version,
        *,
        bounds: ByteRange | None = None,
    ) -> RemoteReader:
        """Return a handle on exactly *version*; *bounds* keep its read-ahead inside a member.

        Raises:
            Changed: the vendor serves another version now (or none).
        """
        key = (scene, attachment)
        await self._confirm(key, version)
        place = (key, version)
        async with alone_with(self._opening, place):
            fetcher = await self._fetcher(place)
            self._n_handles[place] = self._n_handles.get(place, 0) + 1
        fetcher.source.trace.opened()
        return ObjectReader(fetcher, lambda: self._closed(place), bounds=bounds)

    async def _fetcher(self, place: _Place) -> Fetcher:
        """Return the open object of *place*, opening it if need be. One at a time for a place."""
        fetcher = self._open.get(place)
        if fetcher is None or (fetcher.is_outdated and not self._n_handles.get(place)):
            key, version = place
            name, label, size = self._naming(key, version)
            cached = await self._cache.acquire(name, label, size)
            source = ObjectSource(label, self._links_of(key), version, self.traces.of(label))
            # Looked up again: an idle one may have been closed while we waited.
            if (outdated := self._open.pop(place, None)) is not None:
                outdated.cached.release()
            outdate = partial(self._outdated, place)
            fetcher = Fetcher(self._cache, cached, self._dispatcher, source, outdate, self.budget)
            self._open[place] = fetcher
        self._open.move_to_end(place)
        return fetcher

    def _closed(self, place: _Place) -> None:
        self._n_handles[place] -= 1
        if not self._n_handles[place]:
            del self._n_handles[place]
        self._close_idle()

    def _outdated(self, place: _Place) -> None:
        """Hear that the store serves another version: the next look at the name learns which.

        Now, and not when the last handle is closed: who opens the file meanwhile must not be told
        that the old version is the present one.
        """
        key, version = place
        known = self._known.get(key)
        if known is None or (known.etag, known.size_bytes) == (version.etag, version.size_bytes):
            self.forget(*key)

    def _close_idle(self, n_kept: int = IDLE_OBJECTS) -> None:
        idle = [
            place
            for place, fetcher in self._open.items()
            if place not in self._n_handles and not fetcher.is_fetching
        ]
        for each in idle[: max(0, len(idle) - n_kept)]:
            self._open.pop(each).cached.release()

    async def _close_all_idle(self) -> None:
        """Close every idle object: another one needs its descriptors. Waits for the index."""
        self._close_idle(n_kept=0)
        await self._cache.commit()  # an object is closed when the index knows what it holds

    async def _confirm(self, key: _Key, version: Version) -> None:
        """Return if *version* is the one that the vendor serves, as far as can be known.

        Raises:
            Changed: it is not.
        """
        if await self._is_confirmed(key, version):
            return
        # One asks, whoever opens the same file meanwhile looks at what came of it.
        async with alone_with(self._confirming, key):
            if await self._is_confirmed(key, version):
                return
            try:
                label = _label(*key, "")
                async with self._probing.held():
                    with self.traces.of(label).request(read_trace.CONFIRM):
                        seen = await self._probe.confirm(self._links_of(key), label, version)
            except (Unreachable, NotAllowed):
                return  # what the cache holds of this version stays readable
            except NotThere as gone:
                self.forget(*key)
                raise Changed(str(gone)) from gone
            known = self._known.get(key)
            revision = known.revision if known is not None else ""
            await self._note(key, seen, revision)
        if seen != version:
            raise Changed(f"{_label(*key, '')} was replaced")

    async def _is_confirmed(self, key: _Key, version: Version) -> bool:
        known = await self._recall(key)
        if known is None:
            return False
        if (known.etag, known.size_bytes) != (version.etag, version.size_bytes):
            raise Changed(f"{_label(*key, '')} was replaced")
        return self._now() - known.confirmed_at_s <= self._confirm_after_s

    # -- parts -----------------------------------------------------------------------------------

    def _links_of(self, key: _Key) -> LinkCache:
        keeper = self._links.get(key)
        if keeper is None:
            keeper = self._links[key] = LinkCache(
                self._sign, *key, partial(self.traces.of, _label(*key, ""))
            )
        self._links.move_to_end(key)
        while len(self._links) > MAX_VERSIONS:
            self._links.popitem(last=False)
        return keeper

    def stored(self, scene: SceneId, attachment: AttachmentName, version: Version) -> StoredObject:
        """Return what the cache knows a version of an attachment as. Never waits."""
        name, label, size_bytes = self._naming((scene, attachment), version)
        return StoredObject(name, label, size_bytes)

    def keeping(self, directory: Path, free_fraction: float) -> Pins:
        """Return what looks at the cache, which lies in *directory*, and pins what is in it."""
        return Pins(self._cache, directory, free_fraction)

    def _naming(self, key: _Key, version: Version) -> tuple[str, str, int]:
        name = object_name(self._account, *key, version.etag, str(version.size_bytes))
        return name, _label(*key, ""), version.size_bytes

    def transfers(self) -> tuple[TransferStatus, ...]:
        """Return what is in the air now."""
        return self._dispatcher.transfers()

    def links_left_s(self, most: int) -> Iterator[tuple[str, float]]:
        """Yield the objects whose links can be used now, and for how many seconds.

        Looks at the *most* links used last. A link that does not tell its end has infinitely many.
        """
        for key, keeper in islice(reversed(self._links.items()), most):
            left_s = keeper.left_s()
            if left_s is not None:
                yield _label(*key, ""), left_s

    def statistics(self) -> dict[str, float]:
        """Return counts of what is open, under way and kept."""
        return {
            "open_handles": sum(self._n_handles.values()),
            **self._dispatcher.statistics(),
            **self._cache.statistics(),
        }


def _label(scene: SceneId, attachment: AttachmentName, _revision: str) -> str:
    return f"{scene}/{attachment}"
