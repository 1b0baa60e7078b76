"""Entering and leaving deflate streams between two blocks."""

from __future__ import annotations

import zlib

import pytest
from archive.opening import wordy
from archive.zips import deflated
from hypothesis import given
from hypothesis import strategies as st

from satfs.archive.inflate import Inflater
from satfs.errors import Damaged


def inflate_all(inflater: Inflater, data: bytes, piece_bytes: int, out_bytes: int) -> bytes:
    output, position = b"", 0
    while not inflater.is_finished:
        if inflater.needs_input:
            piece = data[position : position + piece_bytes]
            if not piece:
                break
            inflater.feed(piece)
            position += len(piece)
        buffer = bytearray(out_bytes)
        output += buffer[: inflater.inflate(buffer, 0, out_bytes)]
    return output


@given(st.binary(max_size=2000), st.integers(0, 9), st.integers(1, 300), st.integers(1, 300))
def test_it_inflates_what_zlib_deflates(
    data: bytes, level: int, piece_bytes: int, out_bytes: int
) -> None:
    """For any pieces that go in and come out."""
    assert inflate_all(Inflater(), deflated(data, level), piece_bytes, out_bytes) == data


@pytest.mark.parametrize("level", [1, 6, 9])
@pytest.mark.parametrize("piece_bytes", [7, 1000, 1 << 20])
def test_every_block_boundary_is_a_place_to_start(level: int, piece_bytes: int) -> None:
    """Position and window suffice to go on at any bit, for the same bytes."""
    data = wordy(600_000)
    packed = deflated(data, level)
    inflater, output, position = Inflater(), bytearray(len(data)), 0
    places, fed = [], 0
    while not inflater.is_finished:
        if inflater.needs_input:
            inflater.feed(packed[fed : fed + piece_bytes])
            fed += piece_bytes
        position = inflater.inflate(output, position, len(output), to_block=True)
        if inflater.is_between_blocks:
            places.append((position, inflater.bit_position, inflater.window()))
        if position == len(output):
            position = len(output) - 1  # room, so that the end is seen
            break
    assert bytes(output) == data
    assert len(places) > 4
    assert len({bits % 8 for _, bits, _ in places}) > 2, "boundaries lie at any bit of a byte"
    for start, bits, window in places:
        assert window == data[max(0, start - 32768) : start]
        again = Inflater(window, bits % 8)
        rest = packed[bits // 8 :]
        assert inflate_all(again, rest, piece_bytes, 50_000) == data[start:]


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_inflate_or_are_damaged(data: bytes) -> None:
    """The output of zlib's own decompressor, no more and no less."""
    reference = zlib.decompressobj(-15)
    try:
        expected = reference.decompress(data)
    except zlib.error:
        with pytest.raises(Damaged):
            inflate_all(Inflater(), data, len(data), 1 << 16)
        return
    assert inflate_all(Inflater(), data, len(data), 1 << 16) == expected


def test_what_comes_before_damage_is_still_there() -> None:
    """The good bytes first, then the error, at each call."""
    data = wordy(200_000)
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    inflater = Inflater()
    inflater.feed(packed + b"\x06")  # block type 3 is none (RFC 1951 §3.2.3)
    buffer = bytearray(len(data) + 1)
    assert inflater.inflate(buffer, 0, len(buffer)) == len(data)
    assert buffer[:-1] == data
    for _ in range(2):
        with pytest.raises(Damaged):
            inflater.inflate(buffer, len(data), len(buffer))


def test_closing_twice_is_closing_once() -> None:
    """The memory of zlib is freed once."""
    inflater = Inflater()
    inflater.close()
    inflater.close()
