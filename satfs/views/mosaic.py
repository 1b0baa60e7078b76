"""Virtual rasters of GDAL: the rasters of a task as one mosaic, those of a scene in true colour.

*Pure*. The pixels of a mosaic are those that `gdalbuildvrt` gives for the same files in the same
order (newest last, so that it is on top): the same extent, the mean of the resolutions, pixels
transparent that have no data, or that a mask or an alpha band hides. Bands are not those of the
same number, though, but those of the same common name, where they have one. `SourceProperties`
holds what GDAL would otherwise open each raster to learn, so that to open a mosaic opens no raster.

Format: "VRT -- GDAL Virtual Format", and `gdalvrt.xsd` of GDAL.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from satfs.facts.scene import MemberKind, NoData, RasterFacts, Transform
from satfs.imagery.utm import zone_of
from satfs.views.scene_view import KIND_NAMES, SceneView, newest_last, xml_text

#: numpy's names of data types, and GDAL's.
_GDAL_TYPES: Final[Mapping[str, str]] = {
    "uint8": "Byte",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
    "complex64": "CFloat32",
    "complex128": "CFloat64",
}
#: The bands of true colour, each by the common names that mean it (STAC's eo extension), and GDAL's
#: colour interpretation. Near infrared is last, and left out where the raster has none.
_TRUE_COLOUR: Final = ((("red",), "Red"), (("green",), "Green"), (("blue",), "Blue"))
_NEAR_INFRARED: Final = ("nir", "nir08", "nir09")
_INTERPRETATIONS: Final = {"red": "Red", "green": "Green", "blue": "Blue"}
#: How products begin whose rasters have no grid (the vendor's product documentation).
_WITHOUT_GRID: Final = ("L0", "L1A", "L1B", "L1C")


class _Source(Struct, frozen=True):
    """A raster that can be part of a mosaic: a size, and a grid whose north is up."""

    path: str
    raster: RasterFacts
    epsg: int
    data_type: str
    transform: Transform
    width: int
    height: int

    @property
    def right(self) -> float:
        return self.transform[2] + self.width * self.transform[0]

    @property
    def bottom(self) -> float:
        return self.transform[5] + self.height * self.transform[4]


class _Band(Struct, frozen=True):
    """A band of a mosaic: its number in each source."""

    numbers: tuple[int, ...]
    description: str | None
    interpretation: str | None


def mosaics_of(scenes: Sequence[SceneView]) -> dict[str, bytes]:
    """Return a VRT for each kind of raster and coordinate system, by file name.

    The names are `mosaic_<kind>_<epsg>.vrt`; the content belongs into `views/task/<task>/`. A
    raster without a grid (L1C with rational polynomials), or whose bands or data type differ from
    those of most others of its mosaic, is left out; a comment in the file names it.
    """
    sources: dict[tuple[MemberKind, int], list[_Source]] = {}
    left_out: dict[MemberKind, list[str]] = {kind: [] for kind in KIND_NAMES}
    for scene in newest_last(scenes):
        for kind in KIND_NAMES:
            rasters = scene.facts.rasters_of(kind)
            for raster in rasters:
                source = _source(scene, raster)
                if source is None:
                    left_out[kind].append(f"{scene.directory}: {raster.path} has no known grid")
                else:
                    sources.setdefault((kind, source.epsg), []).append(source)
            if not rasters:
                left_out[kind].append(f"{scene.directory}: no raster of this kind is known")
    made = {}
    for (kind, epsg), found in sources.items():
        fitting, others = _fitting(found)
        comments = [
            *left_out[kind],
            *(f"{other.path}: other bands or data type" for other in others),
        ]
        made[f"mosaic_{KIND_NAMES[kind]}_{epsg}.vrt"] = _vrt(fitting, _all_bands(fitting), comments)
    return made


def expected_mosaics(scenes: Sequence[SceneView]) -> frozenset[str]:
    """Return the names of the mosaics that *scenes*, known by their records, will probably have.

    One of each kind for each UTM zone that holds the middle of a footprint. A delivery may be in
    the next zone, or without one of the kinds: `mosaics_of` what the zips state decides.
    """
    zones = {
        zone_of(*middle)
        for scene in scenes
        if _is_expected(scene) and (middle := _middle(scene)) is not None
    }
    return frozenset(
        f"mosaic_{KIND_NAMES[kind]}_{zone}.vrt" for kind in KIND_NAMES for zone in zones
    )


def expected_true_colours(scenes: Sequence[SceneView]) -> frozenset[str]:
    """Return the names of the files of true colour that *scenes* will probably have."""
    return frozenset(f"{scene.name}.vrt" for scene in scenes if _is_expected(scene))


def nothing_of(reason: str) -> bytes:
    """Return a VRT of one pixel without data, for a name that was expected; *reason* is in it.

    GDAL opens no VRT without a band.
    """
    lines = (
        '<VRTDataset rasterXSize="1" rasterYSize="1">',
        f"  <!-- {_comment(reason)} -->",
        '  <VRTRasterBand dataType="Byte" band="1"><NoDataValue>0</NoDataValue></VRTRasterBand>',
        "</VRTDataset>",
    )
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def true_colour_of(scene: SceneView) -> bytes | None:
    """Return a VRT of the reflectances of *scene* whose bands are red, green, blue, near infrared.

    The content belongs into `views/task/<task>/truecolor/`. None where the delivery does not name
    its bands, or has no raster with a grid.
    """
    found = [_source(scene, raster) for raster in scene.facts.rasters_of(MemberKind.ANALYTIC)]
    sources = [source for source in found if source is not None]
    if not sources or len(sources) < len(found):
        return None
    same = {(source.epsg, source.data_type) for source in sources}
    if len(same) > 1:
        return None
    bands = []
    for names, interpretation in (*_TRUE_COLOUR, (_NEAR_INFRARED, None)):
        numbers = [_band_number(source.raster, names) for source in sources]
        if None not in numbers:
            known = tuple(number for number in numbers if number is not None)
            bands.append(_Band(known, names[0], interpretation))
        elif interpretation is not None:
            return None
    return _vrt(sources, bands, (), up="../")


def _is_expected(scene: SceneView) -> bool:
    """Return whether the record of *scene* announces a delivery whose rasters have a grid."""
    product = scene.facts.product or ""
    is_shown = scene.delivery is not None and scene.contents is not None
    return is_shown and not product.startswith(_WITHOUT_GRID)


def _middle(scene: SceneView) -> tuple[float, float] | None:
    """Return longitude and latitude of the middle of a footprint."""
    if scene.facts.bbox is None:
        return None
    west, south, east, north = scene.facts.bbox
    if west > east:  # over the antimeridian
        east += 360.0
    return (west + east) / 2, (south + north) / 2


def _source(scene: SceneView, raster: RasterFacts) -> _Source | None:
    path, transform = scene.path_of(raster), raster.transform
    data_type = _GDAL_TYPES.get(raster.data_type or "")
    if path is None or transform is None or raster.epsg is None or data_type is None:
        return None
    if not raster.width or not raster.height or not raster.bands:
        return None
    if transform[1] or transform[3] or transform[0] <= 0 or transform[4] >= 0:
        return None
    return _Source(path, raster, raster.epsg, data_type, transform, raster.width, raster.height)


def _fitting(sources: list[_Source]) -> tuple[list[_Source], list[_Source]]:
    """Return the sources that most others fit to, and the others."""
    counts = Counter(_signature(source) for source in sources)
    most = max(counts, key=lambda signature: counts[signature])
    fitting = [source for source in sources if _signature(source) == most]
    return fitting, [source for source in sources if _signature(source) != most]


def _signature(source: _Source) -> tuple[str, tuple[str, ...] | int, bool]:
    """Return what sources of one mosaic have in common: the type, and their bands in any order."""
    names = _common_names(source.raster)
    bands = tuple(sorted(names)) if names else len(source.raster.bands)
    return source.data_type, bands, source.raster.has_alpha


def _common_names(raster: RasterFacts) -> tuple[str, ...]:
    """Return the common name of each band; none unless all have one, and each another."""
    names = [band.common_name for band in raster.bands if band.common_name is not None]
    return tuple(names) if len(set(names)) == len(raster.bands) else ()


def _band_number(raster: RasterFacts, names: Sequence[str]) -> int | None:
    found = (raster.band_number(name) for name in names)
    return next((number for number in found if number is not None), None)


def _all_bands(sources: list[_Source]) -> list[_Band]:
    """Return the bands in the order of the first source, found by name in the others."""
    first = sources[0].raster
    bands = []
    for number, band in enumerate(first.bands, 1):
        name = band.common_name if _common_names(first) else None
        numbers = tuple(
            number if name is None else source.raster.band_number(name) or number
            for source in sources
        )
        interpretation = _INTERPRETATIONS.get(band.common_name or "")
        if first.has_alpha and number == len(first.bands):
            interpretation = "Alpha"
        bands.append(_Band(numbers, band.name or band.common_name, interpretation))
    return bands


def _vrt(
    sources: list[_Source], bands: Sequence[_Band], comments: Sequence[str], *, up: str = ""
) -> bytes:
    """Return the VRT; extent, resolution and places of sources as in gdalbuildvrt."""
    n = len(sources)
    step_x = sum(source.transform[0] for source in sources) / n
    step_y = sum(source.transform[4] for source in sources) / n
    left, top = min(s.transform[2] for s in sources), max(s.transform[5] for s in sources)
    right, bottom = max(s.right for s in sources), min(s.bottom for s in sources)
    width, height = int(0.5 + (right - left) / step_x), int(0.5 + (bottom - top) / step_y)
    corner = ", ".join(f"{number:.17g}" for number in (left, step_x, 0.0, top, 0.0, step_y))
    lines = [
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">',
        *(f"  <!-- left out: {_comment(text)} -->" for text in comments),
        f"  <SRS>EPSG:{sources[0].epsg}</SRS>",
        f"  <GeoTransform>{corner}</GeoTransform>",
    ]
    no_data = sources[0].raster.no_data
    for number, band in enumerate(bands, 1):
        lines.append(f'  <VRTRasterBand dataType="{sources[0].data_type}" band="{number}">')
        if band.description:
            lines.append(f"    <Description>{xml_text(band.description)}</Description>")
        if no_data is not None:
            lines.append(f"    <NoDataValue>{_number_text(no_data)}</NoDataValue>")
        if band.interpretation:
            lines.append(f"    <ColorInterp>{band.interpretation}</ColorInterp>")
        for source, source_band in zip(sources, band.numbers, strict=True):
            target = _target(source, (left, top), (step_x, step_y))
            lines += _source_lines(source, str(source_band), up, target)
        lines.append("  </VRTRasterBand>")
    if any(source.raster.has_mask for source in sources):
        lines += ["  <MaskBand>", '    <VRTRasterBand dataType="Byte">']
        for source in sources:
            target = _target(source, (left, top), (step_x, step_y))
            lines += _source_lines(source, "mask,1", up, target)
        lines += ["    </VRTRasterBand>", "  </MaskBand>"]
    lines.append("</VRTDataset>")
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _target(
    source: _Source, corner: tuple[float, float], step: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Return where a source lies in the mosaic: column, row, width and height in its pixels."""
    a, _, c, _, e, f = source.transform
    return (
        (c - corner[0]) / step[0],
        (f - corner[1]) / step[1] or 0.0,  # and not -0
        source.width * a / step[0],
        source.height * e / step[1],
    )


