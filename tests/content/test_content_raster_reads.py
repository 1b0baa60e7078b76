"""Which blocks of a raster are fetched, and which requests of the kernel are refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import rasterio
import trio
from content.fakestore import SCENE, ZIP, FakeStore, learn, opened, run
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from imagery.rasters import directory, tiff, tiled_fields, write
from rasterio.enums import Resampling

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.fetch.block_spans import BUFFER_BYTES, UNZIP_BUFFER_BYTES, BlockSpans
from satfs.content.fetch.page_run import PAGE_BYTES
from satfs.content.fetch.raster_files import (
    MAX_DIRECTORIES_AHEAD,
    MAX_RASTERS,
    RasterFile,
    RasterFiles,
    is_tiff,
)
from satfs.content.fetch.raster_reads import RasterReads
from satfs.content.fetch.readahead import Pattern
from satfs.content.fetch.reader import ObjectReader
from satfs.demo.contents import BytesContent
from satfs.imagery.layout import Block
from satfs.model import ByteRange

KIB = 1024
#: Tiles of this size lie one behind the other, from here on, SIDE by SIDE of them.
TILE_BYTES, FIRST, SIDE = 150 * KIB, 8 * KIB + 100, 6
AHEAD = 512 * KIB


def make_raster(
    side: int = SIDE, tile_bytes: int = TILE_BYTES, first: int = FIRST, order: str = "<"
) -> bytes:
    """Return a TIFF of noise with side by side tiles of equal length."""
    n = side * side
    offsets = [first + number * tile_bytes for number in range(n)]
    fields = tiled_fields(side, offsets=(4, offsets), sizes=(4, [tile_bytes] * n))
    head = tiff(directory(fields, order=order), order=order)
    assert len(head) <= first
    noise = random.Random(n).randbytes(first + n * tile_bytes - len(head))
    return head + noise


RASTER = make_raster()


def known(data: bytes = RASTER, base: int = 0) -> RasterFile:
    file = RasterFile(ByteRange(base, base + len(data)))
    file.feed(base, data)
    return file


def with_overview() -> RasterFile:
    """Return a raster whose overview, of half as many tiles a side, lies behind its tiles."""
    n_tiles = [SIDE * SIDE, SIDE * SIDE // 4]
    starts = [FIRST, FIRST + n_tiles[0] * TILE_BYTES]
    fields = [
        tiled_fields(
            side,
            offsets=(4, [start + number * TILE_BYTES for number in range(n)]),
            sizes=(4, [TILE_BYTES] * n),
        )
        for side, start, n in zip((SIDE, SIDE // 2), starts, n_tiles, strict=True)
    ]
    fields[1].insert(0, (254, 4, [1]))  # a smaller picture of the image before it
    at = 8 + len(directory(fields[0]))
    head = tiff(directory(fields[0], at), directory(fields[1], at=at))
    assert len(head) <= FIRST
    return known(head + bytes(FIRST + sum(n_tiles) * TILE_BYTES - len(head)))


def tile(number: int) -> ByteRange:
    start = FIRST + number * TILE_BYTES
    return ByteRange(start, start + TILE_BYTES)


def pages(span: ByteRange) -> ByteRange:
    """Return the span as the kernel requests it."""
    start = span.start // PAGE_BYTES * PAGE_BYTES
    return ByteRange(start, -(-span.stop // PAGE_BYTES) * PAGE_BYTES)


def nothing(_span: ByteRange) -> bool:
    """Tell that a cache holds no byte."""
    return False


def everything(_span: ByteRange) -> bool:
    """Tell that a cache holds all bytes."""
    return True


def first_read(number: int) -> ByteRange:
    """Return what stdio reads first of a block: its buffer, which begins before the block."""
    start = tile(number).start // (2 * PAGE_BYTES) * 2 * PAGE_BYTES
    return ByteRange(start, start + 2 * PAGE_BYTES)


@pytest.mark.parametrize("head", [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"])
def test_what_calls_itself_a_tiff(head: bytes) -> None:
    assert is_tiff(head + b"....")
    assert not is_tiff(head[:3])
    assert not is_tiff(b"PK\3\4" + head)


@pytest.mark.parametrize("base", [0, 12_345])
def test_a_read_inside_a_block_fetches_it_to_its_end_and_nothing_of_the_next(base: int) -> None:
    reads = RasterReads(known(base=base))
    first = first_read(8)
    plan = reads.note(ByteRange(first.start + base, first.stop + base), nothing)
    assert plan is not None
    assert plan.pattern is Pattern.BLOCKS
    assert plan.ahead == ()
    stop = -(-tile(8).stop // BUFFER_BYTES) * BUFFER_BYTES
    assert plan.now == ByteRange(first.start + base, stop + base)


def test_the_rest_of_a_block_asks_for_nothing_more() -> None:
    reads = RasterReads(known())
    reads.note(first_read(8), nothing)
    behind = ByteRange(first_read(8).stop, first_read(8).stop + PAGE_BYTES)
    assert reads.note(behind, everything) is None


@pytest.mark.parametrize("base", [0, 12_345])
def test_what_the_kernel_reads_ahead_past_a_block_is_refused_once(base: int) -> None:
    reads = RasterReads(known(base=base))
    first = first_read(8)
    reads.note(ByteRange(base + first.start, base + first.stop), nothing)
    start = base + first.stop
    ahead = ByteRange(start, start + AHEAD)
    behind = ByteRange(ahead.stop, ahead.stop + AHEAD)
    assert reads.expected_part(ahead, nothing) == ByteRange(start, start)
    assert reads.expected_part(behind, nothing) == ByteRange(behind.start, behind.start)
    for at in range(ahead.start, behind.stop, PAGE_BYTES):
        part = reads.expected_part(ByteRange(at, at + PAGE_BYTES), nothing)
        assert part is not None
        assert part.stop >= at + PAGE_BYTES
    assert reads.expected_part(ahead, nothing) == ahead


@pytest.mark.parametrize("base", [0, 12_345])
def test_of_a_block_that_is_requested_page_by_page_the_rest_is_expected(base: int) -> None:
    """Its first pages were part of a read-ahead that was refused, perhaps of another handle."""
    reads = RasterReads(known(base=base))
    start = base + first_read(8).start
    parts = []
    for number in range(5):
        page = ByteRange(start + number * PAGE_BYTES, start + (number + 1) * PAGE_BYTES)
        parts.append(reads.expected_part(page, nothing))
        reads.note(parts[-1] or page, nothing)
        if parts[-1] != page:
            break
    end = base + -(-tile(8).stop // BUFFER_BYTES) * BUFFER_BYTES
    assert [len(part or ()) for part in parts[:-1]] == [PAGE_BYTES] * (len(parts) - 1)
    assert 2 <= len(parts) - 1 <= 3
    assert parts[-1] == ByteRange(start + (len(parts) - 1) * PAGE_BYTES, end)


@pytest.mark.parametrize("base", [0, 12_345])
def test_the_first_page_of_a_refused_request_shows_that_the_rest_is_needed(base: int) -> None:
    """A program has come to it: the block is not requested page by page."""
    reads = RasterReads(known(base=base))
    first = first_read(8)
    reads.note(ByteRange(base + first.start, base + first.stop), nothing)
    start, end = base + first.stop, base + -(-tile(8).stop // BUFFER_BYTES) * BUFFER_BYTES
    assert reads.expected_part(ByteRange(start, start + AHEAD), nothing) == ByteRange(start, start)
    page = ByteRange(start, start + PAGE_BYTES)
    assert reads.expected_part(page, nothing) == ByteRange(start, end)
    # A page of a block that was not read is no more than a page.
    other = ByteRange(base + tile(20).start // PAGE_BYTES * PAGE_BYTES, base + tile(20).stop)
    reads.expected_part(other, nothing)
    page = ByteRange(other.start, other.start + PAGE_BYTES)
    assert reads.expected_part(page, nothing) == page


def test_the_rest_of_a_block_shows_no_more_than_its_first_page() -> None:
    """It was not requested: a program has not come to the kernel's last read-ahead."""
    reads = RasterReads(known())
    reads.note(first_read(8), nothing)
    start = first_read(8).stop
    reads.expected_part(ByteRange(start, start + AHEAD), nothing)
    n_read = 0
    for number in range(3):
        page = ByteRange(start + number * PAGE_BYTES, start + (number + 1) * PAGE_BYTES)
        part = reads.expected_part(page, nothing) or page
        assert reads.note(part, nothing) is None
        n_read += len(part)
    assert n_read > 3 * PAGE_BYTES
    assert reads.pattern.read_bytes == TILE_BYTES


