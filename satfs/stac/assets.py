"""The files of a scene as the assets of a STAC item. *Pure*."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, field

from satfs.facts.scene import BandFacts, MemberKind, RasterFacts, SceneFacts
from satfs.model import DELIVERY_ZIP

COG_TYPE: Final = "image/tiff; application=geotiff; profile=cloud-optimized"
GEOTIFF_TYPE: Final = "image/tiff; application=geotiff"
TIFF_TYPE: Final = "image/tiff"
PNG_TYPE: Final = "image/png"

#: Reflectance of one count in rasters of reflectances (the vendor's product documentation).
_REFLECTANCE_SCALE: Final = 0.0001
#: The values of cloud masks, from these product versions on (the vendor's release notes of 17
#: November 2025). Older masks have other values.
_CLOUD_CLASSES: Final = "0 no data, 1 clear, 2 haze, 3 cloud"
_FIRST_WITH_CLASSES: Final = {"L1B": (1, 9, 0), "L1C": (2, 2, 0), "L1D": (2, 0, 0)}

_RASTERS: Final[Mapping[MemberKind, tuple[str, list[str]]]] = {
    MemberKind.ANALYTIC: ("Reflectances at the top of the atmosphere", ["data", "reflectance"]),
    MemberKind.VISUAL: ("Colours for people", ["visual"]),
    MemberKind.CLOUD: ("Mask of clouds", ["cloud", "data-mask"]),
}
_DOCUMENTS: Final[Mapping[MemberKind, tuple[str, str, list[str]]]] = {
    MemberKind.ITEM: ("metadata", "application/geo+json", ["metadata"]),
    MemberKind.ANGLES: ("angles", "application/geo+json", ["metadata"]),
    MemberKind.TOA_FACTORS: ("toa_factors", "application/json", ["metadata"]),
}
_PICTURES: Final = {"preview": ["overview"], "thumbnail": ["thumbnail"]}


class SceneFiles(Struct, frozen=True):
    """The files beside an item.

    `attachments` are file names by the API's key, *zip_bytes* is the size of the delivery if it is
    known. `contents` is the name of the directory with the members of the zip, `record` that of the
    file with the API's record; each is None where the mount shows none.
    """

    attachments: Mapping[str, str] = field(default_factory=dict)
    zip_bytes: int | None = None
    contents: str | None = "contents"
    record: str | None = "scene.json"


#: The characters that `href` escapes: `?`, `#`, and a percent sign before an escape of these.
_ENDS_PATH: Final = re.compile("[?#]|%(?=3F|23|25)")
_ESCAPE: Final = re.compile("%(3F|23|25)")


def assets_of(facts: SceneFacts, files: SceneFiles) -> dict[str, dict[str, Any]]:
    """Return the assets of a scene, by key: rasters, documents, pictures, and the delivery.

    Several rasters of one kind have a number behind their key. A raster has projection, shape,
    transform, bands and type as far as these are known.
    """
    assets: dict[str, dict[str, Any]] = {}
    if files.contents is not None:
        for kind, (title, roles) in _RASTERS.items():
            rasters = facts.rasters_of(kind)
            for number, raster in enumerate(rasters):
                key = kind.value if len(rasters) == 1 else f"{kind.value}_{number}"
                assets[key] = {
                    "href": href(files.contents, raster.path),
                    "title": title,
                    "type": _type_of(raster),
                    "roles": roles,
                    **_raster_fields(raster, facts),
                }
        for kind, (key, media_type, roles) in _DOCUMENTS.items():
            for member in facts.members_of(kind)[:1]:
                assets[key] = {
                    "href": href(files.contents, member.path),
                    "type": media_type,
                    "roles": roles,
                    "file:size": member.size_bytes,
                }
    if files.record is not None:
        assets["record"] = {
            "href": href(files.record),
            "title": "The API's record",
            "type": "application/json",
            "roles": ["metadata"],
        }
    return assets | _attached(facts, files)


def href(*parts: str) -> str:
    """Return a relative address of a path below the item's directory.

    Only characters that would end the path of an address are escaped (RFC 3986 §3.3), and text that
    would read as one of these escapes. pystac, odc-stac and GDAL use the address of a local file as
    its path, and do not find a file when more is escaped.
    """
    return "./" + _ENDS_PATH.sub(lambda found: f"%{ord(found[0]):02X}", "/".join(parts))


def path_of(address: str) -> str:
    """Return the path of an *address* that `href` made, relative to the item's directory."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), address)


