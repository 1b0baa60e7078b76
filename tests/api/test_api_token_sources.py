"""Tokens that other programs make, and stored logins: read when needed, never shown.

Longer than 600 lines, since each source of a token is tried with the same credential.
"""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from fakes.processes import is_running
from fakes.vendor import AUTH, CLIENT_ID, CLIENT_SECRET, Vendor, settings_for_vendor
from hypothesis import given
from hypothesis import strategies as st

from satfs.api import secret_store, token_sources, tokens
from satfs.api.client import Aleph
from satfs.api.credential import TOKEN_HEADER, Credential, account_key
from satfs.api.secret_store import StoredLogin
from satfs.api.token_sources import TokenFile, mode_of, source_of
from satfs.errors import BadSettings, NeedsLogin
from satfs.net.http import Http
from satfs.net.retry_loop import Retries
from satfs.setting_values import SecretStr
from satfs.settings import AuthMode, SecretPlace

SECRET = "5eedfeed-never-to-be-shown"
API = "https://api.vendor.test"


@asynccontextmanager
async def request_scope(vendor: Vendor, **changes: Any) -> AsyncIterator[Aleph]:
    """Open a client of *vendor* that logs in as told, and not with client credentials."""
    given: dict[str, Any] = {"client_id": None, "client_secret": None, **changes}
    async with Http(
        connect_timeout_s=5, progress_timeout_s=15, max_connections=4, transport=vendor.transport()
    ) as http:
        yield Aleph(http, settings_for_vendor(**given))


@asynccontextmanager
async def credential_for(vendor: Vendor, **changes: Any) -> AsyncIterator[Credential]:
    """Open the credential alone."""
    given: dict[str, Any] = {"client_id": None, "client_secret": None, **changes}
    async with Http(
        connect_timeout_s=5, progress_timeout_s=15, max_connections=4, transport=vendor.transport()
    ) as http:
        yield Credential(http, Retries(http.reachability), settings_for_vendor(**given))


def write(path: Path, text: str) -> Path:
    """Write *text* for the owner alone; another time of change than before, on any filesystem."""
    before_ns = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    path.chmod(0o600)
    os.utime(path, ns=(0, before_ns + 10**9))
    return path


