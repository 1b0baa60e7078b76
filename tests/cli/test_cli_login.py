"""Log in, know as whom, log out: through the real program, a pipe and a terminal.

Longer than 600 lines, since login, logout, whoami and config are tried on one stored login.
"""

from __future__ import annotations

import json
import os
import pty
import select
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.conftest import Program, is_mounted
from fakes.processes import wait_until

from satfs.demo.server import DemoOrigin
from satfs.demo.tokens import DemoAccount

CONTRACTS = (("cont.first", "Imagery 2026"), ("cont.second", "Emergency response"))

#: A keyring that keeps everything in one file: for tests, in place of the Secret Service.
KEYRING = """
import json, os, pathlib
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

class Keyring(KeyringBackend):
    name = "Test Service"
    priority = 5
    place = pathlib.Path(os.environ["TEST_KEYRING"])

    def _all(self):
        if os.environ.get("TEST_KEYRING_LOCKED"):
            raise KeyringLocked("no password for " + self.place.read_text())
        return json.loads(self.place.read_text()) if self.place.exists() else {}

    def get_password(self, service, username):
        return self._all().get(service + "/" + username)

    def set_password(self, service, username, password):
        self.place.write_text(json.dumps({**self._all(), service + "/" + username: password}))

    def delete_password(self, service, username):
        kept = self._all()
        del kept[service + "/" + username]
        self.place.write_text(json.dumps(kept))
"""


@pytest.fixture(scope="session")
def several() -> Iterator[DemoOrigin]:
    """Return a vendor whose customer has two contracts, and a key of the old kind."""
    with DemoOrigin(account=DemoAccount(contracts=CONTRACTS, accepts_legacy_keys=True)) as origin:
        yield origin


def led_to(satfs: Program, origin: DemoOrigin) -> Program:
    """Return the program led to *origin*, without a keyring and without credentials."""
    urls = {"SATFS_API_URL": origin.api_url, "SATFS_AUTH_URL": origin.auth_url}
    cache = {"SATFS_CACHE_DIR": str(satfs.directory / "cache")}
    no_keyring = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
    return Program({**satfs.environment, **urls, **cache, **no_keyring}, satfs.directory)


@pytest.fixture
def there(satfs: Program, origin: DemoOrigin) -> Program:
    """Return the program, led to a vendor."""
    return led_to(satfs, origin)


@pytest.fixture
def with_keyring(there: Program, tmp_path: Path) -> Program:
    """Return the program on a system that has a keyring."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "onefilekeyring.py").write_text(KEYRING)
    changes = {
        "PYTHON_KEYRING_BACKEND": "onefilekeyring.Keyring",
        "PYTHONPATH": str(tmp_path / "modules"),
        "TEST_KEYRING": str(tmp_path / "keyring.json"),
    }
    return Program({**there.environment, **changes}, there.directory)


def home(program: Program) -> Path:
    """Return where the configuration is."""
    return Path(program.environment["HOME"]) / ".config" / "satfs"


def piped(
    program: Program, text: str, *arguments: object, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run the program with *text* on its standard input."""
    return program.given(text, *arguments, **environment)


