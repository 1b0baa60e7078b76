"""The nodes of the tree: directories and files, and the interface the FUSE operations use.

A node is found by name, from its directory, and stands for what the name meant at that moment. Its
`identity` is the path, and for a file also the version of the content. Two nodes with equal
identities are the same file or directory; when the vendor replaces an object, its name leads to a
node of another identity. Of an identity only times and extended attributes ever change, so
everything else that the kernel remembers of it stays right.

`attributes`, `xattrs` and `identity` never wait. Everything else may.
"""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from enum import IntEnum
from hashlib import blake2b
from typing import ClassVar, Final, NamedTuple, overload

from msgspec import Struct

from satfs.errors import Changed, NotThere, SatfsError
from satfs.model import ByteRange, MadeReader, Reader
from satfs.tree.large_content import LargeContent, LargeContentReader
from satfs.tree.times import FALLBACK_NS, TREE_NS

#: Longest value of an extended attribute, in bytes. The kernel takes up to 64 KiB
#: (XATTR_SIZE_MAX), but a vendor's megabyte belongs into the sidecar, not beside it.
XATTR_VALUE_BYTES: Final = 4096


class Kind(IntEnum):
    """The kind of a node, in the kernel's terms (inode(7))."""

    DIRECTORY = stat.S_IFDIR
    FILE = stat.S_IFREG
    SYMLINK = stat.S_IFLNK


class Attributes(NamedTuple):
    """The attributes of a node, owner and umask aside."""

    kind: Kind
    permissions: int
    size_bytes: int = 0
    mtime_ns: int = FALLBACK_NS
    ctime_ns: int = FALLBACK_NS


class Node(ABC):
    """A thing with a name."""

    __slots__ = ("name", "parent")

    #: Whether the kernel may cache the name. If not, each look-up comes here.
    is_name_cacheable: ClassVar[bool] = True
    #: Whether content and size change while the identity stays. Then neither may be cached.
    is_live: ClassVar[bool] = False
    #: Whether it is only for root and for the user whose process serves the mount, also where other
    #: users may enter the mount. The contents of a private directory are as private.
    is_private: ClassVar[bool] = False

    def __init__(self, parent: Directory | None, name: bytes) -> None:
        self.parent = parent
        #: Its name as text, since `tree.names` makes nothing that is not UTF-8.
        self.name = name.decode()

    @property
    def path(self) -> tuple[str, ...]:
        """Return the names that lead to it from the root."""
        return () if self.parent is None else (*self.parent.path, self.name)

    @property
    def identity(self) -> tuple[str, ...]:
        """The node's identity, the same for every caller, at any time, and after a remount.

        The path, and for all but directories more texts behind it. Those begin with a slash, as no
        name does, so that a file is never taken for a directory.
        """
        return self.path

    @abstractmethod
    def attributes(self) -> Attributes:
        """Return the attributes. Never waits."""

    def xattrs(self) -> Mapping[str, bytes]:
        """Return the extended attributes, by full name (`user.satfs.…`). Never waits."""
        return {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} /{'/'.join(self.path)}>"


class Entry(Struct, frozen=True):
    """A name in a listing, with its node, or with the reason why it has none now."""

    name: bytes
    target: Node | SatfsError


class LazyEntries(Sequence[Entry]):
    """The entries of a very large directory: a node is made when its entry is read."""

    @abstractmethod
    def name(self, index: int) -> bytes:
        """Return the name of one entry, without making anything else. Fit for a thread."""

    @abstractmethod
    def entry(self, index: int) -> Entry:
        """Return one entry; *index* is from 0 to the number of entries."""

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Entry, ...]: ...

    def __getitem__(self, index: int | slice) -> Entry | tuple[Entry, ...]:
        places = range(len(self))[index]
        return self.entry(places) if isinstance(places, int) else tuple(map(self.entry, places))


class Directory(Node):
    """A node that holds others."""

    __slots__ = ()

    #: Whether the directory may have a name that desktops poll (`tree.names.is_polled`). If not,
    #: these names are not looked up here.
    holds_polled_names: ClassVar[bool] = False
    #: Whether `.satfs/explain/` mirrors it: each file in it comes of one listing, or of one object.
    is_explained: ClassVar[bool] = True
    #: Its time for `attributes`; the tree's own for a directory without a date.
    _mtime_ns: int = TREE_NS

    def may_hold(self, polled: str) -> bool:
        """Return whether *polled*, a name that desktops poll, is to be looked up here at all."""
        return self.holds_polled_names

    @abstractmethod
    async def lookup(self, name: bytes) -> Node:
        """Return what *name* leads to.

        Raises:
            NotThere: nothing has that name.
            SatfsError: that is not known now.
        """

    @abstractmethod
    async def children(self) -> Sequence[Entry]:
        """Return what is to be listed, in no particular order; no name twice.

        Raises:
            SatfsError: there is no listing. An entry that alone fails is listed with its error
                instead, so that a part is not taken for the whole.
        """

    def attributes(self) -> Attributes:
        """Return the attributes."""
        return Attributes(Kind.DIRECTORY, 0o755, 0, self._mtime_ns, self._mtime_ns)


class File(Node):
    """A node that holds the bytes of one version of one object."""

    __slots__ = ()
    #: Whether all of it is held here, so that a read sends no request.
    is_in_memory: ClassVar[bool] = False

    @abstractmethod
    async def open(self) -> Reader:
        """Return a reader of this very version.

        Raises:
            Changed: the name leads to another version by now; look it up again.
            SatfsError: it cannot be opened.
        """

    async def is_held(self) -> bool:
        """Return whether the whole file can be read without a request to the vendor.

        Waits for a disk at most. False where that is not known.
        """
        return self.is_in_memory


