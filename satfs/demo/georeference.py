"""The place of a raster of the demo on Earth, and the place of each pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from satfs.errors import Unsupported

try:
    import numpy as np
    import rasterio
    import rasterio.warp
    from numpy.typing import NDArray
    from rasterio.rpc import RPC
    from rasterio.transform import Affine
except ImportError as missing:
    raise Unsupported(f"the demo's imagery needs {missing.name}: install satfs[demo]") from missing

#: How far the ground track is turned against north, in degrees: a near-polar orbit's.
TRACK_DEGREES: Final = 9.5


@dataclass(frozen=True)
class Place:
    """The place of a square of *n* pixels: its centre in degrees, the pixels' size in metres."""

    longitude: float
    latitude: float
    n: int
    pixel_m: float

    @property
    def epsg(self) -> int:
        """Return the code of the UTM zone."""
        zone = int((self.longitude + 180) // 6) % 60 + 1
        return (32600 if self.latitude >= 0 else 32700) + zone

    @cached_property
    def corner(self) -> tuple[float, float]:
        """Return the upper left corner in metres, a multiple of the pixels' size."""
        crs = f"EPSG:{self.epsg}"
        x, y = rasterio.warp.transform("EPSG:4326", crs, [self.longitude], [self.latitude])
        half = self.n * self.pixel_m / 2
        left = math.floor((x[0] - half) / self.pixel_m) * self.pixel_m
        top = math.ceil((y[0] + half) / self.pixel_m) * self.pixel_m
        return left, top

    def transform(self, first_row: int = 0, first_column: int = 0) -> Affine:
        """Return pixel to metres for a raster that starts at a pixel of the place; north is up."""
        left, top = self.corner
        left, top = left + first_column * self.pixel_m, top - first_row * self.pixel_m
        return Affine(self.pixel_m, 0, left, 0, -self.pixel_m, top)

    def rpc(self, rows: int, columns: int, first_row: int = 0) -> RPC:
        """Return the rational polynomials of a raster that starts at a row of the place.

        They are of the first degree, and good to a pixel: longitude and latitude depend on the
        pixel as UTM has it in the middle of the raster.
        """
        left, top = self.corner
        middle_x = left + columns / 2 * self.pixel_m
        middle_y = top - (first_row + rows / 2) * self.pixel_m
        xs = [middle_x, middle_x + columns / 2 * self.pixel_m, middle_x]
        ys = [middle_y, middle_y, middle_y - rows / 2 * self.pixel_m]
        lons, lats = rasterio.warp.transform(f"EPSG:{self.epsg}", "EPSG:4326", xs, ys)
        # The short way round where the longitudes jump from 180 to -180.
        half = np.array(
            [[(each - all_[0] + 180) % 360 - 180 for each in all_[1:]] for all_ in (lons, lats)]
        )
        lon_scale, lat_scale = np.abs(half).sum(axis=1)
        column, row = np.linalg.inv(half / [[lon_scale], [lat_scale]])
        # A cubic polynomial has 20 coefficients, first those of 1, longitude, latitude (RPC00B).
        one, rest = [1.0] + [0.0] * 19, [0.0] * 17
        return RPC(
            height_off=0.0,
            height_scale=500.0,
            lat_off=lats[0],
            lat_scale=float(lat_scale),
            line_den_coeff=one,
            line_num_coeff=[0.0, *map(float, row), *rest],
            line_off=rows / 2,
            line_scale=rows / 2,
            long_off=lons[0],
            long_scale=float(lon_scale),
            samp_den_coeff=one,
            samp_num_coeff=[0.0, *map(float, column), *rest],
            samp_off=columns / 2,
            samp_scale=columns / 2,
        )

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Return the corners of what was seen, in pixels: a square turned inside the square."""
        turn = math.radians(TRACK_DEGREES)
        half = self.n / 2
        reach = half / (abs(math.cos(turn)) + abs(math.sin(turn)))
        square = [(-reach, reach), (reach, reach), (reach, -reach), (-reach, -reach)]
        return [
            (
                half + x * math.cos(turn) - y * math.sin(turn),
                half + x * math.sin(turn) + y * math.cos(turn),
            )
            for x, y in square
        ]

    @cached_property
    def footprint(self) -> dict[str, Any]:
        """Return the GeoJSON polygon of what was seen, in degrees, counter-clockwise, closed."""
        left, top = self.corner
        xs = [left + x * self.pixel_m for x, _ in self.corners]
        ys = [top - y * self.pixel_m for _, y in self.corners]
        lons, lats = rasterio.warp.transform(f"EPSG:{self.epsg}", "EPSG:4326", xs, ys)
        ring = [[round(lon, 6), round(lat, 6)] for lon, lat in zip(lons, lats, strict=True)]
        return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}

    def seen(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Return which pixels of a window were seen: those between the corners."""
        y = np.arange(rows.start, rows.stop)[:, None] + 0.5
        x = np.arange(columns.start, columns.stop)[None, :] + 0.5
        inside = np.ones((y.size, x.size), bool)
        corners = self.corners
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            inside &= (x - x0) * (y1 - y0) - (y - y0) * (x1 - x0) >= 0
        return inside

    def from_afar(self, n: int) -> Place:
        """Return the same square in *n* by *n* larger pixels."""
        return Place(self.longitude, self.latitude, n, self.pixel_m * self.n / n)

    @cached_property
    def bbox(self) -> list[float]:
        """Return west, south, east, north of the footprint, in degrees."""
        lons, lats = zip(*self.footprint["coordinates"][0], strict=True)
        return [min(lons), min(lats), max(lons), max(lats)]
