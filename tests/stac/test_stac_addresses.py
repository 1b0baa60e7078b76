"""Addresses of files in STAC documents, and the paths that readers of local files take them for."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from satfs.stac.assets import href, path_of

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\x00"), min_size=1)


@given(st.lists(NAMES, min_size=1, max_size=3))
@example(["what?", "a#b", "50%25", "%3F", "%253F", "%23.tif"])
def test_an_address_leads_back_to_its_path(parts: list[str]) -> None:
    """And holds nothing that would end its path."""
    address = href(*parts)
    assert not set(address) & set("?#")
    assert path_of(address) == "./" + "/".join(parts)


def test_readers_that_take_an_address_for_a_path_find_the_file() -> None:
    """An ordinary name, with blanks and accents, is not escaped: pystac and GDAL do not decode."""
    for path in ("Delivery 7 (final)/rasters/é_TOA_0.tif", "a%2Fb/item.json", "x=1&y+z,;:@'!$~"):
        assert href(path) == f"./{path}"
