"""Profiles: which origin of a value wins, which files are trusted, and what is shown of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.errors import BadSettings
from satfs.profiles import Layer, OriginKind, is_name, settled
from satfs.settings import load_settings, resolve_settings

SECRET = "5eedfeed-never-to-be-shown"


@pytest.fixture
def user_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that writes the user's file; there is no other."""
    for name in list(os.environ):
        if name.upper().startswith("SATFS_"):
            monkeypatch.delenv(name)
    path = tmp_path / "config.toml"
    monkeypatch.setenv("SATFS_CONFIG_FILE", str(path))
    monkeypatch.setenv("SATFS_SYSTEM_CONFIG_FILE", str(tmp_path / "system.toml"))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    def write(text: str) -> Path:
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def test_what_is_closer_to_the_run_wins(
    user_toml: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flag, environment, user file, system file, default; in a file, the profile's table first."""
    system = tmp_path / "system.toml"
    kinds = []
    system.write_text("workers = 1")
    kinds.append((load_settings().workers, resolve_settings({}).origins["workers"].kind))
    system.write_text("workers = 1\n[profiles.default]\nworkers = 2")
    kinds.append((load_settings().workers, resolve_settings({}).origins["workers"].kind))
    user_toml("workers = 3")
    kinds.append((load_settings().workers, resolve_settings({}).origins["workers"].kind))
    user_toml("workers = 3\n[profiles.default]\nworkers = 4")
    kinds.append((load_settings().workers, resolve_settings({}).origins["workers"].kind))
    monkeypatch.setenv("SATFS_WORKERS", "5")
    kinds.append((load_settings().workers, resolve_settings({}).origins["workers"].kind))
    flagged = resolve_settings({"workers": "6"})
    kinds.append((flagged.settings.workers, flagged.origins["workers"].kind))

    assert kinds == [
        (1, OriginKind.SYSTEM),
        (2, OriginKind.SYSTEM),
        (3, OriginKind.USER),
        (4, OriginKind.USER),
        (5, OriginKind.ENVIRONMENT),
        (6, OriginKind.FLAG),
    ]


def test_a_profile_is_chosen_by_flag_environment_or_file(
    user_toml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    user_toml('profile = "a"\n[profiles.a]\nworkers = 1\n[profiles.b]\nworkers = 2\n')

    assert (load_settings().profile, load_settings().workers) == ("a", 1)
    monkeypatch.setenv("SATFS_PROFILE", "b")
    assert (load_settings().profile, load_settings().workers) == ("b", 2)
    assert (load_settings(profile="a").profile, load_settings(profile="a").workers) == ("a", 1)


def test_a_profile_that_nobody_made_is_refused_with_those_there_are(
    user_toml: Callable[[str], Path],
) -> None:
    """A misspelt one would mount another account, or request credentials that are there."""
    user_toml("[profiles.harbour]\n[profiles.coast]\n")

    with pytest.raises(BadSettings, match=r"there are: coast, harbour.*satfs login"):
        load_settings(profile="habour")
    assert resolve_settings({"profile": "new"}, may_be_new=True).settings.profile == "new"
    assert load_settings(profile="default").profile == "default"


def test_another_environment_brings_no_files(user_toml: Callable[[str], Path]) -> None:
    """A demo must not find the credentials of a real account."""
    user_toml(f'client_secret = "{SECRET}"\nworkers = 0')

    assert load_settings({}).client_secret is None
    assert load_settings({}).workers == 2


def test_paths_in_a_file_are_seen_from_that_file(
    user_toml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = user_toml('token_file = "token"\nca_file = "~/ca.pem"\ncache_dir = "/cache"')
    monkeypatch.chdir("/")

    settings = load_settings()
    assert settings.token_file == path.parent / "token"
    assert settings.ca_file == Path.home() / "ca.pem"
    assert settings.cache_dir == Path("/cache")


def test_a_bad_value_is_told_by_its_place_and_not_repeated(
    user_toml: Callable[[str], Path],
) -> None:
    path = user_toml(f'[profiles.default]\nworkers = "{SECRET}"')

    with pytest.raises(BadSettings) as refused:
        load_settings()
    assert f"workers ({path} [profiles.default]): " in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("workers = \nprofile = 1", "is no TOML: .*line 1"),
        (f"workers = {'[' * 3000}{']' * 3000}", "is no TOML: it is nested too deeply"),
        ("profiles = 3", r"profiles are tables, such as \[profiles\.default\]"),
        ("[profiles]\nharbour = 3", "profiles are tables"),
        ("[harbour]\nworkers = 3", r"harbour must be a single value; .*\[profiles\.NAME\]"),
        ("[profiles.a]\nworkers = [3]", "workers must be a single value"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    user_toml: Callable[[str], Path], text: str, sentence: str
) -> None:
    path = user_toml(text)

    with pytest.raises(BadSettings, match=sentence) as refused:
        load_settings()
    assert str(path) in str(refused.value)


def test_bytes_that_are_no_text_are_refused(user_toml: Callable[[str], Path]) -> None:
    user_toml("").write_bytes(b"workers = \xff")

    with pytest.raises(BadSettings, match="is no TOML: it is no UTF-8"):
        load_settings()


def test_a_misspelt_key_is_remarked_on(user_toml: Callable[[str], Path]) -> None:
    path = user_toml("wokers = 3\n[profiles.other]\ncache_byte = 3\nworkers = 1")

    assert resolve_settings({}).remarks == (
        f"{path}: wokers is set, and is not a setting of satfs (the nearest name is workers).",
        f"{path}: profiles.other.cache_byte is set, and is not a setting of satfs"
        " (the nearest name is cache_bytes).",
    )


@pytest.mark.parametrize("line", [f'client_secret = "{SECRET}"', 'token_command = "pass show x"'])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_with_a_secret_must_be_its_owners_alone(
    user_toml: Callable[[str], Path], line: str, mode: int
) -> None:
    """Nor may others change a command that is run for us."""
    path = user_toml(line)
    path.chmod(mode)

    with pytest.raises(BadSettings, match=f"run: chmod 600 {path}"):
        load_settings()
    path.chmod(0o600)
    load_settings()


def test_a_file_without_one_may_be_read_but_not_changed(user_toml: Callable[[str], Path]) -> None:
    path = user_toml("workers = 1")
    path.chmod(0o664)
    assert load_settings().workers == 1
    path.chmod(0o666)
    with pytest.raises(BadSettings, match=f"chmod go-w {path}"):
        load_settings()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_refused(user_toml: Callable[[str], Path]) -> None:
    """Root's mounts must not be configured by a file of the user who called sudo."""
    os.chown(user_toml("workers = 1"), 12345, 12345)

    with pytest.raises(BadSettings, match="belongs to another user"):
        load_settings()


# -- credentials of a systemd unit -----------------------------------------------------------------


def test_a_unit_is_handed_its_credentials(
    user_toml: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`LoadCredential=satfs.client_secret:…`: over the files, under the environment."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    (directory / "satfs.client_id").write_text("from-unit\n")
    (directory / "satfs.client_secret").write_text(f"{SECRET}\n")
    (directory / "satfs.something").write_text("else")
    user_toml('client_id = "from-file"\ntoken_command = "false"\nsecret_store = "keyring"')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))

    resolved = resolve_settings({})
    assert resolved.settings.client_id == "from-unit"
    assert resolved.settings.client_secret is not None
    assert resolved.settings.client_secret.get_secret_value() == SECRET
    assert resolved.settings.token_command is None
    assert resolved.settings.secret_store is None
    assert resolved.origins["client_id"].kind is OriginKind.UNIT
    monkeypatch.setenv("SATFS_CLIENT_ID", "from-environment")
    assert load_settings().client_id == "from-environment"


def test_a_units_token_is_a_file_that_is_read_again(
    user_toml: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "satfs.token").write_text(SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert load_settings().token_file == tmp_path / "satfs.token"


def test_a_unit_with_credentials_of_others_only_has_none(
    user_toml: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "client_secret").write_text(SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert load_settings().client_secret is None


# -- credentials are not mixed ---------------------------------------------------------------------

SOURCES = ("token", "token_file", "token_command", "client_secret", "secret_store")
FITTING = {
    "auto": set(SOURCES),
    "token": {"token", "token_file", "token_command", "secret_store"},
    "oauth": {"client_secret", "secret_store"},
    "legacy": {"client_secret", "secret_store"},
}
layer_values: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(SOURCES), st.just("set"), max_size=3
).flatmap(
    lambda sources: st.sampled_from(
        [sources, *({**sources, "auth_mode": mode} for mode in FITTING), {**sources, "workers": 1}]
    )
)
stacks: st.SearchStrategy[list[Layer]] = st.lists(layer_values, max_size=4).map(
    lambda stack: [Layer(OriginKind.USER, values) for values in stack]
)


def sources_of(layers: Any) -> list[set[str]]:
    """Return the credentials that each layer has."""
    return [set(layer.values) & set(SOURCES) for layer in layers]


@given(stacks)
def test_the_first_fitting_credential_is_the_only_one(layers: list[Layer]) -> None:
    """Two ways to log in are never mixed: the origin closest to the run that has one decides.

    A login stored long ago does not overrule the settings of this run.
    """
    left = settled(layers)

    modes = [layer.values["auth_mode"] for layer in left if "auth_mode" in layer.values]
    fitting = FITTING[modes[0] if modes else "auto"]
    with_one = [index for index, found in enumerate(sources_of(left)) if found & fitting]
    assert len(with_one) <= 1
    had_one = [index for index, found in enumerate(sources_of(layers)) if found & fitting]
    assert with_one == had_one[:1]


@given(stacks)
def test_the_first_credential_of_all_counts_unless_a_mode_before_it_says_otherwise(
    layers: list[Layer],
) -> None:
    ranks = [index for index, found in enumerate(sources_of(layers)) if found]
    modes = [index for index, layer in enumerate(layers) if "auth_mode" in layer.values]
    if not ranks or (modes and modes[0] <= ranks[0]):
        return
    left = settled(layers)
    assert sources_of(left)[ranks[0]] == sources_of(layers)[ranks[0]]
    kept = [layer.values["auth_mode"] for layer in left if "auth_mode" in layer.values]
    fitting = FITTING[kept[0] if kept else "auto"]
    assert sources_of(left)[ranks[0]] & fitting


@given(stacks)
def test_nothing_but_credentials_is_left_out(layers: list[Layer]) -> None:
    others = [
        {key: value for key, value in layer.values.items() if key not in (*SOURCES, "auth_mode")}
        for layer in layers
    ]

    assert [
        {key: value for key, value in layer.values.items() if key not in (*SOURCES, "auth_mode")}
        for layer in settled(layers)
    ] == others
    assert settled(settled(layers)) == settled(layers)


@pytest.mark.parametrize("name", ["default", "a", "A-1_b", "9", "x" * 64])
def test_names_of_profiles(name: str) -> None:
    assert is_name(name)
    assert load_settings({}, profile=name).profile == name


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "-a", "a b", "ä", "x" * 65, "a\n", "a.b"])
def test_names_that_no_file_or_unit_could_have_are_refused(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(BadSettings, match="letters, digits"):
        load_settings({}, profile=name)