def typed(program: Program, answers: dict[str, str], *arguments: object) -> tuple[int, str]:
    """Run the program on a terminal, and answer its prompts; return its exit code and output."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(program.directory)
        command = program.command(*arguments)
        os.execve(command[0], command, program.environ())
    shown, looked_at, left = "", 0, dict(answers)
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other side is closed (pty(7))
            break
        if not piece:
            break
        shown += piece.decode()
        for question in [question for question in left if question in shown[looked_at:]]:
            looked_at = len(shown)
            time.sleep(
                0.2
            )  # until the terminal echoes no more: getpass prompts before it switches echo off
            os.write(terminal, left.pop(question).encode() + b"\n")
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def without_urls(program: Program, **changes: str | None) -> Program:
    """Return the program without a variable of satfs, as on the next day."""
    kept = {k: v for k, v in program.environment.items() if not k.startswith("SATFS_")}
    return Program(
        {**kept, "SATFS_CACHE_DIR": program.environment["SATFS_CACHE_DIR"]}, program.directory
    )


# -- login -----------------------------------------------------------------------------------------


def test_a_secret_from_a_pipe_is_checked_and_kept(there: Program, origin: DemoOrigin) -> None:
    """In a file of its owner's where there is no keyring, and that is said."""
    account = origin.account
    done = piped(there, f"{account.client_secret}\n", "login", "--client-id", account.client_id)

    assert (done.returncode, done.stdout) == (0, "")
    assert "Logged in as demo-client, acting for Imagery 2026." in done.stderr
    assert "There is no keyring here: the secret is kept in ~/.config/satfs/secrets" in done.stderr
    path = home(there) / "secrets" / "default.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert account.client_secret in path.read_text()
    assert account.client_secret not in (home(there) / "config.toml").read_text()
    assert account.client_secret not in done.stderr


def test_what_was_kept_is_enough_the_next_day(
    there: Program, origin: DemoOrigin, place: Path
) -> None:
    """The addresses were kept with it; the source is named after the profile."""
    account = origin.account
    text = f"{account.client_id}\n{account.client_secret}\n"
    assert piped(there, text, "login", "--profile", "harbour").returncode == 0
    tomorrow = without_urls(there)

    who = tomorrow("whoami", "--profile", "harbour", "--json")
    mounted = tomorrow("mount", "--profile", "harbour", place)

    assert json.loads(who.stdout)["client_id"] == account.client_id
    assert mounted.returncode == 0, mounted.stderr
    assert f" {place} fuse.satfs " in Path("/proc/mounts").read_text()
    assert f"satfs:harbour {place} " in Path("/proc/mounts").read_text()
    assert os.listdir(place / "tasks")
    assert account.client_secret not in who.stdout + who.stderr + mounted.stderr


@pytest.mark.parametrize("form", ["json", "environment"])
def test_id_and_secret_may_come_as_json_or_be_set(
    there: Program, origin: DemoOrigin, form: str
) -> None:
    account = origin.account
    if form == "json":
        pair = {"client_id": account.client_id, "client_secret": account.client_secret}
        done = piped(there, json.dumps(pair), "login", "--json")
    else:
        done = there(
            "login",
            "--json",
            SATFS_CLIENT_ID=account.client_id,
            SATFS_CLIENT_SECRET=account.client_secret,
        )

    assert done.returncode == 0
    record = json.loads(done.stdout)
    assert (record["client_id"], record["secret_store"]) == (account.client_id, "file")
    assert record["contract_id"] == account.contract_id
    assert account.client_secret not in done.stdout + done.stderr
    is_rival = "client_secret is set in the environment (SATFS_CLIENT_SECRET), and wins"
    assert (is_rival in done.stderr) is (form == "environment")


def test_the_keyring_is_used_where_there_is_one(with_keyring: Program, origin: DemoOrigin) -> None:
    account = origin.account
    text = f"{account.client_id}\n{account.client_secret}\n"

    done = piped(with_keyring, text, "login")
    who = with_keyring("whoami")
    locked = with_keyring("whoami", TEST_KEYRING_LOCKED="yes")
    out = with_keyring("logout")

    assert done.returncode == 0
    assert "The secret is kept in the keyring (Test Service)." in done.stderr
    assert not (home(with_keyring) / "secrets").exists()
    assert "the login kept in the keyring" in who.stdout
    assert locked.returncode == 3
    assert "is it locked?" in locked.stderr
    assert account.client_secret not in locked.stderr
    assert "gone from the keyring" in out.stderr
    assert Path(with_keyring.environment["TEST_KEYRING"]).read_text() == "{}"