def web_token(**claims: Any) -> str:
    """Return a token in the shape of RFC 7519."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "RS256"}, claims)
    ]
    return ".".join([*parts, "c2VhbA"])


@pytest.fixture
def late_clock(autojump_clock: Any) -> Any:
    """Return a clock that jumps only after threads have had time to do their work."""
    autojump_clock.autojump_threshold = 0.3
    return autojump_clock


# -- what a text holds -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "token", "lifetime_s"),
    [
        ("abc", "abc", None),
        (" abc\n", "abc", None),
        ("Bearer abc\n", "abc", None),
        ('{"access_token": "abc", "expires_in": 3600}', "abc", 3600.0),
        ('{"access_token": "abc", "expires_in": "3600"}', "abc", 3600.0),
        ('{"access_token": "abc", "expires_in": -3}', "abc", None),
        (web_token(exp=1500), web_token(exp=1500), 500.0),
        (web_token(exp=500), web_token(exp=500), 0.0),
        (web_token(exp="soon"), web_token(exp="soon"), None),
        (web_token(exp=True), web_token(exp=True), None),
        (web_token(sub="x"), web_token(sub="x"), None),
    ],
)
def test_a_token_stands_alone_or_in_an_answer(
    text: str, token: str, lifetime_s: float | None
) -> None:
    received = tokens.parse(text, now_s=1000.0)

    assert received is not None
    assert (received.token, received.lifetime_s) == (token, lifetime_s)
    assert token not in repr(received)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "two words",
        "a\nb",
        "{",
        "{}",
        '{"access_token": 3}',
        "ä",
        "a\x00b",
        "Bearer",
        "[]x y",
    ],
)
def test_what_no_header_could_carry_is_no_token(text: str) -> None:
    received = tokens.parse(text, now_s=0)

    assert received is None or tokens.is_header_text(received.token)
    assert received is None or text == "Bearer"


@given(st.text())
def test_any_text_is_a_token_or_none(text: str) -> None:
    """And never an error: it was written by others."""
    received = tokens.parse(text, now_s=0)
    assert received is None or (received.token in text and tokens.is_header_text(received.token))
    assert isinstance(tokens.claims(text), dict)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_any_claim_can_be_looked_at(value: Any) -> None:
    text = web_token(exp=value, sub=value)
    expiry_s = tokens.expiry_s(text)
    assert expiry_s is None or 0 < expiry_s < 1e11
    assert tokens.subject(text) is None or isinstance(value, str)


# -- a token file ----------------------------------------------------------------------------------


async def test_a_token_file_that_changes_counts_a_second_later(
    vendor: Vendor, late_clock: Any, tmp_path: Path
) -> None:
    path = write(tmp_path / "token", "first")
    async with credential_for(vendor, token_file=path) as credential:
        assert await credential.headers() == {TOKEN_HEADER: "Bearer first"}
        write(path, "second")
        await trio.sleep(token_sources.LOOK_S + 0.1)
        assert await credential.headers() == {TOKEN_HEADER: "Bearer second"}


async def test_a_refused_token_is_replaced_by_the_one_in_the_file_at_once(
    vendor: Vendor, tmp_path: Path
) -> None:
    """Also when the file looks the same to stat(2); no caller sees the refusal."""
    path = write(tmp_path / "token", "first")
    vendor.accept_token("first")
    async with request_scope(vendor, token_file=path) as aleph:
        await aleph.tasks()
        status = path.stat()
        path.write_text("other")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        vendor.refuse_tokens()
        vendor.accept_token("other")
        await aleph.tasks()


async def test_a_token_that_stays_refused_is_sent_a_few_times_and_says_which_file(
    vendor: Vendor, late_clock: Any, tmp_path: Path, expect_log: Any
) -> None:
    """It may be so new that it is not valid yet, for two seconds."""
    expect_log("request refused")
    path = write(tmp_path / "token", SECRET)
    async with request_scope(vendor, token_file=path, contract_id="c") as aleph:
        with pytest.raises(NeedsLogin, match=f"still valid to {path}") as failure:
            await aleph.tasks()
    assert SECRET not in str(failure.value)
    paths = [request.path for request in vendor.requests]
    assert paths == ["/tasking/tasks/"] * 2 + ["/contracts"] + ["/tasking/tasks/"] * 4


@pytest.mark.parametrize("damage", ["gone", "empty", "half", "directory", "open to all"])
async def test_a_file_that_is_being_replaced_harms_nobody(
    vendor: Vendor, late_clock: Any, tmp_path: Path, damage: str, expect_log: Any
) -> None:
    """The token read before serves on, until it is refused."""
    expect_log("token file unusable; going on with the token read before")
    path = write(tmp_path / "token", "first")
    async with credential_for(vendor, token_file=path) as credential:
        first = await credential.headers()
        if damage in ("gone", "directory"):
            path.unlink()
        if damage == "directory":
            path.mkdir()
        elif damage == "open to all":
            write(path, "evil").chmod(0o666)
        elif damage != "gone":
            write(path, {"empty": "", "half": '{"access_token": "abc'}[damage])
        for _ in range(3):
            await trio.sleep(1.1)
            assert await credential.headers() == first
        credential.refused(first)
        with pytest.raises(NeedsLogin, match=f"token_file {path}: "):
            await credential.headers()
        if damage == "directory":
            path.rmdir()
        write(path, "second")
        assert await credential.headers() == {TOKEN_HEADER: "Bearer second"}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "No such file"),
        (lambda path: write(path, " \n"), "holds no token"),
        (os.mkdir, "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: write(path, "token").chmod(0o602), "may be changed by everybody; run: chmod"),
    ],
)
async def test_a_token_file_that_cannot_be_used_is_told_with_its_name(
    vendor: Vendor, tmp_path: Path, make: Callable[[Path], Any], sentence: str
) -> None:
    """A pipe without a writer keeps no caller waiting."""
    make(tmp_path / "token")
    async with credential_for(vendor, token_file=tmp_path / "token") as credential:
        with pytest.raises(NeedsLogin, match=sentence):
            await credential.headers()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (os.mkfifo, "not a regular file"),
        (lambda path: write(path, "evil").chmod(0o602), "may be changed by everybody; run: chmod"),
    ],
)
async def test_a_token_file_that_is_replaced_during_the_look_is_judged_as_it_is_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Any],
    sentence: str,
) -> None:
    """Between the look at its permissions and the look at its content."""
    path = write(tmp_path / "token", "first")
    look = Path.stat

    def stat_and_replace(self: Path, **options: Any) -> os.stat_result:
        found = look(self, **options)
        if self == path and found.st_size == len("first"):
            path.unlink()
            make(path)
        return found

    monkeypatch.setattr(Path, "stat", stat_and_replace)
    with trio.fail_after(5), pytest.raises(NeedsLogin, match=sentence):
        await TokenFile(path).look()


async def test_a_token_file_that_others_may_read_is_warned_of_once(
    vendor: Vendor, late_clock: Any, tmp_path: Path, expect_log: Any, log_book: Any
) -> None:
    """The program that writes it may have reasons; the log has a line."""
    path = tmp_path / "token"
    expect_log("token file open to others", path=str(path), reason=f"run: chmod 600 {path}")
    write(path, "first").chmod(0o644)
    async with credential_for(vendor, token_file=path) as credential:
        await credential.headers()
        path.chmod(0o644)
        write(path, "second").chmod(0o644)
        await trio.sleep(1.1)
        assert await credential.headers() == {TOKEN_HEADER: "Bearer second"}
    assert len(log_book.lines) == 1


async def test_the_end_of_a_token_is_known_from_the_token(
    vendor: Vendor, late_clock: Any, tmp_path: Path
) -> None:
    ends_at_s = int(time.time()) + 5000
    path = write(tmp_path / "token", web_token(exp=ends_at_s, sub="somebody@clients"))
    async with credential_for(vendor, token_file=path) as credential:
        await credential.headers()
        await trio.sleep(1.1)
        await credential.headers()
        assert credential.token_expires_at_s == pytest.approx(ends_at_s, abs=2)
        assert credential.token_subject == "somebody@clients"


# -- a token command -------------------------------------------------------------------------------


def script(tmp_path: Path, text: str) -> str:
    """Return a command that runs a Python program; it counts its runs in the file `runs`."""
    path = tmp_path / "print-token.py"
    path.write_text(
        f"import os, sys, time\nopen({str(tmp_path / 'runs')!r}, 'a').write('x')\n{text}"
    )
    return f"{sys.executable} -I -S {path}"


def n_runs(tmp_path: Path) -> int:
    """Return how often the program has run."""
    return len((tmp_path / "runs").read_text())


async def test_a_command_is_run_when_a_token_is_needed_and_not_before(
    vendor: Vendor, tmp_path: Path
) -> None:
    """However many need it at once; and again once it was refused."""
    command = script(tmp_path, "print('token-' + str(os.path.getsize(sys.argv[1])))")
    command += f" {tmp_path / 'runs'}"
    async with credential_for(vendor, token_command=command) as credential:
        assert not (tmp_path / "runs").exists()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(credential.headers)
        first = await credential.headers()
        assert n_runs(tmp_path) == 1
        assert credential.refused(first)
        assert await credential.headers() != first
        assert n_runs(tmp_path) == 2


async def test_a_command_is_run_again_before_its_token_ends(
    vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = script(tmp_path, """print('{"access_token": "abc", "expires_in": 0.4}')""")
    async with credential_for(vendor, token_command=command) as credential:
        await credential.headers()
        await trio.sleep(0.25)
        await credential.headers()
    assert n_runs(tmp_path) == 2


async def test_a_command_sees_no_secret_of_ours(
    vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment is ours without our settings, except the profile's name."""
    monkeypatch.setenv("SATFS_CLIENT_SECRET", SECRET)
    monkeypatch.setenv("KEPT", "yes")
    text = (
        "mine = {k: v for k, v in os.environ.items() if k.startswith('SATFS')}\n"
        "print('-'.join([*mine, *mine.values(), os.environ['KEPT'], str(len(sys.stdin.read()))]))"
    )
    async with credential_for(vendor, token_command=script(tmp_path, text)) as credential:
        headers = await credential.headers()
    assert headers == {TOKEN_HEADER: "Bearer SATFS_PROFILE-default-yes-0"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"print({SECRET!r}, 'x y')", "printed no token"),
        (f"print({SECRET!r}); sys.exit(3)", "failed with exit code 3; run it by hand"),
        (f"sys.stderr.write({SECRET!r}); os.kill(os.getpid(), 9)", "failed with signal 9"),
        ("", "printed no token"),
        ("while True: print('x' * 10_000)", "printed no token"),
    ],
)
async def test_what_a_command_says_is_never_told(
    vendor: Vendor, tmp_path: Path, text: str, sentence: str, capfd: Any
) -> None:
    async with credential_for(vendor, token_command=script(tmp_path, text)) as credential:
        with pytest.raises(NeedsLogin, match=sentence) as failure:
            await credential.headers()
    assert SECRET not in str(failure.value)
    assert capfd.readouterr() == ("", "")


