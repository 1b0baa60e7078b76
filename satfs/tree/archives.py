"""`contents/` of a scene: the members of its zip as ordinary files.

No request is sent until a program looks in. A directory is a path, and shows the members of the
zip's version at the time of the call; a file is a member of one version, as the zip itself is a
file of one version. Names are those in the archive, since members name each other; a file
`UNREADABLE.txt` lists those that cannot be shown as they are (`satfs.archive.paths`).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from sys import intern
from typing import ClassVar, Final

import trio
from msgspec import Struct

from satfs.archive import unreadable
from satfs.archive.archive import Archive, Archives
from satfs.archive.decoders import METHOD_NAMES
from satfs.archive.member_offsets import Row
from satfs.archive.members import ROOT, Members
from satfs.archive.paths import is_obeyed
from satfs.content.attachments import Attachments
from satfs.errors import Damaged, NotThere
from satfs.model import DELIVERY_ZIP, Attachment, Reader
from satfs.settings import ContentsView
from satfs.tree.nodes import (
    Attributes,
    BytesFile,
    Directory,
    Entry,
    File,
    Kind,
    LazyEntries,
    Node,
    not_there,
    xattr_values,
)
from satfs.tree.scenes import AttachmentFile, Extra, SceneDirectory
from satfs.tree.thumbnails import REPOSITORY, Repository, picture_of

CONTENTS: Final = b"contents"

#: The file that lists members that are not shown; with a number if a member has that very name.
_NOTICE: Final = "UNREADABLE{}.txt"
#: Facts in a member's node: size, time, compressed size, CRC, method, whether it is executable.
_FACTS: Final = struct.Struct("<QqQIH?")
#: Members that a file manager would read as a whole to draw them small.
_RASTERS: Final = (b".tif", b".tiff", b".jp2", b".vrt")
#: Rasters with a thumbnail in one directory: looking for one looks at all.
_MAX_THUMBNAILS: Final = 1000
#: Rows looked at between two checkpoints: about a millisecond's worth.
_BATCH: Final = 5000


def contents_of_zips(
    view: ContentsView, archives: Archives, contents: Attachments
) -> tuple[Extra, ...]:
    """Return what a tree shows besides, so that each scene with a zip has `contents/`."""
    if view is ContentsView.OFF:
        return ()
    return (_Contents(archives, contents, is_listed=view is ContentsView.VISIBLE),)


class _Contents:
    """An `Extra`: a `contents/` for each scene that has a zip."""

    name: Final = CONTENTS

    def __init__(self, archives: Archives, contents: Attachments, *, is_listed: bool) -> None:
        self.is_listed = is_listed
        self._archives = archives
        self._contents = contents

    def directory(
        self, scene: SceneDirectory, attachments: Sequence[Attachment]
    ) -> Directory | None:
        """Return the scene's `contents/`; None when its record names no zip."""
        if all(attachment.name != DELIVERY_ZIP for attachment in attachments):
            return None
        return ContentsDirectory(scene, self._archives, self._contents)


class _Zip(Struct, frozen=True):
    """One version of a scene's zip: its file, what it holds, and the texts that identify it."""

    file: AttachmentFile
    archive: Archive
    path_names: tuple[str, ...]


class _Shown(Struct, frozen=True):
    """A zip looked into."""

    zip: _Zip
    members: Members


class _MemberEntries(LazyEntries):
    """The *rows* of one directory of a zip, and *more* beside them."""

    def __init__(
        self,
        rows: array[int],
        members: Members,
        node: Callable[[Row, bytes], Node],
        more: Sequence[Entry],
    ) -> None:
        self._rows = rows
        self._members = members
        self._node = node
        self._more = more

    def __len__(self) -> int:
        return len(self._rows) + len(self._more)

    def entry(self, index: int) -> Entry:
        """Return the entry of one row, or one of those beside them."""
        if index >= len(self._rows):
            return self._more[index - len(self._rows)]
        row = Row(self._rows[index])
        name = self._members.name(row)
        return Entry(name, self._node(row, name))

    def name(self, index: int) -> bytes:
        """Return the name of one entry, without making a node of it."""
        if index >= len(self._rows):
            return self._more[index - len(self._rows)].name
        return self._members.name(Row(self._rows[index]))


