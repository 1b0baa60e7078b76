"""Invalidate names in the kernel's cache, outside of any request that the kernel waits for.

The kernel takes the lock of a directory to forget a name in it, and holds that lock while it waits
for a reply about the directory. So this happens in a thread, one name at a time, while the loop
goes on to reply, and never within a request (fuse_lowlevel_notify_inval_entry, libfuse).

Directories that are still there stay: to forget the name of a directory is to take it away from
under every shell that stands in it. Its entries are requested again each time it is listed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog
import trio

from satfs.fuse.inodes import Inodes
from satfs.tree.nodes import Directory, Node

log = structlog.get_logger(__name__)

#: Longest wait for a call into the kernel when the mount is taken down, in seconds. All calls of
#: programs have returned by then, so that none holds a lock.
_ENDING_S: Final = 1.0
#: Names forgotten in one thread job; in between, the loop looks whether it is to end.
_BATCH: Final = 1000
#: Nodes looked at between two checkpoints: some milliseconds' worth.
_LOOKED_AT: Final = 20_000

#: Has the kernel forget a name in the directory of a number (`pyfuse3.invalidate_entry`).
ForgetEntry = Callable[[int, bytes], None]
#: Has the kernel forget the attributes of a number (`pyfuse3.invalidate_inode`).
ForgetAttributes = Callable[[int], None]


class NameInvalidation:
    """The kernel's cache of the nodes in *inodes*."""

    def __init__(
        self, inodes: Inodes[Node], forget_entry: ForgetEntry, forget_attributes: ForgetAttributes
    ) -> None:
        self._inodes = inodes
        self._forget_entry = forget_entry
        self._forget_attributes = forget_attributes
        self._alone = trio.CapacityLimiter(1)
        self._is_ended = threading.Event()

    async def forget_below(self, path: Sequence[str], now: Sequence[bytes] | None) -> int:
        """Have the kernel forget what it knows of files at and below *path*; return how many names.

        *now* are the names in the directory *path* as they are listed now: other directories in
        it, and the absence of new names, are forgotten, too. None: *path* is no directory.
        """
        names, directories = await self._chosen(tuple(path), now)
        jobs: list[Callable[[], None]] = [partial(self._forget_entry, *each) for each in names]
        jobs += [partial(self._forget_attributes, inode) for inode in directories]
        for start in range(0, len(jobs), _BATCH):
            batch = jobs[start : start + _BATCH]
            await trio.to_thread.run_sync(
                self._run, batch, limiter=self._alone, abandon_on_cancel=True
            )
        return len(names)

    async def end(self) -> None:
        """Begin no call into the kernel any more, and wait for the one that may be under way."""
        self._is_ended.set()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _ENDING_S):
            async with self._alone:
                pass

    async def _chosen(
        self, path: tuple[str, ...], now: Sequence[bytes] | None
    ) -> tuple[list[tuple[int, bytes]], list[int]]:
        """Return (number of directory, name) of what is to be forgotten, and directories below."""
        listed = None if now is None else set(now)
        names: list[tuple[int, bytes]] = []
        directories: list[int] = []
        seen: set[bytes] = set()
        top: int | None = None
        for count, (inode, node) in enumerate(self._inodes.known(), start=1):
            if count % _LOOKED_AT == 0:
                await trio.lowlevel.checkpoint()
            if node.path[: len(path)] != path:
                continue
            if isinstance(node, Directory):
                directories.append(inode)
            if node.path == path and isinstance(node, Directory):
                top = inode
                continue
            name = os.fsencode(node.path[-1]) if node.path else b""
            is_child = len(node.path) == len(path) + 1
            if is_child:
                seen.add(name)
            is_gone = is_child and listed is not None and name not in listed
            if (not isinstance(node, Directory) or is_gone) and node.parent is not None:
                names.append((self._inodes.number(node.parent), name))
        if top is not None and listed is not None:
            names += [(top, name) for name in listed - seen]
        return names, directories

    def _run(self, jobs: Sequence[Callable[[], None]]) -> None:
        for job in jobs:
            if self._is_ended.is_set():
                return
            try:
                job()
            except FileNotFoundError:
                pass  # the kernel did not know it, or has forgotten it
            except OSError as failure:
                log.debug("kernel did not forget", errno=failure.errno)