def test_root_runs_no_keyring_of_somebody_else(
    there: Program, origin: DemoOrigin, tmp_path: Path
) -> None:
    """`sudo -E` keeps a user's HOME: a keyring named there would run as root, with the secret."""
    if os.geteuid() != 0:
        pytest.skip("only root is a danger to itself here")
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "onefilekeyring.py").write_text(
        KEYRING + f"\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    )
    place = Path(there.environment["HOME"]) / ".config/python_keyring"
    place.mkdir(parents=True)
    file = place / "keyringrc.cfg"
    file.write_text(f"[backend]\ndefault-keyring=onefilekeyring.Keyring\nkeyring-path={modules}\n")
    os.chown(file, 65534, 65534)
    kept = {"TEST_KEYRING": str(tmp_path / "keyring.json"), "PYTHON_KEYRING_BACKEND": None}
    given = origin.environment()
    secret = f"{given['SATFS_CLIENT_SECRET']}\n"
    login = ("login", "--client-id", given["SATFS_CLIENT_ID"])
    for _ in range(2):
        done = piped(there, secret, *login, **kept)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "ran").exists()
        assert there("logout", **kept).returncode == 0
        assert not (tmp_path / "ran").exists()
        os.chown(file, 0, 0)
        os.chown(place, 65534, 65534)
    os.chown(place, 0, 0)
    assert piped(there, secret, *login, **kept).returncode == 0
    assert (tmp_path / "ran").exists(), "root's own configuration counts"


def test_only_one_place_keeps_the_secret(with_keyring: Program, origin: DemoOrigin) -> None:
    """A login that is given up leaves nothing behind."""
    account = origin.account
    text = f"{account.client_id}\n{account.client_secret}\n"
    assert piped(with_keyring, text, "login").returncode == 0

    done = piped(with_keyring, text, "login", "--secret-store", "file")

    assert done.returncode == 0
    assert "no keyring here" not in done.stderr
    assert account.client_secret not in Path(with_keyring.environment["TEST_KEYRING"]).read_text()
    assert (home(with_keyring) / "secrets" / "default.json").exists()


def test_people_are_asked_on_a_terminal(satfs: Program, several: DemoOrigin) -> None:
    """Also which contract, when there are several; the secret is not echoed."""
    account = several.account
    there = led_to(satfs, several)
    code, shown = typed(
        there,
        {
            "Client id": account.client_id,
            "Client secret (not shown)": account.client_secret,
            "Act for which": "2",
            "Mount it now?": "-",
        },
        "login",
    )

    assert code == 0, shown
    assert "1  Imagery 2026  cont.first" in shown
    assert "acting for Emergency response" in shown
    assert account.client_secret not in shown
    assert 'contract_id = "cont.second"' in (home(there) / "config.toml").read_text()


@pytest.fixture
def new_place(there: Program) -> Iterator[Path]:
    """Return a directory that is not there yet, and unmount what a test mounts there."""
    path = there.directory / "deliveries of ours"
    yield path
    if is_mounted(path):
        there("umount", path)


def answers(origin: DemoOrigin, **more: str) -> dict[str, str]:
    """Return the answers that a user types at the prompts of `satfs login`."""
    account = origin.account
    return {
        "Client id": account.client_id,
        "Client secret (not shown)": account.client_secret,
        **more,
    }


@pytest.mark.mounts
def test_a_login_on_a_terminal_leads_to_the_first_mount(
    there: Program, origin: DemoOrigin, new_place: Path
) -> None:
    """The directory is made; without a user manager of systemd no service is offered."""
    program = without_service(there)
    code, shown = typed(program, answers(origin, **{"Mount it now?": str(new_place)}), "login")

    assert code == 0, shown
    assert is_mounted(new_place)
    assert list((new_place / "tasks").iterdir())
    assert "at each login" not in shown


