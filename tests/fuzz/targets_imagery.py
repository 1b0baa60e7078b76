"""Rasters: hostile headers, directories and tables of TIFFs."""

from __future__ import annotations

from fuzz.target import Target
from hypothesis import strategies as st
from imagery.hostile import GOOD, HOSTILE, SIZE
from imagery.rasters import directory, tiff

from satfs.imagery.layout import Block
from satfs.imagery.raster import Raster

_TAGS = st.sampled_from(
    [254, 255, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 330, 339,
     32997, 33550, 33922, 34264, 34735, 42112, 42113, 50844]
)  # fmt: skip
_INTEGERS = st.sampled_from([0, 1, 2, 8, 16, 32, 512, SIZE, 2**16 - 1, 2**31, 2**32 - 1])
_fields = st.lists(
    st.one_of(
        st.tuples(_TAGS, st.just(4), st.lists(_INTEGERS, min_size=1, max_size=6)),
        st.tuples(_TAGS, st.sampled_from([2, 5, 7, 12]), st.binary(min_size=1, max_size=30)),
        st.sampled_from(GOOD),
    ),
    min_size=1,
    max_size=14,
)
_structured = st.tuples(_fields, _INTEGERS).map(
    lambda made: tiff(directory([*made[0], *GOOD], made[1]), size_bytes=SIZE)
)
_edits = st.lists(
    st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6
)


def _edited(given: tuple[bytes, list[tuple[int, bytes]]]) -> bytes:
    data = bytearray(given[0])
    for position, new in given[1]:
        data[position : position + len(new)] = new
    return bytes(data)


_seeds = st.sampled_from([tiff(directory(GOOD), size_bytes=SIZE), *HOSTILE.values()])
files = (
    _structured
    | st.tuples(_structured | _seeds, _edits).map(_edited)
    | st.binary(max_size=300).map(lambda tail: b"II*\0\x08\0\0\0" + tail)
)


def check_raster(data: bytes) -> None:
    """Any file has a layout or none; what is needed and where blocks lie stays in the file."""
    raster = Raster(len(data))
    n_rounds = 0
    while spans := raster.needs() or raster.needs_for_facts():
        for span in spans:
            assert span.stop <= len(data)
            raster.feed(span.start, data[span.start : span.stop])
        n_rounds += 1
        assert n_rounds < 2000, "it never has enough"
    raster.feed(0, data)
    assert raster.is_done
    assert (raster.layout is None) == (raster.reason is not None)
    raster.is_cog()
    for image in raster.layout.images if raster.layout else ():
        for number in {0, image.n_blocks - 1}:
            span_of = raster.span_of(Block(image.number, number))
            assert span_of is None or span_of.stop <= len(data)
    for position in range(0, len(data), 97):
        raster.block_at(position)


TARGETS = (
    Target(
        "tiff",
        "a raster's header, directories and tables (imagery/)",
        files,
        check_raster,
        tuple(HOSTILE.values()),
    ),
)
