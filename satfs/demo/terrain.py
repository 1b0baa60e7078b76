"""Invented land seen from above: fields, forest, rivers, towns, coasts, clouds and shadows.

*Pure*: a seed and a kind of land give reflectances, the same every time. Everything is made of
smooth noise and of parcels (a jittered grid), evaluated over a square of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from satfs.errors import Unsupported

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as missing:
    raise Unsupported(f"the demo's imagery needs {missing.name}: install satfs[demo]") from missing

Field = NDArray[np.float32]
#: Reflectances of blue, green, red and near infrared.
Colour = tuple[float, float, float, float]

#: Kinds of land.
KINDS: Final = ("coast", "farmland", "delta", "desert", "town")

#: Values of a cloud mask (vendor's product documentation, since November 2025).
NO_DATA, CLEAR, HAZE, CLOUD = 0, 1, 2, 3

# Reflectance at the top of the atmosphere times 10000: blue, green, red, near infrared.
_DEEP: Final = (760, 640, 430, 190)
_SHALLOW: Final = (1000, 1130, 820, 330)
_SAND: Final = (1500, 1800, 2080, 2600)
_SURF: Final = (2500, 2600, 2600, 2500)
_GRASS: Final = (690, 960, 840, 2700)
_FOREST: Final = (520, 640, 480, 2500)
_ROOFS: Final = ((1150, 1250, 1500, 1900), (1500, 1550, 1600, 1900), (1050, 1080, 1120, 1500))
_STREET: Final = (1150, 1160, 1170, 1350)
_CLOUD: Final = (6300, 6350, 6450, 6800)
_CROPS: Final = (
    (620, 1010, 640, 3900),
    (660, 930, 720, 3200),
    (560, 780, 560, 3300),
    (760, 1180, 1010, 3000),
    (930, 1320, 1480, 2700),
    (950, 1180, 1420, 1950),
    (1080, 1350, 1650, 2200),
    (800, 980, 1120, 1700),
)
_DUNES: Final = (
    (1180, 1600, 2150, 2700),
    (1020, 1380, 1850, 2400),
    (1320, 1720, 2250, 2850),
    (900, 1180, 1520, 2000),
)


@dataclass(frozen=True)
class Reflectance:
    """Reflectance times 10000 of four bands, as [band, row, column], and the cloud mask."""

    bands: Field
    mask: NDArray[np.uint8]

    def window(self, n: int, rows: slice, columns: slice) -> Field:
        """Return a window of the bands as they are when the land has *n* by *n* pixels."""
        top, down = self._between(n, rows)
        left, right = self._between(n, columns)
        tall = self.bands[:, top] * (1 - down)[:, None] + self.bands[:, top + 1] * down[:, None]
        return np.asarray(tall[:, :, left] * (1 - right) + tall[:, :, left + 1] * right, np.float32)

    def resized(self, n: int) -> Reflectance:
        """Return the same land in *n* by *n* pixels, interpolated: much quicker than drawing."""
        whole = slice(0, n)
        low, share = self._between(n, whole)
        nearest = low + (share >= 0.5)
        return Reflectance(self.window(n, whole, whole), self.mask[np.ix_(nearest, nearest)])

    def _between(self, n: int, wanted: slice) -> tuple[NDArray[np.intp], Field]:
        """Return the two lines around each wanted line, and its distance from the first."""
        n_now = self.mask.shape[0]
        at = (np.arange(wanted.start, wanted.stop) + 0.5) * (n_now / n) - 0.5
        at = np.clip(at, 0, n_now - 1)
        low = np.minimum(at.astype(np.intp), n_now - 2)
        return low, (at - low).astype(np.float32)


def _stretch(lattice: Field, n_pixels: int) -> Field:
    """Return a lattice of rows interpolated to *n_pixels* rows by cubic B-splines, transposed.

    Four sums over slices rather than a product of matrices: the threads of a linear algebra
    library get in each other's way when several pictures are drawn at once.
    """
    n_cells = len(lattice) - 3
    at = np.linspace(0, n_cells, n_pixels, endpoint=False, dtype=np.float32)
    cell = at.astype(np.intp)
    t = at - cell
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    total = lattice[cell] * weights[0][:, None]
    for shift, weight in enumerate(weights[1:], 1):
        total += lattice[cell + shift] * weight[:, None]
    return np.ascontiguousarray(total.T)


def _refined(knots: Field) -> Field:
    """Return the knots of the same spline over twice as many cells (Lane and Riesenfeld 1980)."""
    finer = np.empty((2 * len(knots) - 3, knots.shape[1]), np.float32)
    finer[::2] = (knots[:-1] + knots[1:]) / 2
    finer[1::2] = (knots[:-2] + 6 * knots[1:-1] + knots[2:]) / 8
    return finer


class Noise:
    """Smooth random fields over a square of *n* pixels. The size changes detail, not shape."""

    def __init__(self, seed: int, n: int) -> None:
        self.n = n
        self.random = np.random.default_rng(seed)
        # Apart from the rest: how much is drawn depends on n, and must not change the shapes.
        self._grain = np.random.default_rng((seed, n))

    def smooth(self, n_cells: int) -> Field:
        """Return noise whose features are 1/n_cells of the square, with deviation of about one."""
        return self._spread(self._lattice(n_cells))

    def fractal(self, n_cells: int = 2, octaves: int = 6, gain: float = 0.55) -> Field:
        """Return noise with features of all sizes from 1/n_cells down."""
        knots = self._lattice(n_cells)
        for octave in range(1, octaves):
            finer = self._lattice(n_cells * 2**octave)
            knots = _refined(_refined(knots).T).T + np.float32(gain**octave) * finer
        return self._spread(knots) * np.float32((1 - gain) / (1 - gain**octaves) * 1.6)

    def _lattice(self, n_cells: int) -> Field:
        shape = (n_cells + 3, n_cells + 3)
        return self.random.standard_normal(shape).astype(np.float32) * np.float32(2)

    def _spread(self, knots: Field) -> Field:
        return _stretch(_stretch(knots, self.n), self.n)

    def grain(self) -> Field:
        """Return noise from pixel to pixel."""
        return self._grain.standard_normal((self.n, self.n), dtype=np.float32)


def _ramp(low: float, high: float, value: Field) -> Field:
    """Return 0 below *low*, 1 above *high*, smoothly between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _paint(bands: Field, colour: Colour, cover: Field) -> None:
    """Lay a colour over the picture with the opacity *cover*."""
    for band, tint in zip(bands, colour, strict=True):  # one at a time: what fits caches is quick
        band += (np.float32(tint) - band) * cover


