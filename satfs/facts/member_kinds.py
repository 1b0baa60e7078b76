"""The kind of a delivery's member, by its name. *Pure*.

Two layouts are known. Most deliveries have `<stem>_metadata_stac.geojson` beside a directory
`rasters/` with `<stem>_TOA_0.tif`, `<stem>_VISUAL_0.tif` and `<stem>_CLOUD_0.tif`; others have no
`rasters/`, and name a tile of a raster by zone, column and row:
`<stem>_<zone>_<column>_<row>_analytic.tif`. Extensions occur in capitals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from satfs.facts.scene import MemberFacts, MemberKind

#: Members that are kept of one zip. A delivery has some ten; one in tiles has some hundreds.
MAX_MEMBERS: Final = 1000

#: Names that are looked at more closely: a bomb of a zip has a million.
MAX_NAMES: Final = 50_000
#: How the name of a known member ends, in lower case.
_EXTENSIONS: Final = (b".tif", b".tiff", b".vrt", b".json", b".geojson", b".png")

_KINDS: Final = (
    (re.compile(r"(?:^|_)(?:toa|analytic)(?:_\d+)?\.tiff?$", re.I), MemberKind.ANALYTIC),
    (re.compile(r"(?:^|_)visual(?:_\d+)?\.tiff?$", re.I), MemberKind.VISUAL),
    (re.compile(r"(?:^|_)cloud(?:_\d+)?\.tiff?$", re.I), MemberKind.CLOUD),
    (re.compile(r"(?:^|_)(?:toa|analytic|visual|cloud)\.vrt$", re.I), MemberKind.VRT),
    (re.compile(r"(?:^|_)stac\.(?:geo)?json$", re.I), MemberKind.ITEM),
    (re.compile(r"(?:^|_)viewing_angles\.(?:geo)?json$", re.I), MemberKind.ANGLES),
    (re.compile(r"(?:^|_)toa_factors\.json$", re.I), MemberKind.TOA_FACTORS),
    (re.compile(r"(?:^|_)preview\.png$", re.I), MemberKind.PREVIEW),
    (re.compile(r"(?:^|_)thumbnail\.png$", re.I), MemberKind.THUMBNAIL),
)
#: macOS puts an AppleDouble file beside each file, whose name ends like the file's own.
_APPLE_DOUBLE: Final = re.compile(r"(?:^|/)(?:__MACOSX/|\._[^/]*$)")
_DIGITS: Final = re.compile(r"(\d+)")
_ORDER: Final = {kind: place for place, kind in enumerate(MemberKind)}


def may_be_known(name: bytes) -> bool:
    """Return whether a member of that file name can be of a known kind; takes a microsecond."""
    return name.lower().endswith(_EXTENSIONS)


def kind_of(path: str) -> MemberKind:
    """Return the kind of the member at *path*; OTHER for a name of no known kind."""
    if _APPLE_DOUBLE.search(path):
        return MemberKind.OTHER
    name = path.rpartition("/")[2]
    return next((kind for form, kind in _KINDS if form.search(name)), MemberKind.OTHER)


def known_members(paths: Iterable[tuple[str, int]]) -> tuple[MemberFacts, ...]:
    """Return those of the files *(path, size in bytes)* whose kind is known, sorted.

    See `SceneFacts.members` for the order. Of more than `MAX_MEMBERS` the last ones are dropped.
    """
    found = [
        MemberFacts(path, size_bytes, kind)
        for path, size_bytes in paths
        if (kind := kind_of(path)) is not MemberKind.OTHER
    ]
    return tuple(sorted(found, key=_place)[:MAX_MEMBERS])


def raster_kind(name: str) -> MemberKind | None:
    """Return the kind of raster that an asset's key or a VRT's name denotes, or None."""
    words = re.split(r"[^a-z]+", name.lower())
    if "toa" in words or "analytic" in words:
        return MemberKind.ANALYTIC
    if "visual" in words:
        return MemberKind.VISUAL
    return MemberKind.CLOUD if "cloud" in words else None


def _place(member: MemberFacts) -> tuple[int, list[tuple[int, str]], str]:
    # Digits beyond 18 are compared as text: a vendor's name may have a thousand.
    words = [
        (int(word), "") if word.isascii() and word.isdigit() and len(word) <= 18 else (-1, word)
        for word in _DIGITS.split(member.path)
    ]
    return _ORDER[member.kind], words, member.path
