"""`satfs info` of rasters, and `satfs prefetch` of parts of them, through a real mount."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import rasterio
from cli.conftest import Program
from cli.mounts import Mounted, vendor
from fakes.raster_program import RasterProgram
from imagery.rasters import EPSG, TRANSFORM, learn, noisy_pixels, write
from rasterio.enums import Resampling
from rasterio.warp import transform_bounds

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import BytesContent
from satfs.imagery.block_choice import BlockChoice, chosen_blocks
from satfs.imagery.geotiff import Facts

pytestmark = pytest.mark.mounts

KIB: Final = 1024
N: Final = 2304
#: Column, row, width, height, in pixels.
WINDOW: Final = (700, 900, 600, 500)
MEMBERS: Final = ("rasters/scene_TOA_0.tif", "rasters/scene_VISUAL_0.tif")


def _tiles(side: int, **options: Any) -> Callable[[Path], Path]:
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": side, "blockysize": side}

    def make(path: Path) -> Path:
        write(path, noisy_pixels(N), **tiles, **options)
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4, 8], Resampling.nearest)
        return path

    return make


LAYOUTS: Final[dict[str, Callable[[Path], Path]]] = {
    "256 tiles, pixel, LZW": _tiles(256, compress="lzw", interleave="pixel"),
    "512 tiles, band, LZW": _tiles(512, compress="lzw", interleave="band"),
    "strips of 16, deflate": lambda path: write(
        path, noisy_pixels(N), compress="deflate", zlevel=1, blockysize=16, interleave="pixel"
    ),
}


@pytest.fixture(scope="module")
def program() -> Iterator[RasterProgram]:
    program = RasterProgram()
    yield program
    program.close()


@dataclass(frozen=True)
class Shown:
    """A mount with one scene, whose zip has two rasters: *path* is the original of the first."""

    mounted: Mounted
    original: Path
    program: RasterProgram

    def same_pixels(
        self, shown: Path, window: tuple[int, int, int, int], out: tuple[int, ...] | None = None
    ) -> bool:
        """Return whether *shown* has the pixels of the original in a window."""
        digests = {self.program.digest(path, [window], out) for path in (shown, self.original)}
        return len(digests) == 1

    @property
    def scene(self) -> Path:
        return self.mounted.place / "scenes" / "scene"

    @property
    def raster(self) -> Path:
        return self.scene / "contents" / MEMBERS[0]

    def least(self, choice: BlockChoice) -> tuple[int, int]:
        """Return the bytes of the blocks of *choice*, and their number."""
        raster = learn(self.original.read_bytes(), whole=True)
        assert raster.layout is not None
        facts = Facts(epsg=EPSG, transform=tuple(TRANSFORM)[:6])
        blocks = chosen_blocks(raster.layout, facts, choice)
        return sum(len(raster.fetch_span_of(block) or ()) for block in blocks), len(blocks)

    def fetched(self) -> int:
        return sum(each.bytes_sent for each in self.mounted.origin.journal.of("object"))


@pytest.fixture(scope="module")
def deliveries(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, int], tuple[Path, bytes]]:
    """Return a function that returns a raster of a layout, and a zip of it; made once each."""

    @cache
    def original_in(layout: str) -> Path:
        return LAYOUTS[layout](tmp_path_factory.mktemp("rasters") / "image.tif")

    @cache
    def delivery(layout: str, method: int) -> tuple[Path, bytes]:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", method, compresslevel=1) as archive:
            # Two members of forty megabytes take seconds to be packed, and one is looked at.
            for member in MEMBERS if method == zipfile.ZIP_STORED else MEMBERS[:1]:
                archive.write(original_in(layout), member)
        return original_in(layout), target.getvalue()

    return delivery


@pytest.fixture
def shown(
    request: pytest.FixtureRequest,
    satfs: Program,
    place: Path,
    tmp_path: Path,
    deliveries: Callable[[str, int], tuple[Path, bytes]],
    program: RasterProgram,
) -> Iterator[Shown]:
    original, delivery = deliveries(*request.param)
    scenes = [make_scene("scene", [make_delivery("scene", BytesContent(delivery))])]
    catalogue = Catalogue([make_task("1", [make_capture("cap", scenes)])])
    with vendor(satfs, place, tmp_path / "cache", catalogue) as mounted:
        mounted.mount()
        shown = Shown(mounted, original, program)
        list(shown.raster.parent.iterdir())
        mounted.origin.journal.clear()
        yield shown


_STORED: Final = [(name, zipfile.ZIP_STORED) for name in LAYOUTS]


def _bound(n_bytes: int, n_blocks: int) -> float:
    """Return how many bytes may be fetched: whole blocks of the cache around small ones."""
    is_small = n_bytes < 64 * BLOCK_BYTES
    return 1.25 * n_bytes + 512 * KIB + is_small * 2 * BLOCK_BYTES * n_blocks


@pytest.mark.parametrize("shown", _STORED, indirect=True)
def test_a_window_that_was_prefetched_is_read_without_a_request(shown: Shown) -> None:
    """A window that was prefetched costs no request; its blocks were fetched, and little more."""
    window = ",".join(map(str, WINDOW))
    done = shown.mounted.program("prefetch", "--window", window, shown.raster)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Available offline: blocks of 1 file, ")
    n_bytes, n_blocks = shown.least(BlockChoice(window=WINDOW))
    assert shown.fetched() <= _bound(n_bytes, n_blocks)
    shown.mounted.origin.journal.clear()
    assert shown.same_pixels(shown.raster, WINDOW)
    assert not shown.mounted.origin.journal.of("object")


@pytest.mark.parametrize("shown", _STORED[:1], indirect=True)
def test_a_box_in_degrees_is_the_window_of_its_pixels(shown: Shown) -> None:
    """Of all rasters of a scene; those of another kind are left alone with `--bands`."""
    left, top = TRANSFORM @ WINDOW[:2]
    right, bottom = TRANSFORM @ (WINDOW[0] + WINDOW[2], WINDOW[1] + WINDOW[3])
    box = transform_bounds(f"EPSG:{EPSG}", "EPSG:4326", left, bottom, right, top, densify_pts=21)
    text = ",".join(f"{number:.9f}" for number in box)
    done = shown.mounted.program("prefetch", "--bands", "visual", "--bbox", text, shown.scene)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Available offline: blocks of 1 file, ")
    assert shown.fetched() <= _bound(*shown.least(BlockChoice(box=box)))
    shown.mounted.origin.journal.clear()
    visual = shown.scene / "contents" / MEMBERS[1]
    assert shown.same_pixels(visual, WINDOW)
    assert not shown.mounted.origin.journal.of("object")


@pytest.mark.parametrize("shown", _STORED[:2], indirect=True)
def test_overviews_alone_are_fetched(shown: Shown) -> None:
    done = shown.mounted.program("prefetch", "--overviews", shown.raster)

    assert done.returncode == 0, done.stderr
    assert shown.fetched() <= _bound(*shown.least(BlockChoice(has_overviews=True)))
    shown.mounted.origin.journal.clear()
    whole, small = (0, 0, N, N), (4, N // 8, N // 8)
    assert shown.same_pixels(shown.raster, whole, small)
    assert not shown.mounted.origin.journal.of("object")


@pytest.mark.parametrize("shown", [(_STORED[0][0], zipfile.ZIP_DEFLATED)], indirect=True)
def test_of_a_packed_raster_the_way_to_the_blocks_is_fetched(shown: Shown) -> None:
    """It is inflated from its beginning; then the window is read without network."""
    window = ",".join(map(str, WINDOW))
    done = shown.mounted.program("prefetch", "--window", window, shown.raster)

    assert done.returncode == 0, done.stderr
    assert shown.fetched() <= shown.original.stat().st_size
    shown.mounted.origin.journal.clear()
    assert shown.same_pixels(shown.raster, WINDOW)
    assert not shown.mounted.origin.journal.of("object")


@pytest.mark.parametrize("shown", _STORED[:1], indirect=True)
def test_what_cannot_be_chosen_is_a_sentence(shown: Shown) -> None:
    """A window beyond the raster, a wrong form, two choices, and a path without rasters."""
    program = shown.mounted.program
    outside = program("prefetch", "--window", "9000,9000,10,10", shown.raster)
    assert outside.returncode == 0
    assert outside.stdout == "Available offline: blocks of 0 files, 0 B (1 raster outside of it).\n"
    for words in (["--window", "1,2,3"], ["--window", "1,2,3,x"], ["--bbox", "1,2,3,nan"]):
        wrong = program("prefetch", *words, shown.raster)
        assert wrong.returncode == 2
        assert "is not of the form" in wrong.stderr
    for words, sentence in (
        (["--window", "1,2,0,3"], "from 1"),
        (["--bbox", "0,10,1,-10"], "south first"),
        (["--window", "1,2,3,4", "--bbox", "0,0,1,1"], "either --window or --bbox"),
    ):
        wrong = program("prefetch", *words, shown.raster)
        assert wrong.returncode not in (0, 1)
        assert sentence in wrong.stderr
    nothing = program("prefetch", "--window", "1,2,3,4", shown.scene / "scene.json")
    assert nothing.returncode == 1
    assert "no raster" in nothing.stderr


@pytest.mark.parametrize(
    "shown", [_STORED[0], (_STORED[2][0], zipfile.ZIP_DEFLATED)], indirect=True
)
def test_a_raster_is_shown_by_its_layout(shown: Shown) -> None:
    """`satfs info` of a raster states its layout and what a window costs, from its header."""
    record = shown.mounted.query("info", "--json", shown.raster)
    text = shown.mounted.program("info", shown.raster).stdout

    assert shown.fetched() <= 256 * KIB
    assert record["path"] == str(shown.raster)
    layout = record["raster"]
    with rasterio.open(shown.original) as file:
        assert (layout["width"], layout["height"], layout["bands"]) == (N, N, file.count)
        assert (layout["block_height"], layout["block_width"]) == file.block_shapes[0]
        assert layout["epsg"] == EPSG
        assert len(layout["overviews"]) == len(file.overviews(1))
    window = layout["window"]
    chosen = (window["column"], window["row"], window["width"], window["height"])
    n_bytes, n_blocks = shown.least(BlockChoice(window=chosen))
    assert (window["bytes"], window["blocks"]) == (n_bytes, n_blocks)
    assert "2,304 by 2,304 pixels" in text


@pytest.mark.parametrize("shown", _STORED[:1], indirect=True)
def test_a_zip_is_shown_as_its_rasters(shown: Shown) -> None:
    """And so is `contents/`; any other file of a scene is shown as the scene."""
    query = shown.mounted.query
    by_zip = query("info", "--json", next(shown.scene.glob("*.zip")))
    by_contents = query("info", "--json", shown.scene / "contents")
    other = query("info", "--json", shown.scene / "scene.json")

    assert by_zip["rasters"] == by_contents["rasters"]
    assert [each["path"] for each in by_zip["rasters"]] == list(MEMBERS)
    assert all(each["width"] == N and each["bands"] == 4 for each in by_zip["rasters"])
    assert "rasters" not in other
    assert other["kind"] == "scene"
    text = shown.mounted.program("info", shown.scene / "contents").stdout
    assert all(member in text for member in MEMBERS)
