"""Relay the first message between the kernel and libfuse, and add a flag that libfuse omits.

libfuse up to 3.16 never accepts FUSE_PARALLEL_DIROPS, later releases only for a program that sets
it in a callback which pyfuse3 does not offer. The flag is one bit of one message, so that message
takes a detour: libfuse's descriptor is, for as long as the handshake lasts, one end of a socket
pair; its response is read at the other end, completed, and written to the kernel. After that the
descriptor is /dev/fuse again, and messages go directly (docs/decisions/0011).

The message's layout is that of `struct fuse_in_header`, `fuse_init_in`, `fuse_out_header` and
`fuse_init_out` in the kernel's include/uapi/linux/fuse.h: integers in the machine's byte order, and
in both messages the flags behind three 32-bit numbers.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

#: Lookups and listings of one directory may run at the same time. Without it the kernel holds a
#: mutex per directory for as long as one of them waits for its response (fs/fuse/inode.c,
#: fuse_lock_inode).
PARALLEL_DIROPS: Final = 1 << 18

_FUSE_INIT: Final = 26
_MAJOR: Final = 7

#: len, opcode, unique, nodeid, uid, gid, pid, padding; then major, minor, max_readahead, flags.
_REQUEST: Final = struct.Struct("=IIQQIIIIIIII")
#: len, error, unique; then major, minor, max_readahead, flags.
_RESPONSE: Final = struct.Struct("=IiQIIII")
_FLAGS: Final = struct.Struct("=I")
_FLAGS_AT: Final = _RESPONSE.size - _FLAGS.size


def is_init(request: bytes) -> bool:
    """Return whether *request*, as read from /dev/fuse, is FUSE_INIT of a protocol we know."""
    if len(request) < _REQUEST.size:
        return False
    opcode, major = _REQUEST.unpack_from(request)[1], _REQUEST.unpack_from(request)[8]
    return (opcode, major) == (_FUSE_INIT, _MAJOR)


def accept_parallel_dirops(request: bytes, response: bytes) -> bytes:
    """Return *response* with `PARALLEL_DIROPS` accepted, if *request* offers it.

    The response is returned unchanged where it is not a whole, successful response to that
    FUSE_INIT: a kernel that gets a flag in the wrong place would misread the connection.
    """
    if not is_init(request) or len(response) < _RESPONSE.size:
        return response
    unique, offered = _REQUEST.unpack_from(request)[2], _REQUEST.unpack_from(request)[11]
    length, error, answered, major, _, _, accepted = _RESPONSE.unpack_from(response)
    is_whole = (length, error, answered, major) == (len(response), 0, unique, _MAJOR)
    if not is_whole or not offered & PARALLEL_DIROPS:
        return response
    flags = _FLAGS.pack(accepted | PARALLEL_DIROPS)
    return response[:_FLAGS_AT] + flags + response[_FLAGS_AT + _FLAGS.size :]


log = structlog.get_logger(__name__)

_DEVICE: Final = "/dev/fuse"
#: Longest wait for the kernel's FUSE_INIT, in seconds. The kernel queues it before mount(2)
#: returns (fs/fuse/inode.c, fuse_send_init): where it is not there, libfuse has taken it.
_REQUEST_S: Final = 1.0
#: Longest wait for libfuse's response, in seconds. It computes a few flags.
_RESPONSE_S: Final = 10.0
#: Upper limit for a message of the handshake, in bytes. The kernel refuses a read into less
#: (FUSE_MIN_READ_BUFFER, 8 KiB).
_MESSAGE_BYTES: Final = 128 * 1024


def fuse_descriptors() -> frozenset[int]:
    """Return the descriptors of this process that are open on /dev/fuse."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == _DEVICE:
                found.add(int(name))
        except OSError:  # the directory's own descriptor is closed by now
            continue
    return frozenset(found)


async def negotiate(descriptor: int, main: Callable[[], Awaitable[None]]) -> bool:
    """Complete the handshake on *descriptor*, libfuse's own of a new mount.

    *main* runs libfuse's loop on that descriptor until it is cancelled. When this returns, the
    descriptor is unchanged, and *main* may be run again for all further requests.

    Returns:
        Whether lookups and listings of one directory may run at the same time. Where False, the
        mount works, and the kernel sends them one after the other.

    Raises:
        OSError: the connection to the kernel is lost.
    """
    with trio.move_on_after(_REQUEST_S) as waiting:
        await trio.lowlevel.wait_readable(descriptor)
    if waiting.cancelled_caught:
        return False
    kernel = os.dup(descriptor)
    ours, libfuse = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, libfuse:
        ours.setblocking(False)
        try:
            request = os.read(kernel, _MESSAGE_BYTES)
            os.dup2(libfuse.fileno(), descriptor, inheritable=False)
            try:
                response = await _response_of(main, ours, request)
            finally:
                os.dup2(kernel, descriptor, inheritable=False)
            completed = accept_parallel_dirops(request, response)
            os.write(kernel, completed)
        finally:
            os.close(kernel)
    return completed != response


async def _response_of(
    main: Callable[[], Awaitable[None]], ours: socket.socket, request: bytes
) -> bytes:
    """Return libfuse's response to *request*."""
    if not is_init(request):
        log.warning("unknown handshake", length=len(request))
    ours.send(request)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(main)
        with trio.fail_after(_RESPONSE_S):
            await trio.lowlevel.wait_readable(ours)
        response = ours.recv(_MESSAGE_BYTES)
        nursery.cancel_scope.cancel()
    return response
