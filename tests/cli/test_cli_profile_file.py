"""One profile is changed, and the rest of the file stays as people wrote it."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from satfs.cli.profile_file import change_profile, changed_text
from satfs.errors import BadSettings

keys = st.sampled_from(["client_id", "contract_id", "workers", "api_url"])
texts = st.text(st.characters(codec="utf-8"), max_size=8)
tables = st.dictionaries(keys, texts, max_size=3)
files = st.builds(
    lambda shared, profiles: {**shared, **({"profiles": profiles} if profiles else {})},
    tables,
    st.dictionaries(st.sampled_from(["default", "a", "b-1"]), tables.filter(bool), max_size=3),
)


@given(files, st.dictionaries(keys, st.none() | texts, max_size=4))
def test_exactly_what_is_asked_for_is_changed(
    before: dict[str, object], changes: dict[str, str | None]
) -> None:
    text = "# mine\n" + tomlkit.dumps(before)

    after = changed_text(text, "a", changes, Path("config.toml"))

    written = tomllib.loads(after)
    profiles = dict(tomllib.loads(text).get("profiles", {}))
    table = {**profiles.pop("a", {}), **changes}
    left = {key: value for key, value in table.items() if value is not None}
    expected = {**profiles, **({"a": left} if left else {})}
    assert written.pop("profiles", {}) == expected
    assert written == {key: value for key, value in before.items() if key != "profiles"}
    assert after.startswith("# mine\n")


@pytest.mark.parametrize("text", ["profiles = 3\n", "[profiles]\na = 3\n", "x ="])
def test_a_file_that_cannot_be_changed_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)

    with pytest.raises(BadSettings, match=r"config\.toml cannot be changed"):
        change_profile(path, "a", {"client_id": "x"})
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    """A configuration that is elsewhere, behind a link, stays there."""
    real, link = tmp_path / "dotfiles.toml", tmp_path / "config.toml"
    real.write_text("workers = 1\n")
    real.chmod(0o640)
    link.symlink_to(real)

    change_profile(link, "a", {"client_id": "x"})

    assert link.is_symlink()
    assert tomllib.loads(real.read_text())["profiles"] == {"a": {"client_id": "x"}}
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_nothing_to_change_makes_no_file(tmp_path: Path) -> None:
    change_profile(tmp_path / "satfs" / "config.toml", "a", {"client_id": None})

    assert not (tmp_path / "satfs").exists()


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    change_profile(tmp_path / "satfs" / "config.toml", "a", {"client_id": "x"})

    assert stat.S_IMODE((tmp_path / "satfs" / "config.toml").stat().st_mode) == 0o600