def middle_of(number: int, length: int = AHEAD) -> ByteRange:
    """Return a long request that begins in the middle of a block."""
    start = (tile(number).start + 48 * KIB) // PAGE_BYTES * PAGE_BYTES
    return ByteRange(start, start + length)


def is_refused(reads: RasterReads, span: ByteRange) -> bool:
    """Return whether a request is refused; a program's next page is read if it is not."""
    part = reads.expected_part(span, nothing)
    assert part is not None
    return not part


def need(reads: RasterReads, at: int) -> None:
    """Have a program read the page at an offset."""
    page = ByteRange(at, at + PAGE_BYTES)
    part = reads.expected_part(page, nothing)
    assert part is not None
    assert part.start == page.start
    assert part.stop >= page.stop
    reads.note(part, nothing)


def test_requests_in_the_middle_of_one_block_that_were_needed_count_once() -> None:
    """The kernel reads ahead behind cached pages in several requests; two blocks show a habit."""
    reads = RasterReads(known())
    for number in (2, 14):
        ahead = middle_of(number, 32 * KIB)
        behind = ByteRange(ahead.stop, ahead.stop + 32 * KIB)
        assert is_refused(reads, ahead)
        assert is_refused(reads, behind)
        need(reads, ahead.start)
        need(reads, behind.start)
    assert not is_refused(reads, middle_of(27, 32 * KIB))


