"""The gallery: what is in its data, and what a browser makes of it, opened as a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rasterio
import rasterio.warp
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from views.browser import CHROMIUM, Page, browser
from views.delivered import Taken, delivered

from satfs.facts.scene import SceneFacts
from satfs.imagery.utm import degrees_of
from satfs.model import SceneId
from satfs.views.gallery import map_script, page
from satfs.views.scene_view import SceneView

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>&amp;\u2028"
TAKEN = [
    Taken(),
    Taken(east=200),
    Taken("L1D_SR", form="tiles", east=-150),
    Taken("L1C", "rpc"),
    Taken(form="upper case tiles", east=90),
]


def data_of(script: bytes) -> dict[str, Any]:
    head, _, text = script.decode().partition(" = ")
    assert head == "window.satfsTask"
    found: dict[str, Any] = json.loads(text.rstrip().removesuffix(";"))
    return found


@given(st.text(), st.text())
def test_text_ends_no_script(task_name: str, product: str) -> None:
    """For any name of a task, the data is one expression, and holds no tag of HTML."""
    facts = SceneFacts(SceneId("x"), product=product)
    script = map_script("1", task_name, [SceneView(facts, "captures/c/x")])
    assert b"<" not in script
    assert not set("\u2028\u2029") & set(script.decode())
    shown = data_of(script)
    clean = task_name.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")
    assert shown["task"] == {"id": "1", "name": clean}


@pytest.mark.parametrize(
    "name", ["a b", "100%", "x#y?z", "javascript:alert(1)", "\u00fc", '"><b>', "%2F"]
)
def test_addresses_are_relative_paths(name: str) -> None:
    """Names become escaped segments: no query, no fragment, no other scheme."""
    view = SceneView(SceneFacts(SceneId(name)), f"captures/c/{name}", "p.png")
    (scene,) = data_of(map_script("1", None, [view]))["scenes"]
    address = scene["preview"]
    assert address.startswith("captures/c/")
    assert address.count("/") == 3
    assert not set(address) & set(' "#<>?:')


@given(
    st.sampled_from([*range(32601, 32661), *range(32701, 32761)]),
    st.floats(170_000, 830_000),
    st.floats(0, 9_300_000),
)
def test_degrees_are_those_of_proj(epsg: int, x: float, y: float) -> None:
    """Metres of UTM become the degrees that PROJ gives, to a millimetre."""
    (longitude,), (latitude,) = rasterio.warp.transform(f"EPSG:{epsg}", "EPSG:4326", [x], [y])
    found = degrees_of(epsg, x, y)
    assert found is not None
    assert (found[0] - longitude + 180) % 360 - 180 == pytest.approx(0, abs=2e-8 * 60)
    assert found[1] == pytest.approx(latitude, abs=1e-8)


def test_other_systems_have_no_degrees() -> None:
    """Longitude and latitude, and Web Mercator; any other code is None."""
    assert degrees_of(4326, 4.9, 52.6) == (4.9, 52.6)
    assert degrees_of(3857, 20037508.342789244, 0.0) == pytest.approx((180.0, 0.0))
    assert [degrees_of(code, 0.0, 0.0) for code in (32600, 32661, 32761, 2154)] == [None] * 4


def _shown_scene(scene: SceneView) -> dict[str, Any]:
    (found,) = data_of(map_script("1", None, [scene]))["scenes"]
    return dict(found)


@pytest.mark.slow
def test_pictures_are_those_of_the_zip_where_the_record_has_none(tmp_path: Path) -> None:
    """The vendor promises no attachment but the zip, whose previews do as well."""
    (scene,) = delivered(tmp_path, TAKEN[:1])
    bare = replace(scene, preview=None, thumbnail=None)
    assert _shown_scene(replace(scene, thumbnail=None))["preview"].endswith("/preview.png")
    for key in ("preview", "thumbnail"):
        assert (tmp_path / _shown_scene(bare)[key]).is_file()
        assert f"/contents/{bare.name.removesuffix('_341271')}_{key}.png" in _shown_scene(bare)[key]
    assert _shown_scene(replace(bare, contents=None))["preview"] is None


# -- in a browser ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A view of a task with hostile names, one scene of which has no place."""
    directory = tmp_path_factory.mktemp("view")
    scenes = delivered(directory, TAKEN)
    lost = replace(scenes[0].facts, scene_id=SceneId(HOSTILE), product=HOSTILE)
    lost = replace(lost, geometry=None, bbox=None, rasters=(), members=(), cloud_percent=None)
    scenes.append(SceneView(lost, "captures/c/none"))
    (directory / "index.html").write_bytes(page())
    (directory / "map.js").write_bytes(map_script("341271", HOSTILE, scenes))
    return directory


