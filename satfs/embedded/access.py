"""Paths of one profile in this process, served by a mount of the node or by a thread.

Where this node has a mount of the profile, paths lead to it, so that its cache and the kernel's are
shared by all; else a trio loop in a thread of this process serves them from the same cache
directory (`loop_thread.py`). Which of the two is decided at each call: a mount may come and go.

Nothing heavy is imported before it is used: programs import `satfs.fsspec` to register it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from satfs.mountpoints import DEAD_ERRNOS

if TYPE_CHECKING:
    from satfs.embedded.loop_thread import TreeThread
    from satfs.embedded.node_mount import NodeMount
    from satfs.embedded.tree import PathTree
    from satfs.settings import Settings

T = TypeVar("T")
#: Where paths lead: to the node's mount if there is one, never to it, or to nothing else.
MountUse: TypeAlias = Literal["auto", "never", "only"]


class TreeAccess:
    """Access to the tree of one profile, from any thread of this process and of its forks.

    Args:
        profile: the profile of config.toml; None is the one that a mount would take.
        mount: see `MountUse`.

    `close` ends the thread, as does the collection of the object. A call after `close` starts it
    again.
    """

    def __init__(self, profile: str | None, mount: MountUse) -> None:
        if mount not in ("auto", "never", "only"):
            raise ValueError("mount must be auto, never or only")
        self._profile = profile
        self._mount_use = mount
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._thread: TreeThread | None = None
        self._node_mount: NodeMount | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    # -- the mount -------------------------------------------------------------------------------

    def mountpoint(self) -> Path | None:
        """Return the mountpoint of this node's mount of the profile; None if no mount is used.

        Raises:
            FileNotFoundError: only a mount may be used, and there is none.
            ValueError: the settings cannot be.
        """
        if self._mount_use == "never":
            return None
        with self._own_lock():
            if self._node_mount is None:
                from satfs.embedded.node_mount import NodeMount

                settings = self._settings()
                self._node_mount = NodeMount(settings.profile, settings.api_url)
        place = self._node_mount.mountpoint()
        if place is None and self._mount_use == "only":
            words = f"this node has no mount of the profile {self._settings().profile}"
            raise FileNotFoundError(errno.ENOENT, words)
        return place

    def on_mount(self, work: Callable[[NodeMount, Path], T]) -> tuple[bool, T | None]:
        """Return whether a mount has done *work*, and the result; waits for the mount.

        False without a mount, or when the mount went away during *work* and the thread may do it.
        """
        place = self.mountpoint()
        node_mount = self._node_mount
        if place is None or node_mount is None:
            return False, None
        try:
            return True, work(node_mount, place)
        except OSError as failure:
            if failure.errno not in DEAD_ERRNOS or self._mount_use == "only":
                raise
            node_mount.forget()
            return False, None

    def _settings(self) -> Settings:
        from satfs.errors import SatfsError
        from satfs.settings import load_settings

        try:
            return load_settings(profile=self._profile)
        except SatfsError as failure:
            raise raised_for(failure, "") from failure

    # -- the thread ------------------------------------------------------------------------------

    @property
    def thread(self) -> TreeThread | None:
        """Return the thread that serves the tree, if it runs and takes calls."""
        thread = self._thread
        return thread if thread is not None and thread.is_usable else None

    def wait(self, path: str, work: Callable[[PathTree], Awaitable[T]]) -> T:
        """Return what *work* returns; waits in this thread. Interrupted, it cancels the work.

        Raises:
            OSError: the failure of *work*, as Python programs expect it, about *path*.
        """
        future = self._submit(work)
        try:
            return future.result()
        except BaseException as failure:
            future.cancel()
            raise raised_for(failure, path) from (
                failure if isinstance(failure, Exception) else None
            )

    async def call(
        self,
        path: str,
        on_mount: Callable[[NodeMount, Path], T],
        in_tree: Callable[[PathTree], Awaitable[T]],
    ) -> T:
        """Return what *on_mount* returns where paths lead to a mount, else what *in_tree* does.

        Waits in asyncio's loop. Raises as `wait`, and what *on_mount* raises as it is.
        """
        if self._mount_use != "never":
            # To look for a mount waits as well: for the settings, and for a mount that is slow.
            is_done, found = await asyncio.to_thread(self.on_mount, on_mount)
            if is_done:
                return found  # type: ignore[return-value]  # None only where T allows it
        if self.thread is None:
            # Starting takes a tenth of a second, for which other tasks need not wait.
            await asyncio.to_thread(self._served)
        future = self._submit(in_tree)
        try:
            return await asyncio.wrap_future(future)
        except Exception as failure:
            raise raised_for(failure, path) from failure

    def close(self) -> None:
        """End what was started here; returns when it has ended, unless others use it as well."""
        with self._own_lock():
            finalizer, self._finalizer, self._thread = self._finalizer, None, None
        if finalizer is not None and (found := finalizer.detach()) is not None:
            _, release, args, kwargs = found
            release(*args, **{**(kwargs or {}), "is_waiting": True})

    def _served(self) -> TreeThread:
        """Return the running thread that serves the tree; starts it if need be."""
        from satfs.embedded import loop_thread
        from satfs.errors import SatfsError

        with self._own_lock():
            if self._thread is None or not self._thread.is_usable:
                settings = self._settings()
                try:
                    thread = loop_thread.acquire(settings)
                except SatfsError as failure:
                    raise raised_for(failure, "") from failure
                if self._finalizer is not None:
                    self._finalizer.detach()
                self._finalizer = weakref.finalize(self, loop_thread.release, thread)
                self._finalizer.atexit = False  # the thread ends with the program by itself
                self._thread = thread
            return self._thread

    def _submit(self, work: Callable[[PathTree], Awaitable[T]]) -> Future[T]:
        """Have *work* done on the tree, in its thread."""
        from satfs.embedded.loop_thread import Ended

        for _ in range(2):
            thread = self._served()
            with suppress(Ended):
                return thread.submit(partial(work, thread.tree))
        raise OSError(errno.ENOTCONN, "the filesystem was closed")

    def _own_lock(self) -> threading.Lock:
        """Return the lock of this process: a fork may have copied it while it was held."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock = threading.Lock()
        return self._lock


def raised_for(failure: BaseException, path: str) -> BaseException:
    """Return what to raise in a program for *failure* of a call about *path*.

    A `FileNotFoundError`, `PermissionError`, `TimeoutError` or another `OSError` with our sentence,
    and the errno of a mount (`fuse/errnos.py`), by which Python chooses the class (PEP 3151);
    `ValueError` for settings that cannot be. An exception of another library is a bug in satfs: it
    is logged, and becomes an `OSError` with EIO. Exceptions that stop a program are returned.
    """
    if not isinstance(failure, Exception) or isinstance(failure, CancelledError):
        return failure
    import structlog

    from satfs.embedded.loop_thread import Ended
    from satfs.errors import CannotMount, SatfsError
    from satfs.fuse.errnos import errno_of, gravest_of

    if isinstance(failure, Ended):
        return OSError(errno.ENOTCONN, "the filesystem was closed", path)
    gravest = gravest_of(failure)
    if isinstance(gravest, CannotMount):
        return ValueError(str(gravest))
    if isinstance(gravest, OSError):
        return OSError(gravest.errno, gravest.strerror, path)
    if isinstance(gravest, SatfsError):
        return OSError(errno_of(gravest), str(gravest), path)
    log = structlog.get_logger(__name__)
    log.error("call failed unexpectedly", path=path, exc_info=gravest)
    return OSError(errno_of(gravest), "a fault inside satfs; its log has the details", path)
