"""The pages of the site that the program writes are about the program that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from satfs.cli.exit_codes import MEANINGS
from satfs.cli.flags import SETTING_FLAGS
from satfs.cli.main import COMMANDS, satfs
from satfs.cli.manual import manual_of
from satfs.settings import Settings, is_secret, meanings, variable_of
from scripts.reference import commands_page, settings_groups, settings_page

ROOT = Path(__file__).parents[2]


def test_every_setting_has_its_place_once() -> None:
    """Also one that is added tomorrow, under the heading that it has in the code."""
    grouped = [name for _, names in settings_groups() for name in names]

    assert grouped == list(Settings.__struct_fields__)
    assert len(settings_groups()) > 4


def test_a_setting_is_told_with_all_ways_to_set_it() -> None:
    page = settings_page()
    flags = {setting: flag for flag, setting, *_ in SETTING_FLAGS}

    for name, meaning in meanings().items():
        entry = page.partition(f"### `{name}`\n")[2].partition("\n#")[0]
        assert f"`{variable_of(name)}`" in entry
        assert (f"`-o {name}=…`" in entry) is not is_secret(name)
        assert name not in flags or f"`{flags[name]}`" in entry
        assert " ".join(meaning.split()) in entry
    assert "Values: `visible`, `hidden`, `off`" in page
    assert "Values: at least 0, at most 8" in page


def test_the_settings_do_not_depend_on_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = settings_page()
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in Settings.__struct_fields__:
        monkeypatch.setenv(variable_of(name), "5eedfeed")

    assert settings_page() == before


def test_every_command_is_told_with_its_options_and_examples() -> None:
    page = commands_page()

    for manual in manual_of(satfs, "satfs").walk():
        if manual.name != "satfs":
            entry = re.split(rf"^#+ {manual.name}$", page, flags=re.MULTILINE)[1]
            assert f"{manual.name} {manual.usage}" in entry
            assert all(line in entry for line in manual.examples)
    assert [*COMMANDS] == re.findall(r"^## satfs (\w+)$", page, re.MULTILINE)
    assert all(f"| {int(code)} | {meaning} |" in page for code, meaning in MEANINGS.items())


def test_every_page_has_its_place_in_the_site() -> None:
    """Readers do not find a page that the navigation lacks; scripts/docs reports it too, later."""
    named = set(re.findall(r"[\w./-]+\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}

    assert pages <= named