class _InnerDirectory(Directory):
    """A directory inside a zip: `inner` is its path there."""

    __slots__ = ("_top", "inner")
    holds_polled_names: ClassVar[bool] = True

    def may_hold(self, polled: str) -> bool:
        """Return whether a member may be shown under the name *polled*."""
        return not is_obeyed(polled)

    def __init__(
        self, parent: Directory, name: bytes, top: ContentsDirectory, inner: tuple[bytes, ...]
    ) -> None:
        super().__init__(parent, name)
        self._top = top
        self.inner = inner

    def xattrs(self) -> Mapping[str, bytes]:
        """Return the scene's attributes."""
        return self._top.scene.xattrs()

    async def lookup(self, name: bytes) -> Node:
        """Return the member or directory called *name*."""
        shown = await self._top.shown()
        row = shown.members.find_path((*self.inner, name))
        if row is None and name == REPOSITORY and picture_of(self._top.scene.attachments):
            return Repository(self, self._top.scene, self._rasters)
        if row is None:
            raise not_there(self, name)
        return self._node(shown, row, name)

    async def children(self) -> Sequence[Entry]:
        """Return everything in this directory."""
        return await self._entries()

    async def _entries(self, more: Sequence[Entry] = ()) -> Sequence[Entry]:
        """Return the members here, and *more*; yields to other tasks every now and then."""
        shown = await self._top.shown()
        members = shown.members
        row = members.find_path(self.inner)
        if row is None or not members.is_directory(row):
            raise NotThere(f"/{'/'.join(self.path)} is in the zip no more")
        rows = array("I")
        for child in members.children(row):
            rows.append(child)
            if len(rows) % _BATCH == 0:
                await trio.lowlevel.checkpoint()
        return _MemberEntries(rows, members, lambda row, name: self._node(shown, row, name), more)

    async def _rasters(self) -> Mapping[bytes, int]:
        """Return the rasters here that are shown with a thumbnail, and their times."""
        shown = await self._top.shown()
        members = shown.members
        row = members.find_path(self.inner)
        found: dict[bytes, int] = {}
        for count, child in enumerate(() if row is None else members.children(row), start=1):
            if count % _BATCH == 0:
                await trio.lowlevel.checkpoint()
            name = members.name(child)
            if name.lower().endswith(_RASTERS) and not members.is_directory(child):
                found[name] = self._node(shown, child, name).attributes().mtime_ns
                if len(found) == _MAX_THUMBNAILS:
                    break
        return found

    def _node(self, shown: _Shown, row: Row, name: bytes) -> Node:
        if shown.members.is_directory(row):
            stated_ns = shown.members.mtime_ns(row)
            mtime_ns = self._top.scene.mtime_ns if stated_ns is None else stated_ns
            return MemberDirectory(self, name, self._top, mtime_ns)
        return MemberFile(self, name, shown, row)


