"""The rows about a raster's layout."""

from __future__ import annotations

from typing import Any

import pytest

from satfs.cli.commands.info import list_rows, raster_rows

RASTER: dict[str, Any] = {
    "width": 4096,
    "height": 4000,
    "data_type": "uint16",
    "bands": 4,
    "band_names": ["Blue", None, "Red", "NIR"],
    "epsg": 32721,
    "transform": [0.7, 0.0, 370000.7, 0.0, -0.7, 6170000.3],
    "has_rpc": False,
    "no_data": "0",
    "block_width": 256,
    "block_height": 256,
    "is_tiled": True,
    "blocks": 256,
    "interleave": "pixel",
    "compression": "LZW",
    "predictor": 2,
    "is_bigtiff": False,
    "overviews": [
        {"width": 2048, "height": 2000, "block_width": 128, "block_height": 128,
         "is_tiled": True, "blocks": 256},
        {"width": 1024, "height": 1000, "block_width": 128, "block_height": 128,
         "is_tiled": True, "blocks": 64},
    ],
    "has_mask": False,
    "pages": 1,
    "is_cog": False,
    "window": {"column": 1792, "row": 1744, "width": 512, "height": 512, "blocks": 9,
               "bytes": 4_500_000, "ranges": 3},
}  # fmt: skip


def _rows(packing: str = "stored", **other: Any) -> dict[str, str]:
    found = {"raster": {**RASTER, **other}, "packing": packing, "size_bytes": 134_500_000}
    return dict(raster_rows(found))


def test_a_layout_is_stated_in_plain_words() -> None:
    assert _rows() == {
        "file": "134.5 MB",
        "size": "4,096 by 4,000 pixels",
        "data type": "uint16",
        "bands": "4: Blue, ?, Red, NIR",
        "position": "EPSG:32721, corner at 370000.7, 6170000.3, pixels of 0.7 by 0.7",
        "no data": "0",
        "blocks": "tiles of 256 by 256, 256 of them",
        "interleave": "pixel (a block holds all)",
        "compression": "LZW, horizontal differences",
        "overviews": "2,048 by 2,000; 1,024 by 1,000",
        "format": "TIFF, not a cloud-optimised GeoTIFF",
        "a window": "512 by 512 in the middle: 9 blocks, 4.5 MB, 3 requests",
    }


@pytest.mark.parametrize(
    ("other", "name", "value"),
    [
        ({"transform": None, "epsg": None, "has_rpc": True}, "position",
         "no map projection, RPC instead"),
        ({"transform": None, "epsg": None}, "position", "no map projection"),
        ({"epsg": None}, "position",
         "no known system, corner at 370000.7, 6170000.3, pixels of 0.7 by 0.7"),
        ({"transform": [0.7, 0.1, 1.0, 0.1, -0.7, 2.0]}, "position",
         "EPSG:32721, corner at 1, 2, rotated pixels"),
        ({"is_tiled": False, "block_width": 4096, "block_height": 1, "blocks": 4000}, "blocks",
         "strips of 4,096 by 1, 4,000 of them"),
        ({"interleave": "band"}, "interleave", "band (a block holds one band)"),
        ({"overviews": []}, "overviews", "none"),
        ({"is_bigtiff": True, "is_cog": True}, "format",
         "BigTIFF, a cloud-optimised GeoTIFF"),
        ({"is_cog": None}, "format", "TIFF"),
        ({"has_mask": True}, "mask", "in the file"),
        ({"pages": 3}, "pages", "3; this is of the first"),
        ({"packing": "deflate"}, "file", "134.5 MB, packed in the zip (deflate)"),
        ({"packing": "deflate"}, "a window",
         "512 by 512 in the middle: 9 blocks, 4.5 MB, unpacked"),
    ],
)  # fmt: skip
def test_each_kind_of_raster_has_its_words(other: dict[str, Any], name: str, value: str) -> None:
    assert _rows(**other)[name] == value


def test_a_file_without_a_layout_says_why() -> None:
    found = {"raster": None, "reason": "not a TIFF", "packing": "stored", "size_bytes": 7}
    assert dict(raster_rows(found)) == {"file": "7 B", "layout": "not a TIFF"}


def test_the_rasters_of_a_zip_are_a_list() -> None:
    known = {
        "path": "rasters/a_TOA_0.tif", "size_bytes": 1000, "width": 10, "height": 20, "bands": 4,
        "data_type": "uint16", "block_width": 256, "block_height": 256, "is_cog": True,
    }  # fmt: skip
    unknown = {**dict.fromkeys(known), "path": "b.tif", "size_bytes": 2000, "bands": 0}
    assert [value for _, value in list_rows([known, unknown])] == [
        "rasters/a_TOA_0.tif (1.0 kB, 10 by 20 pixels, 4 bands of uint16, blocks of 256 by 256,"
        " COG)",
        "b.tif (2.0 kB)",
    ]
