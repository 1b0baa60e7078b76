"""`satfs doctor` as people run it: on a machine with faults, a broken network, dead mounts.

Faults of the vendor and of the account are found without a process: `tests/doctor`.
"""

from __future__ import annotations

import functools
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from cli.conftest import Program, is_fuse_for_others, mount_processes
from fakes.processes import wait_until

from satfs.cli.exit_codes import Exit
from satfs.demo.server import DemoOrigin

#: The promised time limit, in seconds.
PROMISED_S: Final = 30

#: Runs a command where no mount of satfs is to be seen but those at the places named first: other
#: tests mount things at the same time. A namespace of mounts is taken down with its last process.
_ALONE: Final = """
kept=" $1 "; shift
while read -r _ _ _ _ place _ rest; do
    case "$rest" in *"- fuse.satfs "*)
        case "$kept" in *" $place "*) ;; *) umount -l "$(printf %b "$place")" ;; esac ;;
    esac
done < /proc/self/mountinfo
exec "$@"
"""


@dataclass(frozen=True)
class Alone(Program):
    """The program, on a machine that has no mounts of satfs but the one at *kept*."""

    kept: str = ""

    def command(self, *arguments: object) -> list[str]:
        command = super().command(*arguments)
        if not _may_unshare():
            return command
        return ["unshare", "-m", "sh", "-c", _ALONE, "sh", self.kept, *command]

    def seen_mounts(self) -> list[str] | None:
        return self.kept.split() if _may_unshare() else None


@functools.cache
def _may_unshare() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


needs_root = pytest.mark.skipif(not _may_unshare(), reason="only root makes another machine of it")


@pytest.fixture
def doctor(aleph: Program, tmp_path: Path) -> Alone:
    """Return the program with the settings of an account, alone, without leftovers of others."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    changes = {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(tmp_path)}
    return Alone({**aleph.environment, **changes}, aleph.directory)


@pytest.fixture(autouse=True)
def mended(origin: DemoOrigin) -> Iterator[None]:
    """Leave the vendor to the next test as it was."""
    yield
    origin.faults.clear()
    origin.resume_listening()
    origin.advance_clock(time.time() - origin.now_s())


@dataclass(frozen=True)
class Report:
    """The program's output for a script."""

    code: int
    record: dict[str, Any]
    took_s: float

    def severity(self, check: str) -> str:
        """Return the highest severity of the findings under a name."""
        order = ["ok", "note", "warning", "failure"]
        found = [each["severity"] for each in self.record["findings"] if each["check"] == check]
        return max(found, key=order.index, default="nothing")

    def finding(self, check: str) -> dict[str, Any]:
        """Return the most severe finding under a name."""
        severity = self.severity(check)
        return next(
            each
            for each in self.record["findings"]
            if (each["check"], each["severity"]) == (check, severity)
        )


def query(program: Program, *arguments: object, **environment: str | None) -> Report:
    """Run it for a script, in time; its output agrees with the exit code."""
    began_s = time.monotonic()
    done = program("doctor", "--json", *arguments, **environment)
    took_s = time.monotonic() - began_s
    record = json.loads(done.stdout)
    assert record["exit_code"] == done.returncode
    assert done.stderr == ""
    assert took_s < PROMISED_S
    return Report(done.returncode, record, took_s)


# -- all is well -----------------------------------------------------------------------------------


@needs_root
def test_where_all_is_well_it_ends_with_success(doctor: Program) -> None:
    report = query(doctor)

    assert report.code == Exit.DONE, report.record
    assert {each["severity"] for each in report.record["findings"]} <= {"ok", "note"}
    assert {"fuse-device", "clock", "credential", "contract", "store-connection"} <= {
        each["check"] for each in report.record["findings"]
    }


def test_people_read_it_in_eighty_columns(doctor: Program) -> None:
    """Only commands are longer, which are to be copied whole, and a path alone on its line."""
    done = doctor("doctor", SATFS_CONTRACT_ID="cont.nobody")

    lines = done.stdout.splitlines()
    assert {"FUSE", "Network", "Account"} <= set(lines)
    wide = [line for line in lines if len(line) > 80 and not line.startswith(" " * 13)]
    assert [line for line in wide if len(line.split()) > 2] == []
    assert "\x1b" not in done.stdout
    assert re.fullmatch(r"\d+ failures?, .*\d+ ok\.", lines[-1])


def test_quietly_only_what_is_not_as_it_should_be_is_told(
    doctor: Program, origin: DemoOrigin
) -> None:
    origin.advance_clock(-7200)

    done = doctor("doctor", "-q")

    assert "The clock is 2 hours ahead of the API's." in done.stdout
    assert not re.search(r"^  ok ", done.stdout, re.MULTILINE)
    assert "Settings" not in done.stdout.splitlines()


