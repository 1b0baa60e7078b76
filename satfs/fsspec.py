"""`satfs://` for fsspec: the tree of a mount, read without one.

    fs = fsspec.filesystem("satfs", profile="work")
    fs.ls("tasks")
    rasterio.open("scenes/…/contents/rasters/…_TOA_0.tif", opener=fs)

Paths are those of a mount, and so are names, sizes, versions and failures (docs/fsspec.md). Where
this node has a mount of the profile, paths lead to it, so that its cache and the kernel's are
shared by all; else a trio loop in a thread of this process serves them from the same cache
directory (`embedded/loop_thread.py`). fsspec's own loop is asyncio: its coroutines wait for futures
of that thread.

Options name a profile and never a secret, so what is pickled or written as JSON holds none.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, TypeVarTuple

from fsspec.asyn import AsyncFileSystem, get_loop, mirror_sync_methods
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.local import LocalFileOpener
from fsspec.spec import AbstractBufferedFile

if TYPE_CHECKING:
    from satfs.components import Components
    from satfs.embedded.loop_thread import TreeThread
    from satfs.embedded.node_mount import NodeMount
    from satfs.embedded.tree import NodeInfo, OpenedFile, PathTree

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
#: Where paths lead: to the node's mount if there is one, never to it, or to nothing else.
MountUse: TypeAlias = Literal["auto", "never", "only"]

#: Bytes of a small read that are kept for the next one: whole blocks of the cache, which are
#: fetched as a whole anyway (`content/cache/blockmap.py`).
_BLOCK_BYTES: Final = 16 * 1024
#: Reads from this size on are not kept: copying them twice would cost more than another call.
_LARGE_BYTES: Final = 128 * 1024
#: Bytes copied to a local file between two reports of progress.
_COPY_BYTES: Final = 8 * 1024 * 1024
#: What a mount answers that has gone: killed, or unmounted under an open file.
_GONE: Final = frozenset({errno.ENOTCONN, errno.ECONNABORTED})


class SatfsFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The deliveries of one account as a read-only filesystem.

    Args:
        profile: the profile of config.toml to use; None is the one that a mount would take.
        mount: "auto" leads paths to a mount of the profile on this node where there is one; "never"
            always serves them in this process; "only" raises FileNotFoundError without a mount.

    Methods raise `FileNotFoundError`, `PermissionError`, `TimeoutError` and other `OSError` as a
    mount does, and `ValueError` for settings that cannot be. Whatever would write raises `OSError`
    with EROFS.
    """

    protocol = "satfs"
    root_marker = ""
    async_impl = True
    #: Requests are limited where they are made (`max_connections`), not by open files.
    disable_throttling = True

    def __init__(
        self, profile: str | None = None, mount: MountUse = "auto", **storage_options: Any
    ) -> None:
        super().__init__(**storage_options)
        if mount not in ("auto", "never", "only"):
            raise ValueError("mount must be auto, never or only")
        self.profile = profile
        self.mount = mount
        self._pid: int = os.getpid()
        self._lock = threading.Lock()
        self._thread: TreeThread | None = None
        self._node_mount: NodeMount | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        mirror_sync_methods(self)
        for name, method in list(vars(self).items()):
            if callable(method) and hasattr(method, "__wrapped__"):
                setattr(self, name, _with_sentence(method))

    # -- where paths lead ------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        text = os.fspath(path)
        if text.startswith("satfs::"):
            text = text.removeprefix("satfs::")
        text = text.removeprefix("satfs://")
        parts: list[str] = []
        for word in text.split("/"):
            if word == "..":
                del parts[-1:]  # as at the root of a filesystem: nothing is above it
            elif word not in ("", "."):
                parts.append(word)
        return "/".join(parts)

    def local_path(self, path: str) -> str | None:
        """Return where *path* lies on this node's mount of the profile; None without a mount.

        For programs that read local files best, as GDAL does. Does not look whether it is there.
        """
        place = self._mountpoint()
        return None if place is None else str(place / self._strip_protocol(path))

    def statistics(self) -> dict[str, Any]:
        """Return what has been read so far: `fetched_bytes`, `served_bytes`, `requests`, `place`.

        Of the mount where paths lead to one, which `place` then names: all that use it are counted
        together. Else of this process, for this profile. Requests are those for bytes.
        """
        place = self._mountpoint()
        if place is not None:
            status = json.loads((place / ".satfs/status.json").read_bytes())
            reading, requests = status["reading"], status["requests"]
            return {
                "place": str(place),
                "fetched_bytes": requests["received_bytes"],
                "served_bytes": reading["served_bytes"],
                "requests": requests["store"].get("bytes", 0),
            }
        return {"place": f"process {os.getpid()}", **self._wait("", _statistics)}

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Return the asyncio loop of this process; in the child of a fork that is another one."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock = threading.Lock()
            self._loop = None if self.asynchronous else get_loop()
        return self._loop

    def close(self) -> None:
        """End what this filesystem has started; it starts again when it is used again.

        Open files raise from now on. Returns when thread, connections and locks are gone, unless
        another filesystem of the same settings uses them.
        """
        with self._lock:
            finalizer, self._finalizer, self._thread = self._finalizer, None, None
        if finalizer is not None and (found := finalizer.detach()) is not None:
            _, release, args, kwargs = found
            release(*args, **{**(kwargs or {}), "is_waiting": True})

    def _mountpoint(self) -> Path | None:
        if self.mount == "never":
            return None
        with self._lock:
            if self._node_mount is None:
                from satfs.embedded.node_mount import NodeMount

                self._node_mount = NodeMount(self._resolved_profile())
        place = self._node_mount.mountpoint()
        if place is None and self.mount == "only":
            words = f"this node has no mount of the profile {self._resolved_profile()}"
            raise FileNotFoundError(errno.ENOENT, words)
        return place

    def _resolved_profile(self) -> str:
        from satfs.embedded.exceptions import exception_for
        from satfs.errors import SatfsError
        from satfs.settings import load_settings

        try:
            return load_settings(profile=self.profile).profile
        except SatfsError as failure:
            raise exception_for(failure, "") from failure

    def _served(self) -> TreeThread:
        """Return the running thread that serves the tree; starts it if need be."""
        from satfs.embedded import loop_thread
        from satfs.embedded.exceptions import exception_for
        from satfs.errors import SatfsError
        from satfs.settings import load_settings

        _ = self.loop  # notices a fork
        with self._lock:
            if self._thread is None or not self._thread.is_usable:
                try:
                    thread = loop_thread.acquire(load_settings(profile=self.profile))
                except SatfsError as failure:
                    raise exception_for(failure, "") from failure
                if self._finalizer is not None:
                    self._finalizer.detach()
                self._finalizer = weakref.finalize(self, loop_thread.release, thread)
                self._finalizer.atexit = False  # the thread ends with the program by itself
                self._thread = thread
            return self._thread

    def _submit(self, work: Callable[[PathTree, *Ts], Awaitable[T]], *args: *Ts) -> Future[T]:
        """Have *work* done on the tree, in its thread."""
        from satfs.embedded.loop_thread import Ended

        for _ in range(2):
            thread = self._served()
            with suppress(Ended):
                return thread.submit(work, thread.tree, *args)
        raise OSError(errno.ENOTCONN, "the filesystem was closed")

    def _wait(self, path: str, work: Callable[[PathTree, *Ts], Awaitable[T]], *args: *Ts) -> T:
        """Return what *work* returns; waits in this thread. Interrupted, it cancels the work."""
        future = self._submit(work, *args)
        try:
            return future.result()
        except BaseException as failure:
            future.cancel()
            raise _exception(failure, path) from _cause(failure)

    async def _await(
        self, path: str, work: Callable[[PathTree, *Ts], Awaitable[T]], *args: *Ts
    ) -> T:
        """Return what *work* returns; waits in asyncio's loop."""
        if self._thread is None or not self._thread.is_usable:
            # Starting takes a tenth of a second, for which other tasks need not wait.
            await asyncio.to_thread(self._served)
        future = self._submit(work, *args)
        try:
            return await asyncio.wrap_future(future)
        except Exception as failure:
            raise _exception(failure, path) from _cause(failure)

    async def _on_mount(self, work: Callable[[NodeMount, Path], T]) -> tuple[bool, T | None]:
        """Return whether a mount has done *work*, and the result.

        A mount that goes away meanwhile has not: what serves this process does it then, unless only
        a mount may.
        """
        place = self._mountpoint()
        node_mount = self._node_mount
        if place is None or node_mount is None:
            return False, None
        try:
            return True, await asyncio.to_thread(work, node_mount, place)
        except OSError as failure:
            if failure.errno not in _GONE or self.mount == "only":
                raise
            node_mount.forget()
            return False, None

    # -- names -----------------------------------------------------------------------------------

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        is_done, found = await self._on_mount(lambda mount, place: mount.info(place, path))
        if not is_done or found is None:
            found = await self._await(path, _info_of, path)
        return _described(found)

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        is_done, found = await self._on_mount(lambda mount, place: mount.children(place, path))
        if not is_done or found is None:
            found = await self._await(path, _children_of, path)
        found = sorted(found, key=lambda each: each.path)
        return [_described(each) if detail else each.path for each in found]

    def modified(self, path: str) -> datetime:
        """Return when the content was last modified, as far as the record states it (UTC)."""
        modified: datetime = self.info(path)["LastModified"]
        return modified

    def created(self, path: str) -> datetime:
        """Return when this content appeared, which is when it was last modified."""
        return self.modified(path)

    def ukey(self, path: str) -> str:
        """Return a key that every other version of the content differs in."""
        return str(self.info(path)["ukey"])

    def checksum(self, path: str) -> int:
        """Return `ukey` as a number."""
        return int(self.ukey(path), 16)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Believe no name and no listing any more, whatever *path* is: the API is requested again.

        Names on a mount are the mount's (`satfs refresh`).
        """
        super().invalidate_cache(path)
        if self._thread is not None and self._thread.is_usable:
            self._wait("", _forget, self._thread.parts)

    # -- bytes -----------------------------------------------------------------------------------

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        (result,) = await self._ranges(self._strip_protocol(path), [(start, end)])
        if isinstance(result, Exception):
            raise result
        return result

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: Iterable[int | None] | int | None,
        ends: Iterable[int | None] | int | None,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """Return ranges of files, all requested at once; near ones of a file are read as one."""
        if not isinstance(paths, list):
            raise TypeError("paths must be a list")
        n_ranges = len(paths)
        begins = list(starts) if isinstance(starts, Iterable) else [starts] * n_ranges
        limits = list(ends) if isinstance(ends, Iterable) else [ends] * n_ranges
        if not n_ranges == len(begins) == len(limits):
            raise ValueError("paths, starts and ends must be of one length")
        by_path: dict[str, list[int]] = {}
        for index, path in enumerate(paths):
            by_path.setdefault(self._strip_protocol(path), []).append(index)
        results: list[bytes | Exception] = [b""] * n_ranges

        async def read(path: str, indices: list[int]) -> None:
            bounds = [(begins[index], limits[index]) for index in indices]
            try:
                found = await self._ranges(path, bounds)
            except Exception as failure:
                found = [failure] * len(indices)
            for index, each in zip(indices, found, strict=True):
                results[index] = each

        await asyncio.gather(*(read(path, indices) for path, indices in by_path.items()))
        if on_error != "return":
            for each in results:
                if isinstance(each, Exception):
                    raise each
        return results

    async def _ranges(
        self, path: str, bounds: list[tuple[int | None, int | None]]
    ) -> list[bytes | Exception]:
        is_done, found = await self._on_mount(
            lambda mount, place: mount.read_ranges(place, path, bounds)
        )
        if not is_done or found is None:
            found = await self._await(path, _ranges_of, path, bounds)
        return [
            _exception(each, path) if isinstance(each, Exception) else each  # type: ignore[misc]
            for each in found
        ]

    async def _get_file(
        self, rpath: str, lpath: str, callback: Any = DEFAULT_CALLBACK, **kwargs: Any
    ) -> None:
        """Copy a file, or make a directory. A local file is there as a whole or not at all."""
        path = self._strip_protocol(rpath)
        info = await self._info(path)
        if info["type"] == "directory":
            os.makedirs(lpath, exist_ok=True)
            return
        await asyncio.to_thread(self._copy_file, path, os.fspath(lpath), callback)

    def _copy_file(self, path: str, target: str, callback: Any) -> None:
        partial = f"{target}.{os.getpid()}-{threading.get_ident()}.partial"
        os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
        try:
            with self._open(path) as source, open(partial, "wb") as copy:
                callback.set_size(source.size)
                buffer = bytearray(_COPY_BYTES)
                while n_bytes := source.readinto(buffer):
                    copy.write(memoryview(buffer)[:n_bytes])
                    callback.relative_update(n_bytes)
            os.replace(partial, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **kwargs: Any,
    ) -> Any:
        if mode != "rb":
            raise _read_only(path)
        path = self._strip_protocol(path)
        place = self._mountpoint()
        if place is not None and self._node_mount is not None:
            try:
                return LocalFileOpener(str(place / path), "rb", fs=self)
            except OSError as failure:
                if failure.errno not in _GONE or self.mount == "only":
                    raise
                self._node_mount.forget()
        return SatfsFile(self, path, **kwargs)

    # -- whatever would write --------------------------------------------------------------------

    async def _pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        raise _read_only(path)

    async def _put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        raise _read_only(rpath)

    async def _cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        raise _read_only(path2)

    async def _rm_file(self, path: str, **kwargs: Any) -> None:
        raise _read_only(path)

    async def _mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        raise _read_only(path)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        raise _read_only(path)

    def rmdir(self, path: str) -> None:
        """Raise: nothing is written."""
        raise _read_only(path)

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Raise: nothing is written."""
        raise _read_only(path)


class SatfsFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """One version of a file, open for reading at any place.

    Bytes are read ahead as a mount reads them ahead: by the layout of a raster, or in sequence. In
    the child of a fork the same version is opened again when it is read.
    """

    def __init__(self, fs: SatfsFileSystem, path: str, **kwargs: Any) -> None:
        self._opened: OpenedFile = fs._wait(path, _opened_of, path, None)
        self._thread = fs._thread
        info = self._opened.info
        self._number = info.number
        self._kept = b""
        self._kept_start = 0
        options = {"cache_type": "none", **kwargs, "size": info.size_bytes}
        super().__init__(fs, path, "rb", **options)
        self.details = _described(info)

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
        if (
            self._thread is not self.fs._thread
            or self._thread is None
            or not self._thread.is_usable
        ):
            # A fork, or the filesystem was closed meanwhile: the same version, opened again.
            self._opened = self.fs._wait(self.path, _opened_of, self.path, self._number)
            self._thread = self.fs._thread
        return int(self.fs._wait(self.path, _fill_from, self._opened, start, view))

    def close(self) -> None:
        """Close the file; waits for nothing."""
        if self.closed:
            return
        super().close()
        if self._thread is not None and self._thread is self.fs._thread:
            with suppress(Exception):
                self._thread.submit(_close, self._opened)


