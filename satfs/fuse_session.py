"""The kernel's mount, by libfuse: from mount(2) to the unmount.

Nothing here calls the mount: a process that calls its own mount waits for itself, and when it is
killed meanwhile it never ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pyfuse3
import structlog
import trio

from satfs import mountpoints
from satfs.errors import BadMountpoint, FuseMissing, SatfsError
from satfs.fuse.handshake import fuse_descriptors, negotiate
from satfs.fuse.operations import Operations
from satfs.mountpoint_hold import MountpointHold

log = structlog.get_logger(__name__)

#: Requests of the kernel that may wait for an answer at once. Each is a task of a few kilobytes;
#: when all are taken no call is answered any more, so reads that wait for the network must not get
#: near it (pyfuse3's own default is 99).
MAX_CALLS: Final = 1000
#: Tasks that stay when they have answered. A sequential reader has a few requests in flight: with
#: fewer tasks each request started one, with a buffer of a megabyte from the system, and ended one.
MIN_TASKS: Final = 16
#: Longest wait for calls in flight to be answered when the mount is taken down, in seconds. They
#: are cancelled, so this is for tasks that do not turn.
_ANSWERING_S: Final = 1.0

#: Options of every mount: read-only, checked by the kernel, and of no use to an attacker.
_ALWAYS: Final = frozenset({"ro", "default_permissions", "nosuid", "nodev", "subtype=satfs"})
#: The number of the capability that mount(2) takes (capabilities(7), linux/capability.h).
_CAP_SYS_ADMIN: Final = 21
#: Words of mount(8) that libfuse knows from 3.17 on only. A mount that is never written has no
#: access times to leave alone.
_UNKNOWN: Final = frozenset({"nodiratime"})

#: Has the kernel forget a name; waits for the lock of its directory: belongs in a thread.
invalidate_entry = pyfuse3.invalidate_entry
#: Has the kernel forget what it keeps of an inode; waits in the same way.
invalidate_inode = pyfuse3.invalidate_inode


@asynccontextmanager
async def mounted(
    operations: Operations,
    hold: MountpointHold,
    *,
    source: str,
    mount_options: Collection[str],
    before_end: Callable[[], Awaitable[None]],
) -> AsyncIterator[trio.Event]:
    """Mount, and unmount in the end; the event is set when another process has unmounted.

    *source* is what `findmnt` shows; *mount_options* are options of libfuse and the kernel beside
    those that every mount of satfs has. *before_end* is awaited when every call has been answered,
    right before the mount ends.

    Raises:
        BadMountpoint: the mountpoint is another directory than the one that is held.
        FuseMissing: libfuse could not mount.
    """
    descriptor = _mount(operations, hold, source, mount_options)
    ended = trio.Event()
    try:
        _require_mounted_there(hold.mountpoint)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve_kernel, descriptor, ended)
            try:
                yield ended
            finally:
                # While the loop still turns: calls that wait get an error, instead of no answer.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _ANSWERING_S):
                    await operations.close()
                await before_end()
                nursery.cancel_scope.cancel()
    finally:
        # Detaches at once, busy or not, and ends the connection: a program with an open file gets
        # ENOTCONN from now on. Does nothing when it is unmounted already.
        pyfuse3.close()
        _detach_severed(hold.mountpoint)


async def _serve_kernel(descriptor: int | None, ended: trio.Event) -> None:
    try:
        if descriptor is None or not await negotiate(descriptor, partial(pyfuse3.main, 1, 1)):
            log.warning("lookups of one directory are answered one after the other")
        await pyfuse3.main(min_tasks=MIN_TASKS, max_tasks=MAX_CALLS)
    except OSError as failure:
        # The connection was aborted (/sys/fs/fuse/connections/*/abort).
        log.error("connection to the kernel lost", errno=failure.errno)
    ended.set()


def _mount(
    operations: Operations, hold: MountpointHold, source: str, mount_options: Collection[str]
) -> int | None:
    """Mount, and return libfuse's descriptor of /dev/fuse; None where it is not known."""
    options = {*_ALWAYS, f"fsname={_escaped(source)}", *mount_options} - _UNKNOWN
    others = fuse_descriptors()
    with hold.alone():
        _mount_at(hold.require_unchanged(), operations, hold.mountpoint, options)
    opened = fuse_descriptors() - others
    return next(iter(opened)) if len(opened) == 1 else None


def _mount_at(
    directory: int, operations: Operations, mountpoint: Path, options: Collection[str]
) -> None:
    """Mount on *directory*, a descriptor of the one at *mountpoint*."""
    # For root libfuse calls mount(2) by this name, which leads to the directory that is held even
    # if the mountpoint is replaced now. It unmounts by the same name, so the descriptor stays open,
    # and from 3.17 on it has umount(8) do so, which has another /proc/self.
    # fusermount3, another process, needs the path: it looks at the directory as the user does.
    is_by_descriptor = _may_call_mount() and "auto_unmount" not in options
    place = f"/proc/{os.getpid()}/fd/{directory}" if is_by_descriptor else str(mountpoint)
    with _captured_stderr() as captured_text:
        try:
            pyfuse3.init(operations, place, set(options))
        except RuntimeError as failure:
            # libfuse and fusermount3 explain themselves on standard error only.
            reason = " ".join(captured_text().split()) or str(failure)
            raise FuseMissing(f"{mountpoint} could not be mounted: {reason}") from failure


def _may_call_mount() -> bool:
    """Return whether libfuse mounts by mount(2) itself: it does so as root, if it is allowed to."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    return os.geteuid() == 0 and bool(capabilities >> _CAP_SYS_ADMIN & 1)


def _require_mounted_there(mountpoint: Path) -> None:
    """Return if the kernel lists a satfs mount at *mountpoint*, where root has mounted it.

    For others fusermount3 sees to it, and it may have mounted in another mount namespace.

    Raises:
        BadMountpoint: the directory was moved, and the mount with it.
    """
    if os.geteuid() == 0 and mountpoints.find_mount(mountpoint) is None:
        raise BadMountpoint(f"{mountpoint} was replaced while satfs was mounted there")


def _escaped(source: str) -> str:
    """Return *source* as the value of an option of libfuse, where a comma would end it."""
    return source.replace("\\", "\\\\").replace(",", "\\,")


def _detach_severed(mountpoint: Path) -> None:
    """Unmount what is left when the connection was lost: libfuse leaves that mount behind."""
    if mountpoints.find_mount(mountpoint) is None or not mountpoints.is_dead_mount(mountpoint):
        return
    try:
        mountpoints.detach(mountpoint, is_lazy=True)
    except SatfsError as failure:
        log.warning("dead mount left behind", mountpoint=str(mountpoint), reason=str(failure))


@contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """Keep what C code writes to standard error, and yield a function that returns it."""
    sys.stderr.flush()
    # In memory: there may be no directory for temporary files that can be written.
    with os.fdopen(os.memfd_create("stderr"), "w+b") as captured:
        before = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:

            def captured_text() -> str:
                captured.seek(0)
                return captured.read().decode("utf-8", "replace")

            yield captured_text
        finally:
            os.dup2(before, 2)
            os.close(before)
