"""STAC validation without a network: schemas of extensions from here, those of STAC from pystac."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

SCHEMAS: Final = {
    f"https://stac-extensions.github.io/{name}/{version}/schema.json": path
    for path in sorted((Path(__file__).parent / "schemas").glob("*.json"))
    for name, _, version in [path.stem.rpartition("-")]
}


def pystac_offline() -> Any:
    """Return pystac, which validates with the schemas that are here, and refuses the network."""
    pystac = pytest.importorskip("pystac")
    from pystac.stac_io import DefaultStacIO
    from pystac.validation import set_validator
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    class LocalStacIO(DefaultStacIO):
        def read_text_from_href(self, href: str, *args: Any, **kwargs: Any) -> str:
            assert "://" not in href or href.startswith("file://"), f"{href} is on the network"
            return str(super().read_text_from_href(href, *args, **kwargs))

    validator = JsonSchemaSTACValidator()
    validator.schema_cache.update(
        {address: json.loads(path.read_text()) for address, path in SCHEMAS.items()}
    )
    set_validator(validator)
    pystac.StacIO.set_default(LocalStacIO)
    return pystac


def validated(path: Path, *, is_looked_at: bool = True) -> list[Any]:
    """Return the items below the catalogue at *path*, after everything there was validated.

    With *is_looked_at* each asset is a file that is there.
    """
    catalog = pystac_offline().read_file(str(path))
    catalog.validate_all()
    items = list(catalog.get_items(recursive=True))
    for item in items:
        for asset in item.assets.values() if is_looked_at else ():
            where = Path(asset.get_absolute_href())
            assert where.is_file(), f"{where} is not there"
    return items