def test_a_login_on_a_terminal_offers_the_service(there: Program, origin: DemoOrigin) -> None:
    """Where a user manager answers; it starts the mount."""
    manager = there.directory / "manager"
    manager.mkdir()
    systemctl = manager / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >> "{manager}/calls"\n')
    systemctl.chmod(0o755)
    path = f"{manager}:{os.environ['PATH']}"
    program = Program({**there.environment, "PATH": path}, there.directory)
    place = there.directory / "served"
    code, shown = typed(
        program,
        answers(origin, **{"Mount it now?": str(place), "Mount it at each login": "y"}),
        "login",
    )

    assert code == 0, shown
    assert "--user enable satfs-default.service" in (manager / "calls").read_text()
    assert place.is_dir()


def test_a_login_on_a_terminal_says_where_it_cannot_mount(
    there: Program, origin: DemoOrigin
) -> None:
    """The login is stored all the same."""
    code, shown = typed(
        without_service(there), answers(origin, **{"Mount it now?": "/dev/null/aleph"}), "login"
    )
    assert code == 5, shown
    assert "/dev/null/aleph: Not a directory" in shown
    assert there("whoami").returncode == 0


def without_service(program: Program) -> Program:
    """Return the program where systemctl finds no manager of the user."""
    directory = program.directory / "no-manager"
    directory.mkdir()
    systemctl = directory / "systemctl"
    systemctl.write_text("#!/bin/sh\nexit 1\n")
    systemctl.chmod(0o755)
    path = f"{directory}:{os.environ['PATH']}"
    return Program({**program.environment, "PATH": path}, program.directory)


def test_a_script_must_say_which_contract(satfs: Program, several: DemoOrigin) -> None:
    account = several.account
    there = led_to(satfs, several)
    text = f"{account.client_id}\n{account.client_secret}\n"

    unsaid = piped(there, text, "login")
    wrong = piped(there, text, "login", "--contract", "cont.third")
    said = piped(there, text, "login", "--contract", "cont.second")

    for done in (unsaid, wrong):
        assert done.returncode == 3
        assert "cont.first (Imagery 2026); cont.second (Emergency response)" in done.stderr
    assert "give --contract ID" in unsaid.stderr
    assert "'cont.third' is not one of this account" in wrong.stderr
    assert said.returncode == 0
    assert "acting for Emergency response" in said.stderr


def test_a_token_logs_in_as_well(there: Program, origin: DemoOrigin) -> None:
    token = origin.office.issue(origin.now_s())

    done = piped(there, f"Bearer {token}\n", "login", "--with-token")
    who = there("whoami", "--json")

    assert done.returncode == 0, done.stderr
    record = json.loads(who.stdout)
    assert (record["auth_mode"], record["source"]) == ("token", "secret_store")
    assert record["subject"] == "demo-client@clients"
    assert token not in done.stderr + who.stdout + who.stderr


def test_a_legacy_key_logs_in_as_well(satfs: Program, several: DemoOrigin) -> None:
    account = several.account
    there = led_to(satfs, several)
    text = f"{account.client_id}\n{account.client_secret}\n"

    done = piped(there, text, "login", "--auth-mode", "legacy")
    who = there("whoami")

    assert done.returncode == 0, done.stderr
    assert 'auth_mode = "legacy"' in (home(there) / "config.toml").read_text()
    assert "(legacy)" in who.stdout
    assert account.client_secret not in who.stdout


def test_nothing_is_kept_of_what_the_api_refuses(there: Program) -> None:
    done = piped(there, "demo-client\n5eedfeed-wrong\n", "login")

    assert done.returncode == 3
    assert "401" in done.stderr
    assert "5eedfeed-wrong" not in done.stderr
    assert not home(there).exists()


def test_nothing_is_kept_while_the_api_is_away(there: Program) -> None:
    done = piped(
        there, "demo-client\nsecret\n", "login", SATFS_AUTH_URL="http://127.0.0.1:9/oauth/token",
        SATFS_METADATA_DEADLINE_S="2",
    )  # fmt: skip

    assert done.returncode == 4
    assert not home(there).exists()


