"""Files that are listed by name, and rendered when a program looks at them.

Rendering can cost requests (a STAC item reads the zip) or time (the footprints of 100,000 scenes),
and most programs that list a directory want its names alone. So a file of this kind is listed as a
`ListedFile`, which the kernel may not remember: `stat` and `open` look the name up, and get the
`MadeFile` with its true size. `ls`, `find -name` and `ls -R` do not look it up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Sized
from operator import is_
from typing import Final

import trio
from cachetools import LRUCache
from msgspec import Struct

from satfs.errors import Changed, SatfsError
from satfs.model import Reader
from satfs.tree.large_content import LargeContent
from satfs.tree.nodes import Attributes, Directory, Entry, File, Kind, MadeFile

#: Rendered files kept in memory, all together, and the largest of them: the footprints of 100,000
#: scenes, compressed.
_MAX_RENDERED_BYTES: Final = 16 * 1024 * 1024
_MAX_FILE_BYTES: Final = 12 * 1024 * 1024
#: From this many records on, rendering takes longer than other tasks should wait: some 10 ms.
_MANY: Final = 500


class ListedFile(File):
    """The name of a file that is not rendered yet: no size, and nothing to be remembered."""

    __slots__ = ("_mtime_ns",)
    is_name_cacheable = False
    is_live = True

    def __init__(self, parent: Directory, name: bytes) -> None:
        super().__init__(parent, name)
        self._mtime_ns = parent.attributes().mtime_ns

    @property
    def identity(self) -> tuple[str, ...]:
        """The identity of the node: not the file that the name leads to."""
        return (*self.path, "/listed")

    def attributes(self) -> Attributes:
        """Return what a listing shows; the size is not known, and 0."""
        return Attributes(Kind.FILE, 0o644, 0, self._mtime_ns, self._mtime_ns)

    async def open(self) -> Reader:
        """Raise Changed: the name has to be looked up first."""
        raise Changed(f"/{'/'.join(self.path)} is not rendered yet")


class RenderedFiles:
    """The bytes of files that were rendered lately, those used least recently forgotten first.

    Kept with each are the sources it was rendered from, which are about as large, and recognised by
    being the same objects, as records of a fresh listing are (`api.listings.Listings`).
    """

    def __init__(self) -> None:
        self._files: LRUCache[tuple[str, ...], tuple[Sequence[object], bytes | LargeContent]] = (
            LRUCache(_MAX_RENDERED_BYTES, getsizeof=lambda file: _held_bytes(file[1]))
        )

    def get(self, path: tuple[str, ...], sources: Sequence[object]) -> bytes | LargeContent | None:
        """Return the bytes of the file at *path* if rendered from these very *sources*, or None."""
        before, content = self._files.get(path, ((), None))
        is_same = len(before) == len(sources) and all(map(is_, before, sources))
        return content if is_same else None

    def put(
        self, path: tuple[str, ...], sources: Sequence[object], content: bytes | LargeContent
    ) -> None:
        """Remember *content*, rendered from *sources*; one that is too large is forgotten."""
        self._files.pop(path, None)
        if _held_bytes(content) <= _MAX_FILE_BYTES:
            self._files[path] = (sources, content)


class Rendering(Struct, frozen=True):
    """How a file is rendered.

    `make` returns its bytes, and may wait and raise as a look-up may. `known` returns them if they
    were rendered before from what there is now, else None; it needs no more than listing the
    directory does. A file is listed with its size when that is known. Of a file that is made of a
    record in no time, `known` is `make`.
    """

    make: Callable[[], Awaitable[bytes | LargeContent]]
    known: Callable[[], Awaitable[bytes | LargeContent | None]]

    async def node(self, parent: Directory, name: bytes) -> MadeFile:
        """Return the file, rendered."""
        return MadeFile(parent, name, await self.make(), self.make)

    async def entry(self, parent: Directory, name: bytes) -> Entry:
        """Return the entry of a listing, rendered only if that costs nothing."""
        content = await self.known()
        if content is None:
            return Entry(name, ListedFile(parent, name))
        return Entry(name, MadeFile(parent, name, content, self.make))


async def listed(directory: Directory, renderings: Mapping[bytes, Rendering]) -> list[Entry]:
    """Return the entries of *directory*'s rendered files, by name; a failure is an entry's."""
    entries = []
    for name, rendering in renderings.items():
        try:
            entries.append(await rendering.entry(directory, name))
        except SatfsError as error:
            entries.append(Entry(name, error))
    return entries


def rendered_from(
    directory: Directory,
    name: bytes,
    render: Callable[..., bytes | Iterator[bytes]],
    load: Callable[[], Awaitable[Sequence[object]]],
    files: RenderedFiles,
) -> Rendering:
    """Return the file *name* of *directory*, which *render* makes of the sources that *load* gives.

    Of many records it is made in a thread, so that others run; once for the same sources, as long
    as *files* remembers it.
    """
    path = (*directory.path, name.decode())

    async def make() -> bytes | LargeContent:
        sources = await load()
        content = files.get(path, sources)
        if content is None:
            if any(isinstance(source, Sized) and len(source) >= _MANY for source in sources):
                content = await trio.to_thread.run_sync(lambda: _large(render(*sources)))
            else:
                content = _whole(render(*sources))
            files.put(path, sources, content)
        return content

    async def known() -> bytes | LargeContent | None:
        return files.get(path, await load())

    return Rendering(make, known)


def _held_bytes(content: bytes | LargeContent) -> int:
    return content.held_bytes if isinstance(content, LargeContent) else len(content)


def _whole(content: bytes | Iterator[bytes]) -> bytes:
    return content if isinstance(content, bytes) else b"".join(content)


def _large(content: bytes | Iterator[bytes]) -> LargeContent:
    return LargeContent((content,) if isinstance(content, bytes) else content)