# -- what is done in the loop of the tree --------------------------------------------------------


async def _info_of(tree: PathTree, path: str) -> NodeInfo:
    return await tree.info(path)


async def _children_of(tree: PathTree, path: str) -> list[NodeInfo]:
    return await tree.children(path)


async def _ranges_of(
    tree: PathTree, path: str, bounds: list[tuple[int | None, int | None]]
) -> list[bytes | Exception]:
    return await tree.read_ranges(path, bounds)


async def _opened_of(tree: PathTree, path: str, number: int | None) -> OpenedFile:
    return await tree.open(path, number)


async def _fill_from(tree: PathTree, opened: OpenedFile, start: int, view: memoryview) -> int:
    return await tree.read_into(opened, start, view)


async def _close(opened: OpenedFile) -> None:
    opened.reader.close()


async def _statistics(tree: PathTree) -> dict[str, int]:
    return tree.statistics()


async def _forget(tree: PathTree, parts: Components) -> None:
    tree.forget()
    parts.listings.forget()


# -- in fsspec's words ---------------------------------------------------------------------------


def _described(info: NodeInfo) -> dict[str, Any]:
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


def _with_sentence(method: Callable[..., T]) -> Callable[..., T]:
    """Return *method* raising our own `TimeoutError`: fsspec replaces it by one without words."""

    @wraps(method)
    def called(*args: Any, **kwargs: Any) -> T:
        try:
            return method(*args, **kwargs)
        except FSTimeoutError as late:
            if isinstance(late.__cause__, OSError):
                raise late.__cause__ from late.__cause__.__cause__
            raise

    return called


def _read_only(path: str) -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS), path)


def _exception(failure: BaseException, path: str) -> BaseException:
    """Return what to raise for *failure*; what stops a program is raised as it is."""
    if not isinstance(failure, Exception) or isinstance(failure, CancelledError):
        return failure
    from satfs.embedded.exceptions import exception_for
    from satfs.embedded.loop_thread import Ended

    if isinstance(failure, Ended):
        return OSError(errno.ENOTCONN, "the filesystem was closed", path)
    return exception_for(failure, path)


def _cause(failure: BaseException) -> BaseException | None:
    return failure if isinstance(failure, Exception) else None
