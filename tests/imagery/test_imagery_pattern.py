"""Predictions of the next reads: in time, within the image, and hardly ever in vain."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from itertools import chain, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imagery.rasters import plain_image
from imagery.traces import Outcome, chips, follow, in_file_order, spans, window_reads

from satfs.imagery.layout import Block, BlockPlace, Image, Window
from satfs.imagery.pattern import (
    ALLOWANCE_BYTES,
    MAX_OUTSTANDING,
    AccessPattern,
)
from satfs.imagery.sequences import BULK_BYTES
from satfs.imagery.windows import NextBlocks, ReadWindow, WindowShape
from satfs.model import ByteRange

SIDE = 4096
IMAGES = {
    "256 tiles": plain_image(SIDE, SIDE, 256, n_bands=4),
    "512 tiles": plain_image(SIDE, SIDE, 512, n_bands=4),
    "512 tiles, band": plain_image(SIDE, SIDE, 512, n_bands=4, is_band_interleaved=True),
    "256 tiles, band": plain_image(SIDE, SIDE, 256, n_bands=4, is_band_interleaved=True),
    "1024 tiles": plain_image(SIDE, SIDE, 1024, n_bands=4),
    "strips of 16": plain_image(SIDE, SIDE, SIDE, 16, n_bands=4),
    "strips of 1": plain_image(SIDE, SIDE, SIDE, 1, n_bands=4),
    "strips, band": plain_image(SIDE, SIDE, SIDE, 16, n_bands=4, is_band_interleaved=True),
}
every_image = pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)


def windows(image: Image, side: int, bands: list[int] | None = None) -> Iterator[Block]:
    """Yield the reads of six windows here and there, which touch the same numbers of blocks."""
    for top, left in ((100, 100), (2148, 612), (612, 1636), (1636, 2660), (1124, 100), (100, 2148)):
        yield from window_reads(image, Window(top, top + side, left, left + side), bands)


@every_image
@pytest.mark.parametrize("side", [512, 1024])
def test_a_window_is_known_after_its_first_rows(image: Image, side: int) -> None:
    """The first window of a handle: its blocks are predicted from the second row on."""
    window = Window(1100, 1100 + side, 1300, 1300 + side)
    reads = list(window_reads(image, window))
    outcome = follow(AccessPattern(), image, iter(reads))
    n_columns = len({image.place(block.number).column for block in reads})
    assert outcome.n_waits <= 6 + n_columns
    assert len(outcome.unread) <= max(1, len(reads) / 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_waits"),
    [("256 tiles", 1.2), ("512 tiles, band", 1.2), ("256 tiles, band", 1.5), ("strips of 16", 1.2),
     ("strips of 1", 1.2)],
)  # fmt: skip
def test_the_shape_of_chips_is_learnt(name: str, n_waits: float) -> None:
    """After three chips, the first block of the next brings the others."""
    image = IMAGES[name]
    pattern = AccessPattern()
    made = list(chips(image, 512, 23))
    before = follow(pattern, image, chain.from_iterable(made[:3]))
    outcome = follow(pattern, image, chain.from_iterable(made[3:]), before)
    assert outcome.n_waits <= n_waits * 20
    assert len(outcome.unread) <= len(outcome.read) / 5


@pytest.mark.parametrize("name", ["256 tiles, band", "strips of 16", "strips of 1"])
def test_the_shape_of_chips_is_learnt_from_those_that_are_seen_as_a_whole(name: str) -> None:
    """What overlaps chips before is read from the kernel's pages, and a rest of a chip is seen."""
    image, pattern = IMAGES[name], AccessPattern()
    outcome, n_chips, n_waits = Outcome(), 0, 0
    for blocks in chips(image, 256, 20, seed=3):
        new = [block for block in blocks if block not in outcome.read]
        n_chips += bool(new)
        outcome = follow(pattern, image, iter(new), outcome)
        n_waits += outcome.n_waits
    assert n_waits <= 1.5 * n_chips
    assert len(outcome.unread) <= len(outcome.read) / 5