def test_a_late_request_behind_a_block_that_was_read_is_the_kernels() -> None:
    """On a busy machine it comes when the program is elsewhere: no block is fetched for it."""
    reads = RasterReads(known())
    for number in (2, 14):  # a program that begins to read in the middle of blocks
        assert is_refused(reads, middle_of(number))
        need(reads, middle_of(number).start)
    reads.note(first_read(27), nothing)
    reads.note(first_read(20), nothing)
    late = ByteRange(middle_of(27).start, middle_of(27).start + AHEAD)
    assert late.stop > tile(28).stop
    assert is_refused(reads, late)
    assert Block(0, 28) not in reads.pattern.outstanding
    assert reads.pattern.read_bytes == 4 * TILE_BYTES


@pytest.mark.parametrize("last", [8, 30], ids=["behind it", "in front of it"])
@pytest.mark.parametrize("distance", [PAGE_BYTES, 5 * PAGE_BYTES], ids=["the next", "another one"])
def test_one_page_in_the_middle_of_a_block_shows_nothing_before_a_second_one_comes(
    last: int, distance: int
) -> None:
    """The kernel reads ahead what is missing between pages that it has of a refused request."""
    reads = RasterReads(known())
    reads.note(first_read(last), nothing)
    start = middle_of(21).start
    pages = [ByteRange(at, at + PAGE_BYTES) for at in (start, start + distance)]
    assert reads.expected_part(pages[0], nothing) == pages[0]
    plan = reads.note(pages[0], nothing)
    assert plan is not None
    assert plan.now == pages[0]
    assert not reads.pattern.has_read(Block(0, 21))
    plan = reads.note(pages[1], nothing)
    assert reads.pattern.has_read(Block(0, 21))
    assert plan is not None
    assert plan.now.stop >= tile(21).stop


def test_behind_what_unzips_buffer_took_in_the_first_page_of_a_block_shows_that_it_is_read() -> (
    None
):
    """A program that looks into the zip has the block's beginning with the block before it."""
    start = tile(21).start + 56 * KIB
    page = pages(ByteRange(start, start + 1))
    for is_unzipped in (True, False):
        reads = RasterReads(known(), is_unzipped=is_unzipped)
        reads.note(first_read(8), nothing)
        reads.note(page, nothing)
        assert reads.pattern.has_read(Block(0, 21)) == is_unzipped


