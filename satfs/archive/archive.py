"""One version of one zip: its members on request, and each of them opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import structlog
import trio
from cachetools import LRUCache
from msgspec import Struct

from satfs.archive.central_directory import DEFLATED, STORED, DirectoryParser
from satfs.archive.decoders import METHOD_NAMES
from satfs.archive.deflated import DeflatedMember
from satfs.archive.end_record import TAIL_BYTES, CentralDirectory, NeedMore, locate
from satfs.archive.inflate import require_zlib
from satfs.archive.member_data import MemberData, OpenZip, PackedReader
from satfs.archive.member_offsets import Row, SmallMembers
from satfs.archive.members import Members
from satfs.archive.missing_zip64 import Settling, TrueNumbers
from satfs.archive.resources import ArchiveResources
from satfs.archive.spooled import SpooledMember
from satfs.archive.stored import StoredReader
from satfs.archive.whole_zip import WholeZipReader
from satfs.content.cache.derived import Derived
from satfs.errors import Damaged, Encrypted
from satfs.model import (
    DELIVERY_ZIP,
    ByteRange,
    FetchesAround,
    Reader,
    RemoteReader,
    SceneId,
    Version,
)

if TYPE_CHECKING:
    from satfs.content.attachments import Attachments

log = structlog.get_logger(__name__)

#: A directory larger than the tail is read in pieces of this many bytes, and parsed in smaller
#: ones: a thread that parses lets others run, but slows them down.
_PIECE_BYTES: Final = 8 * 1024 * 1024
_PARSED_AT_ONCE_BYTES: Final = 256 * 1024

#: Members about which is remembered where they begin and which bytes were seen.
_MAX_BODIES: Final = 4096
#: Archives remembered that are not in use at the moment.
_MAX_RECENT: Final = 64


class _Progress(Struct):
    """How far a directory has been read; goes on where a reader gave up."""

    directory: CentralDirectory
    parser: DirectoryParser
    tail: memoryview
    position: int


class Archive:
    """The zip that *open_zip* opens, named *identity* among all versions of all zips.

    *label* is the name of its members' directory for people. Nothing is read before it is needed.
    Made by `Archives`, so that there is one of each.
    """

    def __init__(
        self, identity: str, open_zip: OpenZip, resources: ArchiveResources, label: str
    ) -> None:
        self.identity = identity
        self.label = label
        self._open_zip = open_zip
        self._resources = resources
        self._loading = trio.Lock()
        self._progress: _Progress | None = None
        self._damage: str | None = None
        self._bodies: LRUCache[Row, MemberData] = LRUCache(_MAX_BODIES)
        self._small_members = SmallMembers()
        self._deflated: WeakValueDictionary[Row, DeflatedMember] = WeakValueDictionary()
        self._spooled: WeakValueDictionary[Row, SpooledMember] = WeakValueDictionary()

    # -- its directory ---------------------------------------------------------------------------

    @property
    def is_read(self) -> bool:
        """Return whether the directory is in memory, so that `members` waits for nothing."""
        return self.identity in self._resources.directories

    async def members(self, *, is_wanted: bool = True) -> Members:
        """Return the members; they are the same, row by row, each time.

        Reads the tail, and the directory where it is larger; nothing when that was done lately.
        A zip that cannot be read is logged as a warning if a user wanted its members.

        Raises:
            Damaged: it is not a zip, or contradicts itself.
        """
        known = self._resources.directories.get(self.identity)
        if known is not None:
            return known
        async with self._loading:
            known = self._resources.directories.get(self.identity)
            if known is not None:
                return known
            if self._damage is not None:
                raise Damaged(self._damage)
            try:
                members = await self._load()
            except Damaged as failure:
                self._damage, self._progress = str(failure), None
                report = log.warning if is_wanted else log.debug
                report("archive not readable", archive=self.identity, reason=self._damage)
                raise
            self._progress = None
            if members.n_refused:
                log.info("members not shown", archive=self.identity, n=members.n_refused)
            self._resources.directories[self.identity] = members
            return members

    async def _load(self) -> Members:
        reader = await self._open_zip(None)
        try:
            progress = self._progress or await self._find(reader)
            # Kept while it is read: a reader that is cancelled leaves it to the next one.
            self._progress = progress
            while progress.position < progress.directory.span.stop:
                await self._parse(progress, await self._piece(reader, progress))
            settled = await self._settle(reader, progress.parser.settling())
        finally:
            reader.close()
        return await self._resources.in_thread(lambda: progress.parser.finish(settled))

    async def _settle(self, reader: Reader, settling: Settling | None) -> list[TrueNumbers | None]:
        """Read what finding the true numbers of a zip with cut ones takes, and return them."""
        if settling is None:
            return []
        try:
            span = next(settling)
            while True:
                span = settling.send(await self._read(reader, span))
        except StopIteration as done:
            found: list[TrueNumbers | None] = done.value
            return found

    async def _find(self, reader: Reader) -> _Progress:
        """Return a beginning: where the directory is, and what the tail holds of it."""
        size_bytes = reader.size_bytes
        span = ByteRange(max(0, size_bytes - TAIL_BYTES), size_bytes)
        while True:
            tail = memoryview(await self._read(reader, span))
            found = await self._resources.in_thread(lambda: locate(tail, size_bytes))  # noqa: B023
            if not isinstance(found, NeedMore):
                break
            span = found.span
        # The part of the tail that is of the directory, which reaches to the directory's end.
        kept = tail[max(0, found.span.start - span.start) : max(0, found.span.stop - span.start)]
        return _Progress(found, DirectoryParser(found), kept, found.span.start)

    async def _piece(self, reader: Reader, progress: _Progress) -> memoryview:
        """Return the bytes of the directory that come next, from the tail where it has them."""
        stop = progress.directory.span.stop
        tail_start = stop - len(progress.tail)
        if progress.position >= tail_start:
            return progress.tail[progress.position - tail_start :]
        span = ByteRange(progress.position, min(tail_start, progress.position + _PIECE_BYTES))
        return memoryview(await self._read(reader, span))

    async def _parse(self, progress: _Progress, piece: memoryview) -> None:
        for start in range(0, len(piece), _PARSED_AT_ONCE_BYTES):
            part = piece[start : start + _PARSED_AT_ONCE_BYTES]

            def feed(part: memoryview = part) -> None:
                progress.parser.feed(part)
                progress.position += len(part)

            await self._resources.in_thread(feed)

    @staticmethod
    async def _read(reader: Reader, span: ByteRange) -> bytes:
        data = bytes(await reader.read(span))
        if len(data) != len(span):
            raise Damaged("it is shorter than it states")
        return data

    # -- its members -----------------------------------------------------------------------------

    async def open(self, row: Row, *, first_bytes: int | None = None) -> Reader:
        """Return a reader of the file that *row* is.

        With *first_bytes*, no more than this many bytes at its beginning will be read: nothing
        behind them is read ahead of a stored member.

        Raises:
            Encrypted: it takes a password.
            Unsupported: its method, or its size under that method, is not ours.
            Damaged: the archive is, as far as that is known now.
        """
        members = await self.members()
        body = self._body(members, row)
        method = METHOD_NAMES.get(body.member.method, str(body.member.method))
        if body.member.is_encrypted:
            raise Encrypted(f"member {body.path!r} is encrypted ({method})")
        body.require_sound()
        zip_reader = await self._open_zip(body.bounds_of(first_bytes))
        if first_bytes is None and isinstance(zip_reader, FetchesAround):
            around = self._small_members.opened(members.offsets, body.member.header_offset)
            if around is not None:
                zip_reader.fetch_around(body.bounds.start, around)
        try:
            return await self._opened(row, body, zip_reader)
        except BaseException:
            zip_reader.close()
            raise

    async def stored_at(self, position: int) -> MemberData | None:
        """Return the stored member whose bytes are at *position* of the zip.

        Raises:
            Damaged: it is not a zip, or contradicts itself.
        """
        members = await self.members(is_wanted=False)
        row = members.offsets.file_at(position)
        if row is None:
            return None
        body = self._body(members, row)
        return body if body.member.method == STORED and not body.member.is_encrypted else None

    def _body(self, members: Members, row: Row) -> MemberData:
        body: MemberData | None = self._bodies.get(row)
        if body is None:
            path = members.path(row).decode()
            label = f"{self.label}/{path}"
            body = MemberData(members.member(row), path, members.stop(row), label)
            self._bodies[row] = body
        return body

    async def _opened(self, row: Row, body: MemberData, zip_reader: RemoteReader) -> Reader:
        """Return a reader that owns *zip_reader*; it stays the caller's when this raises."""
        if body.member.method == STORED:
            return StoredReader(body, zip_reader)
        identity = self._member_identity(body)
        if body.member.method == DEFLATED:
            require_zlib()
            deflated = await self._deflated_member(row, body, identity)
            return PackedReader(deflated, zip_reader, body=body)
        # Unpacked as a whole for any read.
        return PackedReader(await self._spooled_member(row, body, identity), zip_reader)

    async def _deflated_member(self, row: Row, body: MemberData, identity: bytes) -> DeflatedMember:
        """Return the member, shared by all its readers."""
        known = self._deflated.get(row)
        if known is not None and known.is_open:
            return known
        checkpoints = await self._resources.checkpoints(identity, body.member.size_bytes)
        # Another task may have opened it meanwhile.
        known = self._deflated.get(row)
        if known is not None and known.is_open:
            return known
        made = DeflatedMember(body, identity, checkpoints, self._open_zip, self._resources)
        self._deflated[row] = made
        return made

    async def _spooled_member(self, row: Row, body: MemberData, identity: bytes) -> SpooledMember:
        """Return the member, shared by all its readers."""
        known = self._spooled.get(row)
        if known is not None and known.is_open:
            return known
        made = await SpooledMember.create(body, identity, self._resources)
        # Another task may have opened it meanwhile.
        known = self._spooled.get(row)
        if known is not None and known.is_open:
            made.abandon()
            return known
        self._spooled[row] = made
        return made

    def _member_identity(self, body: MemberData) -> bytes:
        """Return what names this member among all members of all zips, over remounts."""
        member = body.member
        text = "\0".join(
            (
                self.identity,
                str(member.header_offset),
                str(member.compressed_bytes),
                str(member.size_bytes),
                str(member.crc32),
            )
        )
        return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=32).digest()


