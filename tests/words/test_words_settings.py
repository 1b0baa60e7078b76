"""Settings: the origin of a value, refused values, and that no secret is ever shown."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.errors import BadSettings
from satfs.model import MIB
from satfs.settings import (
    GB,
    AuthMode,
    ContentsView,
    Settings,
    is_secret,
    load_settings,
    unknown_remarks,
    variable_of,
    worker_environment,
)

SECRETS = {"client_secret", "token"}
FIELDS = sorted(Settings.__struct_fields__)


def test_everything_has_a_default_but_who_we_are() -> None:
    settings = load_settings({})

    assert settings.api_url == "https://api.satellogic.com"
    assert settings.client_id is None
    assert settings.client_secret is None
    assert settings.token is None


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_a_variable(name: str) -> None:
    """A value given as `SATFS_X_Y` reaches the field `x_y`, in either case of letters."""
    samples = {
        "api_url": "https://api.example",
        "auth_url": "https://auth.example/oauth/token",
        "auth_mode": "legacy",
        "contents": "off",
        "stac": "off",
        "views": "hidden",
        "tls_strict": "false",
        "allow_private_store": "true",
        "cache_free_fraction": "0.25",
        "profile": "harbour",
        "secret_store": "keyring",
    }
    field = Settings.__annotations__[name]
    sample = samples.get(name, "4" if "int" in field else "40.5" if "float" in field else "/a/b")
    if "Bytes" in field:
        sample = "64MiB"
    default = getattr(load_settings({}), name)

    upper = getattr(load_settings({variable_of(name): sample}), name)
    lower = getattr(load_settings({variable_of(name).lower(): sample}), name)

    assert upper == lower
    assert upper != default


def test_the_process_environment_is_read_unless_another_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SATFS_WORKERS", "5")

    assert load_settings().workers == 5
    assert load_settings({}).workers == 2


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags before environment before defaults; a flag that was not given changes nothing."""
    monkeypatch.setenv("SATFS_CONTRACT_ID", "from-environment")

    assert load_settings(contract_id="from-flag").contract_id == "from-flag"
    assert load_settings(contract_id=None).contract_id == "from-environment"
    given = load_settings({"SATFS_CONTRACT_ID": "other"}, contract_id="from-flag")
    assert given.contract_id == "from-flag"


@pytest.mark.parametrize("source", [None, {"SATFS_CONTRACT_ID": ""}])
def test_an_empty_variable_is_an_unset_one(
    monkeypatch: pytest.MonkeyPatch, source: dict[str, str] | None
) -> None:
    monkeypatch.setenv("SATFS_CONTRACT_ID", "")

    assert load_settings(source).contract_id is None


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1000", 1000),
        ("20GB", 20 * GB),
        ("20G", 20 * GB),
        (" 1.5 gb ", 3 * GB // 2),
        ("512MiB", 512 * MIB),
        ("1024kib", MIB),
    ],
)
def test_sizes_may_carry_a_unit(text: str, size_bytes: int) -> None:
    assert load_settings({"SATFS_CACHE_BYTES": text}).cache_bytes == size_bytes
    assert load_settings({}, cache_bytes=size_bytes).cache_bytes == size_bytes


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("SATFS_API_URL", "ftp://api.example", "must be an http or https address"),
        ("SATFS_API_URL", "api.example", "must be an http or https address"),
        ("SATFS_API_URL", "https://me:pw@api.example", "must not contain a user name"),
        ("SATFS_API_URL", "https://api.example:70000", "must be an http or https address"),
        ("SATFS_API_URL", "https://api.example/?a=b", "without a query"),
        ("SATFS_API_URL", "https://api.example/v1#tasks", "without a query"),
        ("SATFS_API_URL", "https://api .example", "blanks"),
        ("SATFS_AUTH_URL", "http://auth.example/token", "auth_url must be https"),
        ("SATFS_AUTH_MODE", "basic", "'auto', 'oauth', 'token' or 'legacy'"),
        ("SATFS_CONTENTS", "shown", "'visible', 'hidden' or 'off'"),
        ("SATFS_WORKERS", "many", "must be an integer"),
        ("SATFS_WORKERS", "9", "at most 8"),
        ("SATFS_WORKERS", "9" * 400, "must be an integer"),
        ("SATFS_ENTRY_TIMEOUT_S", "0", "above 0"),
        ("SATFS_READ_DEADLINE_S", "nan", "finite"),
        ("SATFS_LISTING_TTL_S", "inf", "finite"),
        ("SATFS_CACHE_BYTES", "lots", "a number of bytes, such as 20GB"),
        ("SATFS_CACHE_BYTES", "-1", "number of bytes"),
        ("SATFS_CACHE_BYTES", "5 parsecs", "number of bytes"),
        ("SATFS_CACHE_BYTES", "20ib", "number of bytes"),
        ("SATFS_CACHE_BYTES", "9" * 400, "number of bytes"),
        ("SATFS_RANGE_BYTES", "1kB", "at least 65536"),
        ("SATFS_TLS_STRICT", "perhaps", "must be true or false"),
        ("SATFS_USER_AGENT", "two\nlines", "printable characters of ASCII"),
        ("SATFS_USER_AGENT", "caf\xe9", "printable characters of ASCII"),
        ("SATFS_READ_DEADLINE_S", "soon", "a finite number"),
        ("SATFS_CACHE_FREE_FRACTION", "1", "below 1"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(
    variable: str, value: str, sentence: str
) -> None:
    with pytest.raises(BadSettings) as refused:
        load_settings({variable: value})

    assert sentence in str(refused.value)
    assert variable.removeprefix("SATFS_").lower() in str(refused.value)
    assert refused.value.__cause__ is None


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(BadSettings) as refused:
        load_settings({"SATFS_WORKERS": "x", "SATFS_PAGE_LIMIT": "0"})

    assert "SATFS_WORKERS" in str(refused.value)
    assert "SATFS_PAGE_LIMIT" in str(refused.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "[::1]"])
