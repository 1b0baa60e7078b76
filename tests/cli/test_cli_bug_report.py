"""A report for an issue is complete, and has nothing that a stranger must not have."""

from __future__ import annotations

import platform
import stat
from pathlib import Path

import pytest
from cli.conftest import Program
from hypothesis import given
from hypothesis import strategies as st

from satfs import __version__
from satfs.api import secret_store
from satfs.api.secret_store import StoredLogin
from satfs.cli.bug_report import MAX_LOG_LINES, report_text, versions, without_secrets
from satfs.doctor.findings import Area, Finding, Severity
from satfs.setting_values import SecretStr
from satfs.settings import AuthMode, SecretPlace, resolve_settings

SECRET = "5eedfeed-never-to-be-shown"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
CLIENT = "client-4711-of-harbour"


def test_the_versions_of_a_bug_report_are_shown(satfs: Program) -> None:
    done = satfs("--version", "--verbose")

    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"satfs {__version__}"
    assert f"Python {platform.python_version()}" in lines
    names = [line.split()[0] for line in lines]
    for name in ("libfuse", "kernel", "distribution", "pyfuse3", "trio", "httpx"):
        assert name in names
    assert satfs("-v", "-V").stdout == satfs("-Vv").stdout == done.stdout


def test_libfuse_is_found() -> None:
    assert versions()["libfuse"].startswith("3.")


def test_a_report_has_findings_settings_and_the_end_of_each_log() -> None:
    finding = Finding(
        Area.FUSE, "device", Severity.WARNING, "It is odd.", "So what.", "Do this:", ("ls -l",)
    )
    resolved = resolve_settings({"workers": "3"})
    log = "\n".join(f"line {n}" for n in range(MAX_LOG_LINES + 5))

    text = report_text([finding], resolved, {"/mnt/a": log, "/mnt/b": ""}, {})

    assert f"satfs {__version__}\n" in text
    assert "warning [FUSE: device] It is odd.\n  So what.\n  Do this:\n  ls -l\n" in text
    assert "workers = 3  # flag" in text
    assert "line 4\n" not in text
    assert "## Log of /mnt/a\n\nline 5\n" in text
    assert "## Log of /mnt/b\n\n(empty)" in text


