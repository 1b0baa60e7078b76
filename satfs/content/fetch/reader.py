"""One open handle: reads of `[start, stop)`, from the cache or the network."""

from __future__ import annotations

from typing import Final, Protocol

import trio

from satfs.content.fetch.fetcher import Fetcher
from satfs.content.fetch.readahead import ReadAhead
from satfs.errors import Damaged, Misuse
from satfs.model import ByteRange

#: Times that a read looks again after its blocks left the cache under it, which only a cache much
#: too small for its readers can cause.
MAX_ROUNDS: Final = 64


class Reader(Protocol):
    """One open handle on a file of `size_bytes`."""

    size_bytes: int

    async def read(self, span: ByteRange) -> bytes | memoryview:
        """Return exactly the bytes of *span* that exist; fewer only at the end of the file.

        A memoryview is good until the next checkpoint: copy it before waiting for anything.
        """

    def is_near(self, span: ByteRange) -> bool:
        """Tell whether the bytes of *span* are here, so that reading them asks nobody."""

    def close(self) -> None:
        """End the handle; what only it wanted is no longer fetched. Calling twice is harmless."""


class ObjectReader:
    """A handle on one version of a remote object.

    *bounds* limits read-ahead to a part of the object: a member inside a zip.
    """

    def __init__(
        self, fetcher: Fetcher, on_close: object = None, *, bounds: ByteRange | None = None
    ) -> None:
        self.size_bytes = fetcher.cached.size_bytes
        self._fetcher = fetcher
        self._on_close = on_close
        self._is_closed = False
        self._habit = ReadAhead(bounds or ByteRange(0, self.size_bytes))
        fetcher.enter(self)

    async def read(self, span: ByteRange) -> bytes | memoryview:
        """See `Reader.read`. Safe to call from many tasks.

        Raises:
            Changed: the vendor now serves another version, and the cache lacks bytes of this one.
            NotAllowed: the store refuses the object.
            Unreachable: retries are spent. What was fetched is kept.
            Garbled: the store broke its contract.
        """
        if self._is_closed:
            raise Misuse("read on a closed handle")
        span = span.clip(self.size_bytes)
        if not span:
            return b""
        fetcher, cached, trail = self._fetcher, self._fetcher.cached, self._fetcher.source.trail
        fetcher.want(self._habit.note(span, fetcher.window_bytes()), self)
        cached.n_users += 1  # the handle may be closed while we wait
        try:
            for _ in range(MAX_ROUNDS):
                if cached.holds(span):
                    fetcher.cache.touch(cached, span)
                    view = cached.view(span)
                    data = await self._from_disk(span) if view is None else view
                    if data is not None:
                        trail.served(len(span))
                        return data
                    continue
                with trail.waiting():
                    await fetcher.wait_for(span, self)
        finally:
            fetcher.cache.release(cached)
        raise Damaged("the cache is too small for what is being read at once")

    def is_near(self, span: ByteRange) -> bool:
        """See `Reader.is_near`: in the cache."""
        return self._fetcher.cached.holds(span.clip(self.size_bytes))

    async def _from_disk(self, span: ByteRange) -> bytes | None:
        """Return the bytes of the held *span*, or None when they were lost meanwhile."""
        cached = self._fetcher.cached
        n_losses = cached.n_losses
        problem: Exception | None = None
        data = b""
        try:
            data = await trio.to_thread.run_sync(cached.read_from_disk, span)
        except (OSError, Damaged) as failure:
            problem = failure
        if cached.n_losses != n_losses:
            return None  # evicted under the thread's hands: what it read may be a hole
        if problem is not None:
            self._fetcher.cache.distrust(cached, span, problem)
            return None
        return data

    def close(self) -> None:
        """See `Reader.close`."""
        if not self._is_closed:
            self._is_closed = True
            self._fetcher.leave(self)
            if callable(self._on_close):
                self._on_close()