def _number_text(number: NoData) -> str:
    return number if isinstance(number, str) else f"{number:.17g}"


def _source_lines(
    source: _Source, band: str, up: str, target: tuple[float, float, float, float]
) -> list[str]:
    raster = source.raster
    # Also where the header did not tell of a mask: one that hides nothing changes nothing.
    is_masked = raster.no_data is None and (raster.has_alpha or raster.has_mask is not False)
    properties = (
        f'RasterXSize="{source.width}" RasterYSize="{source.height}" DataType="{source.data_type}"'
    )
    if raster.block_width and raster.block_height:
        properties += f' BlockXSize="{raster.block_width}" BlockYSize="{raster.block_height}"'
    x, y, x_size, y_size = (f"{number:.15g}" for number in target)
    tag = "ComplexSource" if is_masked or raster.no_data is not None else "SimpleSource"
    lines = [
        f"    <{tag}>",
        f'      <SourceFilename relativeToVRT="1">{xml_text(up + source.path)}</SourceFilename>',
        f"      <SourceBand>{band}</SourceBand>",
        f"      <SourceProperties {properties}/>",
        f'      <SrcRect xOff="0" yOff="0" xSize="{source.width}" ySize="{source.height}"/>',
        f'      <DstRect xOff="{x}" yOff="{y}" xSize="{x_size}" ySize="{y_size}"/>',
    ]
    if raster.no_data is not None:
        lines.append(f"      <NODATA>{_number_text(raster.no_data)}</NODATA>")
    if is_masked:
        lines.append("      <UseMaskBand>true</UseMaskBand>")
    return [*lines, f"    </{tag}>"]


def _comment(text: str) -> str:
    """Return *text* as the content of an XML comment, which holds no two hyphens in a row."""
    return re.sub("-(?=-|$)", "- ", xml_text(text))
