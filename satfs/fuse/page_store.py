"""Store pages in the kernel's cache that a program will read next, beside the kernel's requests.

When its read-ahead was refused, the kernel requests the bytes that a program reads page by page. A
reply cannot hold more than was requested, so the rest of a block is stored in the kernel's page
cache (FUSE_NOTIFY_STORE). The kernel takes the lock of each page for that, and holds the lock of a
page that it has requested until the reply. So this happens in a thread, which may wait for the
lock, while the loop sends replies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

import structlog
import trio

log = structlog.get_logger(__name__)

#: Threads that store pages at once. While all of them wait, further blocks are requested page by
#: page.
MAX_STORES: Final = 8
#: Longest wait for them when the mount is taken down, in seconds. All requests have been answered
#: by then, so that no page is locked.
_ENDING_S: Final = 1.0

#: Stores bytes in the kernel's pages of an inode, from an offset on (`pyfuse3.notify_store`). Waits
#: for the locks of these pages.
StorePages = Callable[[int, int, bytes], None]


class PageStore:
    """Stores pages in the kernel, in threads; `keep` never waits and never raises."""

    def __init__(self, store_pages: StorePages) -> None:
        self._store_pages = store_pages
        self._n_running = 0
        self._is_ended = False
        self._is_idle = trio.Event()

    def keep(self, inode: int, offset: int, content: bytes) -> None:
        """Store *content*, whole pages from *offset* on, unless `MAX_STORES` threads are busy."""
        if self._is_ended or self._n_running >= MAX_STORES:
            return
        self._n_running += 1
        token = trio.lowlevel.current_trio_token()

        def store() -> None:
            try:
                self._store_pages(inode, offset, content)
            except OSError as failure:  # the kernel has forgotten the inode, for example
                log.debug("pages not stored", errno=failure.errno)
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._note_end)

        trio.lowlevel.start_thread_soon(store, lambda _: None)

    async def end(self) -> None:
        """Stop storing, and wait for the threads that are at work."""
        self._is_ended = True
        if self._n_running:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _ENDING_S):
                await self._is_idle.wait()

    def _note_end(self) -> None:
        self._n_running -= 1
        if self._is_ended and not self._n_running:
            self._is_idle.set()