class Archives:
    """The archives of one mount: one `Archive` for each zip version in use."""

    def __init__(self, resources: ArchiveResources) -> None:
        self._resources = resources
        self._archives: WeakValueDictionary[str, Archive] = WeakValueDictionary()
        # Those used last, whether or not a node refers to them: how far a look that was cancelled
        # had come, and that an archive is damaged, is worth remembering.
        self._recent: LRUCache[str, Archive] = LRUCache(_MAX_RECENT)

    def archive(self, identity: str, open_zip: OpenZip, label: str = "") -> Archive:
        """Return the archive *identity*, which names one version of one zip. Reads nothing.

        *label* is what people know its members' directory by, for `satfs cache info`.
        """
        known = self._archives.get(identity)
        if known is None:
            known = self._archives[identity] = Archive(identity, open_zip, self._resources, label)
        self._recent[identity] = known
        return known

    def of_scene(self, contents: Attachments, scene: SceneId, version: Version) -> Archive:
        """Return the archive that one version of the zip of *scene* is. Reads nothing."""

        async def open_zip(bounds: ByteRange | None) -> RemoteReader:
            return await contents.open(scene, DELIVERY_ZIP, version, bounds=bounds)

        identity = f"{scene}/{DELIVERY_ZIP}/{version.etag}/{version.size_bytes}"
        return self.archive(identity, open_zip, f"{scene}/contents")

    async def open_whole(
        self, contents: Attachments, scene: SceneId, version: Version
    ) -> WholeZipReader:
        """Return a reader of the zip itself. Raises as `Attachments.open`."""
        reader = await contents.open(scene, DELIVERY_ZIP, version)
        return WholeZipReader(reader, self.of_scene(contents, scene, version))


@asynccontextmanager
async def open_archives(derived: Derived, unpack_bytes: int) -> AsyncIterator[Archives]:
    """Yield `Archives`; its background work ends with the `async with`.

    Callers must have closed all that they opened. See `ArchiveResources` for the arguments.
    """
    async with trio.open_nursery() as nursery:
        try:
            yield Archives(ArchiveResources(nursery, derived, unpack_bytes))
        finally:
            nursery.cancel_scope.cancel()