@pytest.mark.parametrize("name", ["SATFS_CLIENT_SECRET", "SATFS_TOKEN"])
def test_a_report_has_no_secret_wherever_it_stood(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("SATFS_CLIENT_ID", CLIENT)
    monkeypatch.setenv("SATFS_TOKEN_COMMAND", f"fetch --key {SECRET}")
    hidden = [
        f"secret {SECRET} in the middle",
        f"authorizationToken: Bearer {TOKEN}",
        "GET https://store.example/a.zip?X-Amz-Signature=deadbeef&X-Amz-Credential=abc",
        "proxy http://ana:hunter22@proxy.example:3128",
    ]
    findings = [
        Finding(Area.NETWORK, "x", Severity.FAILURE, each, each, each, (each,)) for each in hidden
    ]

    text = report_text(findings, resolve_settings({}), {"/mnt": "\n".join(hidden)})

    for value in (SECRET, CLIENT, TOKEN, "deadbeef", "hunter22", "ana:", "--key"):
        assert value not in text
    assert "client_id = (set, not shown)" in text


CONFIG = """\
client_secret = "secret-above-all-profiles"
[profiles.harbour]
client_id = "client-of-the-harbour"
contract_id = "contract-of-the-harbour"
token = "token-of-the-harbour"
[profiles.forest]
token_file = "forest.token"
[profiles.lake]
client_id = "client-of-the-lake"
secret_store = "file"
[profiles.mountain]
secret_store = "keyring"
"""
#: Each secret and identity of a user with several profiles, by the place where it is.
EVERYWHERE = {
    "environment": "secret-of-the-environment",
    "environment, not used": "token-of-the-environment",
    "file, above all profiles": "secret-above-all-profiles",
    "file, a profile that is not used": "token-of-the-harbour",
    "file, client id": "client-of-the-harbour",
    "file, contract": "contract-of-the-harbour",
    "token file": "opaque-token-of-the-forest",
    "file of a login": "secret-of-the-lake",
    "keyring": "secret-of-the-mountain",
    "keyring, client id": "client-of-the-mountain",
    "proxy, as written": "hunter%402",
    "proxy, as typed": "hunter@2",
    "proxy, as sent": "YW5hOmh1bnRlckAy",
    "link": "X-Amz-Signature=c0ffee",
}


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give the user a secret in every place that can have one."""
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    file.chmod(0o600)
    (tmp_path / "forest.token").write_text("Bearer opaque-token-of-the-forest\n")
    monkeypatch.setenv("SATFS_CONFIG_FILE", str(file))
    monkeypatch.setenv("SATFS_CLIENT_SECRET", "secret-of-the-environment")
    monkeypatch.setenv("satfs_token", "token-of-the-environment")
    monkeypatch.setenv("https_proxy", "http://ana:hunter%402@proxy.example:3128")
    addresses = ("https://api.example", "https://auth.example/token")
    lake, mountain = (
        StoredLogin(
            AuthMode.OAUTH, SecretStr(f"secret-of-the-{name}"), f"client-of-the-{name}", *addresses
        )
        for name in ("lake", "mountain")
    )
    secret_store.keep("lake", lake, SecretPlace.FILE)
    fetch = secret_store.fetch
    monkeypatch.setattr(
        secret_store,
        "fetch",
        lambda profile, place: mountain if place is SecretPlace.KEYRING else fetch(profile, place),
    )


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("place", EVERYWHERE)
def test_a_report_has_no_secret_of_any_profile_or_place(place: str) -> None:
    """Logs of mounts with other profiles are part of it, and findings about them."""
    secret = EVERYWHERE[place]
    text = secret if place != "link" else f"GET https://store.example/a.zip?{secret}"
    finding = Finding(Area.NETWORK, "x", Severity.FAILURE, text, text, text, (text,))

    report = report_text([finding], resolve_settings({}), {"/mnt": f"a line with {text}"})
    without_settings = report_text([finding], None, {"/mnt": f"a line with {text}"})

    assert secret not in report
    assert secret not in without_settings
    assert "a line with " in report


@given(
    secrets=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=4), min_size=1),
    words=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5),
)
def test_no_secret_is_left_even_if_one_is_part_of_another(
    secrets: list[str], words: list[str]
) -> None:
    text = " ".join([*words, *secrets, secrets[0] + secrets[-1]])

    left = without_secrets(text, secrets)

    assert [each for each in secrets if each in left and "…" not in each] == []


def test_the_home_of_the_user_is_not_named() -> None:
    home = Path.home()

    assert without_secrets(f"{home}/aleph and {home}", []) == "~/aleph and ~"
    assert without_secrets(f"{home}stead/x", []) == f"{home}stead/x"


@pytest.mark.mounts
def test_doctor_writes_a_report_of_a_mount(aleph: Program, place: Path) -> None:
    assert aleph("mount", place).returncode == 0
    secret = aleph.environment["SATFS_CLIENT_SECRET"]
    file = aleph.directory / "report.txt"

    done = aleph("doctor", "--report", file)

    assert "read it before you attach it to an issue" in done.stderr
    text = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for part in ("## Versions", "## Findings", "## Settings", f"## Log of {place}"):
        assert part in text
    assert secret not in text
    assert aleph.environment["SATFS_CLIENT_ID"] not in text
    assert "?X-" not in text
    assert aleph("umount", place).returncode == 0


def test_a_report_replaces_no_file(aleph: Program) -> None:
    file = aleph.directory / "report.txt"
    file.write_text("mine")

    done = aleph("doctor", "--report", file)

    assert done.returncode == 2
    assert "exists; name another file" in done.stderr
    assert file.read_text() == "mine"