def test_whoever_has_seen_enough_may_go(doctor: Program) -> None:
    """`satfs doctor | head -n 1`: no traceback follows."""
    command = shlex.join(doctor.command("doctor"))

    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1"],
        env=doctor.environ(),
        capture_output=True,
        text=True,
        timeout=PROMISED_S,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("Settings\n", "")


def test_ctrl_c_ends_it_at_once(doctor: Program, black_hole: str) -> None:
    process = doctor.start("doctor", SATFS_API_URL=black_hole, SATFS_AUTH_URL=f"{black_hole}/t")
    assert process.stdout is not None
    while "No proxy is used" not in process.stdout.readline():
        pass
    began_s = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=PROMISED_S)

    assert process.returncode == Exit.INTERRUPTED
    assert "Traceback" not in said
    assert time.monotonic() - began_s < 3


def test_a_terminal_gets_colours_and_the_same_words(doctor: Program) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {**doctor.environ(), "TERM": "xterm-256color"}
        command = doctor.command("doctor")
        os.execvpe(command[0], command, environment)
    said = b""
    while chunk := _read(terminal):
        said += chunk
    os.waitpid(pid, 0)
    os.close(terminal)

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    assert "\x1b[" in said.decode()
    assert "The clock agrees with the API's." in text
    assert re.search(r"\d+ ok\.", text)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: the other side has ended
        return b""


def test_nothing_is_changed(doctor: Program, tmp_path: Path, origin: DemoOrigin) -> None:
    """No file is made, no mount, no request that writes; and no credential goes astray."""
    before = sorted(path for path in tmp_path.rglob("*"))
    origin.journal.clear()

    query(doctor, tmp_path / "home")

    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert origin.journal.wait_until_idle()
    assert {each.method for each in origin.requests if each.endpoint != "token"} == {"GET"}
    assert origin.leaks == []
    assert origin.bytes_sent() <= 1


@pytest.mark.parametrize("arguments", [(), ("--json",), ("-vv",)])
@pytest.mark.parametrize("secret", [None, "not-the-right-secret-5ec2e7"])
def test_no_secret_is_ever_shown(
    doctor: Program, origin: DemoOrigin, arguments: tuple[str, ...], secret: str | None
) -> None:
    """Not the credential's, not the token, nothing of the link."""
    secret = secret or origin.account.client_secret

    done = doctor("doctor", *arguments, SATFS_CLIENT_SECRET=secret)

    said = done.stdout + done.stderr
    assert secret not in said
    assert not re.search(r"X-Amz|Signature|eyJ|delivery\.zip|Bearer \w", said)


def report_to_user(doctor: Alone, uid: int, environment: dict[str, str]) -> Report:
    """Return what the doctor finds as another user, without its groups and rights."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing")
    command = doctor.command("doctor", "--json")
    n = command.index(Program.command(doctor)[0])
    as_user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    done = subprocess.run(
        [*command[:n], *as_user, *command[n:]],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=PROMISED_S,
        check=False,
    )
    if done.returncode == 126 or "Permission denied" in done.stderr:
        pytest.skip("the program lies where nobody else may read it")
    return Report(done.returncode, json.loads(done.stdout), 0)


@needs_root
def test_an_ordinary_user_needs_no_rights(doctor: Alone) -> None:
    """A user without home and cache, who may read little of the machine."""
    environment = {**doctor.environ(HOME="/nonexistent", SATFS_CACHE_DIR=None), "TMPDIR": "/tmp"}
    report = report_to_user(doctor, 65534, environment)
    assert report.severity("credential") == "ok"
    assert report.severity("cache-directory") == "warning"
    assert "memory only" in report.finding("cache-directory")["means"]


@needs_root
def test_a_user_without_a_home_is_told(doctor: Alone) -> None:
    """Containers run programs as users that /etc/passwd does not have."""
    environment = doctor.environ(HOME=None, SATFS_CACHE_DIR=None, XDG_RUNTIME_DIR=None)
    report = report_to_user(doctor, 54321, environment)
    code = Exit.WARNINGS if is_fuse_for_others() else Exit.FUSE
    assert (report.code, report.severity("settings")) == (code, "ok")
    found = report.finding("cache-directory")
    assert found["severity"] == "warning"
    assert "/.cache/satfs" in found["says"]
    assert "memory only" in found["means"]


# -- the account -----------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize(
    ("changes", "check", "code"),
    [
        ({"SATFS_CLIENT_SECRET": "nonsense"}, "credential", Exit.CREDENTIALS),
        ({"SATFS_WORKERS": "many"}, "settings", Exit.USAGE),
        ({"SATFS_CA_FILE": "/nowhere.pem"}, "authorities", Exit.USAGE),
    ],
)
def test_what_is_set_wrongly_is_told_with_a_code_of_its_own(
    doctor: Program, changes: dict[str, str | None], check: str, code: Exit
) -> None:
    """The code that a mount would end with."""
    report = query(doctor, **changes)

    assert (report.severity(check), report.code) == ("failure", code), report.record
    assert report.finding(check)["commands"]


def test_a_profile_is_looked_at_with_its_own_account(
    doctor: Program, origin: DemoOrigin, tmp_path: Path
) -> None:
    """And the environment's credential, which would win over a file, is not there."""
    file = tmp_path / "home/.config/satfs/config.toml"
    file.parent.mkdir(parents=True)
    file.touch(mode=0o600)
    file.write_text(
        f'api_url = "{origin.api_url}"\nauth_url = "{origin.auth_url}"\n'
        f'[profiles.harbour]\nclient_id = "{origin.account.client_id}"\n'
        f'client_secret = "{origin.account.client_secret}"\n'
        '[profiles.nobody]\nclient_id = "nobody"\nclient_secret = "nonsense"\n',
        encoding="utf-8",
    )
    unset = dict.fromkeys((name for name in origin.environment()), None)

    harbour = query(doctor, "--profile", "harbour", **unset)
    nobody = query(doctor, **unset, SATFS_PROFILE="nobody")

    assert harbour.severity("credential") == harbour.severity("contract") == "ok"
    assert "harbour" in harbour.finding("settings")["says"]
    assert nobody.severity("credential") == "failure"


