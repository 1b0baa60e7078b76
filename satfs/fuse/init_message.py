"""The FUSE_INIT message: which capabilities the kernel offers, and which the response accepts.

The layout is that of `struct fuse_in_header`, `fuse_init_in`, `fuse_out_header` and `fuse_init_out`
in the kernel's include/uapi/linux/fuse.h: integers in the machine's byte order, and in both
messages the flags behind three 32-bit numbers.
"""

from __future__ import annotations

import struct
from typing import Final

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
