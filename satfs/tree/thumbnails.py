"""Thumbnails for file managers, from the picture delivered with a scene.

A file manager that shows a folder of rasters would read every one of them to draw it small. The
Thumbnail Managing Standard (freedesktop.org) has a place for thumbnails that are there already:
`.sh_thumbnails/<size>/<MD5 of the name>.png` beside the files, a PNG whose text chunks name the
file and its time. So the vendor's own picture of the scene is shown there, with those chunks put
in, for each attachment of a scene and each raster in its zip. It is as large as it was sent:
programs scale it.

The scene lists none of these, and no request is sent before one is opened.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from hashlib import md5
from typing import Final
from urllib.parse import quote

from satfs.errors import NotThere, Unsupported
from satfs.model import Attachment, AttachmentName, ByteRange, MadeReader, Reader
from satfs.tree.nodes import Attributes, Directory, Entry, File, Kind, Node, not_there
from satfs.tree.scenes import AttachmentFile, SceneDirectory

REPOSITORY: Final = b".sh_thumbnails"
#: Sizes of the standard (128 to 1024 pixels): the same picture in each.
SIZES: Final = (b"normal", b"large", b"x-large", b"xx-large")
#: Attachments that are a picture of the scene, the smallest first, as the vendor calls them.
_PICTURES: Final = (AttachmentName("thumbnail"), AttachmentName("preview"))

#: The files that are to have a thumbnail: name and time of change in nanoseconds.
Files = Callable[[], Awaitable[Mapping[bytes, int]]]

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
#: Signature and header chunk of every PNG, bytes (PNG specification §5.2, §11.2.2). Text chunks may
#: stand right behind it.
_HEAD_BYTES: Final = 8 + 12 + 13
#: Characters that GLib does not escape in the path of a URI (g_filename_to_uri).
_URI_SAFE: Final = "!$&'()*+,;=:@-._~"


class Thumbnails:
    """An `Extra` of each scene that has a picture: its thumbnail repository."""

    name: Final = REPOSITORY
    is_listed: Final = False

    def directory(
        self, scene: SceneDirectory, attachments: Sequence[Attachment]
    ) -> Directory | None:
        """Return the repository of *scene*; None when it has no picture."""

        async def files() -> Mapping[bytes, int]:
            return dict.fromkeys(scene.attachment_names().values(), scene.mtime_ns)

        return None if picture_of(attachments) is None else Repository(scene, scene, files)


def picture_of(attachments: Iterable[Attachment]) -> Attachment | None:
    """Return the attachment that shows what the scene looks like, as a PNG; None without one."""
    named = {each.name: each for each in attachments if each.file_name.lower().endswith(".png")}
    return next((named[name] for name in _PICTURES if name in named), None)


def thumbnail_names(file_name: bytes) -> tuple[bytes, bytes]:
    """Return the names a thumbnail of *file_name* is looked for under, the standard's own first.

    It is the MD5 of the URI-escaped name; Xfce before 4.20 puts `./` before it (libxfce4util,
    xfce_create_shared_thumbnail_path).
    """
    escaped = quote(file_name, safe=_URI_SAFE)
    plain, dotted = (
        md5(text.encode(), usedforsecurity=False).hexdigest() for text in (escaped, f"./{escaped}")
    )
    return f"{plain}.png".encode(), f"{dotted}.png".encode()


def text_chunks(**texts: str) -> bytes:
    """Return PNG text chunks (tEXt, §11.3.4.3), one for each of *texts*; `__` in a key is `::`."""
    chunks = bytearray()
    for key, text in texts.items():
        body = b"tEXt" + key.replace("__", "::").encode() + b"\0" + text.encode("latin-1")
        chunks += (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return bytes(chunks)


class Repository(Directory):
    """`.sh_thumbnails` of a directory in a scene: a directory for each size.

    *files* are the names there that are to have a thumbnail, and their modification times in
    nanoseconds.
    """

    __slots__ = ("files", "scene")

    def __init__(self, parent: Directory, scene: SceneDirectory, files: Files) -> None:
        super().__init__(parent, REPOSITORY)
        self.scene = scene
        self.files = files

    async def lookup(self, name: bytes) -> Node:
        """Return the directory of one size; waits for nothing."""
        if name not in SIZES:
            raise not_there(self, name)
        return _OneSize(self, name)

    async def children(self) -> Sequence[Entry]:
        """Return the directories of all sizes; waits for nothing."""
        return [Entry(size, _OneSize(self, size)) for size in SIZES]


class _OneSize(Directory):
    """The thumbnails of one directory's files."""

    __slots__ = ("_files", "_scene")

    def __init__(self, parent: Repository, name: bytes) -> None:
        super().__init__(parent, name)
        self._scene = parent.scene
        self._files = parent.files

    async def lookup(self, name: bytes) -> Node:
        """Return one thumbnail; learns the picture's version, which a listing knows already."""
        for file, mtime_ns in (await self._files()).items():
            if name in thumbnail_names(file):
                return Thumbnail(self, name, await self._picture(), file, mtime_ns)
        raise not_there(self, name)

    async def children(self) -> Sequence[Entry]:
        """Return all thumbnails, each under both of its names."""
        try:
            picture = await self._picture()
        except NotThere:
            return []
        return [
            Entry(name, Thumbnail(self, name, picture, file, mtime_ns))
            for file, mtime_ns in (await self._files()).items()
            for name in thumbnail_names(file)
        ]

    async def _picture(self) -> AttachmentFile:
        picture = picture_of(self._scene.attachments)
        if picture is None:
            raise NotThere(f"scene {self._scene.scene_id} has no picture")
        return await self._scene.attachment(picture.name)


