"""The attributes of nodes for the kernel, how long it may use them, and the size of the mount."""

from __future__ import annotations

import os
from typing import Final

from msgspec import Struct, field
from pyfuse3 import EntryAttributes, StatvfsData

from satfs.tree.nodes import Attributes, Kind, Node

#: Preferred size of a read, in bytes. Programs that obey it (Python's buffered files do) wait for
#: one round trip per piece of this size. It is the kernel's default read-ahead.
_BLOCK_BYTES: Final = 128 * 1024
#: The size that `df` shows: 1 PiB, all of it free. The size of an account is not known, and with
#: zeros some programs refuse to copy, or warn of a full disk.
_STATFS_BLOCKS: Final = 2**50 // _BLOCK_BYTES
_STATFS_FILES: Final = 2**32


class Owner(Struct, frozen=True):
    """The owner of all nodes, and the permissions that are removed for all users.

    With *has_executables* a file that its archive marks as executable is shown as executable.
    *server_uid* is the user whose process serves the mount.
    """

    uid: int
    gid: int
    umask: int = 0
    has_executables: bool = False
    server_uid: int = field(default_factory=os.geteuid)

    def permissions(self, node: Node, attributes: Attributes) -> int:
        """Return the permission bits under which *node*, of those *attributes*, is shown."""
        shown = attributes.permissions & ~self.umask
        if attributes.kind is Kind.FILE and not self.has_executables:
            shown &= ~0o111
        return shown & 0o700 if node.is_private else shown


class Limits(Struct, frozen=True):
    """How long a call may take, and how long the kernel may use a reply; all in seconds."""

    metadata_deadline_s: float = 15.0
    read_deadline_s: float = 60.0
    entry_timeout_s: float = 60.0
    attr_timeout_s: float = 60.0
    negative_ttl_s: float = 5.0


def entry_of(node: Node, inode: int, owner: Owner, limits: Limits) -> EntryAttributes:
    """Return the attributes of *node*, and how long the kernel may use them and its name."""
    attributes = node.attributes()
    entry = EntryAttributes()
    entry.st_ino = inode
    entry.st_mode = attributes.kind | owner.permissions(node, attributes)
    # A directory's link count is not its number of directories here. File systems state 1 then,
    # which keeps `find` from drawing conclusions.
    entry.st_nlink = 1
    entry.st_uid = owner.server_uid if node.is_private else owner.uid
    entry.st_gid = owner.gid
    entry.st_size = attributes.size_bytes
    entry.st_blocks = -(-attributes.size_bytes // 512)
    entry.st_blksize = _BLOCK_BYTES
    entry.st_mtime_ns = entry.st_atime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    entry.entry_timeout = limits.entry_timeout_s if node.is_name_cacheable else 0
    entry.attr_timeout = 0 if node.is_live else limits.attr_timeout_s
    return entry


def no_entry(ttl_s: float) -> EntryAttributes:
    """Return the reply "no such name", which the kernel may cache for *ttl_s* seconds."""
    entry = EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = ttl_s
    return entry


def statistics() -> StatvfsData:
    """Return what `df` shows."""
    shown = StatvfsData()
    shown.f_bsize = shown.f_frsize = _BLOCK_BYTES
    shown.f_blocks = shown.f_bfree = shown.f_bavail = _STATFS_BLOCKS
    shown.f_files = shown.f_ffree = shown.f_favail = _STATFS_FILES
    shown.f_namemax = 255
    return shown