def test_the_end_of_an_expected_block_does_not_show_that_the_block_behind_it_is_read() -> None:
    """The kernel may read ahead to there before the program has come to the block."""
    reads = RasterReads(known())
    for number in (7, 8, 9, 13):
        reads.note(first_read(number), nothing)
    assert reads.pattern.is_expected(Block(0, 15))
    assert not reads.pattern.is_expected(Block(0, 16))
    reads.note(ByteRange(first_read(16).start, first_read(16).start + PAGE_BYTES), nothing)
    assert reads.pattern.has_read(Block(0, 15))
    assert not reads.pattern.has_read(Block(0, 16))


def test_what_the_kernel_reads_ahead_within_a_block_is_answered() -> None:
    reads = RasterReads(known())
    reads.note(first_read(8), nothing)
    start = first_read(8).stop
    inside = ByteRange(start, start + 64 * KIB)
    assert reads.expected_part(inside, nothing) == inside


def test_the_row_below_is_fetched_at_once() -> None:
    """A window of three by three tiles: from the second row on its blocks are known before."""
    reads = RasterReads(known())
    for number in (7, 8, 9):
        reads.note(first_read(number), nothing)
    plan = reads.note(first_read(13), nothing)
    assert plan is not None
    wanted = [plan.now, *plan.ahead]
    for number in (13, 14, 15):
        inside = tile(number)
        assert any(span.start <= inside.start and inside.stop <= span.stop for span in wanted)
    assert not any(span.overlaps(ByteRange(tile(17).start, tile(17).stop)) for span in wanted)


@pytest.mark.parametrize("base", [0, 12_345])
def test_a_predicted_row_is_fetched_from_the_buffer_on_that_its_first_block_begins_in(
    base: int,
) -> None:
    """A program takes in whole buffers: bytes in front of a block would be a request more."""
    reads = RasterReads(known(base=base))
    ahead: set[ByteRange] = set()
    for number in (7, 8, 9, 13):
        first = first_read(number)
        plan = reads.note(ByteRange(first.start + base, first.stop + base), nothing)
        ahead |= set(plan.ahead if plan is not None else ())
    rows = [span for span in ahead if span.start > tile(16).start + base]
    assert rows
    assert all((span.start - base) % BUFFER_BYTES == 0 for span in rows)


def test_a_point_in_narrow_strips_is_no_window_of_several() -> None:
    """Of strips that begin in one buffer it is not seen which one a program came for."""
    strip_bytes, first, n = 3 * KIB, 8 * KIB, 400
    offsets = [first + number * strip_bytes for number in range(n)]
    head = tiff(
        directory(
            [
                (256, 4, [16]),
                (257, 4, [n]),
                (273, 4, offsets),
                (277, 3, [1]),
                (278, 4, [1]),
                (279, 4, [strip_bytes] * n),
            ]
        )
    )
    reads = RasterReads(known(head + bytes(first + n * strip_bytes - len(head))))
    start = offsets[200] // BUFFER_BYTES * BUFFER_BYTES
    pieces = [ByteRange(at, at + BUFFER_BYTES) for at in (start, start + BUFFER_BYTES)]
    plans = [reads.note(each, nothing) for each in pieces]
    assert not reads.pattern.outstanding
    assert sum(len(span) for plan in plans if plan for span in (plan.now, *plan.ahead)) < 64 * KIB


@pytest.mark.parametrize("is_unzipped", [False, True])
def test_blocks_of_which_a_buffer_holds_several_are_all_read(is_unzipped: bool) -> None:
    """No request begins in most of them; they are passed by a program that reads on."""
    first, n_tiles, tile_bytes = 24 * KIB, 1600, 900
    raster = make_raster(40, tile_bytes, first)
    reads = RasterReads(known(raster), is_unzipped=is_unzipped)
    for at in range(first, len(raster), PAGE_BYTES):
        reads.note(ByteRange(at, at + PAGE_BYTES), nothing)
    n_behind = (BUFFER_BYTES + UNZIP_BUFFER_BYTES * is_unzipped) // tile_bytes + 6
    assert all(reads.pattern.has_read(Block(0, n)) for n in range(n_tiles - n_behind))
    assert not reads.pattern.has_read(Block(0, n_tiles - 1))


