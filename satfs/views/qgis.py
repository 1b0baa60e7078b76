"""`project.qgz` and `layers.qlr`: the rasters and outlines of a task as layers of QGIS. *Pure*.

A `.qgs` file is a tree of layers and a description of each; a `.qgz` is a zip with one in it, and a
`.qlr` the same tree and descriptions, to be added to another project. Sources are relative to the
file, so that a copy of the view opens, too. Nothing that QGIS would have to read the rasters for is
left to it: how colours are stretched is stated.

The layers of a capture are one group, the newest on top. Colours are bands by their names; a raster
without a place on the map (L1C with rational polynomials) is no layer. The format is what QGIS 3.22
writes, with only what it needs.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from msgspec import Struct

from satfs.facts.scene import MemberKind, RasterFacts
from satfs.views.scene_view import KIND_NAMES, SceneView, newest_last, time_text, xml_text

FOOTPRINTS: Final = "footprints.geojson"
#: QGIS replaces an id of ten characters or fewer.
_FOOTPRINTS_ID: Final = "vector_footprints"
#: The version that the format is of: QGIS converts what an older one has written.
_VERSION: Final = "3.22.0"
#: The first moment that a zip can hold: the project has no time of its own.
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)
#: Reflectance, times 10,000, that is shown as white: clouds are brighter, and land is darker.
_WHITE: Final = 3000
#: The geographic coordinate system of the outlines, and of a project without rasters.
_DEGREES: Final = 4326
#: Added around the rasters in the first view, as a share of their extent.
_MARGIN: Final = 0.05

_FOOTPRINT_STYLE: Final = """\
   <renderer-v2 type="singleSymbol" forceraster="0" symbollevels="0" enableorderby="0">
    <symbols>
     <symbol type="fill" name="0" alpha="1" clip_to_extent="1" force_rhr="0">
      <layer class="SimpleFill" enabled="1" pass="0" locked="0">
       <prop k="style" v="no"/>
       <prop k="outline_color" v="204,72,16,255"/>
       <prop k="outline_style" v="solid"/>
       <prop k="outline_width" v="0.5"/>
       <prop k="outline_width_unit" v="MM"/>
      </layer>
     </symbol>
    </symbols>
   </renderer-v2>
