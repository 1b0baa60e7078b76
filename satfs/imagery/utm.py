"""Between the metres of a map projection and degrees. *Pure*.

Only what rasters of deliveries are in: UTM on WGS 84 (EPSG:32601 to 32660, 32701 to 32760),
longitude and latitude (EPSG:4326) and Web Mercator (EPSG:3857). Exact to a millimetre.

The transverse Mercator projection and its inverse are Krüger's series (L. Krüger 1912, as in IOGP
Guidance Note 7-2, "Transverse Mercator").
"""

from __future__ import annotations

import math
from typing import Final

#: WGS 84: half of the major axis in metres, and the flattening.
_AXIS_M: Final = 6_378_137.0
_FLATTENING: Final = 1 / 298.257223563
_SCALE: Final = 0.9996
_FALSE_EASTING_M, _FALSE_NORTHING_M = 500_000.0, 10_000_000.0

#: Farther from its origin no projection shows a point, in metres; its series have no limit there.
_MAX_UTM_M: Final = 20_000_000.0
_MAX_MERCATOR_M: Final = 100_000_000.0

_N: Final = _FLATTENING / (2 - _FLATTENING)
_RADIUS_M: Final = _AXIS_M / (1 + _N) * (1 + _N**2 / 4 + _N**4 / 64)
_ALPHA: Final = (
    _N / 2 - 2 * _N**2 / 3 + 5 * _N**3 / 16,
    13 * _N**2 / 48 - 3 * _N**3 / 5,
    61 * _N**3 / 240,
)
_BETA: Final = (
    _N / 2 - 2 * _N**2 / 3 + 37 * _N**3 / 96,
    _N**2 / 48 + _N**3 / 15,
    17 * _N**3 / 480,
)
_DELTA: Final = (
    2 * _N - 2 * _N**2 / 3 - 2 * _N**3,
    7 * _N**2 / 3 - 8 * _N**3 / 5,
    56 * _N**3 / 15,
)


def degrees_of(epsg: int, x: float, y: float) -> tuple[float, float] | None:
    """Return longitude and latitude of a point; None for another coordinate system.

    Also None for a point that lies nowhere on Earth. The longitude is that next to the zone's
    meridian: beyond 180 east of the antimeridian.
    """
    if epsg == 4326:
        return x, y
    if epsg == 3857:
        if not max(abs(x), abs(y)) <= _MAX_MERCATOR_M:
            return None
        latitude = math.atan(math.sinh(y / _AXIS_M))
        return math.degrees(x / _AXIS_M), math.degrees(latitude)
    meridian = _meridian(epsg)
    if meridian is None or not max(abs(x), abs(y)) <= _MAX_UTM_M:
        return None
    across, latitude = _geographic(y - _false_northing_m(epsg), x - _FALSE_EASTING_M)
    return meridian + math.degrees(across), math.degrees(latitude)


def metres_of(epsg: int, longitude: float, latitude: float) -> tuple[float, float] | None:
    """Return x and y of a point given in degrees; None for another coordinate system.

    Also None for a point that the projection does not show: 90 degrees or more from the zone's
    meridian, or at a pole. In EPSG:4326 x and y are the degrees themselves.
    """
    if epsg == 4326:
        return longitude, latitude
    if abs(latitude) >= 90:
        return None
    if epsg == 3857:
        y = math.asinh(math.tan(math.radians(latitude)))
        return _AXIS_M * math.radians(longitude), _AXIS_M * y
    meridian = _meridian(epsg)
    if meridian is None or abs(longitude - meridian) >= 90:
        return None
    northing, easting = _projected(math.radians(longitude - meridian), math.radians(latitude))
    return easting + _FALSE_EASTING_M, northing + _false_northing_m(epsg)


def zone_of(longitude: float, latitude: float) -> int:
    """Return the EPSG code of the UTM zone on WGS 84 that a point lies in, by its longitude alone.

    The zones that are wider around Norway and Svalbard are not known here.
    """
    turned = (longitude + 180.0) % 360.0
    return (32600 if latitude >= 0 else 32700) + min(int(turned // 6) + 1, 60)


def _meridian(epsg: int) -> float | None:
    """Return the meridian of a UTM zone in degrees; None for another coordinate system."""
    zone = epsg % 100
    if epsg // 100 not in (326, 327) or not 1 <= zone <= 60:
        return None
    return zone * 6 - 183


def _false_northing_m(epsg: int) -> float:
    return _FALSE_NORTHING_M if epsg // 100 == 327 else 0.0


def _projected(across: float, latitude: float) -> tuple[float, float]:
    """Return northing and easting, in metres, of a longitude from the meridian, and a latitude."""
    sine = math.sin(latitude)
    ratio = 2 * math.sqrt(_N) / (1 + _N)
    isometric = math.asinh(math.tan(latitude))  # as atanh(sine), which has no value at a pole
    conformal = math.sinh(isometric - ratio * math.atanh(ratio * sine))
    xi_1 = math.atan2(conformal, math.cos(across))
    eta_1 = math.asinh(math.sin(across) / math.hypot(conformal, math.cos(across)))
    xi, eta = xi_1, eta_1
    for k, alpha in enumerate(_ALPHA, 1):
        xi += alpha * math.sin(2 * k * xi_1) * math.cosh(2 * k * eta_1)
        eta += alpha * math.cos(2 * k * xi_1) * math.sinh(2 * k * eta_1)
    return _SCALE * _RADIUS_M * xi, _SCALE * _RADIUS_M * eta


def _geographic(northing_m: float, easting_m: float) -> tuple[float, float]:
    """Return the longitude from the meridian, and the latitude, in radians."""
    xi, eta = northing_m / (_SCALE * _RADIUS_M), easting_m / (_SCALE * _RADIUS_M)
    xi_1, eta_1 = xi, eta
    for k, beta in enumerate(_BETA, 1):
        xi_1 -= beta * math.sin(2 * k * xi) * math.cosh(2 * k * eta)
        eta_1 -= beta * math.cos(2 * k * xi) * math.sinh(2 * k * eta)
    conformal = math.asin(math.sin(xi_1) / math.cosh(eta_1))
    latitude = conformal + sum(
        delta * math.sin(2 * k * conformal) for k, delta in enumerate(_DELTA, 1)
    )
    return math.atan2(math.sinh(eta_1), math.cos(xi_1)), latitude