@pytest.mark.parametrize("base", [0, 12_345])
def test_strips_that_are_cached_above_a_window_are_counted(base: int) -> None:
    """A program may have read them from the kernel's pages, as those of a window before."""
    strip_bytes, first, n = 20 * KIB, 8 * KIB, 400
    offsets = [first + number * strip_bytes for number in range(n)]
    fields = [
        (256, 4, [16]),
        (257, 4, [n]),
        (273, 4, offsets),
        (277, 3, [1]),
        (278, 4, [1]),
        (279, 4, [strip_bytes] * n),
    ]
    head = tiff(directory(fields))
    file = known(head + bytes(first + n * strip_bytes - len(head)), base)
    blocks = BlockSpans(file, is_unzipped=False)
    cached = ByteRange(base + offsets[90], base + offsets[200])

    def holds(span: ByteRange) -> bool:
        return cached.start <= span.start and span.stop <= cached.stop

    assert blocks.n_cached_before(Block(0, 200), holds) == 110
    assert blocks.n_cached_before(Block(0, 201), holds) == 0
    assert blocks.n_cached_before(Block(0, 0), holds) == 0
    assert blocks.n_cached_before(Block(0, 300), everything) == 300


def test_what_is_cached_is_read_without_predictions() -> None:
    """A window that is cached costs nothing; it is predicted from the first block that is not."""
    reads = RasterReads(known())
    for number in (8, 9, 12):
        reads.note(first_read(number), everything)
    assert not reads.pattern.outstanding
    plan = reads.note(first_read(13), nothing)
    assert plan is not None
    assert reads.pattern.outstanding


def test_a_program_that_copies_is_left_to_read_ahead_by_offsets() -> None:
    reads = RasterReads(known())
    reads.note(ByteRange(0, 128 * KIB), nothing)
    assert reads.bulk_bytes is None
    ahead = ByteRange(128 * KIB, 128 * KIB + AHEAD)
    assert reads.expected_part(ahead, nothing) == ahead


def test_a_read_of_all_blocks_in_order_becomes_a_bulk_read() -> None:
    """Within the first few megabytes."""
    reads = RasterReads(known())
    assert reads.bulk_bytes == 0
    for number in range(20):
        reads.note(first_read(number), nothing)
    assert reads.bulk_bytes is not None
    assert reads.bulk_bytes > 2 * 1024 * KIB