"""


class _Layer(Struct, frozen=True):
    """A layer of a raster."""

    name: str
    source: str
    raster: RasterFacts
    scene: SceneView

    @property
    def id(self) -> str:
        return f"raster_{blake2b(self.source.encode(), digest_size=10).hexdigest()}"

    @property
    def is_checked(self) -> bool:
        return self.raster.kind is MemberKind.VISUAL


def project_of(title: str, scenes: Sequence[SceneView]) -> bytes:
    """Return `project.qgz`: the outlines, and the rasters of each capture as a group."""
    groups = _groups(scenes)
    epsg, extent = _first_view([layer for _, layers in groups for layer in layers])
    units = "degrees" if epsg == _DEGREES else "meters"
    box = "".join(
        f"<{tag}>{number!r}</{tag}>"
        for tag, number in zip(("xmin", "ymin", "xmax", "ymax"), extent, strict=True)
    )
    text = (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        f'<qgis version="{_VERSION}" projectname="{xml_text(title)}">\n'
        f" <title>{xml_text(title)}</title>\n"
        f" <projectCrs>{_reference_system(epsg)}</projectCrs>\n"
        f" <layer-tree-group>\n{_tree(groups)} </layer-tree-group>\n"
        f' <mapcanvas name="theMapCanvas"><units>{units}</units><extent>{box}</extent>'
        f"<destinationsrs>{_reference_system(epsg)}</destinationsrs></mapcanvas>\n"
        f" <projectlayers>\n{_map_layers(groups)} </projectlayers>\n"
        ' <properties><Paths><Absolute type="bool">false</Absolute></Paths><SpatialRefSys>'
        '<ProjectionsEnabled type="int">1</ProjectionsEnabled></SpatialRefSys></properties>\n'
        "</qgis>\n"
    )
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        entry = zipfile.ZipInfo("project.qgs", _ZIP_TIME)
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, text.encode())
    return held.getvalue()


def layers_of(title: str, scenes: Sequence[SceneView]) -> bytes:
    """Return `layers.qlr`: the same layers as in the project, in one group with that *title*."""
    groups = _groups(scenes)
    text = (
        "<!DOCTYPE qgis-layer-definition>\n<qlr>\n"
        ' <layer-tree-group name="" checked="Qt::Checked" expanded="1">\n'
        f' <layer-tree-group name="{xml_text(title)}" checked="Qt::Checked" expanded="1">\n'
        f"{_tree(groups)} </layer-tree-group>\n </layer-tree-group>\n"
        f" <maplayers>\n{_map_layers(groups)} </maplayers>\n</qlr>\n"
    )
    return text.encode()


def _groups(scenes: Sequence[SceneView]) -> list[tuple[str, list[_Layer]]]:
    """Return name and layers of each capture that has some, the newest first."""
    groups: dict[tuple[str, str], list[_Layer]] = {}
    for scene in reversed(newest_last(scenes)):
        capture = scene.directory.split("/")[-2]
        layers = list(_layers(scene))
        if layers:
            groups.setdefault((capture, scene.facts.capture_id or capture), []).extend(layers)
    named = []
    for (_, capture_id), layers in groups.items():
        moment = time_text(layers[-1].scene.facts.moment)
        named.append((f"{moment[:10]} {capture_id}" if moment else capture_id, layers))
    return named


def _layers(scene: SceneView) -> Iterable[_Layer]:
    """Yield the layers of a scene: colours for people, then reflectances."""
    for kind in (MemberKind.VISUAL, MemberKind.ANALYTIC):
        rasters = scene.facts.rasters_of(kind)
        for number, raster in enumerate(rasters):
            source = scene.path_of(raster)
            if source is None or raster.epsg is None or raster.transform is None:
                continue
            part = f" {number}" if len(rasters) > 1 else ""
            yield _Layer(f"{scene.name} {KIND_NAMES[kind]}{part}", f"./{source}", raster, scene)


def _tree(groups: list[tuple[str, list[_Layer]]]) -> str:
    lines = [_tree_layer(_FOOTPRINTS_ID, "footprints", f"./{FOOTPRINTS}", "ogr", True)]
    for name, layers in groups:
        lines.append(
            f'  <layer-tree-group name="{xml_text(name)}" checked="Qt::Checked" expanded="0">\n'
        )
        lines += [
            _tree_layer(layer.id, layer.name, layer.source, "gdal", layer.is_checked)
            for layer in layers
        ]
        lines.append("  </layer-tree-group>\n")
    return "".join(lines)


def _tree_layer(layer_id: str, name: str, source: str, provider: str, is_checked: bool) -> str:
    checked = "Qt::Checked" if is_checked else "Qt::Unchecked"
    return (
        f'  <layer-tree-layer id="{layer_id}" name="{xml_text(name)}" source="{xml_text(source)}"'
        f' providerKey="{provider}" checked="{checked}" expanded="0"/>\n'
    )


def _map_layers(groups: list[tuple[str, list[_Layer]]]) -> str:
    rasters = (_raster_layer(layer) for _, layers in groups for layer in layers)
    return _footprint_layer() + "".join(rasters)


def _footprint_layer() -> str:
    return (
        '  <maplayer type="vector" geometry="Polygon" wkbType="MultiPolygon">\n'
        f"   <id>{_FOOTPRINTS_ID}</id><datasource>./{FOOTPRINTS}</datasource>"
        f"<layername>footprints</layername><srs>{_reference_system(_DEGREES)}</srs>"
        '<provider encoding="UTF-8">ogr</provider>\n'
        # Mode 1: each feature is of the moment in a field.
        '   <temporal enabled="1" mode="1" startField="datetime" endField="" limitMode="0"'
        ' fixedDuration="0" durationUnit="min" accumulate="0"/>\n'
        f"{_FOOTPRINT_STYLE}  </maplayer>\n"
    )


def _raster_layer(layer: _Layer) -> str:
    raster = layer.raster
    moment = time_text(layer.scene.facts.moment)
    # Mode 0: the whole raster is of one time; shown at any time unless the user steps through time.
    temporal = (
        f'   <temporal enabled="1" mode="0" fetchMode="0"><fixedRange><start>{moment}</start>'
        f"<end>{moment}</end></fixedRange></temporal>\n"
        if moment
        else ""
    )
    return (
        '  <maplayer type="raster">\n'
        f"   <id>{layer.id}</id><datasource>{xml_text(layer.source)}</datasource>"
        f"<layername>{xml_text(layer.name)}</layername>"
        f"<srs>{_reference_system(raster.epsg or _DEGREES)}</srs><provider>gdal</provider>\n"
        f"{temporal}   <pipe>\n{_renderer(raster)}   </pipe>\n  </maplayer>\n"
    )


def _renderer(raster: RasterFacts) -> str:
    numbers = [raster.band_number(name) for name in ("red", "green", "blue")]
    if None in numbers and raster.kind is MemberKind.VISUAL and len(raster.bands) >= 3:
        numbers = [1, 2, 3]  # a picture for people is in the order of screens
    # Bytes are shown as they are; reflectances from black to a white that suits land.
    is_bytes = raster.data_type == "uint8"
    highest, algorithm = (255, "NoEnhancement") if is_bytes else (_WHITE, "StretchToMinimumMaximum")
    stretch = (
        f"<minValue>0</minValue><maxValue>{highest}</maxValue><algorithm>{algorithm}</algorithm>"
    )
    alpha = len(raster.bands) if raster.has_alpha else -1
    limits = "<minMaxOrigin><limits>None</limits></minMaxOrigin>"
    if None in numbers:
        return (
            '    <rasterrenderer type="singlebandgray" grayBand="1" gradient="BlackToWhite"'
            f' alphaBand="{alpha}" opacity="1">{limits}'
            f"<contrastEnhancement>{stretch}</contrastEnhancement></rasterrenderer>\n"
        )
    red, green, blue = numbers
    colours = "".join(
        f"<{colour}ContrastEnhancement>{stretch}</{colour}ContrastEnhancement>"
        for colour in ("red", "green", "blue")
    )
    return (
        f'    <rasterrenderer type="multibandcolor" redBand="{red}" greenBand="{green}"'
        f' blueBand="{blue}" alphaBand="{alpha}" opacity="1">{limits}{colours}</rasterrenderer>\n'
    )


def _reference_system(epsg: int) -> str:
    # QGIS reads the code only beside a number of its own database, whichever that is.
    return f"<spatialrefsys><srsid>1</srsid><authid>EPSG:{epsg}</authid></spatialrefsys>"


def _first_view(layers: Sequence[_Layer]) -> tuple[int, tuple[float, float, float, float]]:
    """Return the coordinate system of most rasters, and the extent of those that are in it."""
    counts = Counter(layer.raster.epsg for layer in layers)
    if not counts:
        return _DEGREES, (-180.0, -90.0, 180.0, 90.0)
    epsg = counts.most_common(1)[0][0] or _DEGREES
    boxes = [box for layer in layers if layer.raster.epsg == epsg for box in _box(layer.raster)]
    if not boxes:
        return epsg, (0.0, 0.0, 1.0, 1.0)
    left, bottom = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, top = max(box[2] for box in boxes), max(box[3] for box in boxes)
    margin = _MARGIN * max(right - left, top - bottom)
    return epsg, (left - margin, bottom - margin, right + margin, top + margin)


def _box(raster: RasterFacts) -> Iterable[tuple[float, float, float, float]]:
    """Yield left, bottom, right, top of a raster whose grid is known."""
    if raster.transform is not None and raster.width and raster.height:
        a, b, c, d, e, f = raster.transform
        corners = [(0, 0), (raster.width, 0), (0, raster.height), (raster.width, raster.height)]
        xs = [a * column + b * row + c for column, row in corners]
        ys = [d * column + e * row + f for column, row in corners]
        yield min(xs), min(ys), max(xs), max(ys)
