"""Open a project or layer definition in QGIS without a screen, and print what came of it as JSON.

Run by the Python that has QGIS's modules: `python3 qgis_probe.py FILE [PICTURE]`.
"""

from __future__ import annotations

import json
import sys

from qgis.core import (
    QgsApplication,
    QgsLayerDefinition,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProject,
)
from qgis.PyQt.QtCore import QSize


def main() -> None:
    """Print the layers of the file; draw the project's first view into the picture."""
    application = QgsApplication([], False)
    application.initQgis()
    project = QgsProject.instance()
    path = sys.argv[1]
    if path.endswith(".qlr"):
        done, message = QgsLayerDefinition.loadLayerDefinition(
            path, project, project.layerTreeRoot()
        )
        assert done, message
    else:
        assert project.read(path), project.error()
    found = []
    for layer in project.mapLayers().values():
        box = layer.extent()
        facts = {
            "name": layer.name(),
            "id": layer.id(),
            "valid": layer.isValid(),
            "crs": layer.crs().authid(),
            "source": layer.source(),
            "extent": [box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum()],
            "temporal": layer.temporalProperties().isActive(),
        }
        if hasattr(layer, "renderer") and hasattr(layer.renderer(), "redBand"):
            renderer = layer.renderer()
            facts["bands"] = [renderer.redBand(), renderer.greenBand(), renderer.blueBand()]
            facts["alpha"] = renderer.alphaBand()
        if hasattr(layer, "fields"):
            facts["features"] = layer.featureCount()
            facts["types"] = {field.name(): field.typeName() for field in layer.fields()}
        node = project.layerTreeRoot().findLayer(layer.id())
        facts["group"] = node.parent().name()
        facts["checked"] = node.isVisible()
        found.append(facts)
    answer = {"title": project.title(), "crs": project.crs().authid(), "layers": found}
    sys.stdout.write(json.dumps(answer) + "\n")
    if len(sys.argv) > 2:
        draw(project, sys.argv[2])


def draw(project: QgsProject, picture: str) -> None:
    """Draw what is checked, over all of it."""
    root = project.layerTreeRoot()
    layers = [layer for layer in root.layerOrder() if root.findLayer(layer.id()).isVisible()]
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(project.crs())
    settings.setOutputSize(QSize(900, 620))
    settings.setExtent(settings.fullExtent())
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(picture)


main()