@every_image
def test_nothing_is_predicted_for_points(image: Image) -> None:
    """Random points of pixel interleave; in band interleave the other bands of each point."""
    # Points whose blocks touch neither side by side nor one below the other, nor lie at a stride.
    rows, columns = image.n_rows, image.n_columns
    places = [(7 * k * k % rows, 11 * k % columns) for k in range(40)]
    where = spans(image)
    pattern = AccessPattern()
    n_predicted = 0
    far = [(r, c) for (r, c), (s, d) in zip(places[1:], places, strict=False)
           if abs(r - s) > 1 or abs(c - d) > 1]  # fmt: skip
    for row, column in far:
        number = row * columns + column
        pattern.read(image, number, where[number])
        predicted = pattern.predict(lambda block: where[block.number])
        n_predicted += len(predicted)
        same = {(image.place(p.number).row, image.place(p.number).column)
                for p in predicted}  # fmt: skip
        assert same <= {(row, column)}
    if not image.is_band_interleaved:
        assert n_predicted == 0


def test_the_other_bands_come_with_the_second() -> None:
    """In band interleave: the first band shows how large the first window is."""
    image = IMAGES["512 tiles, band"]
    pattern = AccessPattern()
    where = spans(image)
    for number in (10, 11, 18, 19):
        pattern.read(image, number, where[number])
        predicted = [p.number for p in pattern.predict(lambda block: where[block.number])]
        assert all(number < 64 for number in predicted)
    pattern.read(image, 64 + 10, where[64 + 10])
    predicted = [p.number for p in pattern.predict(lambda block: where[block.number])]
    window = (10, 11, 18, 19)
    assert predicted == [64 * plane + number for plane in (1, 2, 3) for number in window][1:]


def test_the_other_bands_of_a_point_come_with_its_first() -> None:
    """In band interleave, once a point was read; and of windows that have all one size."""
    image = IMAGES["512 tiles, band"]
    pattern = AccessPattern()
    where = spans(image)
    follow(pattern, image, (Block(0, 10 + 64 * plane) for plane in range(4)))
    pattern.read(image, 30, where[30])
    predicted = pattern.predict(lambda block: where[block.number])
    assert [p.number for p in predicted] == [30 + 64 * plane for plane in (1, 2, 3)]


@pytest.mark.parametrize("bands", [[0], [0, 1, 2], [2], [3, 1]])
def test_bands_that_are_not_read_are_soon_not_predicted(bands: list[int]) -> None:
    """Three of four bands, one of four: only the first window brings others in vain."""
    image = IMAGES["512 tiles, band"]
    pattern = AccessPattern()
    reads = list(windows(image, 500, bands))
    n = len(reads) // 6
    before = follow(pattern, image, iter(reads[:n]))
    outcome = follow(pattern, image, iter(reads[n:]), before)
    outcome.predicted -= before.predicted
    planes = {image.place(block.number).plane for block in outcome.predicted}
    assert planes <= set(bands)


@pytest.mark.parametrize("step", [9, -1, -7])
def test_strips_at_equal_distances_are_expected(step: int) -> None:
    """A picture of a few rows is made of some strips, and a program may begin with the last one."""
    image = IMAGES["strips of 1"]
    numbers = range(*((0, 2700, step) if step > 0 else (3000, 300, step)))
    blocks = [Block(0, number) for number in numbers]
    outcome = follow(AccessPattern(), image, iter(blocks))
    assert outcome.n_waits <= 20
    assert len(outcome.unread) <= len(blocks) / 4


def test_tiles_are_expected_from_the_last_one_on_as_well() -> None:
    image = IMAGES["256 tiles"]
    blocks = [Block(0, number) for number in reversed(range(image.n_blocks))]
    outcome = follow(AccessPattern(), image, iter(blocks))
    assert outcome.n_waits <= len(blocks) / 4
    assert not outcome.unread


def test_no_fourth_band_is_expected_behind_a_picture_in_true_colour() -> None:
    """Bands 3, 2, 1 of four, in the first window of a handle."""
    image = IMAGES["512 tiles, band"]
    reads = list(window_reads(image, Window(300, 1300, 300, 1300), [2, 1, 0]))
    order = sorted(reads, key=lambda block: -image.place(block.number).plane)
    outcome = follow(AccessPattern(), image, iter(order))
    assert {image.place(block.number).plane for block in outcome.predicted} <= {0, 1, 2}


def test_a_row_of_blocks_is_followed_by_its_window() -> None:
    """Two blocks side by side are followed by two; the second row is known from its first on."""
    image = IMAGES["256 tiles"]
    pattern = AccessPattern()
    where = spans(image)
    for number, beside in ((33, []), (34, [35, 36]), (35, [])):
        pattern.read(image, number, where[number])
        predicted = pattern.predict(lambda block: where[block.number])
        assert [p.number for p in predicted] == beside
    pattern.read(image, 49, where[49])
    predicted = pattern.predict(lambda block: where[block.number])
    assert [p.number for p in predicted] == [50, 51, 65, 66, 67]