def test_a_profile_that_is_nowhere_is_told(doctor: Program) -> None:
    report = query(doctor, "--profile", "harbour")

    assert report.severity("settings") == "failure"


def test_a_misspelt_variable_is_noted(doctor: Program) -> None:
    report = query(doctor, SATFS_CACHE_BITES="1")

    assert "SATFS_CACHE_BITES" in report.finding("settings")["says"]


# -- the network -----------------------------------------------------------------------------------


@pytest.fixture
def black_hole() -> Iterator[str]:
    """Return an address that takes connections and never says a word, nor shakes hands."""
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        yield f"https://127.0.0.1:{silent.getsockname()[1]}"


@needs_root
def test_a_network_that_swallows_everything_is_told_in_time(
    doctor: Program, black_hole: str
) -> None:
    report = query(doctor, SATFS_API_URL=black_hole, SATFS_AUTH_URL=f"{black_hole}/oauth/token")

    assert report.code == Exit.NETWORK
    assert "did not answer" in report.finding("api-connection")["says"]
    assert "did not answer" in report.finding("auth-connection")["says"]


#: Another machine: its only network is itself, and its DNS server never answers. A look-up waits a
#: minute for it (resolv.conf(5)).
_SILENT_DNS: Final = """
import fcntl, os, socket, struct, subprocess, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:  # netdevice(7): lo, IFF_UP
    fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 1))
with open(sys.argv[1], "w") as file:
    file.write("nameserver 127.0.0.1\\noptions timeout:30\\n")
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 53))
sys.exit(subprocess.run(sys.argv[2:]).returncode)
"""


@needs_root
def test_dns_that_never_answers_is_told_in_time(doctor: Alone, tmp_path: Path) -> None:
    """The network is gone, and names time out: the program ends all the same."""
    if subprocess.run(["unshare", "-mn", "true"], capture_output=True).returncode != 0:
        pytest.skip("no network of its own can be made here")
    machine = [sys.executable, "-c", _SILENT_DNS, str(tmp_path / "resolv.conf")]

    done = subprocess.run(
        ["unshare", "-mn", *machine, *doctor.command("doctor", "--json")],
        env=doctor.environ(SATFS_API_URL="https://api.test", SATFS_AUTH_URL="https://auth.test/t"),
        capture_output=True,
        text=True,
        timeout=PROMISED_S,
        check=False,
    )

    report = Report(done.returncode, json.loads(done.stdout), 0)
    assert "No DNS server resolves api.test" in report.finding("api-dns")["says"]
    assert report.code == Exit.NETWORK