def _attached(facts: SceneFacts, files: SceneFiles) -> dict[str, dict[str, Any]]:
    assets: dict[str, dict[str, Any]] = {}
    for key, roles in _PICTURES.items():
        members = facts.members_of(MemberKind(key))
        if key in files.attachments:
            where = href(files.attachments[key])
        elif members and files.contents is not None:
            where = href(files.contents, members[0].path)
        else:
            continue
        assets[key] = {"href": where, "type": PNG_TYPE, "roles": roles}
    if DELIVERY_ZIP in files.attachments:
        size = {} if files.zip_bytes is None else {"file:size": files.zip_bytes}
        assets["delivery"] = {
            "href": href(files.attachments[DELIVERY_ZIP]),
            "title": "The delivery as a whole",
            "type": "application/zip",
            "roles": ["archive"],
            **size,
        }
    return assets


def _type_of(raster: RasterFacts) -> str:
    if raster.is_cog and raster.transform is not None:
        return COG_TYPE
    return GEOTIFF_TYPE if raster.transform is not None or raster.has_rpc else TIFF_TYPE


def _raster_fields(raster: RasterFacts, facts: SceneFacts) -> dict[str, Any]:
    fields: dict[str, Any] = {"file:size": raster.size_bytes}
    if raster.epsg is not None and raster.epsg != facts.epsg:
        fields |= {"proj:code": f"EPSG:{raster.epsg}", "proj:epsg": raster.epsg}
    if raster.width is not None and raster.height is not None:
        fields["proj:shape"] = [raster.height, raster.width]
    if raster.transform is not None:
        fields["proj:transform"] = list(raster.transform)
    if raster.data_type is not None:
        fields["data_type"] = raster.data_type
    # STAC allows "nan", which rustac refuses; readers take a float that is NaN for missing anyway.
    if isinstance(raster.no_data, float):
        fields["nodata"] = _plain(raster.no_data)
    if raster.bands:
        # Readers load a band by its common name, which must lead to one raster: the measurements.
        is_measured = raster.kind is MemberKind.ANALYTIC
        shown = raster.bands if is_measured else [BandFacts(band.name) for band in raster.bands]
        # A band of which nothing else is known has its type: readers count them, and GeoParquet
        # holds no empty objects.
        nameless = {} if raster.data_type is None else {"data_type": raster.data_type}
        bands = [_band(band) or nameless for band in shown]
        if all(bands):
            fields["bands"] = bands
        if is_measured and all(band.name for band in shown):
            fields["eo:bands"] = [_eo_band(band) for band in shown]
    if raster.kind is MemberKind.ANALYTIC and raster.data_type == "uint16":
        fields["raster:scale"] = _REFLECTANCE_SCALE
    if raster.kind is MemberKind.CLOUD and _has_classes(facts):
        fields["description"] = _CLOUD_CLASSES
    return fields


def _band(band: BandFacts) -> dict[str, Any]:
    """Return a band as STAC 1.1 has it."""
    fields = {
        "name": band.name,
        "eo:common_name": band.common_name,
        "eo:center_wavelength": band.center_wavelength_um,
        "eo:full_width_half_max": band.full_width_half_max_um,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _eo_band(band: BandFacts) -> dict[str, Any]:
    """Return a band as readers of STAC 1.0 know it."""
    return {name.removeprefix("eo:"): value for name, value in _band(band).items()}


def _plain(number: float) -> float | int:
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _has_classes(facts: SceneFacts) -> bool:
    """Return whether the product is of a version whose cloud mask has the classes above."""
    version = facts.vendor_properties.get("satl:product_version")
    first = _FIRST_WITH_CLASSES.get((facts.product or "")[:3])
    if first is None or not isinstance(version, str):
        return False
    parts: Sequence[str] = version.split(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 9 for part in parts):
        return False
    return tuple(map(int, parts)) >= first