class ContentsDirectory(_InnerDirectory):
    """`contents/`: the zip's own root, and notices about the zip as a whole."""

    __slots__ = ("_archives", "_contents", "scene")

    def __init__(self, scene: SceneDirectory, archives: Archives, contents: Attachments) -> None:
        super().__init__(scene, CONTENTS, self, ())
        self.scene = scene
        self._archives = archives
        self._contents = contents

    def attributes(self) -> Attributes:
        """Return the attributes: the scene's times."""
        return self.scene.attributes()

    async def lookup(self, name: bytes) -> Node:
        """Return the member or directory called *name*, or the notice."""
        try:
            return await super().lookup(name)
        except (NotThere, Damaged):
            # No member has the notice's name: it is chosen so.
            for entry in await self._notices():
                if entry.name == name and isinstance(entry.target, Node):
                    return entry.target
            raise not_there(self, name) from None

    async def children(self) -> Sequence[Entry]:
        """Return what the zip holds; of a zip that cannot be read, the notice why.

        A zip that the store does not have yet holds nothing.
        """
        notices = await self._notices()
        try:
            return await self._entries(notices)
        except Damaged:
            return notices
        except NotThere:
            return []

    async def shown(self) -> _Shown:
        """Return the present version of the zip, its directory read.

        Raises:
            NotThere: the scene has no zip (yet).
            Damaged: it is not a zip, or contradicts itself.
        """
        file = await self.scene.attachment(DELIVERY_ZIP)
        version, archive = file.version, self._archive(file)
        # Half a million members have the same two texts: interned, they are held once.
        path_names = (intern(f"/{version.etag}"), intern(f"/{version.size_bytes}"))
        return _Shown(_Zip(file, archive, path_names), await archive.members())

    async def archive(self) -> tuple[Archive, int]:
        """Return the archive that the zip is now, and the zip's size; nothing of it is read.

        Raises:
            NotThere: there is no zip (yet).
        """
        file = await self.scene.attachment(DELIVERY_ZIP)
        return self._archive(file), file.version.size_bytes

    def _archive(self, file: AttachmentFile) -> Archive:
        return self._archives.of_scene(self._contents, self.scene.scene_id, file.version)

    async def _notices(self) -> list[Entry]:
        """Return the file that lists what is not shown, if anything is not."""
        try:
            shown = await self.shown()
        except Damaged as failure:
            text, taken = unreadable.of_damage(str(failure)), None
        except NotThere:
            return []
        else:
            unreadable_text = unreadable.of_members(shown.members)
            if unreadable_text is None:
                return []
            text, taken = unreadable_text, shown.members
        name, number = _NOTICE.format("").encode(), 0
        while taken is not None and taken.find(ROOT, name) is not None:
            number += 1
            name = _NOTICE.format(f"-{number}").encode()

        return [Entry(name, BytesFile(self, name, text))]


class MemberDirectory(_InnerDirectory):
    """A directory below `contents/`, whether the zip has an entry for it or not.

    Its time is that of the zip, else that of the scene.
    """

    __slots__ = ("_mtime_ns",)

    def __init__(
        self, parent: _InnerDirectory, name: bytes, top: ContentsDirectory, mtime_ns: int
    ) -> None:
        super().__init__(parent, name, top, (*parent.inner, name))
        self._mtime_ns = mtime_ns


class MemberFile(File):
    """A member of one version of a zip.

    The kernel remembers single members of many zips, and all of zips with very many. So a node
    neither keeps the zip's directory, nor more of its own entry than `stat` needs without waiting.
    """

    __slots__ = ("_facts", "_row", "_zip")

    def __init__(self, parent: Directory, name: bytes, shown: _Shown, row: Row) -> None:
        super().__init__(parent, name)
        member = shown.members.member(row)
        mtime_ns = shown.zip.file.attributes().mtime_ns
        self._zip = shown.zip
        self._row = row
        self._facts = _FACTS.pack(
            member.size_bytes,
            mtime_ns if member.mtime_ns is None else member.mtime_ns,
            member.compressed_bytes,
            member.crc32,
            member.method,
            member.is_executable,
        )

    @property
    def identity(self) -> tuple[str, ...]:
        """The identity of the node: its path and the version of the zip."""
        return (*self.path, *self._zip.path_names)

    def attributes(self) -> Attributes:
        """Return the attributes: size and time by the archive, else the scene's time."""
        size_bytes, mtime_ns, _, _, _, is_executable = _FACTS.unpack(self._facts)
        permissions = 0o755 if is_executable else 0o644
        ctime_ns = self._zip.file.attributes().ctime_ns
        return Attributes(Kind.FILE, permissions, size_bytes, mtime_ns, ctime_ns)

    def xattrs(self) -> Mapping[str, bytes]:
        """Return the zip's attributes, and how the member is packed."""
        _, _, compressed_bytes, crc, method, _ = _FACTS.unpack(self._facts)
        own = xattr_values(
            crc32=f"{crc:08x}",
            compression=METHOD_NAMES.get(method, str(method)),
            compressed_bytes=str(compressed_bytes),
        )
        return {**self._zip.file.xattrs(), **own}

    async def is_held(self) -> bool:
        """Return whether the whole zip is in the cache."""
        return await self._zip.file.is_held()

    async def open(self) -> Reader:
        """Return a reader of the member in this version of the zip.

        Raises:
            Changed: the vendor has replaced the zip.
            Encrypted: the member takes a password.
            Unsupported: it is compressed in a way that satfs cannot, or may not, undo.
            Damaged: the archive is.
        """
        return await self._zip.archive.open(self._row)
