"""`satfs://` for fsspec: the tree of a mount, read without one.

    fs = fsspec.filesystem("satfs", profile="work")
    fs.ls("tasks")
    rasterio.open("scenes/…/contents/rasters/…_TOA_0.tif", opener=fs)

Paths are those of a mount, and so are names, sizes, versions and failures (docs/fsspec.md).
`embedded/access.py` decides what serves them: a mount of this node, or a trio loop in a thread of
this process. fsspec's own loop is asyncio: its coroutines wait for futures of that thread.

Options name a profile and never a secret, so what is pickled or written as JSON holds none.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fsspec.asyn import AsyncFileSystem, get_loop, mirror_sync_methods
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.local import LocalFileOpener
from fsspec.utils import isfilelike

from satfs.embedded.access import MountUse, TreeAccess, raised_for
from satfs.embedded.fsspec_objects import (
    SatfsFile,
    SatfsStreamedFile,
    Walk,
    described,
    raise_failure,
)
from satfs.model import names_in

if TYPE_CHECKING:
    from satfs.components import Components
    from satfs.embedded.tree import PathTree

T = TypeVar("T")

#: Bytes copied to a local file between two reports of progress.
_COPY_BYTES: Final = 8 * 1024 * 1024


class SatfsFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The deliveries of one account as a read-only filesystem.

    Args:
        profile: the profile of config.toml to use; None is the one that a mount would take.
        mount: "auto" leads paths to a mount of the profile on this node where there is one; "never"
            always serves them in this process; "only" raises FileNotFoundError without a mount.

    Methods raise `FileNotFoundError`, `PermissionError`, `TimeoutError` and other `OSError` as a
    mount does, and `ValueError` for settings that cannot be. Calls that write raise `OSError` with
    EROFS.
    """

    protocol = "satfs"
    root_marker = ""
    async_impl = True
    #: Requests are limited where they are made (`max_connections`), not by open files.
    disable_throttling = True
    _pid: int

    def __init__(
        self, profile: str | None = None, mount: MountUse = "auto", **storage_options: Any
    ) -> None:
        super().__init__(**storage_options)
        self.profile = profile
        self.mount = mount
        self._access = TreeAccess(profile, mount)
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
        return "/".join(names_in(text.removeprefix("satfs://")))

    def local_path(self, path: str) -> str | None:
        """Return the path of *path* on this node's mount of the profile; None without a mount.

        For programs that read local files best, as GDAL does. Does not look whether it is there.
        """
        place = self._access.mountpoint()
        return None if place is None else str(place / self._strip_protocol(path))

    def statistics(self) -> dict[str, Any]:
        """Return what has been read so far: `fetched_bytes`, `served_bytes`, `requests`, `place`.

        Of the mount where paths lead to one, which `place` then names: all that use it are counted
        together. Else of this process, for this profile. Requests are those for bytes.

        Raises:
            PermissionError: the mount is another user's.
        """
        place = self._access.mountpoint()
        if place is not None:
            from satfs.embedded.node_mount import statistics_of

            return {"place": str(place), **statistics_of(place)}
        return {"place": f"process {os.getpid()}", **self._access.wait("", _statistics)}

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Return the asyncio loop of this process; in the child of a fork that is another one."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._loop = None if self.asynchronous else get_loop()
        return self._loop

    def close(self) -> None:
        """End what this filesystem has started; it starts again when it is used again.

        Open files raise from now on. Returns when thread, connections and locks are gone, unless
        another filesystem of the same settings uses them.
        """
        self._access.close()

    # -- names -----------------------------------------------------------------------------------

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        return described(
            await self._access.call(
                path, lambda mount, place: mount.info(place, path), lambda tree: tree.info(path)
            )
        )

    async def _exists(self, path: str, **kwargs: Any) -> bool:
        """Return whether *path* is there; it is not below a file."""
        try:
            await self._info(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        found = await self._access.call(
            path, lambda mount, place: mount.children(place, path), lambda tree: tree.children(path)
        )
        found = sorted(found, key=lambda each: each.path)
        return [described(each) if detail else each.path for each in found]

    async def _walk(self, path: str, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Walk as fsspec does, but raise where a directory cannot be listed.

        fsspec leaves it out, so that `find` and `glob` would return nothing while the API is away.
        With *on_error* as fsspec has it ("omit", "raise" or a function); a directory that has gone
        since it was listed is left out in any case.
        """
        walk = Walk(self, kwargs.pop("on_error", raise_failure))
        async for found in walk._walk(path, *args, **kwargs):
            yield found

    def walk(self, path: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Walk as the coroutine does."""
        walk = Walk(self, kwargs.pop("on_error", raise_failure))
        yield from walk.walk(path, *args, **kwargs)

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
        """Believe no name and no listing any more, for any *path*: calls request them again.

        Names on a mount are the mount's (`satfs refresh`).
        """
        super().invalidate_cache(path)
        if (thread := self._access.thread) is not None:
            self._access.wait("", partial(_forget, thread.parts))

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
        found = await self._access.call(
            path,
            lambda mount, place: mount.read_ranges(place, path, bounds),
            lambda tree: tree.read_ranges(path, bounds),
        )
        return [
            raised_for(each, path) if isinstance(each, Exception) else each  # type: ignore[misc]
            for each in found
        ]

    async def _get_file(
        self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **kwargs: Any
    ) -> None:
        """Copy a file, or make a directory. A local file is there as a whole or not at all.

        *lpath* may be an open file, to which the bytes are written.
        """
        path = self._strip_protocol(rpath)
        if isfilelike(lpath):
            await asyncio.to_thread(self._copy_bytes, path, lpath, callback)
        elif (await self._info(path))["type"] == "directory":
            os.makedirs(lpath, exist_ok=True)
        else:
            await asyncio.to_thread(self._copy_file, path, os.fspath(lpath), callback)

    def _copy_file(self, path: str, target: str, callback: Any) -> None:
        directory = os.path.dirname(target) or "."
        os.makedirs(directory, exist_ok=True)
        # A name of its own: the target's may be as long as a name can be.
        partial = f"{directory}/.satfs-{os.getpid()}-{threading.get_ident()}.partial"
        try:
            with open(partial, "wb") as copy:
                self._copy_bytes(path, copy, callback)
            os.replace(partial, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)

    def _copy_bytes(self, path: str, copy: Any, callback: Any) -> None:
        with self._open(path) as source:
            callback.set_size(source.size)
            buffer = bytearray(_COPY_BYTES)
            while n_bytes := source.readinto(buffer):
                copy.write(memoryview(buffer)[:n_bytes])
                callback.relative_update(n_bytes)

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
        is_done, opened = self._access.on_mount(
            lambda mount, place: LocalFileOpener(str(place / path), "rb", fs=self)
        )
        if is_done:
            return opened
        caching = {"block_size": block_size or "default", "cache_options": cache_options}
        return SatfsFile(self, path, self._access, **caching, **kwargs)

    async def open_async(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        """Return *path* open for coroutines: its `read` and `close` are awaited."""
        file = await asyncio.to_thread(self._open, path, mode)
        return SatfsStreamedFile(self, self._strip_protocol(path), file)

    # -- calls that write ------------------------------------------------------------------------

    async def _refused(self, path: str, *args: Any, **kwargs: Any) -> None:
        raise _read_only(path)

    _pipe_file = _rm_file = _mkdir = _makedirs = _refused

    async def _put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        raise _read_only(rpath)

    async def _cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        raise _read_only(path2)

    def rmdir(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Raise: nothing is written."""
        raise _read_only(path)

    touch = rmdir


# -- what is done in the loop of the tree --------------------------------------------------------


async def _statistics(tree: PathTree) -> dict[str, int]:
    return tree.statistics()


async def _forget(parts: Components, tree: PathTree) -> None:
    tree.forget()
    parts.listings.forget()


# -- in fsspec's words ---------------------------------------------------------------------------


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