async def test_a_command_that_does_not_end_is_ended_with_all_it_started(
    vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_sources, "COMMAND_S", 1.0)
    text = f"""
import subprocess
child = subprocess.Popen(["sleep", "1000"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
child.wait()
"""
    async with credential_for(vendor, token_command=script(tmp_path, text)) as credential:
        with pytest.raises(NeedsLogin, match="did not end within 1 s"):
            await credential.headers()
    pid = int((tmp_path / "pid").read_text())
    with trio.fail_after(5):
        while is_running(pid):  # noqa: ASYNC110 - another process sends no event
            await trio.sleep(0.01)


async def test_a_command_that_is_not_there_is_told(vendor: Vendor) -> None:
    async with credential_for(vendor, token_command="/nowhere/satoken --x") as credential:
        with pytest.raises(NeedsLogin, match="token_command satoken cannot be run: No such file"):
            await credential.headers()


# -- what a login has kept -------------------------------------------------------------------------


class MemoryKeyring:
    """A keyring of this process; each call notes its thread."""

    name = "memory"
    priority = 5

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.threads: set[int] = set()
        self.is_locked = False

    def get_password(self, service: str, name: str) -> str | None:
        """Return what is kept."""
        self.threads.add(threading.get_ident())
        if self.is_locked:
            raise RuntimeError(f"locked, and {SECRET}")
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, text: str) -> None:
        """Keep it."""
        if self.is_locked:
            raise RuntimeError(f"locked, and {SECRET}")
        self.kept[service, name] = text

    def delete_password(self, service: str, name: str) -> None:
        """Forget it."""
        del self.kept[service, name]


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryKeyring:
    """Return the system's keyring; files go to a directory of the test."""
    ring = MemoryKeyring()
    for name in ("get_password", "set_password", "delete_password"):
        monkeypatch.setattr(f"keyring.{name}", getattr(ring, name))
    monkeypatch.setattr("keyring.get_keyring", lambda: ring)
    monkeypatch.setenv("SATFS_CONFIG_FILE", str(tmp_path / "satfs" / "config.toml"))
    return ring