class Symlink(Node):
    """A node that names another path; `mtime_ns` is the time of the node there, where known."""

    __slots__ = ("mtime_ns", "target")

    def __init__(
        self, parent: Directory, name: bytes, target: bytes, mtime_ns: int = FALLBACK_NS
    ) -> None:
        super().__init__(parent, name)
        self.target = target
        self.mtime_ns = mtime_ns

    @property
    def identity(self) -> tuple[str, ...]:
        """The identity of the node: its path and where it leads."""
        return (*self.path, "/" + self.target.decode("utf-8", "backslashreplace"))

    def attributes(self) -> Attributes:
        """Return the attributes; a link's size is the length of its target (POSIX lstat)."""
        size_bytes = len(self.target)
        return Attributes(Kind.SYMLINK, 0o777, size_bytes, self.mtime_ns, self.mtime_ns)


class Unresolved(Node):
    """A name that was listed though nothing is known about it, and why.

    It shows as a file without size and without permissions, which the kernel may not cache: the
    next call gets the reason, or the true attributes if they are known by then.
    """

    __slots__ = ("error",)
    is_name_cacheable = False
    is_live = True

    def __init__(self, parent: Directory, name: bytes, error: SatfsError) -> None:
        super().__init__(parent, name)
        #: A copy: the kernel may remember the node for long, and a traceback holds on to much.
        self.error = copy(error)

    @property
    def identity(self) -> tuple[str, ...]:
        """The identity of the node: not the file that the name will lead to."""
        return (*self.path, "/unresolved")

    def attributes(self) -> Attributes:
        """Return what a listing shows: no size, no permissions."""
        return Attributes(Kind.FILE, 0)


class ContentFile(File):
    """A file whose content is made here, from a record or from nothing at all.

    Its time is *mtime_ns*, or else that of the directory it is in.
    """

    __slots__ = ("_mtime_ns", "_size_bytes", "digest")

    def __init__(
        self,
        parent: Directory,
        name: bytes,
        content: bytes | LargeContent,
        *,
        mtime_ns: int | None = None,
    ) -> None:
        super().__init__(parent, name)
        self.digest = digest_of(content)
        self._size_bytes = len(content)
        self._mtime_ns = parent.attributes().mtime_ns if mtime_ns is None else mtime_ns

    @property
    def identity(self) -> tuple[str, ...]:
        """The identity of the node: its path and its bytes."""
        return (*self.path, f"/{self.digest}")

    def attributes(self) -> Attributes:
        """Return the attributes."""
        return Attributes(Kind.FILE, 0o644, self._size_bytes, self._mtime_ns, self._mtime_ns)

    def xattrs(self) -> Mapping[str, bytes]:
        """Return the extended attributes of the directory that the file describes."""
        return self.parent.xattrs() if self.parent is not None else {}


class MadeFile(ContentFile):
    """A file whose content is made when it is read.

    It is one version, too: the bytes that *make* made when the file was looked up. They are not
    kept, since a walk meets thousands of such files and reads few, but made again when the file is
    opened; should they be others by then, the name leads to another file.
    """

    __slots__ = ("_make",)

    def __init__(
        self,
        parent: Directory,
        name: bytes,
        content: bytes | LargeContent,
        make: Callable[[], Awaitable[bytes | LargeContent]],
        *,
        mtime_ns: int | None = None,
    ) -> None:
        super().__init__(parent, name, content, mtime_ns=mtime_ns)
        self._make = make

    async def open(self) -> Reader:
        """Return a reader of the bytes.

        Raises:
            Changed: they would be others by now.
            SatfsError: they cannot be made.
        """
        content = await self._make()
        if digest_of(content) != self.digest:
            raise Changed(f"/{'/'.join(self.path)} is made of another record by now")
        if isinstance(content, LargeContent):
            return LargeContentReader(content)
        return BytesReader(content)


def digest_of(content: bytes | LargeContent) -> str:
    """Return what identifies *content*."""
    if isinstance(content, LargeContent):
        return content.digest
    return blake2b(content, digest_size=16).hexdigest()


class BytesFile(ContentFile):
    """A file whose content is kept: for the few that cannot be made again."""

    __slots__ = ("content",)
    is_in_memory = True

    def __init__(self, parent: Directory, name: bytes, content: bytes) -> None:
        super().__init__(parent, name, content)
        self.content = content

    async def open(self) -> Reader:
        """Return a reader of the bytes."""
        return BytesReader(self.content)


class BytesReader(MadeReader):
    """Reads from memory."""

    def __init__(self, content: bytes) -> None:
        self.size_bytes = len(content)
        self._view = memoryview(content)

    async def read(self, span: ByteRange) -> memoryview:
        """Return the part of *span* that exists."""
        return self._view[span.start : span.stop]


def xattr_values(**values: str | None) -> dict[str, bytes]:
    """Return *values* as extended attributes `user.satfs.<name>`.

    Left out are those that are None, and those too long to be one (see `XATTR_VALUE_BYTES`).
    """
    found = {}
    for name, value in values.items():
        if value is None:
            continue
        encoded = value.encode("utf-8", "backslashreplace")
        if len(encoded) <= XATTR_VALUE_BYTES:
            found[f"user.satfs.{name}"] = encoded
    return found


def not_there(directory: Directory, name: bytes) -> NotThere:
    """Return the error for a *name* that *directory* does not hold."""
    shown = name.decode("utf-8", "backslashreplace")
    return NotThere(f"nothing is called {shown!r} in /{'/'.join(directory.path)}")
