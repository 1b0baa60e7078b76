"""The FUSE operations: find the node or handle, call it, reply. The only error boundary.

In pyfuse3 any exception other than FUSEError ends the mount for all programs. So each handler is
wrapped by `_request_handler`, which gives it a deadline and turns each failure into an errno. Only
cancellation from outside passes: it unmounts.

Replies stay right without a second request because:

- A node's identity contains the version of its content (`tree.nodes`), and the inode number comes
  from the identity. So content may stay in the kernel's cache for ever (`keep_cache`), and a
  replaced file is another inode.
- pyfuse3 answers every `readdir` as READDIRPLUS: an entry that was accepted is one more reference
  to its inode, and spares the `stat` that follows. `.` and `..` are listed without being counted:
  the kernel takes no reference to them (fs/fuse/readdir.c, fuse_direntplus_link).
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from copy import copy
from functools import partial, update_wrapper
from itertools import count
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, StatvfsData

from satfs.errors import Misuse, NotThere, Unfinished
from satfs.fuse.attributes import Limits, Owner, entry_of, no_entry, statistics
from satfs.fuse.crawlers import CrawlerGate
from satfs.fuse.deadlines import Closing, PendingCalls
from satfs.fuse.dir_cookies import DOT, DOT_DOT
from satfs.fuse.error_reporting import ErrorReporter
from satfs.fuse.handles import LargeListings, OpenDirectory, OpenFile
from satfs.fuse.inodes import Inodes
from satfs.fuse.page_store import PageStore
from satfs.tree.names import is_polled
from satfs.tree.nodes import Directory, File, Node, Symlink, Unresolved

#: References taken back between two checkpoints: some milliseconds' worth.
_FORGOTTEN_AT_ONCE: Final = 1000
#: How long the kernel may cache that a polled name does not exist, in seconds: it never exists.
_POLLED_TTL_S: Final = 3600.0

_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_TRUNC

P = ParamSpec("P")
T = TypeVar("T")
Handler = Callable[Concatenate["Operations", P], Coroutine[Any, Any, T]]
#: The path that a call is about, for the log, from the operations and the call's arguments.
Subject = Callable[["Operations", Sequence[Any]], str]


def _request_handler(
    about: Subject, *, is_read: bool = False
) -> Callable[[Handler[P, T]], Handler[P, T]]:
    """Return a decorator for a handler: a deadline around it, and every failure an errno."""

    def decorate(handler: Handler[P, T]) -> Handler[P, T]:
        async def handled(operations: Operations, /, *args: P.args, **kwargs: P.kwargs) -> T:
            limits = operations.limits
            operations.counters[handler.__name__] += 1
            try:
                with operations.calls.within(
                    limits.read_deadline_s if is_read else limits.metadata_deadline_s,
                    is_read=is_read,
                ):
                    return await handler(operations, *args, **kwargs)
            except FUSEError:
                raise
            except Closing:
                raise FUSEError(errno.ENOTCONN) from None
            except Exception as failure:
                path = about(operations, args)
                number = operations.error_reporter.errno_for(handler.__name__, path, failure)
                raise FUSEError(number) from None

        return update_wrapper(handled, handler)

    return decorate


def _inode(operations: Operations, args: Sequence[Any]) -> str:
    return operations.path_of_inode(args[0])


def _name(operations: Operations, args: Sequence[Any]) -> str:
    name = args[1].decode("utf-8", "backslashreplace")
    return f"{operations.path_of_inode(args[0]).rstrip('/')}/{name}"


def _handle(operations: Operations, args: Sequence[Any]) -> str:
    return operations.path_of_handle(args[0])


def _mount(operations: Operations, args: Sequence[Any]) -> str:
    return "/"


async def _refuse_to_write(*_: Any) -> Any:
    raise FUSEError(errno.EROFS)


#: For each request that would write; the kernel itself refuses most of them on a read-only mount.
_refuse: Callable[..., Coroutine[Any, Any, Any]] = _refuse_to_write


class Operations(pyfuse3.Operations):
    """The handlers of the kernel's requests, under the names that pyfuse3 documents.

    The kernel gets ENOSYS for a request without a handler, and sends it only once: `flush` and
    `fsync` have nothing to write, `poll` is always ready.
    """

    #: `.` and `..` can be looked up: what exports through NFS need (FUSE_EXPORT_SUPPORT).
    supports_dot_lookup = True

    def __init__(
        self,
        inodes: Inodes[Node],
        *,
        owner: Owner,
        limits: Limits,
        gate: CrawlerGate | None = None,
        on_look: Callable[[], None] = lambda: None,
        on_name: Callable[[Directory, bytes], None] = lambda directory, name: None,
        on_list: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        #: Called when a program looks up a name or opens a directory.
        self._on_look = on_look
        #: Called with the directory and the name that a program looks up, before that is done.
        self._on_name = on_name
        #: Called when a program opens a directory.
        self._on_list = on_list
        #: Set when the handshake with the kernel is complete: from then on the mount is usable.
        self.greeted = trio.Event()
        self.limits = limits
        self.calls = PendingCalls()
        self.error_reporter = ErrorReporter(trio.current_time)
        #: How often each was called.
        self.counters: Counter[str] = Counter()
        self._inodes = inodes
        self._owner = owner
        self._gate = gate
        self._handles = count(1)
        self._directories: dict[int, OpenDirectory] = {}
        self._large = LargeListings()
        self._files: dict[int, OpenFile] = {}
        self._page_store = PageStore(pyfuse3.notify_store)

    # -- state -------------------------------------------------------------------------------------

    def init(self) -> None:
        """Note that the kernel sends requests now."""
        self.greeted.set()

    async def close(self) -> None:
        """Fail every call that waits and every later one with ENOTCONN; close all files."""
        await self.calls.end()
        await self._page_store.end()
        for fh in list(self._files):
            await self.release(fh)
        self._directories.clear()

    def path_of_inode(self, inode: int) -> str:
        """Return the path of a node that the kernel knows, for display."""
        if not self._inodes.knows(inode):
            return f"inode {inode}"
        return _path(self._inodes.node(inode))

    def path_of_handle(self, handle: int) -> str:
        """Return the path of an open file or directory, for display."""
        opened = self._files.get(handle) or self._directories.get(handle)
        return f"handle {handle}" if opened is None else _path(opened.node)

    # -- names -----------------------------------------------------------------------------------

    @_request_handler(_name)
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """Find the node of a name in a directory, and count one reference to it."""
        if name in (b".", b".."):
            return self._lookup_dots(parent_inode, name)
        directory = self._directory(parent_inode)
        text = name.decode("utf-8", "replace")
        if is_polled(text) and not directory.may_hold(text):
            return no_entry(_POLLED_TTL_S)
        self._on_look()
        self._on_name(directory, name)
        try:
            node = await directory.lookup(name)
        except NotThere:
            if self.limits.negative_ttl_s <= 0:
                raise
            return no_entry(self.limits.negative_ttl_s)
        return self._entry(node, self._inodes.remember(node))

    def _lookup_dots(self, inode: int, name: bytes) -> EntryAttributes:
        if not self._inodes.knows(inode):
            # An NFS client came back with an inode number from before.
            raise FUSEError(errno.ESTALE)
        node = self._inodes.node(inode)
        found = node if name == b"." else node.parent or node
        return self._entry(found, self._inodes.remember(found))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Take references back. Must not raise, also for a wrong count of the kernel."""
        for number, (inode, n_lookups) in enumerate(inode_list, start=1):
            if number % _FORGOTTEN_AT_ONCE == 0:  # the kernel sends up to 65,536 of them
                await trio.lowlevel.checkpoint()
            try:
                self._inodes.forget(inode, n_lookups)
            except Misuse as failure:
                self.error_reporter.errno_for("forget", f"inode {inode}", failure)

    @_request_handler(_inode)
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """Open a directory; its entries are loaded when it is read."""
        directory = self._directory(inode)
        if self._gate is not None and self._gate.refuses_list(ctx.pid, directory):
            raise FUSEError(errno.EACCES)
        self._on_look()
        self._on_list()
        handle = next(self._handles)
        self._directories[handle] = OpenDirectory(directory, self._large)
        return handle

    @_request_handler(_handle)
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a directory, from behind *start_id* on, as much as the kernel takes.

        While the pages of a long listing come, `.` and `..` are sent one by one, so that a program
        waits for up to three calls, each of which ends within its deadline.
        """
        opened = self._directories.get(fh)
        if opened is None:
            raise Misuse(f"directory handle {fh} is not open")
        entries = None
        try:
            entries = await opened.read(start_id)
        except Unfinished:
            if start_id >= DOT_DOT:
                raise
        # No await from here on: the entries that are counted are those that are sent.
        if start_id < DOT:
            is_taken = self._add_dots(opened.node, b".", DOT, token)
            if entries is None or not is_taken:
                return
        if start_id < DOT_DOT and not self._add_dots(opened.node, b"..", DOT_DOT, token):
            return
        for cookie, name, node in entries or ():
            inode = self._inodes.remember(node)
            if not pyfuse3.readdir_reply(token, name, self._entry(node, inode), cookie):
                self._inodes.forget(inode, 1)  # not sent after all
                return

    def _add_dots(
        self, directory: Node, name: bytes, cookie: int, token: pyfuse3.ReaddirToken
    ) -> bool:
        node = directory if name == b"." else directory.parent or directory
        return pyfuse3.readdir_reply(
            token, name, self._entry(node, self._inodes.number(node)), cookie
        )

    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        self._directories.pop(fh, None)

    # -- attributes: from memory, always ---------------------------------------------------------

    @_request_handler(_inode)
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        """Return the attributes of a node that the kernel knows."""
        node = self._inodes.node(inode)
        if isinstance(node, Unresolved):
            raise copy(node.error)
        return self._entry(node, inode)

    @_request_handler(_mount)
    async def statfs(self, ctx: pyfuse3.RequestContext) -> StatvfsData:
        """Return what `df` shows: the same in every mount, at any time."""
        return statistics()

    @_request_handler(_inode)
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """Return whether *mode* is allowed. With `default_permissions` the kernel knows itself."""
        if mode & os.W_OK:
            raise FUSEError(errno.EROFS)
        node = self._inodes.node(inode)
        permissions = self._owner.permissions(node, node.attributes())
        wanted = (0o444 if mode & os.R_OK else 0) | (0o111 if mode & os.X_OK else 0)
        return permissions & wanted == wanted

    @_request_handler(_inode)
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """Return the target of a symbolic link."""
        node = self._inodes.node(inode)
        if not isinstance(node, Symlink):
            raise FUSEError(errno.EINVAL)
        return node.target

    @_request_handler(_inode)
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """Return one extended attribute."""
        if not name.startswith(b"user."):
            # `ls -l` reads the security label of each file, until a mount returns ENOTSUP.
            raise FUSEError(errno.EOPNOTSUPP)
        value = self._inodes.node(inode).xattrs().get(name.decode("utf-8", "replace"))
        if value is None:
            raise FUSEError(pyfuse3.ENOATTR)
        return value

    @_request_handler(_inode)
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """Return the names of the extended attributes."""
        return [name.encode() for name in self._inodes.node(inode).xattrs()]

    # -- content ---------------------------------------------------------------------------------

    @_request_handler(_inode)
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> FileInfo:
        """Open a file for reading."""
        node = self._inodes.node(inode)
        if isinstance(node, Unresolved):
            raise copy(node.error)
        if flags & _WRITING:
            raise FUSEError(errno.EROFS)
        if not isinstance(node, File):
            raise FUSEError(errno.EISDIR)
        if self._gate is not None and await self._gate.refuses_open(ctx.pid, node):
            raise FUSEError(errno.EACCES)
        reader = await node.open()
        handle = next(self._handles)
        keep = partial(self._page_store.keep, inode)
        self._files[handle] = OpenFile(node, reader, flags, ctx.pid, keep)
        # The kernel hands out nothing beyond the size it knows, unless every read has to come here.
        return FileInfo(fh=handle, keep_cache=not node.is_live, direct_io=node.is_live)

    @_request_handler(_handle, is_read=True)
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Return all bytes of the request that exist, or raise."""
        opened = self._files.get(fh)
        if opened is None:
            raise Misuse(f"file handle {fh} is not open")
        return await opened.read(off, size)  # type: ignore[return-value]  # any buffer will do

    async def release(self, fh: int) -> None:
        """Close a file. The kernel does not wait for this, and takes no failure."""
        opened = self._files.pop(fh, None)
        if opened is None:
            return
        try:
            opened.close()
        except Exception as failure:
            self.error_reporter.errno_for("release", _path(opened.node), failure)

    # -- calls that write ------------------------------------------------------------------------

    setattr = mknod = mkdir = unlink = rmdir = symlink = rename = link = _refuse
    create = write = setxattr = removexattr = _refuse

    # -- how it looks to the kernel --------------------------------------------------------------

    def _directory(self, inode: int) -> Directory:
        node = self._inodes.node(inode)
        if not isinstance(node, Directory):
            raise FUSEError(errno.ENOTDIR)
        return node

    def _entry(self, node: Node, inode: int) -> EntryAttributes:
        return entry_of(node, inode, self._owner, self.limits)


def _path(node: Node) -> str:
    return "/" + "/".join(node.path)
