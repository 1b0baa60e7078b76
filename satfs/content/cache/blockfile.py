"""The bytes of one object: a sparse file on disk, or the same thing in memory."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from satfs.content.cache import kernelcalls
from satfs.content.cache.blockmap import hash_blocks
from satfs.errors import Damaged
from satfs.model import ByteRange

#: Pause between tries to open a file that another process has locked for milliseconds.
_LOCK_RETRY_S: Final = 0.002
#: Longest wait for another process that evicts from the file, in seconds: it may have been stopped
#: in the middle. Then the object is kept in memory, or not evicted.
_EVICTING_S: Final = 5.0
#: Longest wait for another process that is making the file, which takes milliseconds. After that
#: the file counts as one that was cut to nothing while another process has it open.
_MAKING_S: Final = 1.0


#: Bytes that are read from the disk at once while blocks are checked.
READ_AHEAD_BYTES: Final = 32 * 1024 * 1024


class BlockFile:
    """A contiguous, sparse, mapped file with the fetched bytes of one object.

    It does not know which blocks are present: the caller tests the block map. Only
    `read_from_disk`, `verify` and `punch` wait; they belong in a thread.

    In a process with limits, a file larger than its address space (RLIMIT_AS) is not mapped, and
    only `read_from_disk` reads it. Bytes in memory that are larger than its files may be
    (RLIMIT_FSIZE, which holds for memfd_create(2) as well) are a mapping without a file.
    """

    def __init__(self, fd: int | None, size_bytes: int, *, in_memory: bool) -> None:
        #: The descriptor for others to write to; None for a mapping without a file.
        self.fd = fd
        self.size_bytes = size_bytes
        self.in_memory = in_memory
        self._map = _mapped(fd, size_bytes)
        self._view = memoryview(self._map) if self._map is not None else memoryview(b"")
        self._address = kernelcalls.address_of(self._map) if self._map is not None else 0

    @classmethod
    def on_disk(cls, path: Path, size_bytes: int) -> tuple[BlockFile, bool]:
        """Open or create the file at *path*, sharing it; return it, and whether it is new.

        A new file is locked until `share`, which is called after its entry in the index: of several
        processes that open it at once, one finds it new, and the others wait for that one.

        Raises:
            OSError: the file cannot be opened or made.
        """
        began_s = time.monotonic()
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            waited_s = time.monotonic() - began_s
            with ExitStack() as closing:
                closing.callback(os.close, fd)
                # A process that evicts the whole file locks it, and unlinks it before it releases
                # the lock: so test now whether the name still leads to this file.
                is_shared = kernelcalls.try_lock_shared(fd)
                if not is_shared and waited_s >= _EVICTING_S:
                    raise BlockingIOError(errno.EAGAIN, "another process holds the cache file")
                seen = os.fstat(fd)
                is_new = seen.st_size != size_bytes
                if not is_shared or seen.st_nlink == 0:
                    pass
                elif is_new and seen.st_size:
                    # The file was cut. Another mount may rely on its earlier bytes: it keeps the
                    # old file, where it notices this, and does not get our new one with zeros in
                    # place of bytes.
                    path.unlink(missing_ok=True)
                elif is_new and not kernelcalls.try_lock_alone(fd):
                    if waited_s >= _MAKING_S:
                        path.unlink(missing_ok=True)
                else:
                    if is_new:
                        os.ftruncate(fd, size_bytes)
                    file = cls(fd, size_bytes, in_memory=False)
                    closing.pop_all()
                    return file, is_new
            time.sleep(_LOCK_RETRY_S)

    @classmethod
    def anonymous(cls, size_bytes: int) -> BlockFile:
        """Return a file of *size_bytes* in memory, which no other process sees."""
        fd = os.memfd_create("satfs", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, size_bytes)
        except OSError:  # EFBIG: larger than files of this process may be
            os.close(fd)
            return cls(None, size_bytes, in_memory=True)
        return cls(fd, size_bytes, in_memory=True)

    def close(self) -> None:
        """Close the file and release its lock. Views handed out stay valid."""
        self._view = memoryview(b"")
        self._map = None  # unmapped with the last view of it
        if self.fd is not None:
            os.close(self.fd)
            self.fd = -1  # a number that is used again would lead to another file

    def view(self, span: ByteRange, *, is_fresh: bool = False) -> memoryview | None:
        """Return the bytes of *span* without copying, or None when that would wait for the disk.

        None as well when the file could not be mapped. *is_fresh*: they were written a moment ago,
        and are in memory for certain.
        """
        if self._map is None and self.size_bytes:
            return None
        if not is_fresh and not kernelcalls.is_resident(self._address, span.start, span.stop):
            return None
        # A user may have cut the file short: touching a mapped page beyond its end is SIGBUS.
        if self.fd is not None and not self.in_memory and os.fstat(self.fd).st_size < span.stop:
            return None
        return self._view[span.start : span.stop]

    def read_from_disk(self, span: ByteRange) -> bytes:
        """Return the bytes of *span*; waits for the disk.

        Raises:
            Damaged: the file is shorter than it must be.
            OSError: the disk failed.
        """
        if self.fd is None:
            return bytes(self._view[span.start : span.stop])
        data = os.pread(self.fd, len(span), span.start)
        if len(data) != len(span):
            raise Damaged("a cache file was cut short")
        return data

    def write(self, start: int, data: bytes | memoryview) -> None:
        """Write *data* at *start*, without a mapping: a full disk is an OSError, not a SIGBUS.

        Raises:
            OSError: no space, or the disk failed.
        """
        view = memoryview(data)
        if self.fd is None:
            self._view[start : start + len(view)] = view
            return
        while view:
            written = os.pwrite(self.fd, view, start)
            start += written
            view = view[written:]

    def punch(self, span: ByteRange) -> None:
        """Give the space of *span* back; its bytes are gone.

        Raises:
            OSError: the file system has no holes.
        """
        if self.fd is not None:
            kernelcalls.punch_hole(self.fd, span.start, len(span))
        elif self._map is not None:
            # The pages of a shared mapping without a file, too (madvise(2)).
            self._map.madvise(mmap.MADV_REMOVE, span.start, len(span))

    def verify(self, span: ByteRange, expected: Sequence[int]) -> list[bool]:
        """Return for each block of the block-aligned *span* whether its checksum is as expected.

        Reads the disk. A block that cannot be read is not as expected.
        """
        try:
            # The next pieces are checked after this one: the disk reads them meanwhile.
            if self.fd is not None:
                advice = os.POSIX_FADV_WILLNEED
                os.posix_fadvise(self.fd, span.start, READ_AHEAD_BYTES, advice)
            found = hash_blocks(self.read_from_disk(span))
        except (OSError, Damaged):
            return [False] * len(expected)
        return [one == other for one, other in zip(found, expected, strict=True)]

    def hash_held(self, span: ByteRange) -> list[int]:
        """Return the checksums of the blocks of *span*, which was written a moment ago."""
        if self._map is None:
            return hash_blocks(self.read_from_disk(span))
        return hash_blocks(self._view[span.start : span.stop])

    def try_alone(self) -> bool:
        """Lock the file, if no other process has it open; `share` ends this."""
        return self.in_memory or self.fd is None or kernelcalls.try_lock_alone(self.fd)

    def share(self) -> None:
        """Let other processes open the file again."""
        if not self.in_memory and self.fd is not None:
            kernelcalls.try_lock_shared(self.fd)


def _mapped(fd: int | None, size_bytes: int) -> mmap.mmap | None:
    """Return the file *fd* mapped, or None where this process may map no more.

    Without a file, new memory that is mapped.

    Raises:
        OSError: there is neither a file nor address space.
    """
    if not size_bytes:
        return None
    if fd is None:
        return mmap.mmap(-1, size_bytes)
    if not _has_addresses_for(size_bytes):
        return None
    try:
        if sys.version_info >= (3, 13):  # without a second descriptor for the file
            return mmap.mmap(fd, size_bytes, trackfd=False)
        return mmap.mmap(fd, size_bytes)
    except OSError as problem:
        if problem.errno != errno.ENOMEM:  # RLIMIT_AS, or too many mappings (mmap(2))
            raise
        return None


def _has_addresses_for(size_bytes: int) -> bool:
    """Return whether a file of *size_bytes* can be mapped and enough left for threads and buffers.

    True without a limit (RLIMIT_AS); with one, mapped files may bring the process to half of it.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return True
    # The first number is the size of the address space, in pages (proc(5)).
    n_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return n_pages * mmap.PAGESIZE + size_bytes <= limit // 2