def test_a_bulk_read_of_one_image_ends_with_it() -> None:
    """The overviews behind the image are not read ahead; a copy reads on."""
    reads = RasterReads(known(RASTER + bytes(5 * TILE_BYTES)))
    for number in range(20):
        reads.note(first_read(number), nothing)
    assert reads.bulk_stop == -(-tile(SIDE * SIDE - 1).stop // BUFFER_BYTES) * BUFFER_BYTES
    stop = reads.bulk_stop
    reads.note(ByteRange(0, PAGE_BYTES), nothing)  # the program looks at the header in between
    assert reads.bulk_bytes != 0
    assert reads.bulk_stop == stop
    copied = RasterReads(known())
    copied.note(ByteRange(0, 128 * KIB), nothing)
    assert copied.bulk_stop is None


def test_what_the_kernel_reads_ahead_behind_an_image_that_is_read_as_a_whole_is_refused() -> None:
    """An overview that lies there is not what the program reads."""
    reads = RasterReads(with_overview())
    for number in range(SIDE * SIDE):
        reads.note(first_read(number), nothing)
    assert reads.bulk_bytes != 0
    start = -(-tile(SIDE * SIDE - 1).stop // BUFFER_BYTES) * BUFFER_BYTES
    assert not is_refused(reads, ByteRange(start - AHEAD, start))
    assert is_refused(reads, ByteRange(start, start + AHEAD))


def test_only_the_last_rasters_of_an_object_are_remembered() -> None:
    files = RasterFiles()
    first = files.add(ByteRange(0, 1000))
    assert files.add(ByteRange(0, 1000)) is first
    for number in range(1, MAX_RASTERS + 1):
        files.add(ByteRange(number, 1000))
    assert files.get(ByteRange(0, 1000)) is None


#: Small blocks, those of the other tests, and blocks longer than what the kernel reads ahead.
RASTERS = (make_raster(6, 900), RASTER, make_raster(2, 700 * KIB))
#: Where a request begins, None: where the last one ended; and its length.
Requests = st.lists(
    st.tuples(
        st.none() | st.integers(0, len(RASTER)),
        st.sampled_from([1, 2 * PAGE_BYTES]) | st.integers(1, AHEAD),
    ),
    max_size=40,
)


@given(st.sampled_from(RASTERS), Requests, st.booleans())
@example(RASTERS[2], [(FIRST, 1), (None, 1), (None, 1), (None, 1)], False)
def test_a_page_is_never_refused_and_nothing_twice(
    raster: bytes, requests: list[tuple[int | None, int]], is_held: bool
) -> None:
    reads = RasterReads(known(raster))
    holds = everything if is_held else nothing
    last_stop = 0
    for start, length in requests:
        begin = last_stop if start is None else start
        begin = min(begin, len(raster) - 1)
        span = pages(ByteRange(begin, min(begin + length, len(raster))))
        last_stop = span.stop
        part = reads.expected_part(span, holds)
        if part is not None:
            assert part.start == span.start
            assert len(span) <= PAGE_BYTES or part.stop <= span.stop
            if not part:
                assert reads.expected_part(span, holds) == span
        page = ByteRange(span.start, span.start + PAGE_BYTES)
        part = reads.expected_part(page, holds)
        assert part is None or (part.start == page.start and part.stop >= page.stop)
        plan = reads.note(span, holds)
        if plan is not None:
            assert plan.now.start <= span.start
            assert plan.now.stop >= min(span.stop, len(raster))
            for piece in (plan.now, *plan.ahead):
                assert 0 <= piece.start < piece.stop


def _lie(data: bytes, seed: int) -> bytes:
    """Return a raster whose tables and directory are partly noise."""
    dice = random.Random(seed)
    broken = bytearray(data)
    for _ in range(dice.randrange(1, 60)):
        at = dice.randrange(4, 600)
        broken[at] = dice.randrange(256)
    return bytes(broken)


@pytest.mark.slow
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(  # the layout is given up in between
    reads=[(4097, 59137), (0, 1)], seed=5213, base=0, n_known=0
)
@given(
    reads=st.lists(st.tuples(st.integers(0, len(RASTER)), st.integers(1, AHEAD)), max_size=12),
    seed=st.none() | st.integers(0, 1 << 16),
    base=st.integers(0, 3) | st.integers(0, BLOCK_BYTES),
    n_known=st.integers(0, 2 * BLOCK_BYTES),
)
def test_right_bytes_whatever_is_read_and_whatever_the_layout_states(
    tmp_path: Path, reads: list[tuple[int, int]], seed: int | None, base: int, n_known: int
) -> None:
    """A layout only decides what is fetched: one that lies costs time, and no byte is wrong."""
    raster = RASTER if seed is None else _lie(RASTER, seed)
    whole = bytes(base) + raster
    store = FakeStore()
    store.objects[SCENE, ZIP] = BytesContent(whole)

    async def main() -> None:
        async with opened(store, tmp_path) as contents:
            version = await learn(contents)
            bounds = ByteRange(base, len(whole)) if base else None
            for _ in range(2):
                reader = await contents.open(SCENE, ZIP, version, bounds=bounds)
                reader.locate_file(ByteRange(base, len(whole)), raster[:n_known])
                for start, length in [(base, 4096), *reads]:
                    span = ByteRange(start, start + length)
                    part = reader.expected_part(span.clip(len(whole)))
                    if part:
                        assert bytes(await reader.read(part)) == whole[part.start : part.stop]
                    assert bytes(await reader.read(span)) == whole[start : start + length]
                reader.close()

    run(main)


def test_a_handle_learns_from_what_is_cached_of_a_table(tmp_path: Path) -> None:
    """A program that looks into a zip has read a part of a table before the raster is found."""
    side, first = 80, 64 * KIB
    store = FakeStore()
    store.objects[SCENE, ZIP] = BytesContent(make_raster(side, 512, first))

    async def main() -> None:
        async with opened(store, tmp_path) as contents:
            version = await learn(contents)
            before = await contents.open(SCENE, ZIP, version)
            assert isinstance(before, ObjectReader)
            before.limit_read_ahead(ByteRange(0, 0))
            for start in (0, 2 * BLOCK_BYTES):  # some of the offsets, and some of the sizes
                await before.read(ByteRange(start, start + BLOCK_BYTES))
            before.close()
            reader = await contents.open(SCENE, ZIP, version)
            await reader.read(ByteRange(first, first + 8 * KIB))
            assert isinstance(reader, ObjectReader)
            assert reader._raster is not None
            raster = reader._raster.raster
            found = [n for n in range(side * side) if raster.span_of(Block(0, n)) is not None]
            assert 1000 < len(found) < side * side
            where = raster.span_of(Block(0, found[0]))
            assert where == ByteRange(first + 512 * found[0], first + 512 * (found[0] + 1))
            reader.close()

    run(main)


def test_a_second_handle_knows_the_layout_without_reading_the_header(tmp_path: Path) -> None:
    """The kernel may keep the header, and then it is never requested again."""
    store = FakeStore()
    store.objects[SCENE, ZIP] = BytesContent(RASTER)

    async def main() -> None:
        async with opened(store, tmp_path) as contents:
            version = await learn(contents)
            first = await contents.open(SCENE, ZIP, version)
            await first.read(ByteRange(0, 8 * KIB))
            first.close()
            second = await contents.open(SCENE, ZIP, version)
            await second.read(first_read(20))
            start = first_read(20).stop
            part = second.expected_part(ByteRange(start, start + AHEAD))
            assert part == ByteRange(start, start)
            assert second.is_near(tile(20)) or second.expected_part(tile(20)) == tile(20)
            await second.read(tile(20))
            assert not second.is_near(tile(22))
            second.close()

    run(main)


def with_overviews(path: Path) -> bytes:
    """Return a raster whose overviews were added behind it, as gdaladdo does."""
    write(path, tiled=True, blockxsize=128, blockysize=128, compress="lzw")
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8], Resampling.nearest)
    return path.read_bytes()


