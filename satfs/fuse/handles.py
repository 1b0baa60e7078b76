"""Open files with their readers, and open directories with their entries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Final

import trio
from cachetools import LRUCache
from msgspec import Struct, field

from satfs.errors import DeadlineReached, Misuse, SatfsError, Unneeded
from satfs.fuse.callers import is_gone
from satfs.fuse.dir_cookies import Listing
from satfs.fuse.readahead_detection import KernelReadAhead, ReadKind
from satfs.model import ByteRange, Reader
from satfs.tree.nodes import Directory, Entry, File, LazyEntries, Node, Unresolved

#: A directory from this number of entries on is sorted in a thread: it takes some 10 ms, in which
#: other calls are to be served.
_LARGE_ENTRIES: Final = 5000
#: Large directories whose order is remembered: a program that lists one will likely list it again.
_MAX_RECENT: Final = 4
#: A page of the kernel, in bytes: the unit in which it keeps a file.
_PAGE_BYTES: Final = 4096
#: A read that failed after a wait longer than this, in seconds, is not repeated when the kernel
#: sends it again; one that failed sooner may well succeed then.
_LONG_WAIT_S: Final = 1.0
#: How soon after a failure the kernel sends it again, in seconds: at once, on an idle machine.
_REPEAT_S: Final = 0.5


class OpenDirectory:
    """An open directory. A read from the beginning loads its entries; a later read uses the same.

    *large* remembers the order of large directories.
    """

    def __init__(self, node: Directory, large: LargeListings) -> None:
        self.node = node
        self._large = large
        self._children: Sequence[Entry] = ()
        self._listing: Listing | None = None

    async def read(self, cookie: int) -> Iterator[tuple[int, bytes, Node]]:
        """Return (cookie, name, node) of each entry behind *cookie*; 0 is the beginning.

        An entry whose record cannot be read is an `Unresolved` node.
        """
        listing = self._listing
        # Also when a program rewinds.
        if cookie == 0 or listing is None:
            children = await self.node.children()
            listing = await self._large.listing(self.node, children)
            self._children, self._listing = children, listing
        return self._entries_after(listing, self._children, cookie)

    def _entries_after(
        self, listing: Listing, children: Sequence[Entry], behind: int
    ) -> Iterator[tuple[int, bytes, Node]]:
        for cookie, index in listing.after(behind):
            entry = children[index]
            target = entry.target
            if isinstance(target, SatfsError):
                target = Unresolved(self.node, entry.name, target)
            yield cookie, entry.name, target


class LargeListings:
    """The order of directories; a large one is sorted in a thread, and its order remembered."""

    def __init__(self) -> None:
        self._recent: LRUCache[tuple[str, ...], tuple[Sequence[Entry], Listing]] = LRUCache(
            _MAX_RECENT
        )

    async def listing(self, node: Directory, children: Sequence[Entry]) -> Listing:
        """Return the order of *children*, which *node* holds now."""
        if len(children) < _LARGE_ENTRIES:
            return _listing_of(children)
        if isinstance(children, LazyEntries):  # made again each time
            return await trio.to_thread.run_sync(_listing_of, children)
        known, listing = self._recent.get(node.identity, (None, None))
        if known is not children or listing is None:
            listing = await trio.to_thread.run_sync(_listing_of, children)
            self._recent[node.identity] = (children, listing)
        return listing


def _listing_of(children: Sequence[Entry]) -> Listing:
    if isinstance(children, LazyEntries):
        return Listing(len(children), children.name)
    return Listing(len(children), lambda index: children[index].name)


class _HeldBack(Struct, eq=False):
    """A read that is delayed until it is known whether a program needs it."""

    is_decided: trio.Event = field(default_factory=trio.Event)
    is_unneeded: bool = False


class OpenFile:
    """An open file, opened with *flags* (open(2)) by the thread *opener_id*, 0 for an unseen one.

    A read that looks like the kernel's read-ahead is delayed for a moment, and refused when the
    program has sought on meanwhile, or has ended (`readahead_detection`). The opener may have
    handed the file to another program; so its end counts only while no other program reads.

    When its read-ahead was refused, the kernel requests the bytes that a program reads page by
    page: a hundred pages of a tile. So the reader may return a longer span than was requested
    (`Reader.expected_part`): *keep* is called with the offset and the bytes behind the request,
    whole pages, and stores them in the kernel.

    The kernel reads ahead of a program, and when that fails it requests the program's own page once
    more (mm/filemap.c). So a part that failed after a long wait fails again at once, for a moment:
    one read(2) would otherwise last two deadlines.
    """

    def __init__(
        self,
        node: File,
        reader: Reader,
        flags: int,
        opener_id: int,
        keep: Callable[[int, bytes], None] = lambda offset, content: None,
    ) -> None:
        self.node = node
        self._reader = reader
        # With O_DIRECT the kernel reads nothing ahead, and gives programs the errno of each read.
        self._detector = None if flags & os.O_DIRECT else KernelReadAhead()
        self._held_back: _HeldBack | None = None
        self._opener_id = opener_id
        self._keep = keep
        self._is_left = False  # a read was cancelled since its opener has ended
        self._given_up: tuple[ByteRange, float, Exception] | None = None

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return *size* bytes from *offset* on, fewer only at the end of the file.

        Raises:
            Misuse: the reader returned fewer, or more. The kernel would take that for the end of
                the file, or for garbage.
            Unneeded: it looked like the kernel's read-ahead, and the program went elsewhere before
                the bytes were fetched.
            SatfsError: the bytes cannot be fetched.
        """
        span = ByteRange(offset, offset + size).clip(self._reader.size_bytes)
        self._raise_again(span)
        part = span if self._detector is None else await self._needed(span, self._detector)
        started_s = trio.current_time()
        try:
            content = await self._reader.read(part)
        except BaseException as reason:  # cancellation, too: that is the deadline
            if trio.current_time() - started_s > _LONG_WAIT_S:
                late = DeadlineReached("no response in time, a moment ago")
                failure = copy(reason) if isinstance(reason, Exception) else late
                self._given_up = (span, trio.current_time(), failure)
            raise
        if len(content) != len(part):
            raise Misuse(f"{len(content)} bytes read for [{part.start}, {part.stop})")
        if part == span:
            return content
        content = bytes(content)
        n_behind = (len(part) - len(span)) // _PAGE_BYTES * _PAGE_BYTES
        if n_behind:
            self._keep(span.stop, content[len(span) : len(span) + n_behind])
        return content[: len(span)]

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    async def _needed(self, span: ByteRange, detector: KernelReadAhead) -> ByteRange:
        """Return the span to read for a request, which may be longer, when it is to be read.

        Raises:
            Unneeded: it is the kernel's, and no program is expected to need it.
        """
        is_near = len(span) > _PAGE_BYTES and self._reader.is_near(span)
        part = None if is_near else self._reader.expected_part(span)
        if part is None:
            await self._hold_back(span, detector)
            return span
        if not part:
            raise Unneeded("kernel read-ahead refused: no program reads these blocks")
        return part

    async def _hold_back(self, span: ByteRange, detector: KernelReadAhead) -> None:
        kind = detector.note(span)
        if self._is_left:
            self._opener_id = 0  # another program reads on
        if (other := self._held_back) is not None:
            other.is_unneeded = kind is ReadKind.ELSEWHERE
            other.is_decided.set()
        if kind is not ReadKind.AHEAD or self._reader.is_near(span):
            return
        self._held_back = mine = _HeldBack()
        try:
            with trio.move_on_after(detector.patience_s):
                await mine.is_decided.wait()
        finally:
            if self._held_back is mine:
                self._held_back = None
        if mine.is_unneeded:
            detector.was_right()
            raise Unneeded("kernel read-ahead cancelled: the program reads elsewhere")
        if not mine.is_decided.is_set() and is_gone(self._opener_id):
            # The kernel sends a close only when all its reads are answered.
            self._is_left = True
            raise Unneeded("kernel read-ahead cancelled: the program has ended")
        detector.was_wrong()

    def _raise_again(self, span: ByteRange) -> None:
        if self._given_up is None:
            return
        failed, at_s, failure = self._given_up
        if trio.current_time() - at_s > _REPEAT_S:
            self._given_up = None
        elif failed.overlaps(span):
            raise copy(failure)  # one that is raised twice carries both its histories
