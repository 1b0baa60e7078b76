"""Raw deflate, entered and left at any block boundary, through the system's zlib.

Random access needs two things of an inflater: to stop between two blocks and report at which *bit*
of the input that is, and to start there again, given the 32 KiB of output before. zlib has had both
for twenty years (`Z_BLOCK`, `inflatePrime`, `inflateSetDictionary`; its own example is zran.c), but
Python's `zlib` module passes none of them on. So this module calls the system's zlib itself, the
very library that Python's module is linked to. See docs/decisions/0006-zip-parser-and-inflate.md.

Functions are called without the interpreter lock. Nothing here waits, and nothing here belongs on
the event loop: inflating a megabyte takes milliseconds.
"""

from __future__ import annotations

import ctypes
import weakref
from functools import cache
from typing import Final

from satfs.errors import Damaged, Unsupported

#: How far back a deflate stream can refer, in bytes (RFC 1951 §2).
WINDOW_BYTES: Final = 32 * 1024

_LIBRARY: Final = "libz.so.1"
#: Raw deflate with the largest window (zlib.h, inflateInit2).
_RAW: Final = -15

# From zlib.h, unchanged since 1.2.3 (2005).
_NO_FLUSH, _BLOCK = 0, 5
_OK, _STREAM_END, _BUF_ERROR, _MEM_ERROR = 0, 1, -5, -4
_UNUSED_BITS: Final = 7
_IN_LAST_BLOCK: Final = 64
_BETWEEN_BLOCKS: Final = 128


class _Stream(ctypes.Structure):
    """`z_stream` of zlib.h."""

    _fields_ = [
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    ]


@cache
def _zlib() -> ctypes.CDLL:
    """Return the system's zlib with its prototypes stated.

    Raises:
        Unsupported: the system's zlib lacks a function.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
        stream = ctypes.POINTER(_Stream)
        for name, *arguments in (
            ("inflateInit2_", stream, ctypes.c_int, ctypes.c_char_p, ctypes.c_int),
            ("inflate", stream, ctypes.c_int),
            ("inflateEnd", stream),
            ("inflatePrime", stream, ctypes.c_int, ctypes.c_int),
            ("inflateSetDictionary", stream, ctypes.c_char_p, ctypes.c_uint),
            ("inflateGetDictionary", stream, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint)),
        ):
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = ctypes.c_int
        library.zlibVersion.restype = ctypes.c_char_p
    except (OSError, AttributeError):
        raise Unsupported(f"deflated members need zlib ({_LIBRARY}) on this system") from None
    return library


def require_zlib() -> None:
    """Raise Unsupported if there is nothing to inflate with."""
    _zlib()


class Inflater:
    """One raw deflate stream, from its beginning or from between two of its blocks.

    To start in the middle, pass the output before it (`window`, up to 32 KiB) and the bit of the
    first byte fed at which the block begins (`first_bit`, 0 to 7). Not for two threads at once.

    Raises (on creation):
        Unsupported: the system has no zlib.
    """

    def __init__(self, window: bytes = b"", first_bit: int = 0) -> None:
        self._library = _zlib()
        self._stream = _Stream()
        self._check(
            self._library.inflateInit2_(
                self._stream, _RAW, self._library.zlibVersion(), ctypes.sizeof(_Stream)
            )
        )
        #: Frees what zlib holds (some 40 KiB), when closed or forgotten.
        self._finalizer = weakref.finalize(self, self._library.inflateEnd, self._stream)
        self._finalizer.atexit = False
        if window:
            self._check(self._library.inflateSetDictionary(self._stream, window, len(window)))
        self._first_bit = first_bit
        self._input = b""
        self._n_fed = 0
        self._is_starved = True
        self.is_damaged = False
        """Whether the next step will end: there is no more output."""
        self.is_finished = False
        """Whether the stream's last block has been read to its end."""

    @property
    def needs_input(self) -> bool:
        """Return whether no more output can come without more input, and could with it."""
        return self._is_starved and not (self.is_finished or self.is_damaged)

    @property
    def n_unread(self) -> int:
        """Return how many of the bytes fed are not read yet."""
        return int(self._stream.avail_in)

    @property
    def is_between_blocks(self) -> bool:
        """Return whether the stream can be entered here: between two blocks, more to come."""
        state = self._stream.data_type
        return bool(state & _BETWEEN_BLOCKS) and not state & _IN_LAST_BLOCK

    @property
    def bit_position(self) -> int:
        """Return how many bits were read since the first byte fed; exact between blocks."""
        n_used = self._n_fed - self.n_unread
        return 8 * n_used - int(self._stream.data_type & _UNUSED_BITS)

    def feed(self, data: bytes) -> None:
        """Hand over the next bytes of the stream. Only when `needs_input`."""
        if self._first_bit and not self._n_fed and data:
            n_bits = 8 - self._first_bit
            self._check(
                self._library.inflatePrime(self._stream, n_bits, data[0] >> self._first_bit)
            )
            self._n_fed += 1
            data = data[1:]
        self._is_starved = not data
        self._input = data  # zlib reads from it until it is used up
        self._stream.next_in = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)
        self._stream.avail_in = len(data)
        self._n_fed += len(data)

    def inflate(self, into: bytearray, start: int, stop: int, *, to_block: bool = False) -> int:
        """Write output to *into* from *start*, and return where it stops: at *stop* at the latest.

        It stops earlier when the input is used up, when the stream is finished and, with
        *to_block*, between two blocks.

        Raises:
            Damaged: the input is not deflate data. Output before that place was returned first.
        """
        if self.is_damaged:
            raise Damaged("its compressed bytes are not what deflate writes")
        if self.is_finished or not start < stop:
            return start
        target = (ctypes.c_char * (stop - start)).from_buffer(into, start)
        self._stream.next_out = ctypes.addressof(target)
        self._stream.avail_out = stop - start
        outcome = self._library.inflate(self._stream, _BLOCK if to_block else _NO_FLUSH)
        written = stop - start - int(self._stream.avail_out)
        # A match may be only half written though all input is used: then the output is full.
        self._is_starved = self._stream.avail_in == 0 and self._stream.avail_out > 0
        if outcome == _STREAM_END:
            self.is_finished = True
        elif outcome == _MEM_ERROR:
            raise MemoryError
        elif outcome not in (_OK, _BUF_ERROR):  # the latter: no input left, nothing wrong
            self.is_damaged = True
            if not written:
                return self.inflate(into, start, stop)
        return start + written

    def window(self) -> bytes:
        """Return the last output, up to 32 KiB: what starting here again takes."""
        held = ctypes.create_string_buffer(WINDOW_BYTES)
        length = ctypes.c_uint(WINDOW_BYTES)
        self._check(self._library.inflateGetDictionary(self._stream, held, ctypes.byref(length)))
        return held.raw[: length.value]

    def close(self) -> None:
        """Free what zlib holds. Not while another thread inflates."""
        self.is_damaged = True
        self._finalizer()

    @staticmethod
    def _check(outcome: int) -> None:
        """Raise MemoryError for anything but success: nothing else can fail with our arguments."""
        if outcome != _OK:
            raise MemoryError(f"zlib returned {outcome}")