@pytest.mark.parametrize("base", [0, 89])
def test_the_next_directory_is_requested_when_the_header_has_come(
    base: int, tmp_path: Path
) -> None:
    """A program that opens a raster follows the chain: no round trip more for the overviews."""
    raster = with_overviews(tmp_path / "image.tif")
    store = FakeStore()
    store.objects[SCENE, ZIP] = BytesContent(bytes(base) + raster)
    place = ByteRange(base, base + len(raster))
    head = ByteRange(base, base + 8 * KIB)

    async def main() -> None:
        async with opened(store, tmp_path / "cache") as contents:
            version = await learn(contents)
            reader = await contents.open(SCENE, ZIP, version, bounds=place if base else None)
            data = await reader.read(head)
            if base:  # a member of a zip: its place is known when its local header has come
                reader.locate_file(place, bytes(data))
            file = RasterFile(place)
            file.feed(base, raster[: 8 * KIB])
            (directory,) = file.needs()
            assert directory.start > 256 * KIB + base
            await trio.sleep(1)
            n_before = len(store.spans())
            assert reader.is_near(directory)
            found = await reader.read(directory)
            assert bytes(found) == raster[directory.start - base : directory.stop - base]
            assert len(store.spans()) == n_before
            reader.close()

    run(main)


def test_few_directories_are_requested_ahead(tmp_path: Path) -> None:
    """Each once, and of a chain without end no more than a few."""
    raster = with_overviews(tmp_path / "image.tif")
    file = RasterFile(ByteRange(0, len(raster)))
    assert file.directory_ahead() is None  # whether it is a raster is not known
    file.feed(0, raster[: 8 * KIB])
    found = [file.directory_ahead() for _ in range(3)]
    assert found[0] in file.needs()
    assert found[1:] == [None, None]
    file.feed(0, raster)
    assert file.directory_ahead() is None

    n = 3 * MAX_DIRECTORIES_AHEAD
    fields = tiled_fields(1, offsets=(4, [8]), sizes=(4, [8]))
    size = 64 * KIB
    chain = bytearray(n * size)
    for number in range(n):
        at = number * size or 8
        entry = directory(fields, (number + 1) * size if number < n - 1 else 0, at=at)
        chain[at : at + len(entry)] = entry
    chain[:8] = tiff(b"")[:8]
    hostile = RasterFile(ByteRange(0, len(chain)))
    n_requested = 0
    for number in range(n):
        hostile.feed(number * size, bytes(chain[number * size : (number + 1) * size]))
        n_requested += hostile.directory_ahead() is not None
    assert n_requested == MAX_DIRECTORIES_AHEAD
