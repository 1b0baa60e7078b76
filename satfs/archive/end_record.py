"""The place of a zip's central directory, from the last bytes of the zip.

A zip is read from its end: the last record names the directory's size, place and number of entries.
The record is found by a signature that may just as well occur in the comment behind it, so every
occurrence is a candidate, and the one whose numbers fit is taken. Facts are from PKWARE's
APPNOTE.TXT 6.3.10, sections 4.3.14 to 4.3.16; what it forbids and programs write nevertheless
(bytes in front of the first member, a gap behind the directory) is accepted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from satfs.errors import Damaged
from satfs.model import ByteRange

#: Bytes that are read of an unknown zip: for nearly every delivery the whole directory (some 230
#: members at 70 bytes each), and only bytes that were fetched to learn the zip's size. That is the
#: last 32 KiB (`content.fetch.probe`), of which whole blocks of 16 KiB are kept.
TAIL_BYTES: Final = 16 * 1024
#: Bytes that are requested when the tail is too short, one number after the other: the longest
#: comment (65,535), all end records (98), and as much again for ZIP64's extensible data; then the
#: bytes that a store or a tool may have put behind the archive (a block device's rest, zeros).
_WINDOWS_BYTES: Final = (128 * 1024, 2 * 1024 * 1024, 8 * 1024 * 1024)
#: End records that are looked at, from the last one: a tail full of signatures must not cost more
#: than a tenth of a second.
_MAX_CANDIDATES: Final = _WINDOWS_BYTES[0] // 4
#: The longest directory that is read, in bytes: a million members of 200 bytes each, names, extra
#: fields and all. More is an attack or an accident, and an `ls` would fetch it.
MAX_DIRECTORY_BYTES: Final = 256 * 1024 * 1024

_END: Final = struct.Struct("<4s4H2LH")
_END_SIGNATURE: Final = b"PK\x05\x06"
_LOCATOR: Final = struct.Struct("<4sLQL")
_LOCATOR_SIGNATURE: Final = b"PK\x06\x07"
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_END64_SIGNATURE: Final = b"PK\x06\x06"
#: How far before its locator a ZIP64 record is looked for, in bytes, and how many signatures are
#: tried there. No writer makes extensible data of that size; a tail full of signatures must not
#: cost a second.
_ZIP64_BYTES: Final = 4096
_ZIP64_TRIES: Final = 8
_ENTRY_SIGNATURE: Final = b"PK\x01\x02"
_ENTRY_BYTES: Final = 46

_WRAP: Final = 1 << 32
_FULL32: Final = 0xFFFFFFFF


class CentralDirectory(Struct, frozen=True):
    """Where the directory is, and how to read the offsets in it.

    `shift` is added to every offset that the archive states: how many bytes were put in front of it
    after it was made (a self-extractor). `n_entries` is right modulo 65,536 at least: old programs
    write what fits into 16 bits. With `is_cut` the archive is over 4 GiB without ZIP64 records, so
    its sizes and offsets are right modulo 2^32 only (`archive.missing_zip64`).
    """

    span: ByteRange
    n_entries: int
    shift: int = 0
    is_cut: bool = False


class NeedMore(Struct, frozen=True):
    """The tail does not settle it: call again with these bytes, which reach to the end."""

    span: ByteRange


class _Candidate(Struct, frozen=True, order=True):
    """A possible end record, ordered by how well its numbers fit, then by how late it is."""

    evidence: int
    is_unshifted: bool
    is_last: bool
    position: int
    directory: CentralDirectory

    @property
    def is_certain(self) -> bool:
        """Return whether a longer tail could hold nothing better."""
        return self.is_last and (
            self.evidence == _SEEN or (self.evidence == _UNSEEN and self.is_unshifted)
        )


#: Evidence for a candidate: a first entry was seen at the stated place; that place is before the
#: tail; there is no entry; there is no entry, and the offset is wrong as well.
_SEEN, _UNSEEN, _EMPTY, _ODD_EMPTY = 3, 2, 1, 0


def locate(tail: bytes | memoryview, size_bytes: int) -> CentralDirectory | NeedMore:
    """Return where the directory of a zip of *size_bytes* is, given its last bytes.

    Requires more up to three times, the second and third time only if no directory was found
    within the first 128 KiB: with the bytes that it required last, it decides.

    Raises:
        Damaged: it is not a zip, is cut off, spans several disks, or has a directory larger than
            `MAX_DIRECTORY_BYTES`.
    """
    if size_bytes == 0:
        raise Damaged("the object is empty")
    window = _Window(bytes(tail), size_bytes - len(tail))
    best = max(window.candidates(), default=None)
    if best is None or not best.is_certain:
        is_found = best is not None and best.evidence >= _UNSEEN
        for window_bytes in _WINDOWS_BYTES[:1] if is_found else _WINDOWS_BYTES:
            wanted = min(size_bytes, window_bytes)
            if len(window.data) < wanted:
                return NeedMore(ByteRange(size_bytes - wanted, size_bytes))
    if best is None:
        raise Damaged("no zip directory is announced at its end: not a zip, or cut off")
    if len(best.directory.span) > MAX_DIRECTORY_BYTES:
        raise Damaged(
            f"its directory is {len(best.directory.span)} bytes long;"
            f" no more than {MAX_DIRECTORY_BYTES} are read"
        )
    return best.directory


class _Window(Struct, frozen=True):
    """The last bytes of a zip; positions count from the zip's first byte."""

    data: bytes
    start: int

    @property
    def stop(self) -> int:
        return self.start + len(self.data)

    def candidates(self) -> Iterator[_Candidate]:
        """Yield what may be the end record, the last one first."""
        index = self.data.rfind(_END_SIGNATURE)
        n_left = _MAX_CANDIDATES
        while index >= 0 and n_left:
            n_left -= 1
            found = self._candidate(self.start + index)
            if found is not None:
                yield found
            index = self.data.rfind(_END_SIGNATURE, 0, index + len(_END_SIGNATURE) - 1)

    def _candidate(self, position: int) -> _Candidate | None:
        """Return the end record at *position*, or None when its numbers cannot be."""
        at = position - self.start
        if at + _END.size > len(self.data):
            return None
        _, disk, first_disk, n_here, n_entries, length, offset, n_comment = _END.unpack_from(
            self.data, at
        )
        if position + _END.size + n_comment > self.stop:
            return None
        directory_stop = position
        zip64 = self._zip64(position)
        if zip64 is not None:
            directory_stop, disk, first_disk, n_here, n_entries, length, offset = zip64
        elif _FULL32 in (length, offset):
            return None
        if disk != first_disk or n_here != n_entries or n_entries * _ENTRY_BYTES > length:
            return None
        placed = self._place(directory_stop, length, offset)
        if placed is None:
            return None
        evidence, span, shift = placed
        # An offset of 32 bits that is too small by 4 GiB or more was cut. Programs that cut it have
        # written it into ZIP64 records, too.
        is_cut = shift >= _WRAP
        if is_cut:
            shift %= _WRAP
        return _Candidate(
            evidence=evidence,
            is_unshifted=shift == 0,
            is_last=position + _END.size + n_comment == self.stop,
            position=position,
            directory=CentralDirectory(span, n_entries, shift, is_cut),
        )

    def _zip64(self, end_position: int) -> tuple[int, int, int, int, int, int, int] | None:
        """Return the ZIP64 record in front of the end record at *end_position*, if there is one.

        Its position, then the fields that replace the end record's.
        """
        locator_position = end_position - _LOCATOR.size
        at = locator_position - self.start
        if at < 0 or not self.data.startswith(_LOCATOR_SIGNATURE, at):
            return None
        # The locator's offset is wrong as soon as bytes were put in front of the archive. The
        # record ends where the locator begins, so that is how it is recognised.
        index = at
        for _ in range(_ZIP64_TRIES):
            index = self.data.rfind(_END64_SIGNATURE, max(0, at - _ZIP64_BYTES), index)
            if index < 0:
                return None
            if index + _END64.size > at:
                continue
            (_, rest, _, _, disk, first_disk, n_here, n_entries, length, offset) = (
                _END64.unpack_from(self.data, index)
            )
            if index + 12 + rest == at:  # 12: signature and this length are not counted in it
                position = self.start + index
                return position, disk, first_disk, n_here, n_entries, length, offset
        return None

    def _place(self, stop: int, length: int, offset: int) -> tuple[int, ByteRange, int] | None:
        """Return evidence, place and shift of a directory that ends at or before *stop*."""
        start = stop - length
        if start < offset:
            return None
        shift = start - offset
        if length == 0:
            return (_ODD_EMPTY if shift else _EMPTY), ByteRange(start, stop), shift
        behind = ByteRange(start, stop)  # right before the end records: all offsets are shifted
        stated = ByteRange(offset, offset + length)  # where it says, and a gap after it
        for span, moved in ((behind, shift), (stated, 0)):
            if self._holds(span.start) and self._is_entry(span.start):
                return _SEEN, span, moved
        for span, moved in ((behind, shift), (stated, 0)):
            if not self._holds(span.start):
                return _UNSEEN, span, moved
        return None

    def _holds(self, position: int) -> bool:
        return position >= self.start

    def _is_entry(self, position: int) -> bool:
        return self.data.startswith(_ENTRY_SIGNATURE, position - self.start)