def login(secret: str = CLIENT_SECRET, **changes: Any) -> StoredLogin:
    """Return a login as `satfs login` keeps it."""
    given = {
        "mode": AuthMode.OAUTH,
        "secret": SecretStr(secret),
        "client_id": CLIENT_ID,
        "api_url": API,
        "auth_url": AUTH,
    }
    return StoredLogin(**{**given, **changes})


@pytest.mark.parametrize("place", list(SecretPlace))
def test_what_is_kept_is_there_until_it_is_forgotten(
    ring: MemoryKeyring, place: SecretPlace
) -> None:
    secret_store.keep("a", login("one"), place)
    secret_store.keep("b", login("two"), place)
    secret_store.keep("a", login("three"), place)

    assert secret_store.fetch("a", place) == login("three")
    assert secret_store.forget("a") == (place,)
    assert secret_store.forget("a") == ()
    with pytest.raises(NeedsLogin, match="log in: satfs login --profile a"):
        secret_store.fetch("a", place)
    assert secret_store.fetch("b", place).secret.get_secret_value() == "two"
    assert secret_store.forget("b", but=place) == ()


def test_a_kept_file_is_its_owners_alone(ring: MemoryKeyring, tmp_path: Path) -> None:
    """With any umask, and any earlier file."""
    before = os.umask(0)
    try:
        secret_store.keep("a", login(), SecretPlace.FILE)
    finally:
        os.umask(before)
    path = secret_store.secret_file("a")

    assert path == tmp_path / "satfs" / "secrets" / "a.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["a.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_kept_file_that_others_could_have_read_is_refused(ring: MemoryKeyring, mode: int) -> None:
    secret_store.keep("a", login(), SecretPlace.FILE)
    path = secret_store.secret_file("a")
    path.chmod(mode)

    with pytest.raises(NeedsLogin, match=f"run: chmod 600 {path}"):
        secret_store.fetch("a", SecretPlace.FILE)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"mode": "x"}', "\x00", "{" * 10**5])