def _paint_textured(bands: Field, colour: Colour, texture: Field, cover: Field) -> None:
    """Lay a colour over the picture, lighter and darker by *texture*."""
    for band, tint in zip(bands, colour, strict=True):
        band += (np.float32(tint) * texture - band) * cover


def _turned(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


class _Parcels:
    """A jittered grid over some points: which of 4096 kinds of parcel each is in, and where in it.

    `border` is the distance to the next border, `along` runs along the rows; the unit is the side
    of the picture.
    """

    def __init__(
        self, random: np.random.Generator, x: Field, y: Field, size: float, angle: float
    ) -> None:
        u, v = _turned(x, y, angle)
        edges = np.cumsum(random.uniform(0.55, 1.5, int(6 / size) + 8)) * size - 3.0
        edges = edges.astype(np.float32)
        widths = random.uniform(0.6, 2.4, len(edges)).astype(np.float32) * np.float32(size)
        offsets = random.uniform(3, 12, len(edges)).astype(np.float32)
        row = np.clip(np.searchsorted(edges, v), 1, len(edges) - 1)
        width = widths[row]
        position = (u + offsets[row]) / width
        column = position.astype(np.int32)
        share = position - column
        beside = np.minimum(share, 1 - share) * width
        self.border = np.minimum(beside, np.minimum(v - edges[row - 1], edges[row] - v))
        self.number = (row * 7919 + column * 3571) % 4096
        self.along = u


def draw(kind: str, seed: int, n: int, cloudiness: float = 0.1, weather: int = 0) -> Reflectance:
    """Return *n* by *n* pixels of land of a kind.

    *cloudiness* is about the share under cloud. Another *weather* moves the clouds and nothing
    else; another *n* shows the same land in more or less detail.
    """
    noise = Noise(seed, n)
    axis = np.linspace(0, 1, n, endpoint=False, dtype=np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    height = noise.fractal(2, 6, 0.5)
    bands = _ground(noise, kind, x, y)
    has_town = kind in ("town", "coast", "delta")
    if has_town:
        roads = _build_town(noise, bands, x, y, 0.32 if kind == "town" else 0.14)
    if kind != "desert":
        _dig_river(noise, bands, x, y, 0.012 if kind == "delta" else 0.006)
    if has_town:  # after the river: there are bridges
        _paint(bands, _STREET, roads * np.float32(0.9))
    _shade(bands, height, n, 0.9 if kind == "desert" else 0.35)
    if kind == "coast":
        _flood(noise, bands, x, y, height)
    bands *= 1 + np.float32(0.022) * noise.grain()
    mask = _cloud_over(Noise(seed + 1 + weather, n), bands, cloudiness)
    return Reflectance(np.clip(bands, 1, 10_000), mask)


def _ground(noise: Noise, kind: str, x: Field, y: Field) -> Field:
    """Return fields in three districts of their own direction, with forest and hedges."""
    random = noise.random
    palette = np.asarray(_DUNES if kind == "desert" else _CROPS, np.float32)
    bands = np.empty((4, noise.n, noise.n), np.float32)
    bands[:] = palette[0][:, None, None]
    if kind == "desert":
        _blow_dunes(noise, bands, x, y)
        return bands
    warp = np.float32(0.006) * noise.smooth(5)
    districts = np.argmax([noise.fractal(3, 3) for _ in range(3)], axis=0)
    for district, size in enumerate((0.045, 0.06, 0.085)):
        here = np.flatnonzero(districts == district)
        angle = random.uniform(0, math.pi)
        parcels = _Parcels(random, (x + warp).ravel()[here], (y - warp).ravel()[here], size, angle)
        kinds = palette[random.integers(0, len(palette), 4096)]
        kinds = kinds * random.normal(1, 0.07, (4096, 1)).astype(np.float32)
        depth = random.uniform(0, 0.035, 4096).astype(np.float32)[parcels.number]
        stripes = 1 + depth * np.sin(parcels.along * np.float32(2 * math.pi * 160))
        hedge = np.asarray(parcels.border < 0.0016, np.float32) * np.float32(0.55)
        tint = _STREET if random.random() < 0.5 else _FOREST
        for n_band, band in enumerate(bands.reshape(4, -1)):
            colours = kinds[:, n_band][parcels.number] * stripes
            band[here] = colours + (np.float32(tint[n_band]) - colours) * hedge
    bands *= 1 + 0.06 * noise.fractal(8, 4)
    wooded = noise.fractal(4, 6, 0.6)
    forest = _ramp(0.55, 0.68, wooded)
    crowns = 1 + np.float32(0.16) * noise.smooth(170) + np.float32(0.08) * noise.grain()
    _paint_textured(bands, _FOREST, crowns, forest)
    _paint(bands, _GRASS, _ramp(0.42, 0.55, wooded) * (1 - forest) * np.float32(0.7))
    return bands


def _blow_dunes(noise: Noise, bands: Field, x: Field, y: Field) -> None:
    """Cover rock and gravel with sand whose crests are across the wind."""
    _paint(bands, _DUNES[3], _ramp(0.2, 1.0, noise.fractal(3, 7, 0.65)) * np.float32(0.85))
    _paint(bands, _DUNES[1], _ramp(-0.4, 0.7, noise.fractal(5, 7, 0.7)) * np.float32(0.7))
    along, _ = _turned(x, y, noise.random.uniform(0, math.pi))
    phase = (along * 46 + 0.8 * noise.fractal(4, 4)) % 1
    crest = _ramp(0.0, 0.75, phase) * (1 - _ramp(0.8, 1.0, phase))
    field = _ramp(-0.1, 0.5, noise.fractal(2, 4))
    bands *= 1 + (crest - np.float32(0.45)) * field * np.float32(0.42)
    _paint(bands, (2600, 2800, 2900, 2950), _ramp(1.2, 1.4, noise.fractal(3, 5)))  # a salt pan


def _build_town(noise: Noise, bands: Field, x: Field, y: Field, radius: float) -> Field:
    """Build streets, houses and parks around a centre; return where its main roads go."""
    random = noise.random
    cx, cy = (np.float32(c) for c in random.uniform(0.3, 0.7, 2))
    angle = random.uniform(0, math.pi)
    distance = np.hypot(x - cx, y - cy) / np.float32(radius) + 0.28 * noise.fractal(5, 4)
    town = 1 - _ramp(0.92, 1.0, distance)
    woods = _ramp(0.0, 0.5, noise.smooth(60))
    here = np.flatnonzero(town)
    ground = bands.reshape(4, -1)[:, here]
    town, woods = town.ravel()[here], woods.ravel()[here]
    blocks = _Parcels(random, x.ravel()[here], y.ravel()[here], 0.024, angle)
    houses = _Parcels(random, x.ravel()[here], y.ravel()[here], 0.0075, angle)
    roofs = np.asarray(_ROOFS, np.float32)[random.integers(0, len(_ROOFS), 4096)]
    roofs = roofs * random.normal(1, 0.16, (4096, 1)).astype(np.float32)
    is_garden = (random.random(4096) < 0.35)[(houses.number * 13 + blocks.number) % 4096]
    is_park = (random.random(4096) < 0.08)[blocks.number]
    is_roof = (houses.border > 0.0012) & ~is_garden & ~is_park
    _paint(ground, _GRASS, town * np.float32(0.8))
    for n_band, band in enumerate(ground):
        band += (roofs[:, n_band][houses.number] - band) * town * is_roof
    _paint(ground, _FOREST, town * is_park * woods)
    _paint(ground, _STREET, town * (blocks.border < 0.0022))
    bands.reshape(4, -1)[:, here] = ground
    along, across = _turned(x - cx, y - cy, angle)
    bend = np.float32(0.004) * noise.smooth(4)
    nearest = np.minimum(np.abs(along + bend), np.abs(across + bend))
    return np.asarray(nearest < 0.0026, np.float32)


def _dig_river(noise: Noise, bands: Field, x: Field, y: Field, width: float) -> None:
    random = noise.random
    u, _ = _turned(x - np.float32(0.5), y - np.float32(0.5), random.uniform(0, math.pi))
    # Distance to the zero line of a smooth function is about its value over its slope.
    course = u + 0.11 * noise.smooth(3) + 0.03 * noise.smooth(7)
    slope = np.hypot(*np.gradient(course)) * noise.n
    distance = np.abs(course) / np.maximum(slope, 0.35)
    breadth = width * (1 + 0.35 * noise.smooth(5))
    _paint(bands, _FOREST, (1 - _ramp(0.9, 2.6, distance / breadth)) * np.float32(0.75))
    _paint(bands, _SAND, (1 - _ramp(1.0, 1.25, distance / breadth)) * np.float32(0.6))
    _paint(bands, _SHALLOW, 1 - _ramp(0.8, 1.0, distance / breadth))


def _shade(bands: Field, height: Field, n: int, strength: float) -> None:
    """Light the land from the north-west."""
    down, right = np.gradient(height)
    light = (down + right) * np.float32(n * 0.035 * strength)
    bands *= 1 + np.clip(light, -0.32, 0.32)


def _flood(noise: Noise, bands: Field, x: Field, y: Field, height: Field) -> None:
    turn = noise.random.uniform(0, 2 * math.pi)
    inland, _ = _turned(x - np.float32(0.5), y - np.float32(0.5), turn)
    level = inland * np.float32(3.2) + 0.38 * height + np.float32(0.25)
    _paint(bands, _SAND, 1 - _ramp(0.03, 0.075, level))
    water = 1 - _ramp(0.0, 0.02, level)
    plume = _ramp(-0.75, 0.0, level + 0.16 * noise.fractal(3, 5))
    swell = 1 + noise.smooth(90) * np.float32(0.012) + noise.grain() * np.float32(0.01)
    _paint_textured(bands, _DEEP, swell, water)
    _paint_textured(bands, _SHALLOW, swell, water * plume)
    surf = _ramp(-0.04, -0.008, level) * water * _ramp(0.1, 0.8, noise.fractal(12, 4))
    _paint(bands, _SURF, surf * np.float32(0.8))


def _cloud_over(noise: Noise, bands: Field, cloudiness: float) -> NDArray[np.uint8]:
    puffs = noise.fractal(4, 8, 0.6) + 0.35 * noise.smooth(2)
    limit = float(np.quantile(puffs[::8, ::8], 1 - min(max(cloudiness, 0.0), 0.95)))
    cloud = _ramp(limit, limit + 0.42, puffs) if cloudiness > 0 else np.zeros_like(puffs)
    away = max(1, noise.n // 26)
    shadow = np.roll(cloud, (away, away), (0, 1))
    shadow[:away] = shadow[:, :away] = 0
    bands *= 1 - np.float32(0.42) * shadow
    down, right = np.gradient(puffs)
    billows = np.clip((down + right) * np.float32(noise.n * 0.012), -0.25, 0.25)
    brightness = np.float32(0.5) + np.float32(0.4) * cloud + billows * cloud
    _paint_textured(bands, _CLOUD, brightness, cloud)
    mask = np.full(cloud.shape, CLEAR, np.uint8)
    mask[cloud > 0.04] = HAZE
    mask[cloud > 0.3] = CLOUD
    return mask
