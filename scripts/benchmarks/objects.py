"""The objects that are stored at the origin, made once per run from a seed, and their digests."""

from __future__ import annotations

import hashlib
import random
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash

MIB = 1 << 20

#: Digests are kept per block of this size, so that a read cut short can be compared as well.
DIGEST_BLOCK_BYTES = MIB


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object: the scene that delivers it, and where its bytes are in the store.

    Or the one member of a zip, for contenders that show members instead: then `start` is where its
    bytes begin in the zip.
    """

    scene_id: str
    path: Path
    size_bytes: int
    start: int = 0

    @property
    def file_name(self) -> str:
        """Return the name under which every contender shows it."""
        return self.path.name

    @property
    def member_name(self) -> str:
        """Return the name of the zip's one member."""
        return f"rasters/{self.scene_id}_TOA_0.tif"

    def member(self) -> StoredObject:
        """Return the zip's one member, which is stored as it is, as an object of its own."""
        with zipfile.ZipFile(self.path) as archive, self.path.open("rb") as stored:
            entry = archive.getinfo(self.member_name)
            # APPNOTE.TXT 4.3.7: the lengths of name and extra field end the local header.
            stored.seek(entry.header_offset + 26)
            name_bytes, extra_bytes = struct.unpack("<HH", stored.read(4))
            start = entry.header_offset + 30 + name_bytes + extra_bytes
            return StoredObject(self.scene_id, self.path, entry.file_size, start)

    def pieces(self) -> Iterator[bytes]:
        """Return the bytes in blocks of `DIGEST_BLOCK_BYTES`, the last one shorter."""
        with self.path.open("rb") as stored:
            stored.seek(self.start)
            left = self.size_bytes
            while left > 0:
                block = stored.read(min(left, DIGEST_BLOCK_BYTES))
                left -= len(block)
                yield block

    def digests(self) -> list[str]:
        """Return the digest of each block of `DIGEST_BLOCK_BYTES`, the last one shorter."""
        return [xxhash.xxh3_128_hexdigest(block) for block in self.pieces()]

    def sha256(self) -> str:
        """Return what `sha256sum` says of it."""
        whole = hashlib.sha256()
        for block in self.pieces():
            whole.update(block)
        return whole.hexdigest()

    def digest_of(self, start: int, stop: int) -> str:
        """Return the digest of the bytes [start, stop)."""
        with self.path.open("rb") as stored:
            stored.seek(self.start + start)
            return xxhash.xxh3_128_hexdigest(stored.read(stop - start))


def make_zip(directory: Path, scene_id: str, size_bytes: int, seed: int) -> StoredObject:
    """Write a delivery of about *size_bytes*: a zip with one stored member that no one can shrink.

    A genuine zip, because satfs looks at its tail; incompressible, because imagery is.
    """
    path = directory / f"{scene_id}.zip"
    noise = random.Random(seed)  # noqa: S311 - repeatable bytes, no secret
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        name = zipfile.ZipInfo(f"rasters/{scene_id}_TOA_0.tif", (2026, 1, 28, 15, 57, 46))
        with archive.open(name, "w", force_zip64=True) as member:
            left = size_bytes
            # One random stretch, turned a little for each copy: no two blocks are equal, and it is
            # made at the speed of copying.
            stretch = noise.randbytes(min(16 * MIB, size_bytes))
            turn = 0
            while left > 0:
                turned = stretch[turn:] + stretch[:turn]
                member.write(turned[:left])
                left -= len(turned)
                turn += 4099
    return StoredObject(scene_id, path, path.stat().st_size)