@needs_root
def test_an_authority_that_nobody_knows_is_told_and_the_remedy_mends_it(
    doctor: Program, tmp_path: Path
) -> None:
    """As behind a company's proxy that looks into TLS."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "company.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    with DemoOrigin(tls=context) as secured:
        refused = query(doctor, **secured.environment())
        pem = {"SATFS_CA_FILE": str(tmp_path / "company.pem")}
        mended = query(doctor, **secured.environment(), **pem)

    assert refused.code == Exit.NETWORK
    assert "CERTIFICATE_VERIFY_FAILED" in refused.finding("api-connection")["means"]
    assert refused.finding("api-connection")["commands"][0].startswith("export SATFS_CA_FILE=")
    assert mended.code == Exit.DONE, mended.record


def test_a_proxy_that_satfs_cannot_use_is_told(doctor: Program) -> None:
    report = query(doctor, SATFS_API_URL="https://api.test", https_proxy="socks5://127.0.0.1:1080")

    assert report.severity("proxy") == "failure"


# -- mounts ----------------------------------------------------------------------------------------


@pytest.mark.mounts
def test_a_mount_that_answers_is_fine(aleph: Program, doctor: Alone, place: Path) -> None:
    assert aleph("mount", place).returncode == 0

    report = query(replace(doctor, kept=str(place)), place)

    found = [each for each in report.record["findings"] if each["check"] == "mounts"]
    (ours,) = [each for each in found if each["says"].startswith(f"{place} answers")]
    assert ours["severity"] == "ok"


@needs_root
@pytest.mark.mounts
def test_a_dead_mount_is_told_and_the_remedy_removes_it(
    aleph: Program, doctor: Alone, place: Path
) -> None:
    """A killed process leaves “Transport endpoint is not connected”."""
    assert aleph("mount", place).returncode == 0
    for pid in mount_processes(place):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not mount_processes(place))

    dead = query(replace(doctor, kept=str(place)))
    assert dead.code == Exit.MOUNTPOINT
    assert dead.finding("mounts")["commands"] == [f"satfs umount {place}"]

    assert aleph("umount", place).returncode == 0
    assert query(replace(doctor, kept=str(place)), place).code == Exit.DONE


@needs_root
@pytest.mark.mounts
def test_a_mount_that_is_stuck_keeps_nobody(aleph: Program, doctor: Alone, place: Path) -> None:
    """A process that looks into it cannot even be killed; the program ends all the same."""
    assert aleph("mount", place).returncode == 0
    (pid,) = mount_processes(place)
    os.kill(pid, signal.SIGSTOP)
    try:
        report = query(replace(doctor, kept=str(place)), place)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert report.code == Exit.MOUNTPOINT
    assert report.finding("mounts")["says"] == f"{place} does not answer."


@pytest.mark.parametrize(
    ("prepare", "severity"),
    [
        (lambda path: path.mkdir(), "ok"),
        (lambda path: None, "failure"),
    ],
)
def test_a_directory_to_mount_on_is_looked_at(
    doctor: Program, tmp_path: Path, prepare: Callable[[Path], object], severity: str
) -> None:
    prepare(tmp_path / "mnt")

    assert query(doctor, "mnt").severity("mountpoint") == severity


# -- the machine -----------------------------------------------------------------------------------


def on_a_machine_with(doctor: Alone, setup: str) -> Report:
    """Return the output on a system whose files *setup*, a shell's words, has changed."""
    command = doctor.command("doctor", "--json")
    began_s = time.monotonic()
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", f'{setup}\nexec "$@"', "sh", *command],
        env=doctor.environ(),
        cwd=doctor.directory,
        capture_output=True,
        text=True,
        timeout=PROMISED_S,
        check=False,
    )
    assert done.stdout, done.stderr
    return Report(done.returncode, json.loads(done.stdout), time.monotonic() - began_s)


@needs_root
def test_a_machine_without_the_fuse_device_is_told(doctor: Alone) -> None:
    report = on_a_machine_with(doctor, "mount -t tmpfs none /dev")

    assert (report.severity("fuse-device"), report.code) == ("failure", Exit.FUSE)


@needs_root
def test_updatedb_that_would_walk_the_mounts_is_told(doctor: Alone) -> None:
    setup = """cp -r /etc .etc && mount --bind .etc /etc
        echo 'PRUNEFS="nfs fuse.sshfs"' > /etc/updatedb.conf"""

    assert on_a_machine_with(doctor, setup).severity("updatedb") == "note"


@needs_root
def test_a_disk_that_is_full_is_told(doctor: Alone, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    setup = f"""mkdir -m 700 {cache}; mount -t tmpfs -o size=2m,mode=700 none {cache}
        head -c 2000000 /dev/zero > {cache}/filler || true"""

    report = on_a_machine_with(doctor, setup)

    assert (report.severity("cache-space"), report.code) == ("warning", Exit.WARNINGS), (
        report.record
    )


def test_it_works_without_the_fuse_library(doctor: Program, tmp_path: Path) -> None:
    """That is one of the faults it is used for."""
    (tmp_path / "pyfuse3.py").write_text("raise ImportError('libfuse3.so.3: cannot open')\n")

    report = query(doctor, PYTHONPATH=str(tmp_path))

    assert "libfuse3.so.3" in report.finding("fuse-library")["says"]
    assert report.severity("credential") == "ok"