def test_a_kept_text_that_is_damaged_is_none(ring: MemoryKeyring, text: str) -> None:
    secret_store.keep("a", login(), SecretPlace.FILE)
    secret_store.secret_file("a").write_text(text)

    with pytest.raises(NeedsLogin, match="satfs login"):
        secret_store.fetch("a", SecretPlace.FILE)


def test_a_place_that_does_not_take_it_is_told_without_it(
    ring: MemoryKeyring, tmp_path: Path
) -> None:
    (tmp_path / "satfs").write_text("a file in the way")
    ring.is_locked = True

    for place, sentence in (
        (SecretPlace.FILE, "cannot be written"),
        (SecretPlace.KEYRING, "--secret-store file"),
    ):
        with pytest.raises(BadSettings, match=sentence) as failure:
            secret_store.keep("a", login(SECRET), place)
        assert SECRET not in str(failure.value)
    with pytest.raises(NeedsLogin, match="is it locked") as locked:
        secret_store.fetch("a", SecretPlace.KEYRING)
    assert SECRET not in str(locked.value)
    with pytest.raises(BadSettings, match="unlock it"):
        secret_store.forget("a", but=SecretPlace.FILE)


def test_a_keyring_that_guards_nothing_is_none(
    ring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keyrings below priority 1 are no place for secrets, as their library states."""
    assert secret_store.keyring_name() == "memory"
    ring.priority = 0
    assert secret_store.keyring_name() is None

    def broken() -> Any:
        raise RuntimeError

    monkeypatch.setattr("keyring.get_keyring", broken)
    assert secret_store.keyring_name() is None


@pytest.mark.parametrize("place", list(SecretPlace))
async def test_a_kept_secret_logs_in(
    vendor: Vendor, ring: MemoryKeyring, place: SecretPlace
) -> None:
    """Read once, off the event loop: a keyring may take its time."""
    secret_store.keep("default", login(), place)
    async with request_scope(vendor, client_id=CLIENT_ID, secret_store=place) as aleph:
        await aleph.tasks()
        assert CLIENT_SECRET in aleph.credential.secrets()
    assert threading.get_ident() not in ring.threads


async def test_another_login_counts_while_mounted(
    vendor: Vendor, ring: MemoryKeyring, late_clock: Any, expect_log: Any
) -> None:
    """After what was kept before was refused."""
    expect_log("credential refused")
    expect_log("request refused")
    secret_store.keep("default", login("wrong"), SecretPlace.FILE)
    async with request_scope(vendor, client_id=CLIENT_ID, secret_store="file") as aleph:
        with pytest.raises(NeedsLogin, match="satfs login --profile default"):
            await aleph.tasks()
        secret_store.keep("default", login(), SecretPlace.FILE)
        await trio.sleep(6)
        await aleph.tasks()


async def test_another_kept_token_counts_while_mounted(vendor: Vendor, ring: MemoryKeyring) -> None:
    vendor.accept_token("first")
    secret_store.keep("p", login("first", mode=AuthMode.TOKEN), SecretPlace.FILE)
    async with request_scope(vendor, profile="p", auth_mode="token", secret_store="file") as aleph:
        await aleph.tasks()
        vendor.refuse_tokens()
        vendor.accept_token("second")
        secret_store.keep("p", login("second", mode=AuthMode.TOKEN), SecretPlace.FILE)
        await aleph.tasks()


async def test_a_kept_key_logs_in_the_old_way(vendor: Vendor, ring: MemoryKeyring) -> None:
    secret_store.keep("default", login(mode=AuthMode.LEGACY), SecretPlace.FILE)
    async with request_scope(
        vendor, client_id=CLIENT_ID, auth_mode="legacy", secret_store="file"
    ) as aleph:
        await aleph.tasks()


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        ({"api_url": "https://other.test"}, "is for https://other.test:443, not for"),
        ({"auth_url": "https://other.test/token"}, "is for the token endpoint"),
        ({"client_id": "somebody"}, "is for the client id somebody"),
        ({"mode": AuthMode.TOKEN}, "is for auth_mode token, not for oauth"),
    ],
)
async def test_a_kept_secret_goes_nowhere_but_where_it_was_checked(
    vendor: Vendor, ring: MemoryKeyring, kept: Any, sentence: str
) -> None:
    """A stored login goes to the addresses it was checked against, and to no other.

    An address that has changed since gets nothing.
    """
    secret_store.keep("default", login(**kept), SecretPlace.FILE)
    async with credential_for(vendor, client_id=CLIENT_ID, secret_store="file") as credential:
        with pytest.raises(NeedsLogin, match=f"{sentence}.*satfs login") as failure:
            await credential.headers()
    assert CLIENT_SECRET not in str(failure.value)
    assert vendor.requests == []


async def test_a_keyring_that_does_not_answer_keeps_nobody_waiting(
    vendor: Vendor, ring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may show a prompt for a password, with no user there."""
    released = threading.Event()
    monkeypatch.setattr("keyring.get_password", lambda *_: released.wait(30) and None)
    monkeypatch.setattr("satfs.api.credential.KEYRING_S", 0.2)
    async with credential_for(vendor, client_id=CLIENT_ID, secret_store="keyring") as credential:
        with trio.fail_after(5), pytest.raises(NeedsLogin, match="is it locked"):
            await credential.headers()
    released.set()


# -- which of them ---------------------------------------------------------------------------------


KEPT = {"client_secret": None, "secret_store": "file"}


@pytest.mark.parametrize(
    ("changes", "mode", "source"),
    [
        ({}, "oauth", "client_secret"),
        ({"secret_store": "file"}, "oauth", "client_secret"),
        (KEPT, "oauth", "secret_store"),
        ({"client_secret": None}, "oauth", "client_secret"),
        ({"token": "t"}, "token", "token"),
        ({"token_file": "/t"}, "token", "token_file"),
        ({"token_command": "t"}, "token", "token_command"),
        ({"auth_mode": "token", "secret_store": "file"}, "token", "secret_store"),
        ({"auth_mode": "token"}, "token", "token"),
        ({"auth_mode": "oauth", "token": "t"}, "oauth", "client_secret"),
        ({**KEPT, "auth_mode": "legacy"}, "legacy", "secret_store"),
    ],
)
def test_where_the_credential_comes_from_is_told(
    changes: dict[str, Any], mode: str, source: str
) -> None:
    settings = settings_for_vendor(**changes)
    assert (mode_of(settings), source_of(settings)) == (mode, source)


def test_a_token_that_is_renewed_by_others_leaves_the_account_its_name(tmp_path: Path) -> None:
    """The cache of yesterday is there today; another file is another account."""
    path = write(tmp_path / "token", "first")
    before = account_key(settings_for_vendor(token_file=path))
    write(path, "second")
    assert account_key(settings_for_vendor(token_file=path)) == before
    kept = {"auth_mode": "token", "client_secret": None, "secret_store": "file"}
    keys = {
        before,
        account_key(settings_for_vendor(token_file="/other")),
        account_key(settings_for_vendor(token_command="a")),
        account_key(settings_for_vendor(token_command="b")),
        account_key(settings_for_vendor(**kept, profile="a")),
        account_key(settings_for_vendor(**kept, profile="b")),
    }
    assert len(keys) == 6
