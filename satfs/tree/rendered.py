"""Files that are listed by name, and rendered when a program looks at them.

Rendering can cost requests (a STAC item reads the zip) or time (the footprints of 100,000 scenes),
and most programs that list a directory want its names alone. So such a file is listed as a
`ListedFile`, which the kernel may not remember: `stat` and `open` look the name up, and get the
`MadeFile` with its true size. `ls`, `find -name` and `ls -R` do not look it up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import trio
from cachetools import LRUCache

from satfs.errors import Changed
from satfs.model import Reader
from satfs.tree.large_content import LargeContent
from satfs.tree.nodes import Attributes, Directory, Entry, File, Kind, MadeFile
from satfs.tree.sources import Records
from satfs.tree.times import FALLBACK_NS

#: Rendered files kept in memory, all together, and the largest of them: the footprints of 100,000
#: scenes, compressed.
_MAX_RENDERED_BYTES: Final = 16 * 1024 * 1024
_MAX_FILE_BYTES: Final = 12 * 1024 * 1024
#: From so many records on, rendering takes longer than others should wait: some 10 ms.
_MANY: Final = 500

R = TypeVar("R")


class ListedFile(File):
    """The name of a file that is not rendered yet: no size, and nothing to be remembered."""

    __slots__ = ("_mtime_ns",)
    is_lasting = False
    is_live = True

    def __init__(self, parent: Directory, name: bytes, *, mtime_ns: int = FALLBACK_NS) -> None:
        super().__init__(parent, name)
        self._mtime_ns = mtime_ns

    @property
    def identity(self) -> tuple[str, ...]:
        """What the node is: not the file that the name leads to."""
        return (*self.path, "/listed")

    def attributes(self) -> Attributes:
        """Return what a listing shows; the size is not known, and 0."""
        return Attributes(Kind.FILE, 0o644, 0, self._mtime_ns, self._mtime_ns)

    async def open(self) -> Reader:
        """Raise Changed: the name has to be looked up first."""
        raise Changed(f"/{'/'.join(self.path)} is not rendered yet")


class RenderedFiles:
    """The bytes of files that were rendered lately, those used least recently forgotten first.

    Kept with each is what it was rendered from, which is about as large, and told by being the same
    object: a listing that is still believed is.
    """

    def __init__(self) -> None:
        self._files: LRUCache[tuple[str, ...], tuple[object, bytes | LargeContent]] = LRUCache(
            _MAX_RENDERED_BYTES, getsizeof=lambda file: _held_bytes(file[1])
        )

    def get(self, path: tuple[str, ...], source: object) -> bytes | LargeContent | None:
        """Return the bytes of the file at *path* if they were rendered from *source*, else None."""
        found = self._files.get(path)
        return found[1] if found and found[0] is source else None

    def put(self, path: tuple[str, ...], source: object, content: bytes | LargeContent) -> None:
        """Remember *content*, rendered from *source*; one that is too large is forgotten."""
        self._files.pop(path, None)
        if _held_bytes(content) <= _MAX_FILE_BYTES:
            self._files[path] = (source, content)


@dataclass(frozen=True, slots=True)
class Rendering:
    """How a file is rendered.

    `make` returns its bytes, and may wait and raise as a look-up may. `known` returns them if they
    were rendered before from what there is now, else None; it needs no more than listing the
    directory does. A file is listed with its size when that is known.
    """

    make: Callable[[], Awaitable[bytes | LargeContent]]
    known: Callable[[], Awaitable[bytes | LargeContent | None]]

    async def node(self, parent: Directory, name: bytes, *, mtime_ns: int) -> MadeFile:
        """Return the file, rendered."""
        return MadeFile(parent, name, await self.make(), self.make, mtime_ns=mtime_ns)

    async def entry(self, parent: Directory, name: bytes, *, mtime_ns: int) -> Entry:
        """Return the entry of a listing, rendered only if that costs nothing."""
        content = await self.known()
        if content is None:
            return Entry(name, ListedFile(parent, name, mtime_ns=mtime_ns))
        return Entry(name, MadeFile(parent, name, content, self.make, mtime_ns=mtime_ns))


def rendered_from(
    directory: Directory,
    name: bytes,
    render: Callable[[Records[R]], bytes | Iterator[bytes]],
    listing: Callable[[], Awaitable[Records[R]]],
    files: RenderedFiles,
) -> Rendering:
    """Return the file *name* of *directory*, which *render* makes of the records of *listing*.

    Of many records it is made in a thread, so that others run; once for each listing, as long as
    *files* remembers it.
    """
    path = (*directory.path, name.decode())

    async def make() -> bytes | LargeContent:
        records = await listing()
        content = files.get(path, records)
        if content is None:
            if len(records) < _MANY:
                content = _whole(render(records))
            else:
                content = await trio.to_thread.run_sync(lambda: _large(render(records)))
            files.put(path, records, content)
        return content

    async def known() -> bytes | LargeContent | None:
        return files.get(path, await listing())

    return Rendering(make, known)


def cheap(make: Callable[[], Awaitable[bytes | LargeContent]]) -> Rendering:
    """Return how a file is rendered that *make* makes of a record in no time."""
    return Rendering(make, make)


def _held_bytes(content: bytes | LargeContent) -> int:
    return content.held_bytes if isinstance(content, LargeContent) else len(content)


def _whole(content: bytes | Iterator[bytes]) -> bytes:
    return content if isinstance(content, bytes) else b"".join(content)


def _large(content: bytes | Iterator[bytes]) -> LargeContent:
    return LargeContent((content,) if isinstance(content, bytes) else content)