@every_image
def test_a_read_of_everything_is_bulk_within_megabytes(image: Image) -> None:
    """In file order from the first block: bulk before two rows and a few megabytes are read."""
    pattern = AccessPattern()
    where = spans(image)
    for number in range(image.n_blocks):
        pattern.read(image, number, where[number])
        if pattern.bulk_ahead_bytes:
            break
    row_bytes = len(where[0]) * image.n_columns
    assert pattern.read_bytes <= max(2 * row_bytes, BULK_BYTES) + len(where[0])
    assert pattern.bulk_ahead_bytes >= BULK_BYTES
    outcome = follow(AccessPattern(), image, in_file_order(image))
    assert not outcome.unread


@every_image
def test_a_read_of_everything_ends_with_its_image(image: Image) -> None:
    """The kernel may read ahead into the overview behind it, which no program has come for."""
    pattern = AccessPattern()
    where = spans(image)
    for number in range(image.n_blocks):
        pattern.read(image, number, where[number])
    assert pattern.bulk_ahead_bytes
    overview = plain_image(SIDE // 2, SIDE // 2, image.block_width, image.block_height, number=1)
    last = where[-1]
    pattern.read(overview, 0, ByteRange(last.stop, last.stop + len(last)))
    assert pattern.bulk_ahead_bytes == 0


@every_image
@pytest.mark.parametrize("side", [256, 512, 1024])
def test_windows_and_chips_are_no_bulk(image: Image, side: int) -> None:
    """A window of few rows of blocks is not taken for the beginning of everything."""
    pattern = AccessPattern()
    where = spans(image)
    for reads in list(chips(image, side, 12))[2:]:
        for block in reads:
            pattern.read(image, block.number, where[block.number])
            allowed = pattern.read_bytes / 5
            assert pattern.bulk_ahead_bytes <= allowed


def test_blocks_that_are_sparse_are_not_predicted() -> None:
    """A block without bytes costs nothing, and is not fetched."""
    image = IMAGES["512 tiles, band"]
    pattern = AccessPattern()
    pattern.read(image, 0, ByteRange(1000, 2000))
    pattern.read(image, 64, ByteRange(2000, 3000))
    assert pattern.predict(lambda _: ByteRange(0, 0)) == ()
    assert pattern.outstanding_bytes == 0


@pytest.mark.parametrize(
    ("side", "n_windows", "n_waits"), [(1024, 1, 6), (512, 6, 17), (2000, 3, 14)]
)
def test_sparse_blocks_break_no_window(side: int, n_windows: int, n_waits: int) -> None:
    """A program reads a window with holes in few requests: a hole needs none, and ends nothing.

    Without that, 20 windows took 7, 19 and 42 requests in the mean.
    """
    image = IMAGES["256 tiles"]
    where = spans(image)

    def is_sparse(block: Block) -> bool:
        place = image.place(block.number)
        return (place.row // 2 + place.column // 2) % 3 == 0

    waited, vain, n_read = [], 0, 0
    for seed in range(20):
        dice, pattern = random.Random(seed), AccessPattern()
        predicted: set[Block] = set()
        read: set[Block] = set()
        n_waited = 0
        for _ in range(n_windows):
            top, left = (dice.randrange(SIDE - side) for _ in range(2))
            for block in window_reads(image, Window(top, top + side, left, left + side)):
                if is_sparse(block):
                    continue
                n_waited += block not in predicted | read
                read.add(block)
                pattern.read(image, block.number, where[block.number], is_sparse=is_sparse)
                predicted |= set(
                    pattern.predict(lambda b: ByteRange(0, 0) if is_sparse(b) else where[b.number])
                )
        waited.append(n_waited)
        vain += len(predicted - read)
        n_read += len(read)
    assert statistics.mean(waited) <= n_waits
    assert vain <= n_read / 5


def test_blocks_of_unknown_size_count_like_those_before_them() -> None:
    """Without tables at hand the mean of what was read is taken."""
    image = IMAGES["512 tiles, band"]
    pattern = AccessPattern()
    pattern.read(image, 0, ByteRange(1000, 301_000))
    pattern.read(image, 64, ByteRange(301_000, 601_000))
    assert len(pattern.predict(lambda _: None)) == 2
    assert pattern.outstanding_bytes == 600_000


def test_a_band_that_comes_late_was_not_fetched_in_vain() -> None:
    """A block predicted for an earlier window, and read after all, counts as read."""
    image = IMAGES["512 tiles, band"]
    pattern = AccessPattern()
    where = spans(image)
    for number in (0, 64):
        pattern.read(image, number, where[number])
    pattern.predict(lambda block: where[block.number])
    pattern.read(image, 40, where[40])
    assert pattern.unread_bytes == 2 * len(where[0])
    pattern.read(image, 128, where[128])
    assert pattern.unread_bytes == len(where[0])
    assert pattern.hit_bytes == len(where[0])


def test_a_prediction_that_was_withdrawn_was_not_fetched_in_vain() -> None:
    """It counts until it is known that its block never came: it may be on its way."""
    image = IMAGES["512 tiles, band"]
    pattern = AccessPattern()
    where = spans(image)
    for number in (0, 64):
        pattern.read(image, number, where[number])
    came, withdrawn = pattern.predict(lambda block: where[block.number])
    sizes = [len(where[block.number]) for block in (came, withdrawn)]
    assert pattern.fetched_unread_bytes(lambda block: block == came) == sizes[0]
    pattern.read(image, 40, where[40])
    pattern.settle(lambda block: block == came)
    assert pattern.unread_bytes == sum(sizes)
    assert pattern.fetched_unread_bytes(lambda block: block == came) == sizes[0]
    pattern.read(image, 10, where[10])
    pattern.settle(lambda block: block == came)
    assert pattern.unread_bytes == sizes[0]
    assert not pattern.has_seen(withdrawn)


images = st.builds(
    lambda width, height, side, n_bands, is_band, is_tiled: plain_image(
        width,
        height,
        side if is_tiled else width,
        side,
        n_bands=n_bands,
        is_band_interleaved=is_band,
    ),
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.sampled_from([16, 64, 256]),
    st.integers(1, 8),
    st.booleans(),
    st.booleans(),
)


@pytest.mark.slow
@given(image=images, data=st.data(), allowance_bytes=st.sampled_from([0, 1000, ALLOWANCE_BYTES]))
@settings(deadline=None)
def test_whatever_is_read_little_is_fetched_in_vain(
    image: Image, data: st.DataObject, allowance_bytes: int
) -> None:
    """Any reads, those of an adversary too: blocks of the image, new ones, a fifth and no more.

    The adversary reads whatever was not predicted, after reads that were.
    """
    pattern = AccessPattern(allowance_bytes=allowance_bytes)
    numbers = st.integers(0, image.n_blocks - 1)
    predicted: dict[int, int] = {}
    read: set[int] = set()
    sizes: dict[int, int] = {}

    def span_of(block: Block) -> ByteRange:
        size = sizes.setdefault(block.number, 500 + 37 * block.number % 5000)
        return ByteRange(10_000 * block.number + 1000, 10_000 * block.number + 1000 + size)

    last = 0
    for _ in range(data.draw(st.integers(1, 60))):
        step = data.draw(st.sampled_from(["any", "next", "below", "plane", "hit", "miss"]))
        open_now = [number for number in predicted if number not in read]
        number = {
            "any": data.draw(numbers),
            "next": last + 1,
            "below": last + image.n_columns,
            "plane": last + image.n_columns * image.n_rows,
            "hit": open_now[0] if open_now else last,
            "miss": next((n for n in range(image.n_blocks) if n not in predicted), last),
        }[step] % image.n_blocks  # fmt: skip
        last = number
        read.add(number)
        pattern.read(image, number, span_of(Block(0, number)))
        made = pattern.predict(span_of)
        assert len(made) <= MAX_OUTSTANDING
        for block in made:
            assert block.image == 0
            assert 0 <= block.number < image.n_blocks
            assert block.number not in read
            predicted[block.number] = len(span_of(block))
        unread = sum(size for number, size in predicted.items() if number not in read)
        total = sum(len(span_of(Block(0, number))) for number in read)
        assert unread <= total / 5 + allowance_bytes
        assert unread == pattern.unread_bytes + pattern.outstanding_bytes
        assert total == pattern.read_bytes


@pytest.mark.slow
def test_predictions_are_bounded_however_small_blocks_are() -> None:
    """Blocks of one byte: two million bytes of allowance are no list of that length."""
    image = plain_image(16 * 1000, 16 * 100, 16, n_bands=100, is_band_interleaved=True)
    pattern = AccessPattern()
    n_open = 0
    for number in range(0, 100_000, 4999):
        for block in (number, number + 100_000):  # of the second plane
            pattern.read(image, block, ByteRange(1000 + block, 1001 + block))
        for _ in range(30):
            n_open += len(pattern.predict(lambda _: ByteRange(1, 2)))
        assert pattern.outstanding_bytes <= MAX_OUTSTANDING
    assert n_open


def test_overviews_have_shapes_of_their_own() -> None:
    """Shapes learnt at one level are not expected of another one."""
    full = IMAGES["256 tiles"]
    small = plain_image(1024, 1024, 256, n_bands=4, number=1)
    pattern = AccessPattern()
    follow(pattern, full, windows(full, 600))
    where = spans(small)
    pattern.read(small, 0, where[0])
    assert pattern.predict(lambda block: where[block.number]) == ()


@pytest.mark.parametrize("name", ["strips of 1", "strips of 16"])
def test_strips_are_predicted_many_at_a_time(name: str) -> None:
    """Each prediction is a request: a chip of 256 rows of single strips is not 256 of them."""
    image = IMAGES[name]
    pattern = AccessPattern()
    where = spans(image)
    predicted: set[Block] = set()
    n_chips, n_requests = 20, 0
    for chip in chips(image, 256, n_chips):
        for block in chip:
            pattern.read(image, block.number, where[block.number])
            made = set(pattern.predict(lambda block: where[block.number]))
            n_requests += bool(made) or block not in predicted
            predicted |= made | {block}
    assert n_requests <= 4 * n_chips


def test_a_window_may_begin_where_blocks_are_cached() -> None:
    """To the right of cached blocks nothing is predicted in vain; in the next row it goes on."""
    image = IMAGES["256 tiles"]
    pattern = AccessPattern()
    where = spans(image)

    def read(number: int, n_cached_before: int = 0) -> list[int]:
        pattern.read(image, number, where[number], n_cached_before=n_cached_before)
        return [p.number for p in pattern.predict(lambda block: where[block.number])]

    assert read(36, n_cached_before=3) == []
    assert read(37) == []  # columns 1 to 5 may be the window: as wide as a usual one
    assert read(52) == [53]
    assert read(67) == [68, 69]  # the first row of which the third column is not cached


def test_two_points_in_neighbouring_strips_are_no_window() -> None:
    """After points a second strip in a row is the next point, and a third one begins a window."""
    image, pattern = IMAGES["strips of 16"], AccessPattern()
    where = spans(image)

    def read(number: int) -> list[int]:
        pattern.read(image, number, where[number])
        return [p.number for p in pattern.predict(lambda block: where[block.number])]

    for number in (10, 200, 90, 140):
        assert read(number) == []
    assert read(30) == read(31) == []
    assert read(32)[0] == 33


def test_where_little_may_be_fetched_in_vain_strips_are_not_fetched_one_by_one() -> None:
    """Windows side by side that grow downwards: some ranges for each, not one for each strip."""
    image, pattern = IMAGES["strips of 1"], AccessPattern()
    where = spans(image)
    outcome, n_requests = Outcome(), 0
    for number in range(300, 1800):
        before = len(outcome.predicted)
        is_new = Block(0, number) not in outcome.predicted
        outcome = follow(pattern, image, iter([Block(0, number)]), outcome)
        n_requests += is_new or len(outcome.predicted) > before
    assert n_requests <= 40
    assert sum(len(where[block.number]) for block in outcome.unread) <= 1500 * 65_536 / 5


@pytest.mark.parametrize(("name", "n_waits"), [("256 tiles", 24), ("512 tiles", 24)])
def test_the_second_chip_is_expected_to_be_like_the_first(name: str, n_waits: int) -> None:
    """Of 20 chips some wait for a second column or row: the first, and those of another shape."""
    image, pattern = IMAGES[name], AccessPattern()
    outcome, n_waited = Outcome(), 0
    for blocks in chips(image, 256, 20, seed=3):
        new = [block for block in blocks if block not in outcome.read]
        outcome = follow(pattern, image, iter(new), outcome)
        n_waited += outcome.n_waits
    assert n_waited <= n_waits
    assert len(outcome.unread) <= len(outcome.read) / 5


def test_a_block_beside_the_first_leaves_most_of_the_allowance() -> None:
    """It is read in half of the windows; what is more certain needs the rest."""
    image, pattern = IMAGES["512 tiles"], AccessPattern()
    where = spans(image)
    made: list[int] = []
    for n, (column, row) in enumerate(product((0, 3, 6), (0, 2, 4, 6))):
        first = row * image.n_columns + column
        for number in (first, first + 1)[: 1 + n % 2]:
            pattern.read(image, number, where[number])
            found = [p.number for p in pattern.predict(lambda block: where[block.number])]
            assert found in ([], [first + 1])
            made += found
            n_bytes = pattern.unread_bytes + pattern.outstanding_bytes
            assert n_bytes <= pattern.read_bytes / 5 + ALLOWANCE_BYTES / 4
    assert len(made) > 2


def test_a_band_may_have_the_block_beside_the_first_one_too() -> None:
    """Where chips had it often, the first band is read with a request less."""
    image, pattern = IMAGES["512 tiles, band"], AccessPattern()
    where, n_blocks = spans(image), image.n_rows * image.n_columns
    made: list[list[int]] = []
    for n, (row, column) in enumerate(product((0, 2, 4, 6), (0, 3, 6))):
        first = row * image.n_columns + column
        made.append([])
        for plane, number in product(range(image.n_planes), (first, first + 1)[: 1 + n % 2]):
            number += plane * n_blocks
            pattern.read(image, number, where[number])
            found = [p.number for p in pattern.predict(lambda block: where[block.number])]
            if number == first:
                made[-1] = [each - first for each in found if each < n_blocks]
    assert made[-6:] == [[1]] * 6


def test_strips_are_added_when_few_are_left() -> None:
    """Each part of a window is a request: a part that is requested later is a larger one."""
    image, pattern = IMAGES["strips of 1"], AccessPattern()
    where = spans(image)
    n_parts = 0
    for number in range(1000, 2024):
        pattern.read(image, number, where[number])
        n_before = pattern.outstanding_bytes
        if pattern.predict(lambda block: where[block.number]):
            n_parts += 1
            assert n_before <= 1536 * 1024
    assert n_parts <= 14


def test_a_window_of_strips_may_begin_where_strips_are_cached() -> None:
    """Of 512 rows 212 were read with a window before: the others are 300, and few are in vain."""
    image = plain_image(2304, 2304, 2304, 1, n_bands=4)
    where = spans(image)
    n_unread = {}
    for n_cached_before in (0, 212):
        pattern = AccessPattern()
        for number in range(812, 1112):
            n_before = n_cached_before if number == 812 else 0
            pattern.read(image, number, where[number], n_cached_before=n_before)
            pattern.predict(lambda block: where[block.number])
        n_unread[n_cached_before] = len(pattern.outstanding)
    assert n_unread[212] == 0
    assert n_unread[0] > 100


def test_a_picture_of_each_eighth_strip_takes_few_requests_in_a_row() -> None:
    """Half as many strips are expected as were read, while little of them is fetched in vain."""
    image, pattern = plain_image(2304, 2304, 2304, 1, n_bands=4), AccessPattern()
    where = spans(image)
    n_times = 0
    for number in range(0, 2304, 8):
        n_times += not pattern.is_expected(Block(0, number))
        pattern.read(image, number, where[number])
        n_times += bool(pattern.predict(lambda block: where[block.number]))
        n_bytes = pattern.unread_bytes + pattern.outstanding_bytes
        assert n_bytes <= pattern.read_bytes / 5 + ALLOWANCE_BYTES
    assert n_times <= 26


@pytest.mark.parametrize(("width", "height"), [(512, 256), (128, 512), (256, 256), (512, 512)])
def test_a_window_of_blocks_that_are_no_squares_is_taken_for_a_square(
    width: int, height: int
) -> None:
    """No row of blocks too many is fetched, and of narrow blocks several at once."""
    image = plain_image(SIDE, SIDE, width, height, n_bands=4)
    reads = list(window_reads(image, Window(300, 812, 500, 1012)))
    outcome = follow(AccessPattern(), image, iter(reads))
    n_bytes = sum(len(spans(image)[block.number]) for block in outcome.unread)
    assert n_bytes <= 512 * 1024
    assert outcome.n_waits <= 3


def test_rows_below_the_image_are_not_looked_at() -> None:
    """Behind tall windows, a read of the last rows looks at these few in each of many bands."""
    image = plain_image(256, 20_000, 256, 1, n_bands=500, is_band_interleaved=True)
    place = BlockPlace(0, 19_990, 0)
    window = ReadWindow(image, place.row, place.row + 1, 0, 1, [0], 0)
    window.add(place)
    tall = WindowShape(8000, 1, frozenset(range(500)), 1.0)
    rows = list(NextBlocks(window, place, [tall, tall], 1).likely())
    assert len(rows) <= 1 + 500 * 10
    assert all(rows[1:])  # the first is the rest of the present row
