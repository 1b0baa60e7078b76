"""The attachments of all scenes, as bytes: what the tree needs of `content`. One per mount."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.derived import Derived
from satfs.content.cache.pins import Pins, StoredObject
from satfs.content.fetch.dispatch import Dispatcher
from satfs.content.fetch.egress_limit import EgressLimit
from satfs.content.fetch.links import LinkCaches, Sign
from satfs.content.fetch.probe import Probe
from satfs.content.fetch.range_request import TransferStatus
from satfs.content.fetch.reader import ObjectReader
from satfs.content.open_fetchers import OpenFetchers, label_of
from satfs.content.version_request import RequestParts
from satfs.content.versions import Versions
from satfs.model import AttachmentName, ByteRange, RemoteReader, SceneId, Version
from satfs.node_locks import NodeLocks
from satfs.read_trace import ReadTraces


class Attachments:
    """Which version an attachment has, and a handle on it."""

    def __init__(
        self,
        *,
        cache: BlockCache,
        dispatcher: Dispatcher,
        probe: Probe,
        sign: Sign,
        account: str,
        confirm_after_s: float,
        egress: EgressLimit,
        locks: NodeLocks | None,
        n_idle: Callable[[str], int],
        may_open: Callable[[str, int], bool],
        absent_s: float,
    ) -> None:
        #: Traces of reads, object by object, for users.
        self.traces = ReadTraces()
        #: The limit of bytes fetched in a day, and the bytes fetched so far.
        self.egress = egress
        self._cache = cache
        self._dispatcher = dispatcher
        self._links = LinkCaches(sign, label_of, self.traces)
        self._fetchers = OpenFetchers(
            cache=cache,
            dispatcher=dispatcher,
            links=self._links,
            account=account,
            traces=self.traces,
            egress=self.egress,
            on_outdated=lambda place: self._versions.outdated(*place),
        )
        self._versions = Versions(
            RequestParts(
                cache=cache,
                dispatcher=dispatcher,
                probe=probe,
                links=self._links,
                fetchers=self._fetchers,
                traces=self.traces,
                egress=self.egress,
                n_idle=n_idle,
                may_open=may_open,
            ),
            account=account,
            confirm_after_s=confirm_after_s,
            locks=locks or NodeLocks(),
            absent_s=absent_s,
        )
        #: Data that others derive from these bytes, kept in the same cache.
        self.derived = Derived(cache, account)

    def start_early(self, may_sign_beside: Callable[[], bool]) -> None:
        """Expect that the first file which is looked up is read.

        A worker process starts with that look, since it takes as long to start as three round trips
        to a store. The file's beginning is requested beside its size, unless a directory has been
        listed before, and so is the link to the zip of a scene beside its record, where
        *may_sign_beside*. For mounts, whose programs mostly read what they look up.
        """
        self._dispatcher.start_early()
        self._versions.expect_read(may_sign_beside)

    def note_listing(self) -> None:
        """Note that a program lists a directory. Never waits."""
        self._versions.note_listing()

    def note_walk(self, scene: SceneId) -> None:
        """Note that a program walks to a scene, before its record is requested. Never waits."""
        self._versions.note_walk(scene)

    # -- versions (`Versions` has the details) -----------------------------------------------------

    async def version(self, scene: SceneId, attachment: AttachmentName, revision: str) -> Version:
        """Return the version of an attachment: its ETag and exact length.

        Raises: as `Versions.get`.
        """
        return await self._versions.get(scene, attachment, revision)

    def learn_ahead(self, scene: SceneId, attachment: AttachmentName, revision: str) -> None:
        """Learn a version in the background, for a look-up that will probably come."""
        self._versions.learn_ahead(scene, attachment, revision)

    async def renew(self, scene: SceneId, attachment: AttachmentName, revision: str) -> Version:
        """Return the version that the store has now; an earlier one is not believed.

        Raises: as `Versions.renew`.
        """
        return await self._versions.renew(scene, attachment, revision)

    def forget(self, scene: SceneId, attachment: AttachmentName) -> None:
        """Forget what is known of an attachment's version: the next look-up requests it."""
        self._versions.forget(scene, attachment)

    # -- bytes -----------------------------------------------------------------------------------

    async def is_held(self, scene: SceneId, attachment: AttachmentName, version: Version) -> bool:
        """Return whether all of that version is in the cache. Waits for the disk alone."""
        place = ((scene, attachment), version)
        async with self._fetchers.alone_with(place):
            cached = (await self._fetchers.get(place)).cached
            is_held = next(cached.gaps(ByteRange(0, version.size_bytes)), None) is None
        self._fetchers.close_idle()
        return is_held

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
        await self._versions.confirm(key, version)
        place = (key, version)
        async with self._fetchers.alone_with(place):
            fetcher = await self._fetchers.get(place)
            self._fetchers.handle_opened(place)
        fetcher.source.trace.opened()
        return ObjectReader(
            fetcher,
            lambda: self._fetchers.handle_closed(place),
            bounds=bounds,
            on_first_read=lambda start: self._versions.note_first_read(key, start),
        )

    # -- the cache, and what goes on -------------------------------------------------------------

    def stored(self, scene: SceneId, attachment: AttachmentName, version: Version) -> StoredObject:
        """Return what the cache knows a version of an attachment as. Never waits."""
        return self._fetchers.stored(((scene, attachment), version))

    def pins(self, directory: Path, free_fraction: float) -> Pins:
        """Return the pins of the cache, which is in *directory*."""
        return Pins(self._cache, directory, free_fraction)

    def transfers(self) -> tuple[TransferStatus, ...]:
        """Return the transfers that are in flight."""
        return self._dispatcher.transfers()

    def links_left_s(self, max_links: int) -> Iterator[tuple[str, float]]:
        """See `LinkCaches.left_s`."""
        return self._links.left_s(max_links)

    def received_bytes(self) -> float:
        """Return how many bytes have come from the store, those of ranges that go on included."""
        return self._dispatcher.counters["received_bytes"]

    def statistics(self) -> dict[str, float]:
        """Return counts of what is open, under way and kept."""
        return {
            "open_handles": self._fetchers.n_handles,
            **self._dispatcher.statistics(),
            **self._cache.statistics(),
        }
