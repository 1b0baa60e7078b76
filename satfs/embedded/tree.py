"""Paths of the tree for a program: entries, their bytes, and which ranges are read together.

Everything here runs in the trio loop of `embedded.loop_thread`. It does for a program what the
kernel does for a mount: it walks a path name by name, remembers for a while where a path leads,
looks a path up again when its file has been replaced, and reads in pieces.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import trio
from cachetools import LRUCache

from satfs.errors import Changed, DeadlineReached, NotThere, SatfsError
from satfs.fuse.inodes import ROOT, keyed_numbering
from satfs.model import ByteRange, LimitsReadAhead, Reader, names_in
from satfs.read_trace import BYTES, TraceTotals
from satfs.settings import Settings
from satfs.tree.nodes import Directory, File, Kind, Node, Symlink, Unresolved
from satfs.tree.rendered import ListedFile

T = TypeVar("T")

#: Longest piece that is read at once: the longest read of the kernel (FUSE's max_pages),
#: and what read-ahead was tuned with.
PIECE_BYTES: Final = 1024 * 1024
#: Ranges with a gap up to this are read together: on a line of 10 MB/s and 20 ms the bytes of the
#: gap take a third of the round trip that another request costs.
MAX_GAP_BYTES: Final = 64 * 1024
#: Ranges that touch are read together up to this, the size of a request of the kernel; longer ones
#: would share one connection where several are faster.
MAX_MERGED_BYTES: Final = 1024 * 1024
#: Paths of which is remembered where they lead; each takes about a kilobyte.
MAX_KNOWN_PATHS: Final = 20_000
#: Entries of a directory described without letting other tasks run: about a millisecond.
_BATCH: Final = 500
#: Reads begun without letting other tasks run: the first ranges are requested while the others are
#: begun, and not after all of them.
_READS_PER_TURN: Final = 8
#: Symbolic links followed in one path; the kernel follows 40 (path_resolution(7)).
_MAX_LINKS: Final = 40


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """The description of one name.

    *path* begins without a slash; the root's is empty. *size_bytes* is None where it could not be
    learnt, where *reason* states why, and in a listing for a file that is rendered when it is
    looked up. *number* is the inode number that a mount shows: another version of the content has
    another one.
    """

    path: str
    kind: Kind
    size_bytes: int | None
    mtime_ns: int
    permissions: int
    number: int
    etag: str | None = None
    target: str | None = None
    reason: str | None = None


@dataclass(eq=False, slots=True)
class OpenedFile:
    """A file that is open: what it is, and its reader."""

    info: NodeInfo
    reader: Reader


class PathTree:
    """The tree below *root*, by paths as text: names with slashes between them.

    *sums* are of what its files have read.
    """

    def __init__(self, root: Directory, settings: Settings, sums: TraceTotals) -> None:
        self._root = root
        self._sums = sums
        self._metadata_deadline_s = settings.metadata_deadline_s
        self._read_deadline_s = settings.read_deadline_s
        self._entry_timeout_s = settings.entry_timeout_s
        self._number = keyed_numbering(settings.api_url.encode())
        self._known: LRUCache[str, tuple[Node, float]] = LRUCache(MAX_KNOWN_PATHS)

    # -- names -----------------------------------------------------------------------------------

    async def info(self, path: str) -> NodeInfo:
        """Return the node at *path*, symbolic links followed.

        Raises:
            NotThere: nothing has that name.
            DeadlineReached: no response within `metadata_deadline_s`.
            SatfsError: the node is not available now.
        """
        return self._info(await self._in_time(self._node(path), path), path)

    async def children(self, path: str) -> list[NodeInfo]:
        """Return what the directory *path* lists; of a file, the file itself.

        Raises as `info`.
        """
        node = await self._in_time(self._node(path), path)
        if not isinstance(node, Directory):
            return [self._info(node, path)]
        entries = await self._in_time(node.children(), path)
        found: list[NodeInfo] = []
        for number, entry in enumerate(entries, start=1):
            name = entry.name.decode("utf-8", "backslashreplace")
            child_path = f"{path}/{name}" if path else name
            child = entry.target
            if isinstance(child, SatfsError):
                child = Unresolved(node, entry.name, child)
            else:
                self._remember(child_path, child)
            found.append(self._info(child, child_path))
            if number % _BATCH == 0:
                await trio.lowlevel.checkpoint()
        return found

    def statistics(self) -> dict[str, int]:
        """Return bytes fetched from the store, bytes served from the cache, requests for bytes."""
        sums = self._sums
        return {
            "fetched_bytes": sums.received_bytes,
            "served_bytes": sums.served_bytes,
            "requests": sums.requests[BYTES],
        }

    def forget(self) -> None:
        """Look every path up again from now on."""
        self._known.clear()

    async def _node(self, path: str, n_links: int = 0) -> Node:
        """Return the node that *path* leads to; a symbolic link at its end is followed."""
        known, names = path, []
        while known and not self._is_remembered(known):
            known, _, name = known.rpartition("/")
            names.append(name)
        node: Node = self._known[known][0] if known else self._root
        while names:
            parent, name = node, names.pop()
            known = f"{known}/{name}" if known else name
            if not isinstance(parent, Directory):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            node = await parent.lookup(name.encode("utf-8", "surrogateescape"))
            if isinstance(node, Symlink):
                if n_links >= _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = node.target.decode("utf-8", "surrogateescape")
                node = await self._node("/".join(names_in(target, parent.path)), n_links + 1)
            else:
                self._remember(known, node)
        return node

    def _remember(self, path: str, node: Node) -> None:
        if node.is_name_cacheable and not isinstance(node, Symlink):  # which is to be followed
            self._known[path] = (node, trio.current_time() + self._entry_timeout_s)

    def _is_remembered(self, path: str) -> bool:
        known = self._known.get(path)
        return known is not None and trio.current_time() < known[1]

    def _info(self, node: Node, path: str) -> NodeInfo:
        attributes = node.attributes()
        etag = node.xattrs().get("user.satfs.etag")
        is_root = node is self._root
        reason = str(node.error) if isinstance(node, Unresolved) else None
        return NodeInfo(
            path,
            attributes.kind,
            None if isinstance(node, Unresolved | ListedFile) else attributes.size_bytes,
            attributes.mtime_ns,
            attributes.permissions,
            ROOT if is_root else self._number(node.identity, 0),
            etag.decode("utf-8", "replace") if etag is not None else None,
            node.target.decode("utf-8", "replace") if isinstance(node, Symlink) else None,
            reason,
        )

    # -- bytes -----------------------------------------------------------------------------------

    async def open(self, path: str, number: int | None = None) -> OpenedFile:
        """Return *path* opened for reading; the caller closes its reader.

        With *number* only that version of it.

        Raises:
            OSError: it is a directory.
            Changed: it is another version than *number* by now.
            As `info`.
        """
        opened = await self._in_time(self._open(path), path)
        if number is not None and opened.info.number != number:
            opened.reader.close()
            raise Changed(f"/{path} was replaced")
        return opened

    async def _open(self, path: str) -> OpenedFile:
        for is_last in (False, True):
            node = await self._node(path)
            if isinstance(node, Unresolved):
                raise node.error
            if not isinstance(node, File):
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            try:
                return OpenedFile(self._info(node, path), await node.open())
            except Changed:
                # The kernel walks the path again after ESTALE from open(2); so do we.
                self.forget()
                if is_last:
                    raise
        raise NotThere(path)

    async def read_into(self, opened: OpenedFile, start: int, buffer: memoryview) -> int:
        """Fill *buffer* with bytes from *start* on; return how many: fewer only at the end.

        Each piece has the time `read_deadline_s`, as each read of a mount has.

        Raises:
            Changed: the file was replaced, and the cache lacks bytes of the opened version.
            SatfsError: the bytes cannot be read now.
        """
        reader = opened.reader
        span = ByteRange(start, start + len(buffer)).clip(reader.size_bytes)
        position = span.start
        while position < span.stop:
            # To the next multiple: pieces then begin where blocks of the cache do.
            stop = min(span.stop, (position // PIECE_BYTES + 1) * PIECE_BYTES)
            data = await self._read_piece(opened, ByteRange(position, stop))
            buffer[position - span.start : stop - span.start] = data
            position = stop
        return len(span)

    async def _read_piece(self, opened: OpenedFile, span: ByteRange) -> bytes | memoryview:
        """Return the bytes of *span*; a view is good until the next checkpoint."""
        with trio.move_on_after(self._read_deadline_s):
            return await opened.reader.read(span)
        raise self._late(opened.info.path, self._read_deadline_s)

    async def read(self, opened: OpenedFile, span: ByteRange) -> bytes:
        """Return the bytes of *span* that exist; raises as `read_into`."""
        span = span.clip(opened.reader.size_bytes)
        if span.start // PIECE_BYTES == (span.stop - 1) // PIECE_BYTES:
            return bytes(await self._read_piece(opened, span))
        buffer = bytearray(len(span))
        await self.read_into(opened, span.start, memoryview(buffer))
        return bytes(buffer)

    async def read_ranges(
        self, path: str, bounds: Sequence[tuple[int | None, int | None]]
    ) -> list[bytes | Exception]:
        """Return the bytes of several ranges of *path*, all requested at once, in their order.

        Bounds are as in a slice of the file: negative ones count from its end, None is an end of
        it. A range that cannot be read has its failure in its place. Nothing is read ahead: the
        caller has named what it needs. All ranges are of one version: if the file is replaced
        during the call, all are read again.

        Raises as `open`.
        """
        results = await self._read_once(path, bounds)
        if any(isinstance(each, Changed) for each in results):
            self.forget()
            results = await self._read_once(path, bounds)
        return results

    async def _read_once(
        self, path: str, bounds: Sequence[tuple[int | None, int | None]]
    ) -> list[bytes | Exception]:
        opened = await self.open(path)
        reader = opened.reader
        results: list[bytes | Exception] = [b""] * len(bounds)

        async def read(place: ByteRange, indices: list[int]) -> None:
            try:
                # A long range is read ahead piece by piece, which needs a handle of its own; so
                # does what is unpacked from its beginning on.
                if isinstance(reader, LimitsReadAhead) and len(place) <= PIECE_BYTES:
                    data = await self.read(opened, place)
                else:
                    data = await self._read_apart(path, opened.info.number, place)
            except (SatfsError, OSError) as failure:
                for index in indices:
                    results[index] = failure
                return
            for index in indices:
                span = spans[index]
                results[index] = data[span.start - place.start : span.stop - place.start]

        try:
            spans = [span_of(each, reader.size_bytes) for each in bounds]
            if isinstance(reader, LimitsReadAhead):
                reader.limit_read_ahead(ByteRange(0, 0))
            async with trio.open_nursery() as nursery:
                for number, (place, indices) in enumerate(merged(spans), start=1):
                    if place:
                        nursery.start_soon(read, place, indices)
                    if number % _READS_PER_TURN == 0:
                        await trio.lowlevel.checkpoint()
        finally:
            reader.close()
        return results

    async def _read_apart(self, path: str, number: int, span: ByteRange) -> bytes:
        """Return the bytes of *span*, reading nothing ahead beyond it."""
        opened = await self.open(path, number)
        try:
            if isinstance(opened.reader, LimitsReadAhead):
                opened.reader.limit_read_ahead(span)
            return await self.read(opened, span)
        finally:
            opened.reader.close()

    async def _in_time(self, awaited: Awaitable[T], path: str) -> T:
        with trio.move_on_after(self._metadata_deadline_s):
            return await awaited
        raise self._late(path, self._metadata_deadline_s)

    @staticmethod
    def _late(path: str, deadline_s: float) -> DeadlineReached:
        return DeadlineReached(f"/{path}: no response within {deadline_s:g} s")


def span_of(bounds: tuple[int | None, int | None], size_bytes: int) -> ByteRange:
    """Return what a slice with *bounds* of a file of *size_bytes* covers."""
    start, stop, _ = slice(*bounds).indices(size_bytes)
    return ByteRange(start, max(start, stop))


def merged(
    spans: Sequence[ByteRange],
    *,
    max_gap_bytes: int = MAX_GAP_BYTES,
    max_bytes: int = MAX_MERGED_BYTES,
) -> list[tuple[ByteRange, list[int]]]:
    """Return the reads that cover *spans*, each with the indices of the spans that it covers.

    Exactly one read covers each span. A read is longer than *max_bytes* only where one span is.
    """
    reads: list[tuple[ByteRange, list[int]]] = []
    for index in sorted(range(len(spans)), key=lambda each: (spans[each].start, spans[each].stop)):
        span = spans[index]
        if reads:
            last, members = reads[-1]
            stop = max(last.stop, span.stop)
            if span.start - last.stop <= max_gap_bytes and stop - last.start <= max_bytes:
                reads[-1] = (ByteRange(last.start, stop), [*members, index])
                continue
        reads.append((span, [index]))
    return reads