class Thumbnail(File):
    """A picture with text chunks that name the file of which it is a thumbnail."""

    __slots__ = ("_picture", "_pictured_ns", "_texts")

    def __init__(
        self,
        parent: Directory,
        name: bytes,
        picture: AttachmentFile,
        pictured: bytes,
        mtime_ns: int,
    ) -> None:
        super().__init__(parent, name)
        self._picture = picture
        self._pictured_ns = mtime_ns
        self._texts = text_chunks(
            Thumb__URI=quote(pictured, safe=_URI_SAFE),
            Thumb__MTime=str(mtime_ns // 10**9),
            Software="satfs",
        )

    @property
    def identity(self) -> tuple[str, ...]:
        """The identity of the node: its path, the version of the picture, and the time in it."""
        version = self._picture.version
        parts = (version.etag, version.size_bytes, self._pictured_ns)
        return (*self.path, *(f"/{part}" for part in parts))

    def attributes(self) -> Attributes:
        """Return the attributes: the picture's time, and its size with the chunks."""
        own = self._picture.attributes()
        size_bytes = own.size_bytes + len(self._texts)
        return Attributes(Kind.FILE, 0o644, size_bytes, own.mtime_ns, own.ctime_ns)

    async def is_held(self) -> bool:
        """Return whether the picture is in the cache."""
        return await self._picture.is_held()

    async def open(self) -> Reader:
        """Return a reader of the picture with its chunks.

        Raises:
            Changed: the vendor has replaced the picture.
            Unsupported: it is not a PNG.
        """
        reader = await self._picture.open()
        try:
            head = bytes(await reader.read(ByteRange(0, _HEAD_BYTES)))
            if not head.startswith(_SIGNATURE) or len(head) < _HEAD_BYTES:
                raise Unsupported("the scene's picture is no PNG")
        except BaseException:
            reader.close()
            raise
        return _Tagged(reader, self._texts)


class _Tagged(MadeReader):
    """Reads a PNG with text chunks behind its header. A picture is small, so that all is near."""

    def __init__(self, reader: Reader, texts: bytes) -> None:
        self.size_bytes = reader.size_bytes + len(texts)
        self._reader = reader
        self._texts = texts

    async def read(self, span: ByteRange) -> bytes:
        """Return the bytes of *span*; see `Reader.read`."""
        span = span.clip(self.size_bytes)
        behind = _HEAD_BYTES + len(self._texts)
        head = ByteRange(min(span.start, _HEAD_BYTES), min(span.stop, _HEAD_BYTES))
        texts = self._texts[max(0, span.start - _HEAD_BYTES) : max(0, span.stop - _HEAD_BYTES)]
        rest = ByteRange(max(span.start, behind), max(span.stop, behind))
        parts = []
        # A reader's memoryview is good until the next wait: copied at once.
        parts.append(bytes(await self._reader.read(head)) if head else b"")
        parts.append(texts)
        if rest:
            moved = ByteRange(rest.start - len(self._texts), rest.stop - len(self._texts))
            parts.append(bytes(await self._reader.read(moved)))
        return b"".join(parts)

    def close(self) -> None:
        """Close the picture."""
        self._reader.close()
