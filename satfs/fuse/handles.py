"""What is open: a file with its reader, a directory as it was when it was read."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Final

import trio

from satfs.errors import DeadlineReached, Misuse, SatfsError
from satfs.fuse.listing import Listing
from satfs.model import ByteRange
from satfs.tree.nodes import Directory, Entry, File, Node, Reader, Unresolved

#: A directory of this many entries is put in order in a thread: it takes some 10 ms, and others
#: want to be answered meanwhile.
_LARGE: Final = 5000
#: A read that failed after a wait longer than this is not tried anew when the kernel asks again, in
#: seconds; one that failed sooner may well succeed then.
_LONG_WAIT_S: Final = 1.0
#: How soon after a failure the kernel asks again, in seconds: at once, on a machine with time.
_ASKED_AGAIN_S: Final = 0.5


class OpenDirectory:
    """An open directory: read from the beginning it is what it is now, further on what it was."""

    def __init__(self, node: Directory) -> None:
        self.node = node
        self._listing: Listing[Node] | None = None

    async def read(self, cookie: int) -> Iterator[tuple[int, bytes, Node]]:
        """Return (cookie, name, node) of everything behind *cookie*; 0 is the beginning.

        An entry of which nothing can be told is an `Unresolved` node.
        """
        # Also when a program rewinds.
        if cookie == 0 or self._listing is None:
            children = await self.node.children()
            things = [(entry.name, self._target(entry)) for entry in children]
            if len(things) < _LARGE:
                self._listing = Listing(things)
            else:
                self._listing = await trio.to_thread.run_sync(Listing, things)
        return self._listing.after(cookie)

    def _target(self, entry: Entry) -> Node:
        if isinstance(entry.target, SatfsError):
            return Unresolved(self.node, entry.name, entry.target)
        return entry.target


class OpenFile:
    """An open file.

    The kernel reads ahead of a program, and when that fails asks for the program's own page once
    more (mm/filemap.c). So a part that was given up after a long wait is given up again at once,
    for a moment: one read(2) would otherwise last two deadlines.
    """

    def __init__(self, node: File, reader: Reader) -> None:
        self.node = node
        self._reader = reader
        self._given_up: tuple[ByteRange, float, Exception] | None = None

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return *size* bytes from *offset* on, fewer only at the end of the file.

        Raises:
            Misuse: the reader returned fewer, or more. The kernel would take that for the end of
                the file, or for garbage.
            SatfsError: the bytes cannot be had.
        """
        span = ByteRange(offset, offset + size).clip(self._reader.size_bytes)
        self._raise_again(span)
        started_s = trio.current_time()
        try:
            content = await self._reader.read(span)
        except BaseException as reason:  # cancellation, too: that is the deadline
            if trio.current_time() - started_s > _LONG_WAIT_S:
                late = DeadlineReached("no answer in time, a moment ago")
                failure = copy(reason) if isinstance(reason, Exception) else late
                self._given_up = (span, trio.current_time(), failure)
            raise
        if len(content) != len(span):
            raise Misuse(f"{len(content)} bytes read for [{span.start}, {span.stop})")
        return content

    def close(self) -> None:
        """Let go of the reader."""
        self._reader.close()

    def _raise_again(self, span: ByteRange) -> None:
        if self._given_up is None:
            return
        failed, at_s, failure = self._given_up
        if trio.current_time() - at_s > _ASKED_AGAIN_S:
            self._given_up = None
        elif failed.overlaps(span):
            raise copy(failure)  # one that is raised twice carries both its histories
