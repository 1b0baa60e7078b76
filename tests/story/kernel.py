"""The kernel's part, played without a kernel: walks, lists and reads through `Operations`.

Counts references as Linux does, so that a test can give them all back in the end and see whether
the operations agree.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest

from satfs.fuse.inodes import ROOT, Inodes
from satfs.fuse.operations import Operations
from satfs.tree.nodes import Node


@dataclass
class Token:
    """Space for *room* entries of a directory, and the entries that were put in."""

    room: int
    entries: list[tuple[bytes, pyfuse3.EntryAttributes, int]] = field(default_factory=list)


def _reply(token: Token, name: bytes, attr: pyfuse3.EntryAttributes, next_id: int) -> bool:
    if len(token.entries) >= token.room:
        return False
    token.entries.append((name, attr, next_id))
    return True


class Kernel:
    """Sends the requests of a kernel, in its order."""

    def __init__(
        self, operations: Operations, inodes: Inodes[Node], patch: pytest.MonkeyPatch
    ) -> None:
        self.operations = operations
        self.inodes = inodes
        self.references: Counter[int] = Counter()
        self.caller = 0  # the calling thread; 0 is one of another PID namespace
        patch.setattr(pyfuse3, "readdir_reply", _reply)

    @property
    def _context(self) -> Any:
        # A RequestContext cannot be made outside pyfuse3.
        return SimpleNamespace(pid=self.caller)

    async def lookup(self, parent: int, name: str | bytes) -> pyfuse3.EntryAttributes:
        entry = await self.operations.lookup(parent, os.fsencode(name), self._context)
        if entry.st_ino:
            self.references[entry.st_ino] += 1
        return entry

    async def walk(self, path: str) -> pyfuse3.EntryAttributes:
        """Return the attributes of *path*; raises FUSEError as open(2) would fail."""
        entry = await self.operations.getattr(ROOT, self._context)
        for name in path.split("/"):
            if name:
                entry = await self.lookup(entry.st_ino, name)
                if not entry.st_ino:
                    raise FileNotFoundError(path)
        return entry

    async def ls(
        self, path: str = "", room: int = 1000, *, dots: bool = False
    ) -> dict[str, pyfuse3.EntryAttributes]:
        """Return the entries of a directory, read in pieces of *room*."""
        inode = (await self.walk(path)).st_ino
        handle = await self.operations.opendir(inode, self._context)
        found: dict[str, pyfuse3.EntryAttributes] = {}
        position = 0
        while True:
            token = Token(room)
            await self.operations.readdir(handle, position, token)  # type: ignore[arg-type]
            for name, entry, cookie in token.entries:
                position = cookie
                assert name.decode() not in found, "listed twice"
                found[name.decode()] = entry
                if name not in (b".", b".."):
                    self.references[entry.st_ino] += 1
            if not token.entries:
                break
        await self.operations.releasedir(handle)
        if not dots:
            del found["."], found[".."]
        return found

    async def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        inode = (await self.walk(path)).st_ino
        return (await self.operations.open(inode, flags, self._context)).fh

    async def read(self, path: str, size: int = 128 * 1024) -> bytes:
        """Return the whole content, read in pieces of *size*."""
        handle = await self.open(path)
        content = b""
        while piece := bytes(await self.operations.read(handle, len(content), size)):
            content += piece
        await self.operations.release(handle)
        return content

    async def xattrs(self, path: str) -> dict[str, bytes]:
        inode = (await self.walk(path)).st_ino
        names = await self.operations.listxattr(inode, self._context)
        return {
            name.decode(): await self.operations.getxattr(inode, name, self._context)
            for name in names
        }

    async def forget_all(self) -> None:
        """Give back every reference, and see thin the FUSE operations knows of no other."""
        for inode, n_lookups in self.references.items():
            assert self.inodes.n_lookups(inode) == n_lookups
        await self.operations.forget(list(self.references.items()))
        self.references.clear()
        assert len(self.inodes) == 1
