"""Facts of deliveries for the tree: read from the zip once, then kept with the cache.

Reading takes one round trip for most deliveries: all parts of members that are needed are read at
once. The facts depend on the version of the zip alone, so they are kept under its name, over
remounts, and need no network then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Final
from weakref import WeakValueDictionary

import trio
from cachetools import LRUCache
from msgspec import Struct

from satfs.archive.archive import Archive, Archives
from satfs.archive.member_offsets import Row
from satfs.archive.members import ROOT, Members
from satfs.content.attachments import Attachments
from satfs.errors import Damaged, Encrypted, NotThere, Unsupported
from satfs.facts.delivery import FORM, DeliveryFacts, DeliveryParser, MemberPart
from satfs.facts.member_kinds import MAX_NAMES, known_members, may_be_known
from satfs.facts.scene import MemberFacts, MemberKind
from satfs.model import DELIVERY_ZIP
from satfs.request_slots import RequestSlots, concurrent_map
from satfs.tree.archives import ContentsDirectory
from satfs.tree.scenes import SceneDirectory

#: Parts of members read at once, of all scenes together. More would only wait for each other.
_PARTS_AT_ONCE: Final = 32
#: Memory for facts, in bytes as they are kept: those of about a thousand scenes.
_MAX_KEPT_BYTES: Final = 8 * 1024 * 1024
#: Members looked through without a thread: about a millisecond's worth.
_FEW: Final = 1000


class Delivery(Struct, frozen=True):
    """The zip of a scene as it is now: its size, and what it states."""

    size_bytes: int
    facts: DeliveryFacts


class DeliveryFactsReader:
    """Reads the facts of zips, each version once; they are kept over remounts."""

    def __init__(self, archives: Archives, contents: Attachments) -> None:
        self._archives = archives
        self._contents = contents
        self._kept: LRUCache[str, bytes] = LRUCache(_MAX_KEPT_BYTES, getsizeof=len)
        self._locks: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()
        self._slots = RequestSlots(_PARTS_AT_ONCE)

    async def delivery(self, scene: SceneDirectory) -> Delivery | None:
        """Return the present version of the zip of *scene*; None when the scene has no zip (yet).

        A damaged zip has no facts; a member that cannot be read is unknown.

        Raises:
            Changed: the zip was replaced while it was read.
            SatfsError: it cannot be read now; nothing is kept of it.
        """
        found = await self._archive(scene)
        if found is None:
            return None
        archive, size_bytes = found
        lock = self._locks.setdefault(archive.identity, trio.Lock())
        async with lock:
            facts = await self._find(archive)
            if facts is None:
                try:
                    facts = await self._read(archive)
                except Damaged:  # no zip at all: that is true of this version for good
                    facts = DeliveryFacts()
                await self._keep(archive, facts)
            return Delivery(size_bytes, facts)

    async def is_known(self, scene: SceneDirectory) -> bool:
        """Return whether `delivery` needs no request except that for the version of the zip."""
        found = await self._archive(scene)
        return found is None or await self._find(found[0]) is not None

    async def _archive(self, scene: SceneDirectory) -> tuple[Archive, int] | None:
        """Return the archive that the zip of *scene* is now, and its size; None without a zip."""
        if all(attachment.name != DELIVERY_ZIP for attachment in scene.attachments):
            return None
        contents = ContentsDirectory(scene, self._archives, self._contents)
        try:
            return await contents.archive()
        except NotThere:
            return None

    async def _find(self, archive: Archive) -> DeliveryFacts | None:
        data = self._kept.get(archive.identity)
        if data is None:
            data = await self._contents.derived.get(_key(archive))
        facts = None if data is None else DeliveryFacts.of_bytes(data)
        if data is not None and facts is not None and len(data) <= _MAX_KEPT_BYTES:
            self._kept[archive.identity] = data
        return facts

    async def _keep(self, archive: Archive, facts: DeliveryFacts) -> None:
        data = facts.to_bytes()
        if len(data) <= _MAX_KEPT_BYTES:
            self._kept[archive.identity] = data
        await self._contents.derived.put(_key(archive), data, f"{archive.label} (facts)")

    async def _read(self, archive: Archive) -> DeliveryFacts:
        members = await archive.members()
        if len(members) <= _FEW:
            known, rows = _known(members)
        else:
            known, rows = await trio.to_thread.run_sync(_known, members)
        parser = DeliveryParser(known)

        async def read(part: MemberPart) -> None:
            async with self._slots.held():
                data = await _part(archive, rows[part.member.path], part)
            if data is not None:
                parser.feed(part, data)

        while wanted := parser.needs():
            await concurrent_map(read, wanted)
        return parser.facts()


async def _part(archive: Archive, row: Row, part: MemberPart) -> bytes | None:
    """Return a part of a member; None when the archive does not let it be read."""
    try:
        reader = await archive.open(row, first_bytes=part.span.stop)
        try:
            return bytes(await reader.read(part.span))
        finally:
            reader.close()
    except (Damaged, Encrypted, Unsupported):
        return None


def _known(members: Members) -> tuple[tuple[MemberFacts, ...], dict[str, Row]]:
    """Return the members whose kind is known, and the row of each by its path."""
    named = (row for row in _files(members) if may_be_known(members.name(row)))
    rows = {members.path(row).decode(): row for row in islice(named, MAX_NAMES)}
    known = known_members((path, members.member(row).size_bytes) for path, row in rows.items())
    return known, {member.path: rows[member.path] for member in known}


def raster_paths(members: Members, kinds: Collection[MemberKind]) -> list[str]:
    """Return the paths of the rasters of some *kinds*. Fit for a thread."""
    return [member.path for member in _known(members)[0] if member.kind in kinds]


def _files(members: Members) -> Iterator[Row]:
    pending = [ROOT]
    while pending:
        for child in members.children(pending.pop()):
            if members.is_directory(child):
                pending.append(child)
            else:
                yield child


def _key(archive: Archive) -> str:
    return f"facts {FORM} {archive.identity}"
