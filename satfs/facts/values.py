"""Single values from a vendor's JSON: each a number, text or code that can be relied on, or None.

*Pure*. None stands for "not known", for any unusable value in the field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from satfs.api.record_parsers import moment
from satfs.facts.scene import NoData
from satfs.model import Json
from satfs.redaction import is_link, is_secret_key, is_secret_like

#: Longest text that is kept of one field, in characters.
MAX_TEXT_CHARACTERS: Final = 256
#: The range of codes in EPSG's register; what a GeoTIFF can hold as well (OGC 19-008r4 §7).
_MIN_EPSG, _MAX_EPSG = 1024, 32766
_EPSG: Final = re.compile(r"(?:EPSG:)?(\d{4,6})", re.IGNORECASE)


def fields(value: Json) -> Mapping[str, Json]:
    """Return *value* if it is an object, else one without fields."""
    return value if isinstance(value, Mapping) else {}


def number(value: Json, least: float = -math.inf, most: float = math.inf) -> float | None:
    """Return *value* if it is a finite number in [least, most], or text that is one."""
    if isinstance(value, str) and len(value) <= 32:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) > 2**53:
        return None
    return float(value) if math.isfinite(value) and least <= value <= most else None


def no_data(value: str | None) -> NoData | None:
    """Return the value without data that a raster spells as *value*; None when it makes no sense.

    A value that is not a number is `"nan"`: no float of that kind is equal to itself.
    """
    if value is not None and value.strip().lower() in ("nan", "+nan", "-nan"):
        return "nan"
    return number(value)


def azimuth(value: Json) -> float | None:
    """Return degrees clockwise from north, in [0, 360); negative ones count from north, too."""
    found = number(value, -360, 360)
    # Twice: of a tiny negative number the remainder is 360, since no float is closer to it.
    return None if found is None else found % 360 % 360


def text(value: Json) -> str | None:
    """Return *value* if it is short text, without spaces around it, that is no link or secret."""
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS:
        return None
    found = value.strip()
    return None if not found or is_link(found) or is_secret_like(found) else found


def texts(value: Json) -> tuple[str, ...]:
    """Return the texts in a list of at most 16; empty when *value* is no list."""
    if not isinstance(value, list) or len(value) > 16:
        return ()
    return tuple(found for found in map(text, value) if found is not None)


def epsg(value: Json) -> int | None:
    """Return a code of EPSG's register: a number, a number as text, or `EPSG:<number>`."""
    if isinstance(value, str) and len(value) <= 32:
        match = _EPSG.fullmatch(value.strip())
        value = int(match[1]) if match else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if _MIN_EPSG <= value <= _MAX_EPSG else None


def time(value: Json) -> datetime | None:
    """Return the moment that ISO 8601 text states, in UTC."""
    return moment(value) if isinstance(value, str) and len(value) <= 64 else None


def first(*candidates: float | None) -> float | None:
    """Return the first of *candidates* that is known."""
    return next((value for value in candidates if value is not None), None)


def first_number(
    record: Mapping[str, Json], keys: tuple[str, ...], least: float, most: float
) -> float | None:
    """Return the first field of *record*, in the order of *keys*, that is a number in range."""
    return first(*(number(record.get(key), least, most) for key in keys))


def is_scalar_fit(key: str, value: Json) -> bool:
    """Return whether a field is a scalar that may be passed on: short, finite, and no secret."""
    if len(key) > 64 or is_secret_key(key) or is_secret_like(key):
        return False
    if isinstance(value, str):
        return text(value) is not None
    return isinstance(value, bool) or (isinstance(value, int | float) and number(value) is not None)