@pytest.fixture(scope="module")
def shown(view: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        opened.open(f"file://{view}/index.html")
        yield opened


def choose(shown: Page, number: int) -> None:
    shown.evaluate(f"document.querySelectorAll('.scene button')[{number}].click()")


@pytest.mark.slow
def test_the_page_shows_each_scene_and_requests_nothing_else(shown: Page, view: Path) -> None:
    """N cards, an outline for each scene with a place, only files of the view, a silent console."""
    assert shown.evaluate("document.querySelectorAll('.scene').length") == len(TAKEN) + 1
    assert shown.evaluate("document.querySelectorAll('#map path.outline').length") == len(TAKEN)
    outside = [
        address
        for address in shown.requests
        if not address.startswith((f"file://{view}/", "data:"))
    ]
    assert outside == []
    assert shown.console == []


@pytest.mark.slow
def test_vendor_text_stays_text(shown: Page) -> None:
    """Names that hold tags are shown as they are, and do nothing."""
    assert shown.evaluate("document.title").startswith("</script><script>")
    assert HOSTILE in shown.evaluate("document.getElementById('title').textContent")
    cards = shown.evaluate("[...document.querySelectorAll('h2')].map((h) => h.textContent)")
    assert HOSTILE in cards
    assert shown.evaluate("document.querySelectorAll('[onerror]').length") == 0


@pytest.mark.slow
def test_a_picture_lies_where_its_rasters_lie(shown: Page) -> None:
    """Chosen, a scene's preview is on the map, its corners at the corners of the raster."""
    choose(shown, 3)  # the newest is the first: this is the second one that was taken
    shown.wait_for("document.querySelector('.placed')")
    shown.wait_for("!document.querySelector('.leaflet-zoom-anim')")
    picture, outline = (
        shown.evaluate(f"document.querySelector('{what}').getBoundingClientRect().toJSON()")
        for what in (".placed", "path.outline.chosen")
    )
    for side in ("left", "right", "top", "bottom"):
        # The seen area touches the middle of the raster's sides: a few pixels of stroke and turn.
        assert picture[side] == pytest.approx(outline[side], abs=12)


@pytest.mark.slow
def test_a_picture_of_another_shape_is_not_laid_on_the_map(shown: Page) -> None:
    """A preview with borders: the outline, and a note. Without a place: a note, no button."""
    choose(shown, 0)
    shown.wait_for("!document.querySelectorAll('.note')[0].hidden")
    note = shown.evaluate("document.querySelectorAll('.note')[0].textContent")
    assert "another shape" in note
    assert shown.evaluate("document.querySelector('.placed')") is None
    choose(shown, 1)
    shown.wait_for("!document.querySelectorAll('.note')[1].hidden")
    assert "not certain" in shown.evaluate("document.querySelectorAll('.note')[1].textContent")
    lost = "[...document.querySelectorAll('.scene')].find((c) => c.textContent.includes('script'))"
    assert shown.evaluate(f"{lost}.querySelector('button').disabled") is True
    assert "not known" in shown.evaluate(f"{lost}.querySelector('.note').textContent")


@pytest.mark.slow
def test_filters_hide_cards_and_outlines(shown: Page) -> None:
    """By product, date and clouds; the number is announced; reset shows all."""

    def visible() -> tuple[int, int]:
        cards = "[...document.querySelectorAll('.scene')].filter((c) => !c.hidden).length"
        outlines = "document.querySelectorAll('#map path.outline').length"
        return shown.evaluate(cards), shown.evaluate(outlines)

    def set_to(field: str, value: str) -> None:
        shown.evaluate(
            f"(f => {{ f.value = {value!r}; f.dispatchEvent(new Event('input', {{bubbles: true}}))"
            f" }})(document.getElementById('{field}'))"
        )

    set_to("product", "L1D_SR")
    assert visible() == (1, 1)
    assert shown.evaluate("document.getElementById('count').textContent") == "1 of 6 scenes"
    set_to("product", "")
    set_to("from", "2026-01-30")
    assert visible() == (3, 3)
    set_to("from", "")
    set_to("clouds", "0")
    shown.evaluate("document.getElementById('unknown').click()")
    assert visible()[0] < 6
    shown.evaluate("document.querySelector('button[type=reset]').click()")
    shown.wait_for("document.getElementById('count').textContent.startsWith('6 of')")
    assert visible() == (6, 5)


@pytest.mark.slow
def test_it_is_used_with_the_keyboard_and_read_aloud(shown: Page) -> None:
    """Each control and picture has a name; a button is reached and pressed by keys."""
    shown.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
    named = shown.names()
    controls = {"button", "link", "combobox", "slider", "checkbox", "image", "Date"}
    assert [role for role, name in named if role in controls and not name.strip()] == []
    roles = {role for role, _ in named}
    assert {"heading", "list", "listitem", "button", "link", "status", "main"} <= roles
    shown.evaluate("document.querySelectorAll('.scene button')[2].focus()")
    shown.press("Enter")
    shown.wait_for("document.activeElement.getAttribute('aria-pressed') === 'true'")
    shown.press("Tab")
    assert shown.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Preview")


@pytest.mark.slow
def test_dark_and_light(shown: Page) -> None:
    """The ground follows the system's choice; text stays readable on it (WCAG: 4.5 to 1)."""
    contrasts = {}
    for scheme in ("light", "dark"):
        shown.emulate(prefers_color_scheme=scheme)
        colours = shown.evaluate(
            "['color', 'backgroundColor'].map((p) =>"
            " getComputedStyle(document.body)[p].match(/[0-9.]+/g).slice(0, 3).map(Number))"
        )
        lights = sorted(luminance(colour) for colour in colours)
        contrasts[scheme] = (lights[1] + 0.05) / (lights[0] + 0.05)
        assert (luminance(colours[1]) > 0.5) == (scheme == "light")
    assert min(contrasts.values()) > 4.5


def luminance(colour: list[float]) -> float:
    """Return the relative luminance of sRGB (WCAG 2.2)."""
    parts = [c / 255 / 12.92 if c <= 10.3 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_the_page_brings_its_licences() -> None:
    """Leaflet's and world-atlas's licences are in the page that holds their work."""
    text = page().decode()
    assert "BSD 2-Clause License" in text
    assert "Copyright 2013-2019 Michael Bostock" in text
    assert "{{" not in text
    assert "sourceMappingURL" not in text


@pytest.mark.slow
def test_a_point_is_shown_and_a_picture_that_is_not_there_is_none(tmp_path: Path) -> None:
    """A record may have a point for a footprint, and announce a preview that the store lacks."""
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    places: list[Any] = [
        {"type": "Point", "coordinates": [5.0, 52.0]},
        {"type": "MultiPoint", "coordinates": [[-58.4, -34.6], [-58.3, -34.6]]},
    ]
    scenes = [
        SceneView(SceneFacts(SceneId(f"s{n}"), geometry=place), f"captures/c/s{n}", "lost.png")
        for n, place in enumerate(places)
    ]
    (tmp_path / "index.html").write_bytes(page())
    (tmp_path / "map.js").write_bytes(map_script("1", "points", scenes))
    with browser(tmp_path / "browser") as shown:
        shown.open(f"file://{tmp_path}/index.html")
        shown.wait_for("document.querySelectorAll('p.picture').length === 2")
        assert shown.evaluate("document.querySelectorAll('#map path.outline').length") == 3
        assert shown.evaluate("document.querySelectorAll('#overview path[stroke]').length") >= 2
        assert shown.evaluate("document.querySelectorAll('.scene button:disabled').length") == 0
        shown.evaluate("document.querySelector('.scene button').click()")
        assert shown.evaluate("document.querySelectorAll('.scene.chosen').length") == 1
        assert all("ERR_FILE_NOT_FOUND" in line for line in shown.console), shown.console