def test_a_server_on_this_machine_may_speak_plain_http(host: str) -> None:
    assert load_settings({"SATFS_API_URL": f"http://{host}:8080"}).api_url.endswith(":8080")


@pytest.mark.parametrize("host", ["127.example.com", "localhost.example.com", "10.0.0.1"])
def test_a_name_that_only_looks_local_may_not(host: str) -> None:
    """Credentials would cross the network for everyone to read."""
    with pytest.raises(BadSettings, match="must be https"):
        load_settings({"SATFS_API_URL": f"http://{host}:8080"})


def test_exactly_the_secrets_are_secret() -> None:
    assert {name for name in FIELDS if is_secret(name)} == SECRETS


secret_texts = st.text(
    st.characters(codec="ascii", categories=["L", "N"]), min_size=12, max_size=40
).map(lambda text: "Sq7" + text)


@given(st.sampled_from(FIELDS), secret_texts)
def test_no_message_tells_what_was_given(name: str, value: str) -> None:
    """A secret pasted into the wrong variable must not end up in a log either."""
    told: list[object] = []
    try:
        settings = load_settings({variable_of(name): value})
        told = [settings] if name in SECRETS else []  # an address may well be shown
    except BadSettings as refused:
        told = [refused, str(refused)]

    assert value not in repr(told)


numbers = st.from_regex(r"[ +-]?[0-9]*[.]?[0-9]+(e[0-9]+)?[ a-z]{0,4}", fullmatch=True)


@given(st.sampled_from(FIELDS), st.text() | numbers)
def test_a_setting_takes_a_value_or_refuses_it_in_words(name: str, value: str) -> None:
    with suppress(BadSettings):
        load_settings({variable_of(name): value})


def test_settings_do_not_change_once_made() -> None:
    settings = load_settings({})

    with pytest.raises(AttributeError, match="immutable"):
        settings.workers = 3  # type: ignore[misc]


def test_choices_are_words() -> None:
    assert [str(mode) for mode in AuthMode] == ["auto", "oauth", "token", "legacy"]
    assert [str(view) for view in ContentsView] == ["visible", "hidden", "off"]


def test_a_misspelt_variable_is_noticed() -> None:
    environment = {
        "SATFS_CLIENT_SECRETT": "x",
        "SATFS_TOKEN": "y",
        "HOME": "/",
        "satfs_workerz": "",
    }

    remarks = unknown_remarks(environment)

    assert [each.split()[0] for each in remarks] == ["SATFS_CLIENT_SECRETT", "satfs_workerz"]


def test_a_child_process_inherits_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SATFS_TOKEN", "secret")
    monkeypatch.setenv("satfs_client_secret", "secret")
    monkeypatch.setenv("UNRELATED", "kept")

    child = worker_environment()

    assert "secret" not in child.values()
    assert child["UNRELATED"] == "kept"
