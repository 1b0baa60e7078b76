"""The facts of a scene, of its rasters and of their bands. *Pure*.

None, or an empty collection, means "not known". Every number is finite; every text is valid
Unicode. Nothing here holds a link, a token or another secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, TypeAlias

from msgspec import Struct, field

from satfs.model import CaptureId, Json, SceneId

#: West, south, east, north in degrees. West is greater than east where the box crosses the
#: antimeridian (RFC 7946 §5.2).
Bbox: TypeAlias = tuple[float, float, float, float]
#: (a, b, c, d, e, f) with x = a·column + b·row + c and y = d·column + e·row + f at the upper left
#: corner of a pixel: the order of `affine.Affine`, of rasterio, and of STAC's `proj:transform`.
Transform: TypeAlias = tuple[float, float, float, float, float, float]


#: The value of pixels without data; "nan" where it is not a number.
NoData: TypeAlias = float | Literal["nan"]


class MemberKind(StrEnum):
    """The kind of a delivery's member, by its name."""

    ANALYTIC = "analytic"  # *_TOA_<n>.tif, *_analytic.tif: reflectances
    VISUAL = "visual"  # *_VISUAL_<n>.tif, *_visual.tif: colours for people
    CLOUD = "cloud"  # *_CLOUD_<n>.tif, *_cloud.tif: the mask of clouds
    VRT = "vrt"  # *_{TOA,VISUAL,CLOUD}.vrt
    ITEM = "item"  # *_metadata_stac.geojson: the vendor's own STAC item
    ANGLES = "angles"  # *_solar_and_viewing_angles.geojson
    TOA_FACTORS = "toa_factors"  # *_toa_factors.json
    PREVIEW = "preview"  # *_preview.png
    THUMBNAIL = "thumbnail"  # *_thumbnail.png
    OTHER = "other"


#: The kinds that are rasters.
RASTER_KINDS: Final = (MemberKind.ANALYTIC, MemberKind.VISUAL, MemberKind.CLOUD)


class MemberFacts(Struct, frozen=True):
    """A file in the delivery. `path` is relative to `contents/`, with slashes."""

    path: str
    size_bytes: int
    kind: MemberKind = MemberKind.OTHER


class BandFacts(Struct, frozen=True):
    """A band of a raster.

    `name` is the delivery's own. `common_name` is one of the STAC eo extension (`red`, `nir`);
    it is from the delivery, too, and never from the position of the band. Wavelengths are in
    micrometres.
    """

    name: str | None = None
    common_name: str | None = None
    center_wavelength_um: float | None = None
    full_width_half_max_um: float | None = None


class RasterFacts(Struct, frozen=True):
    """A raster of the delivery, as its header, else the vendor's VRT and item, state it.

    `kind` is ANALYTIC, VISUAL or CLOUD. `path` is relative to `contents/`. `width` and `height` are
    in pixels, `block_width` and `block_height` those of a tile or strip. `data_type` is a name of
    numpy (`uint16`). `bands` has one entry for each band, in the order of the file, or none when
    the number of bands is not known; a band without known facts is `BandFacts()`.

    `has_alpha`: the last band is the opacity of the others. `has_mask` is whether the file has a
    mask of its own, None where the header that was read does not tell.

    `epsg` and `transform` are None for a raster without a map projection (L1C); then `has_rpc` is
    whether it has rational polynomial coefficients. `is_cog` is True only where the raster's own
    header was read and is that of a cloud-optimised GeoTIFF, False where it is not, and None where
    the header was not read, or is too long to be read in one piece.
    """

    kind: MemberKind
    path: str
    size_bytes: int
    width: int | None = None
    height: int | None = None
    block_width: int | None = None
    block_height: int | None = None
    data_type: str | None = None
    no_data: NoData | None = None
    bands: tuple[BandFacts, ...] = ()
    has_alpha: bool = False
    has_mask: bool | None = None
    epsg: int | None = None
    transform: Transform | None = None
    has_rpc: bool | None = None
    is_cog: bool | None = None

    def band_number(self, common_name: str) -> int | None:
        """Return the number of the band of that common name, from 1; None when none has it."""
        names = [band.common_name for band in self.bands]
        return names.index(common_name) + 1 if common_name in names else None


class ViewFacts(Struct, frozen=True):
    """From where the scene was seen and lit: degrees, as STAC's view extension defines them."""

    azimuth_deg: float | None = None
    off_nadir_deg: float | None = None
    incidence_angle_deg: float | None = None
    sun_azimuth_deg: float | None = None
    sun_elevation_deg: float | None = None


class SceneFacts(Struct, frozen=True):
    """The facts of one scene.

    `geometry` is a GeoJSON geometry in degrees (RFC 7946), as the delivery, else the record states
    it; one that crosses the antimeridian may be of one piece, with longitudes beyond 180, or cut in
    two. `bbox` is that of the geometry. `moment` is when the scene was taken, in UTC, to the
    microsecond. `product` is the level (`L1D_SR`). `cloud_percent` is 0 to 100. `gsd_m` is the
    ground sampling distance in metres. `epsg` is that of all rasters, None when they differ or have
    none. `vendor_properties` holds further properties of the vendor's own item: scalars, under
    their names (`satl:product_version`).

    `members` are the files of the zip whose kind is known, 1,000 at most, sorted by kind and path,
    numbers in paths by their value; `rasters` are those of them that are rasters. Both are empty
    when the facts were made of the record alone, and for a scene without a zip. `has_delivery` is
    True when the zip was read.
    """

    scene_id: SceneId
    capture_id: CaptureId | None = None
    product: str | None = None
    geometry: Mapping[str, Json] | None = None
    bbox: Bbox | None = None
    moment: datetime | None = None
    platform: str | None = None
    constellation: str | None = None
    instruments: tuple[str, ...] = ()
    gsd_m: float | None = None
    cloud_percent: float | None = None
    view: ViewFacts = field(default_factory=ViewFacts)
    epsg: int | None = None
    vendor_properties: Mapping[str, Json] = field(default_factory=dict)
    has_delivery: bool = False
    members: tuple[MemberFacts, ...] = ()
    rasters: tuple[RasterFacts, ...] = ()

    def rasters_of(self, kind: MemberKind) -> tuple[RasterFacts, ...]:
        """Return the rasters of one kind, in the order of their paths."""
        return tuple(raster for raster in self.rasters if raster.kind is kind)

    def members_of(self, kind: MemberKind) -> tuple[MemberFacts, ...]:
        """Return the members of one kind, in the order of their paths."""
        return tuple(member for member in self.members if member.kind is kind)