@pytest.mark.parametrize(
    ("text", "arguments", "sentence"),
    [
        ("", [], "no secret: type it at a terminal, pipe it in"),
        ("only-a-secret", [], "no client id: give --client-id ID"),
        ("a\nb\nc\n", [], "only two lines"),
        ('{"client_id": "5eedfeed"}', [], "holds no client_id and client_secret"),
        ('{"client_id": null, "client_secret": "5eedfeed"}', [], "holds no client_id"),
        ('{"client_id": "5eedfeed", "client_secret": 5}', [], "holds no client_id"),
        ("not a token", ["--with-token"], "the input is no token"),
        ("", ["--client-secret=5eedfeed"], "shown to everybody by ps"),
        ("", ["--token", "5eedfeed"], "shown to everybody by ps"),
        ("a\nb", ["--profile", "../x"], "profile (SATFS_PROFILE): must be a name"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    there: Program, text: str, arguments: list[str], sentence: str
) -> None:
    done = piped(there, text, "login", *arguments)

    assert done.returncode == 2
    assert sentence in done.stderr
    assert "5eedfeed" not in done.stderr
    assert not home(there).exists()


def test_comments_and_other_settings_stay(there: Program, origin: DemoOrigin) -> None:
    """Settings that would win over the login are removed from its table, with a remark."""
    account = origin.account
    home(there).mkdir(parents=True)
    config = home(there) / "config.toml"
    config.write_text(
        '# mine\nworkers = 0  # why\n\n[profiles.default]\ntoken_file = "t"\n'
        "listing_ttl_s = 30\n[profiles.other]\nworkers = 1\n"
    )
    config.chmod(0o600)

    done = piped(there, f"{account.client_id}\n{account.client_secret}\n", "login")
    there("logout")

    assert "token_file of profile default was removed" in done.stderr
    text = config.read_text()
    for kept in ("# mine\nworkers = 0  # why\n", "listing_ttl_s = 30", "[profiles.other]"):
        assert kept in text
    for gone in ("token_file", "client_id", "secret_store", "contract_id"):
        assert gone not in text
    assert stat.S_IMODE(config.stat().st_mode) == 0o600


# -- logout, whoami --------------------------------------------------------------------------------


def test_a_login_is_forgotten(there: Program, origin: DemoOrigin) -> None:
    account = origin.account
    piped(there, f"{account.client_id}\n{account.client_secret}\n", "login")

    out = there("logout", "--json")
    who = there("whoami")
    again = there("logout")

    assert (out.returncode, json.loads(out.stdout)) == (
        0,
        {"profile": "default", "forgotten": ["file"]},
    )
    assert os.listdir(home(there) / "secrets") == []
    assert who.returncode == 3
    assert "no login is stored (`satfs login`" in who.stderr
    assert again.returncode == 0
    assert "nothing was removed" in again.stderr


def test_a_secret_that_others_could_have_read_is_refused(
    there: Program, origin: DemoOrigin
) -> None:
    account = origin.account
    piped(there, f"{account.client_id}\n{account.client_secret}\n", "login")
    path = home(there) / "secrets" / "default.json"
    path.chmod(0o644)

    who = there("whoami")

    assert who.returncode == 3
    assert f"run: chmod 600 {path}" in who.stderr
    assert account.client_secret not in who.stderr


def test_whoami_tells_account_contract_and_life(aleph: Program, origin: DemoOrigin) -> None:
    done = aleph("whoami")

    lines = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    record = {label.strip(): value.strip() for label, value in lines.items()}
    assert done.returncode == 0
    assert record["account"] == "demo-client"
    assert record["contract"] == f"Imagery 2026 ({origin.account.contract_id})"
    assert record["logs in by"] == "a client secret that was set (oauth)"
    assert record["token"].startswith(("1 d left, until 20", "23 h 59 min left, until 20"))
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stderr == ""
    assert origin.account.client_secret not in done.stdout


def test_whoami_tells_what_is_wrong(aleph: Program, several: DemoOrigin) -> None:
    wrong = aleph("whoami", SATFS_CLIENT_SECRET="5eedfeed")
    urls = {"SATFS_API_URL": several.api_url, "SATFS_AUTH_URL": several.auth_url}
    unchosen = aleph("whoami", SATFS_CONTRACT_ID=None, **urls)
    unknown = aleph("whoami", "--profile", "nobody")

    assert (wrong.returncode, unchosen.returncode, unknown.returncode) == (3, 3, 2)
    assert "5eedfeed" not in wrong.stderr
    assert "cont.second" in unchosen.stderr
    assert "Error: profile nobody: config.toml knows none of that name" in unknown.stderr
    assert [done.stdout for done in (wrong, unchosen, unknown)] == ["", "", ""]


# -- config ----------------------------------------------------------------------------------------


def test_each_value_is_told_with_its_origin(satfs: Program, tmp_path: Path) -> None:
    home(satfs).mkdir(parents=True)
    (home(satfs) / "config.toml").write_text(
        'workers = 1\nwokers = 1\n[profiles.a]\nclient_id = "mine"\ntoken_command = "pass s3cret"\n'
    )
    (home(satfs) / "config.toml").chmod(0o600)
    (tmp_path / "system.toml").write_text("page_limit = 50\nworkers = 2\n")
    environment = {
        "SATFS_SYSTEM_CONFIG_FILE": str(tmp_path / "system.toml"),
        "SATFS_CONTENTS": "off",
        "SATFS_PROFILE": "a",
    }

    done = satfs("config", "show", "--origin", "--contract", "C", **environment)
    as_json = satfs("config", "show", "--json", **environment)

    lines = done.stdout.splitlines()
    assert done.returncode == 0
    for line in (
        "contract_id = C  # flag",
        "contents = off  # environment SATFS_CONTENTS",
        "profile = a  # environment SATFS_PROFILE",
        "client_id = mine  # user file ~/.config/satfs/config.toml [profiles.a]",
        "workers = 1  # user file ~/.config/satfs/config.toml",
        f"page_limit = 50  # system file {tmp_path}/system.toml",
        "range_bytes = 8388608  # default",
        "token_command = pass …  # user file ~/.config/satfs/config.toml [profiles.a]",
    ):
        assert line in lines
    assert "wokers is set, and is not a setting" in done.stderr
    record = json.loads(as_json.stdout)
    assert record["workers"]["value"] == 1
    assert record["workers"]["origin"] == "user file"
    assert "s3cret" not in done.stdout + as_json.stdout


def test_secrets_have_an_origin_and_are_not_shown(satfs: Program, tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "satfs.client_secret").write_text("5eedfeed")

    done = satfs("config", "show", "--origin", CREDENTIALS_DIRECTORY=str(tmp_path / "unit"))
    as_json = satfs("config", "show", "--json", SATFS_TOKEN="5eedfeed")

    line = "client_secret = (set, not shown)  # systemd credential satfs.client_secret"
    assert line in done.stdout.splitlines()
    assert json.loads(as_json.stdout)["token"]["value"] == "(set, not shown)"
    assert "5eedfeed" not in done.stdout + done.stderr + as_json.stdout


def test_profiles_are_listed(satfs: Program) -> None:
    none = satfs("config", "profiles")
    home(satfs).mkdir(parents=True)
    (home(satfs) / "config.toml").write_text(
        'profile = "b"\n[profiles.a]\nclient_id = "x"\n[profiles.b]\ncontract_id = "C"\n'
    )
    some = satfs("config", "profiles")
    as_json = satfs("config", "profiles", "--json")

    assert none.returncode == 0
    assert "`satfs login` makes one" in none.stderr
    rows = [line.split() for line in some.stdout.splitlines()]
    assert rows[1:] == [["a", "x", "-", "-"], ["*", "b", "-", "C", "-"]]
    assert [row["profile"] for row in json.loads(as_json.stdout) if row["is_chosen"]] == ["b"]
    assert satfs("config", "path").stdout == f"{home(satfs)}/config.toml\n"


def test_the_table_fits_a_terminal(satfs: Program) -> None:
    code, shown = typed(satfs, {}, "config", "show", "--origin")

    assert code == 0
    assert "client_secret" in shown
    plain = "".join(
        part if index == 0 else part.partition("m")[2]
        for index, part in enumerate(shown.split("\x1b["))
    )
    assert max(len(line) for line in plain.splitlines()) <= 80


def test_a_broken_file_is_told_by_every_command(satfs: Program) -> None:
    home(satfs).mkdir(parents=True)
    (home(satfs) / "config.toml").write_text("workers =\n")

    for arguments in (["config", "show"], ["whoami"], ["login"], ["mount", "x"], ["settings"]):
        done = satfs(*arguments)
        assert done.returncode == 2
        assert "config.toml is no TOML" in done.stderr


# -- while mounted ---------------------------------------------------------------------------------


@pytest.mark.mounts
@pytest.mark.slow
def test_a_token_that_is_rotated_while_mounted_is_used(
    there: Program, place: Path, tmp_path: Path
) -> None:
    """A token file that is replaced while mounted is used; a refusal of the old one fails no call.

    And no line of the log holds either.
    """
    with DemoOrigin() as origin:
        first, path, log = origin.office.issue(origin.now_s()), tmp_path / "token", tmp_path / "log"
        path.write_text(first)
        path.chmod(0o600)
        program = led_to(there, origin)
        tuned = "listing_ttl_s=0,entry_timeout_s=0.1,metadata_deadline_s=3"
        options = ("-v", "--log-file", log, "-o", tuned)
        done = program("mount", *options, place, SATFS_TOKEN_FILE=str(path))
        assert done.returncode == 0, done.stderr
        before = os.listdir(place / "tasks")
        tasks = [name for name in before if name.isdecimal()]

        origin.revoke_tokens()
        second = origin.office.issue(origin.now_s())
        path.with_suffix(".new").write_text(second)
        path.with_suffix(".new").chmod(0o600)
        path.with_suffix(".new").rename(path)
        assert os.listdir(place / "tasks") == before
        task = place / "tasks" / tasks[0]
        assert os.listdir(task)

        # A token that is not accepted any more is an error, until the next one is there.
        origin.revoke_tokens()
        other = place / "tasks" / tasks[-1]
        assert not can_list(other)
        path.write_text(origin.office.issue(origin.now_s()))
        wait_until(lambda: can_list(other), timeout_s=20)

        assert is_mounted(place)
        text = log.read_text() + done.stderr
        for token in origin.office.given_out:
            assert token not in text
        assert origin.leaks == []
        program("umount", place)


def test_a_token_file_inside_the_mount_is_refused(there: Program, place: Path) -> None:
    """A mount that needs itself to log in waits for itself."""
    done = there("mount", place, SATFS_TOKEN_FILE=str(place / "token"))

    assert done.returncode == 2
    assert "token_file is inside the mountpoint" in done.stderr


def can_list(directory: Path) -> bool:
    """Return whether *directory* can be listed."""
    try:
        os.listdir(directory)
    except OSError:
        return False
    return True


@pytest.mark.mounts
def test_a_command_gives_the_mount_its_token(
    there: Program, origin: DemoOrigin, place: Path, tmp_path: Path
) -> None:
    token = origin.office.issue(origin.now_s())
    (tmp_path / "secret").write_text(token)
    log = tmp_path / "log"

    done = there(
        "mount", "-vv", "--log-file", log, place, SATFS_TOKEN_COMMAND=f"cat {tmp_path / 'secret'}"
    )
    (tmp_path / "other").mkdir()
    broken = there("mount", tmp_path / "other", SATFS_TOKEN_COMMAND="cat /nowhere/token")

    assert done.returncode == 0, done.stderr
    assert os.listdir(place / "tasks")
    assert token not in log.read_text() + done.stderr
    assert broken.returncode == 3
    assert "token_command cat failed with exit code 1; run it by hand" in broken.stderr
