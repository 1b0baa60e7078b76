"""Through the kernel: windows, chips and points of rasters in many layouts, and what they cost."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, islice, product
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import rasterio
import tifffile
from fakes.processor_waits import Stopwatch
from fakes.raster_program import RasterProgram
from imagery.rasters import EPSG, TRANSFORM, learn, noisy_pixels, write
from mounted.conftest import MountIt, StartOrigin
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.shutil import copy
from rasterio.windows import Window as Part

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.fetch.block_spans import MERGE_GAP_BYTES, UNZIP_BUFFER_BYTES
from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import FileContent
from satfs.imagery.layout import Block, Image, Window
from satfs.imagery.raster import Raster
from satfs.imagery.spans import merge_spans

KIB, MIB = 1024, 1024 * 1024
N: Final = 2304
#: The two ways to a member: the file itself, and the zip as a file.
CONTENTS: Final = "contents/{member}"
ZIP: Final = "scene{scene}.zip"
MEMBER: Final = "rasters/image.tif"
#: Tries of a work in which the program, the mount or the origin waited this long for a processor:
#: longer than a request takes on the shorter line. How many requests a window takes depends on what
#: comes first, the program's next read or the kernel's read-ahead.
N_TRIES: Final = 6
MAX_WAITED_S: Final = 0.04
#: (top, left, side) in pixels.
Windows = tuple[tuple[int, int, int], ...]

#: Deflate at its quickest: what is compressed is noise, and there is a gigabyte of it.
_DEFLATE: Final[dict[str, Any]] = {"compress": "deflate", "zlevel": 1}


def _tiled(side: int, **options: Any) -> Callable[[Path], Path]:
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": side, "blockysize": side}
    return lambda path: write(path, noisy_pixels(N), **tiles, **options)


def _cog(path: Path) -> Path:
    source = _tiled(512)(path.with_suffix(".source.tif"))
    copy(source, path, driver="COG", blocksize=512, compress="deflate", level=1)
    source.unlink()
    return path


LAYOUTS: Final[dict[str, Callable[[Path], Path]]] = {
    "256 tiles, pixel, LZW": _tiled(256, compress="lzw", interleave="pixel"),
    "512 tiles, band, LZW": _tiled(512, compress="lzw", interleave="band"),
    "512 tiles, pixel, deflate": _tiled(512, interleave="pixel", **_DEFLATE),
    "COG, deflate": _cog,
    "1024 tiles, uncompressed": _tiled(1024, interleave="pixel"),
    "256 tiles, band, LZW": _tiled(256, compress="lzw", interleave="band"),
    "256 tiles, LZW, predictor": _tiled(256, compress="lzw", predictor=2, interleave="pixel"),
    "strips of 16, deflate": lambda path: write(
        path, noisy_pixels(N), blockysize=16, interleave="pixel", **_DEFLATE
    ),
    "strips, LZW": lambda path: write(path, noisy_pixels(N), compress="lzw", interleave="pixel"),
    "BigTIFF, 256 tiles, deflate": _tiled(256, interleave="pixel", bigtiff="yes", **_DEFLATE),
}


def _tiles(height: int, width: int, **options: Any) -> Callable[[Path], Path]:
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": width, "blockysize": height}
    return lambda path: write(path, noisy_pixels(N), interleave="pixel", **tiles, **options)


def _jpeg(path: Path) -> Path:
    pixels = (noisy_pixels(N)[:3] // 16).astype("uint8")
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    return write(path, pixels, compress="jpeg", photometric="ycbcr", interleave="pixel", **tiles)


def _webp(path: Path) -> Path:
    pixels = (noisy_pixels(N)[:3] // 16).astype("uint8")
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    return write(path, pixels, compress="webp", interleave="pixel", **tiles)


def _in_any_order(path: Path) -> Path:
    """Write tiles as a program does whose parts end at any time: neighbours lie anywhere."""
    shape: dict[str, Any] = {"width": N, "height": N, "count": 4, "dtype": "uint16"}
    options: dict[str, Any] = {"compress": "lzw", "interleave": "pixel", "tiled": True}
    options |= {"crs": CRS.from_epsg(EPSG), "transform": TRANSFORM}
    places = list(product(range(0, N, 256), repeat=2))
    random.Random(1).shuffle(places)
    with rasterio.open(
        path, "w", driver="GTiff", **shape, **options, blockxsize=256, blockysize=256
    ) as file:
        for top, left in places:
            part = noisy_pixels(N)[:, top : top + 256, left : left + 256]
            file.write(part, window=Part(left, top, 256, 256))
    return path


def _planes_of_strips(path: Path) -> Path:
    """Write a BigTIFF of another program: big-endian, a strip for each row of each band."""
    tifffile.imwrite(
        path, noisy_pixels(N), bigtiff=True, byteorder=">", compression="zlib",
        planarconfig="separate", photometric="minisblack", rowsperstrip=1,
    )  # fmt: skip
    return path


def _narrow(path: Path) -> Path:
    """Write one band of 8 bits in strips of one row, of which several lie in a page of memory."""
    return write(path, (noisy_pixels(N)[:1] // 16).astype("uint8"), compress="lzw", blockysize=1)


def _masked(path: Path) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        _tiled(512, interleave="pixel", **_DEFLATE)(path)
        with rasterio.open(path, "r+") as file:
            mask = np.add.outer(np.arange(N), np.arange(N)) % 7 > 0
            file.write_mask(mask.astype("uint8") * 255)
    return path


def _masked_cog(path: Path) -> Path:
    source = _masked(path.with_suffix(".source.tif"))
    copy(source, path, driver="COG", blocksize=512, compress="deflate", level=1)
    source.unlink()
    return path


def _sparse(path: Path) -> Path:
    """Write a raster of which a third of the squares of 512 by 512 pixels were never written."""
    shape: dict[str, Any] = {"width": N, "height": N, "count": 4, "dtype": "uint16"}
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    options: dict[str, Any] = {"compress": "lzw", "interleave": "pixel", "sparse_ok": True}
    options |= {"crs": CRS.from_epsg(EPSG), "transform": TRANSFORM}
    pixels = noisy_pixels(N)
    with rasterio.open(path, "w", driver="GTiff", **shape, **tiles, **options) as file:
        for top, left in product(range(0, N, 512), repeat=2):
            if (top // 512 + left // 512) % 3:
                height, width = min(512, N - top), min(512, N - left)
                part = pixels[:, top : top + height, left : left + width]
                file.write(part, window=Part(left, top, width, height))
    return path


def _with_overviews(path: Path) -> Path:
    _tiled(256, compress="lzw", interleave="pixel")(path)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.nearest)
    return path


#: Layouts that are met less often.
KINDS: Final[dict[str, Callable[[Path], Path]]] = {
    "JPEG": _jpeg,
    "mask inside": _masked,
    "COG with a mask": _masked_cog,
    "sparse": _sparse,
    "overviews added": _with_overviews,
    "tiles 512 wide, 256 high": _tiles(256, 512, **_DEFLATE),
    "tiles 128 wide, 512 high": _tiles(512, 128, compress="zstd"),
    "big-endian": _tiled(256, compress="lzw", interleave="pixel", ENDIANNESS="BIG"),
    "LERC, bands": _tiled(512, compress="lerc", interleave="band"),
    "narrow strips": _narrow,
    "WebP": _webp,
    "tiles in any order": _in_any_order,
    "BigTIFF, big-endian, bands, strips": _planes_of_strips,
    "strips of 8, bands": lambda path: write(
        path, noisy_pixels(N), compress="lzw", blockysize=8, interleave="band"
    ),
}


def _chips(n: int, dice: random.Random) -> Windows:
    return tuple((dice.randrange(N - 256), dice.randrange(N - 256), 256) for _ in range(n))


WORK: Final[dict[str, Windows]] = {
    "window of 512": ((300, 500, 512),),
    "window of 1024": ((1100, 1200, 1024),),
    "chips": _chips(8, random.Random(3)),
    "points": tuple((at, (at * 7) % N, 1) for at in (1300, 100, 900, 500, 1100)),
}


@dataclass(frozen=True)
class Sample:
    """A raster, the zip that it is stored in, and the requests that a window takes."""

    path: Path
    #: The zip, which is served from the disk: all of them together are half a gigabyte.
    zipped: FileContent
    #: One of `KINDS`.
    is_rare: bool

    @cached_property
    def raster(self) -> Raster:
        """Return the raster, with all its tables."""
        return learn(self.path.read_bytes(), whole=True)

    @property
    def image(self) -> Image:
        """Return the full image."""
        image = self.raster.layout.image() if self.raster.layout is not None else None
        assert image is not None
        return image

    @property
    def is_striped(self) -> bool:
        return not self.image.is_tiled

    @property
    def is_band_interleaved(self) -> bool:
        return self.image.is_band_interleaved

    @property
    def n_overviews_added(self) -> int:
        layout = self.raster.layout
        assert layout is not None
        is_cog = layout.structure.has_directories_first
        return 0 if is_cog else sum(image.level > 0 for image in layout.images)

    def least(self, windows: Windows) -> tuple[int, int, int]:
        """Return the bytes of the blocks touched, their number, and the number of their ranges.

        Blocks of one window that touch in the file are one range.
        """
        raster, layout = self.raster, self.raster.layout
        assert layout is not None
        images = [each for each in layout.images if each.level == 0]  # with the mask, if any
        seen: set[Block] = set()
        n_bytes = n_ranges = 0
        for top, left, side in windows:
            window = Window(top, top + side, left, left + side)
            touched = chain.from_iterable(layout.blocks_of_window(i, window) for i in images)
            new = set(touched) - seen
            seen |= new
            for image in images:  # a program reads a mask after the image
                blocks = [block for block in new if block.image == image.number]
                spans = [span for block in blocks if (span := raster.fetch_span_of(block))]
                n_bytes += sum(map(len, spans))
                n_ranges += len(merge_spans(spans, MERGE_GAP_BYTES))
        return n_bytes, len(seen), n_ranges


#: Layouts that differ most, for what need not be tried with all.
_USUAL: Final = ("256 tiles, pixel, LZW", "512 tiles, band, LZW", "COG, deflate", "strips, LZW")
_KINDS_IN_ZIP: Final = ("JPEG", "COG with a mask", "narrow strips")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sample]:
    """Return a function that returns the raster in a layout; each is written once."""

    @cache
    def sample_in(layout: str) -> Sample:
        directory = tmp_path_factory.mktemp("raster")
        path, zip_path = directory / "image.tif", directory / "image.zip"
        (LAYOUTS | KINDS)[layout](path)
        with zipfile.ZipFile(zip_path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("first.txt", b"x" * 50_001)
            archive.write(path, MEMBER)
        return Sample(path, FileContent(zip_path), layout in KINDS)

    return sample_in


@pytest.fixture
def sample(request: pytest.FixtureRequest, samples: Callable[[str], Sample]) -> Sample:
    return samples(request.param)


#: Four, since some tests read with as many at the same time.
_programs: Final = [RasterProgram() for _ in range(4)]
_program: Final = _programs[0]


@pytest.fixture(scope="module", autouse=True)
def _programs_end() -> Iterator[None]:
    yield
    for each in _programs:
        each.close()


def _spans_of(windows: Windows) -> list[tuple[int, int, int, int]]:
    """Return *windows* as a `RasterProgram` takes them."""
    return [(left, top, side, side) for top, left, side in windows]


def _digest(path: Path | str, windows: Windows) -> str:
    return _program.digest(path, _spans_of(windows))


@cache
def _expected(raster: Path, windows: Windows) -> str:
    """Return the same digest for a raster on the disk, which takes no process of its own."""
    seen = hashlib.sha256()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(raster) as file:
            for top, left, side in windows:
                part = Part(left, top, side, side)
                seen.update(file.read(window=part).tobytes())
                if file.mask_flag_enums[0] == [MaskFlags.per_dataset]:
                    seen.update(file.read_masks(1, window=part).tobytes())
    return seen.hexdigest()


def _most(sample: Sample, work: str, windows: Windows, door: str) -> tuple[float, int]:
    """Return how many bytes and requests a work may take at most."""
    n_bytes, n_blocks, n_ranges = sample.least(windows)
    # What is fetched is whole blocks of the cache, which begin and end beside those of the raster.
    is_small = n_bytes < 64 * BLOCK_BYTES
    slack = 512 * KIB + is_small * 2 * BLOCK_BYTES * n_blocks
    if door == ZIP:
        slack += UNZIP_BUFFER_BYTES * n_ranges
    # Whether a chip has a second column shows when its first one is read; in band interleave, when
    # the whole of its first band is, or sooner where the kernel reads ahead (54 to 59 requests for
    # the chips in tiles of 512, of 48 ranges).
    n_chips = len(windows) if work == "chips" else 0
    n_parts = (3 if sample.is_band_interleaved else 1) * n_chips // 2
    if sample.is_striped:  # how high a window of strips is shows when it ends: parts that grow
        n_parts += min(n_blocks // 4, 15)
    if door == ZIP:
        # GDAL looks into the zip itself, and reads 64 KiB from where a block begins: the bytes
        # behind the last block of a row are often a request of their own.
        n_parts += n_ranges
        if sample.is_striped:
            n_parts += 5
    # The directory of an overview that was added lies behind the blocks of the one before it.
    n_parts += sample.n_overviews_added
    if sample.is_rare:  # no more than twice: sparse blocks lie between, and narrow ones are many
        n_parts += n_ranges
    return 1.25 * n_bytes + slack, n_ranges + 4 + n_parts


#: Layout by layout: processes that run tests beside each other take the cells in this order, and
#: each writes the rasters that it needs.
_CELLS: Final = sorted(
    (
        *((name, 0.04, CONTENTS) for name in LAYOUTS),
        *((name, 0.0, CONTENTS) for name in _USUAL),
        *((name, 0.1, CONTENTS) for name in _USUAL[:2]),  # a far line
        *((name, 0.04, CONTENTS) for name in KINDS),
        *((name, 0.04, ZIP) for name in (*LAYOUTS, *_KINDS_IN_ZIP)),
    ),
    key=lambda cell: list(LAYOUTS | KINDS).index(cell[0]),
)


@pytest.mark.parametrize(("sample", "store_latency_s", "door"), _CELLS, indirect=["sample"])
def test_what_a_program_reads_of_a_raster_decides_what_is_fetched(
    sample: Sample, store_latency_s: float, door: str, start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """The pixels are the original's; the bytes are those of its blocks, and little more."""
    # Each try of a work has an object of its own: nothing is cached of it, by satfs or the kernel.
    names = [f"scene{n}" for n in range(N_TRIES * len(WORK))]
    origin = start_origin(_catalogue(sample.zipped, *names), store_latency_s=store_latency_s)
    mount = mount_it(origin)
    works = list(WORK.items())
    if door == ZIP:  # behind the place of the member it is the same as through `contents/`
        works = [work for work in works if work[0] in ("window of 512", "chips")]
    scenes = iter(range(len(names)))
    for work, windows in works:
        most_bytes, most_requests = _most(sample, work, windows, door)
        stopwatch = Stopwatch(mount.process.pid, _program.pid)
        for n in islice(scenes, N_TRIES):
            path = mount.path / f"scenes/scene{n}" / door.format(scene=n, member=MEMBER)
            os.stat(path)
            origin.journal.clear()
            source = path if path.suffix == ".tif" else f"/vsizip/{path}/{MEMBER}"
            with stopwatch.measuring():
                assert _digest(source, windows) == _expected(sample.path, windows), work
            requests = origin.journal.of("object")
            fetched = sum(each.bytes_sent for each in requests)
            if fetched <= most_bytes and len(requests) <= most_requests:
                break
            # A request that waits for a processor comes too late for the one it belongs to.
            assert stopwatch.waited_s[-1] > MAX_WAITED_S, (
                f"{work}: {fetched} bytes of {most_bytes}, {len(requests)} requests of"
                f" {most_requests}, though all had a processor"
            )
        else:
            raise AssertionError(f"{work}: too much was fetched each time: {stopwatch.waited_s}")
    received, unread = (
        _counter(mount.path, name)
        for name in ("satfs_received_bytes_total", 'satfs_predicted_bytes_total{outcome="unread"}')
    )
    assert unread <= received / 5


