"""The objects that fsspec is given: descriptions of names, walks, and open files."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fsspec.asyn import AbstractAsyncStreamedFile, AsyncFileSystem
from fsspec.spec import AbstractBufferedFile

if TYPE_CHECKING:
    from satfs.embedded.access import TreeAccess
    from satfs.embedded.tree import NodeInfo, OpenedFile

#: Bytes of a small read that are kept for the next one: whole blocks of the cache, which are
#: fetched as a whole anyway (`content/cache/blockmap.py`).
_BLOCK_BYTES: Final = 16 * 1024
#: Reads from this size on are not kept: copying them twice would cost more than another call.
_LARGE_BYTES: Final = 128 * 1024


def described(info: NodeInfo) -> dict[str, Any]:
    """Return what fsspec calls an info: `name`, `size`, `type`, and what else is known."""
    kinds = {"DIRECTORY": "directory", "FILE": "file", "SYMLINK": "link"}
    described: dict[str, Any] = {
        "name": info.path,
        "size": info.size_bytes,
        "type": kinds[info.kind.name],
        "mtime": info.mtime_ns / 1e9,
        "LastModified": datetime.fromtimestamp(info.mtime_ns / 1e9, UTC),
        "mode": info.kind | info.permissions,
        "ino": info.number,
        "ukey": f"{info.number:016x}",
    }
    if info.etag is not None:
        described["ETag"] = info.etag
    if info.target is not None:
        described["destination"] = info.target
    if info.reason is not None:
        described["error"] = info.reason
    return described


class Walk:
    """*fs* in a walk that treats all failures by *on_error*; fsspec forgets it below the top."""

    def __init__(self, fs: AsyncFileSystem, on_error: Any) -> None:
        self._fs = fs
        self._on_error = on_error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)

    def _walk(self, path: str, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        kwargs["on_error"] = self._on_error
        found: AsyncIterator[Any] = AsyncFileSystem._walk(self, path, *args, **kwargs)
        return found

    def walk(self, path: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield each directory below *path*, with its directories and its files."""
        kwargs["on_error"] = self._on_error
        found: Iterator[Any] = AsyncFileSystem.walk(self, path, *args, **kwargs)
        return found


def raise_failure(failure: OSError) -> None:
    """Raise *failure*, unless it is that a directory has gone since it was listed."""
    if not isinstance(failure, FileNotFoundError | NotADirectoryError):
        raise failure


class SatfsFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """One version of a file, open for reading at any place.

    Bytes are read ahead as a mount reads them ahead: by the layout of a raster, or in sequence. In
    the child of a fork the same version is opened again when it is read.
    """

    def __init__(self, fs: Any, path: str, access: TreeAccess, **kwargs: Any) -> None:
        self._access = access
        self._opened: OpenedFile = access.wait(path, lambda tree: tree.open(path))
        self._thread = access.thread
        info = self._opened.info
        self._number = info.number
        self._kept = b""
        self._kept_start = 0
        options = {"cache_type": "none", **kwargs, "size": info.size_bytes}
        super().__init__(fs, path, "rb", **options)
        self.details = described(info)

    def readinto(self, buffer: Any) -> int:
        """Fill *buffer* from the present place on; return how many bytes there were."""
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        view = memoryview(buffer).cast("B")
        n_bytes = self._fill(self.loc, view[: max(0, self.size - self.loc)])
        self.loc += n_bytes
        return n_bytes

    def _fetch_range(self, start: int, end: int) -> bytes:
        """Return the bytes [start, end); fsspec's caches call this."""
        end = min(end, self.size)
        if start >= end:
            return b""
        buffer = bytearray(end - start)
        self._fill(start, memoryview(buffer))
        return bytes(buffer)

    def _fill(self, start: int, view: memoryview) -> int:
        if len(view) >= _LARGE_BYTES:
            return self._read_into(start, view)
        stop = start + len(view)
        if not self._kept_start <= start <= stop <= self._kept_start + len(self._kept):
            first = start // _BLOCK_BYTES * _BLOCK_BYTES
            last = min(-(-stop // _BLOCK_BYTES) * _BLOCK_BYTES, self.size)
            blocks = bytearray(last - first)
            self._read_into(first, memoryview(blocks))
            self._kept, self._kept_start = bytes(blocks), first
        at = start - self._kept_start
        view[:] = self._kept[at : at + len(view)]
        return len(view)

    def _read_into(self, start: int, view: memoryview) -> int:
        if not view:
            return 0
        access = self._access
        if self._thread is None or self._thread is not access.thread:
            # A fork, or the filesystem was closed since: the same version is opened again.
            self._opened = access.wait(self.path, lambda tree: tree.open(self.path, self._number))
            self._thread = access.thread
        opened = self._opened
        return access.wait(self.path, lambda tree: tree.read_into(opened, start, view))

    def close(self) -> None:
        """Close the file; waits for nothing."""
        if self.closed:
            return
        super().close()
        if self._thread is not None and self._thread is self._access.thread:
            with suppress(Exception):
                self._thread.submit(partial(_close, self._opened))


class SatfsStreamedFile(AbstractAsyncStreamedFile):  # type: ignore[misc]  # fsspec has no types
    """An open file for coroutines: *file*, which this owns, read in threads of asyncio."""

    def __init__(self, fs: Any, path: str, file: Any) -> None:
        self._file = file
        self._reading = threading.Lock()
        super().__init__(fs, path, "rb", cache_type="none", size=file.size)

    async def _fetch_range(self, start: int, end: int) -> bytes:
        def read() -> bytes:
            with self._reading:  # the place and the read belong together
                self._file.seek(start)
                data: bytes = self._file.read(end - start)
                return data

        return await asyncio.to_thread(read)

    async def close(self) -> None:
        """Close the file."""
        await super().close()
        await asyncio.to_thread(self._file.close)


async def _close(opened: OpenedFile) -> None:
    opened.reader.close()