def _catalogue(zipped: FileContent, *names: str) -> Catalogue:
    catalogue = Catalogue()
    scenes = [make_scene(name, [make_delivery(name, zipped)]) for name in names]
    catalogue.add_task(make_task(1, [make_capture("capture", scenes)]))
    return catalogue


@pytest.mark.parametrize("sample", [*_USUAL, "256 tiles, band, LZW"], indirect=True)
def test_a_second_window_fetches_what_is_new_of_it(
    sample: Sample, start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """A window that overlaps one that was read costs its new blocks; the same window nothing."""
    origin = start_origin(_catalogue(sample.zipped, "scene"), store_latency_s=0.02)
    path = mount_it(origin).path / "scenes/scene/contents" / MEMBER
    first, second = (300, 500, 512), (600, 800, 512)
    _digest(path, (first,))
    origin.journal.clear()
    assert _digest(path, (first,)) == _expected(sample.path, (first,))
    assert not origin.journal.of("object")
    assert _digest(path, (second,)) == _expected(sample.path, (second,))
    n_bytes = sample.least((first, second))[0] - sample.least((first,))[0]
    fetched = sum(each.bytes_sent for each in origin.journal.of("object"))
    assert fetched <= 1.25 * n_bytes + 512 * KIB


@pytest.mark.parametrize("sample", ["strips, LZW"], indirect=True)
@pytest.mark.parametrize("is_back", [False, True], ids=["each eighth row", "from the last row on"])
def test_strips_at_equal_distances_are_fetched_side_by_side(
    sample: Sample, *, is_back: bool, start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """A small picture is made of some of the strips, and a program may begin with the last one."""
    origin = start_origin(_catalogue(sample.zipped, "scene"), store_latency_s=0.04)
    path = mount_it(origin).path / "scenes/scene/contents" / MEMBER
    os.stat(path)
    origin.journal.clear()
    if is_back:
        rows = [(0, row, N, 1) for row in reversed(range(600))]
        digests = [_program.digest(each, rows) for each in (path, sample.path)]
    else:
        all_pixels, out = [(0, 0, N, N)], (4, N // 8, N // 8)
        digests = [_program.digest(each, all_pixels, out) for each in (path, sample.path)]
    assert digests[0] == digests[1]
    requests = sorted(origin.journal.of("object"), key=lambda each: each.started_s)
    ended_s, n_alone = 0.0, 0
    for each in requests:
        n_alone += each.started_s >= ended_s
        ended_s = max(ended_s, each.ended_s or each.started_s)
    assert n_alone <= 40  # of 600 rows, and of 288
    if is_back:
        assert len(requests) <= 60


@pytest.mark.parametrize("n_rasters", [1, 4])
def test_many_readers_fetch_each_block_once(
    n_rasters: int,
    samples: Callable[[str], Sample],
    start_origin: StartOrigin,
    mount_it: MountIt,
) -> None:
    """Processes that read random chips of the same rasters fetch each block once."""
    sample = samples("256 tiles, pixel, LZW")
    zipped = sample.zipped
    names = [f"scene{n}" for n in range(n_rasters)]
    origin = start_origin(_catalogue(zipped, *names), store_latency_s=0.02)
    mountpoint = mount_it(origin).path
    paths = [mountpoint / "scenes" / name / "contents" / MEMBER for name in names]
    for path in paths:
        os.stat(path)
    origin.journal.clear()
    dice = random.Random(5)
    work = [_chips(10, dice) for _ in range(4)]
    for n, (program, windows) in enumerate(zip(_programs, work, strict=True)):
        program.begin(paths[n % n_rasters], _spans_of(windows))
    digests = [program.result() for program in _programs]
    assert digests == [_expected(sample.path, windows) for windows in work]
    requests = origin.journal.of("object")
    assert sum(each.bytes_sent for each in requests) <= n_rasters * (zipped.size_bytes + 256 * KIB)
    if n_rasters == 1:
        seen = sample.least(tuple(chain.from_iterable(work)))
        assert sum(each.bytes_sent for each in requests) <= 1.25 * seen[0] + 2 * MIB


def test_rasters_of_one_zip_are_read_at_the_same_time(
    samples: Callable[[str], Sample], tmp_path: Path, start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """Each has its own layout, and what is fetched is what the windows of all of them touch."""
    chosen = [samples(name) for name in (*_USUAL[:3], "JPEG")]
    with zipfile.ZipFile(tmp_path / "scene.zip", "w", zipfile.ZIP_STORED) as archive:
        for n, each in enumerate(chosen):
            archive.write(each.path, f"rasters/image{n}.tif")
    zipped = FileContent(tmp_path / "scene.zip")
    origin = start_origin(_catalogue(zipped, "scene"), store_latency_s=0.02)
    rasters = mount_it(origin).path / "scenes/scene/contents/rasters"
    os.stat(rasters / "image0.tif")
    origin.journal.clear()
    windows = WORK["chips"]
    for n, program in enumerate(_programs):
        program.begin(rasters / f"image{n}.tif", _spans_of(windows))
    digests = [program.result() for program in _programs]
    assert digests == [_expected(each.path, windows) for each in chosen]
    n_bytes = sum(each.least(windows)[0] for each in chosen)
    fetched = sum(each.bytes_sent for each in origin.journal.of("object"))
    assert fetched <= 1.25 * n_bytes + len(chosen) * 512 * KIB


def test_overviews_in_a_file_beside_the_raster_are_read_alone(
    tmp_path: Path, start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """A small picture of the raster is made of the overviews' blocks; its own are not fetched."""
    raster = _tiled(256, compress="lzw", interleave="pixel")(tmp_path / "image.tif")
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(raster, "r+") as file:
        file.build_overviews([4], Resampling.nearest)
    beside = raster.with_name("image.tif.ovr")
    with zipfile.ZipFile(tmp_path / "scene.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.write(raster, "rasters/image.tif")
        archive.write(beside, "rasters/image.tif.ovr")
    zipped = FileContent(tmp_path / "scene.zip")
    origin = start_origin(_catalogue(zipped, "scene"), store_latency_s=0.02)
    path = mount_it(origin).path / "scenes/scene/contents/rasters/image.tif"
    os.stat(path)
    origin.journal.clear()
    program = (
        "import hashlib, rasterio, sys\n"
        "with rasterio.open(sys.argv[1]) as file:\n"
        f"    seen = file.read(out_shape=(4, {N // 4}, {N // 4})).tobytes()\n"
        "    seen += file.read(window=((100, 101), (200, 201))).tobytes()\n"
        "print(hashlib.sha256(seen).hexdigest())\n"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, str(each)],
            check=True, capture_output=True, text=True, timeout=60,
        ).stdout
        for each in (path, raster)
    ]  # fmt: skip
    assert digests[0] == digests[1]
    fetched = sum(each.bytes_sent for each in origin.journal.of("object"))
    assert fetched <= 1.25 * beside.stat().st_size + 2 * MIB
    assert fetched < raster.stat().st_size / 4


@pytest.mark.parametrize("sample", ["256 tiles, pixel, LZW"], indirect=True)
def test_a_block_takes_few_requests_of_the_kernel(
    sample: Sample, start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """What the kernel reads ahead past a block is refused, and the block not read page by page."""
    mount = mount_it(start_origin(_catalogue(sample.zipped, "scene")))
    path = mount.path / "scenes/scene/contents" / MEMBER
    windows = WORK["points"]
    assert _digest(path, windows) == _expected(sample.path, windows)
    n_calls = _counter(mount.path, 'satfs_calls_total{operation="read"}')
    n_bytes, n_blocks, _ = sample.least(windows)
    assert n_bytes // n_blocks > 60 * 4 * KIB
    # The program may be there before its pages are stored, and request some of them itself.
    assert n_calls <= 20 + 15 * n_blocks


def _counter(mountpoint: Path, name: str) -> float:
    lines = (mountpoint / ".satfs/metrics").read_text().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name + " "))
