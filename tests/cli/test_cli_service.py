"""`satfs service`, with a systemctl that listens; and a mount under a manager that does."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cli.conftest import Program, is_mounted, mount_processes
from fakes.processes import is_running, wait_until
from hypothesis import assume, given
from hypothesis import strategies as st

from satfs.cli.install_helper import writable_by_others
from satfs.cli.systemd import MARK, Unit, quoted_command, read_unit, unit_name, unit_text
from satfs.errors import BadSettings

text = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=20
)

# -- the unit --------------------------------------------------------------------------------------


def split_as_systemd(line: str) -> list[str]:
    """Return the words of a command line as systemd.service(5) and systemd.syntax(7) say."""
    words: list[str] = []
    at = 0
    while at < len(line):
        if line[at] == " ":
            at += 1
            continue
        word, is_quoted = "", line[at] == '"'
        at += is_quoted
        while at < len(line) and line[at] != ('"' if is_quoted else " "):
            if line[at] == "\\":
                at += 1
            word += line[at]
            at += 1
        at += is_quoted
        word = word.replace("%%", "%")
        words.append(word.replace("$$", "$") if words else word)
    return words


@given(st.lists(text, min_size=1))
def test_systemd_reads_each_word_as_it_is(words: list[str]) -> None:
    """No space, quote, backslash, `%` or `$` in a path or an option means anything."""
    assert split_as_systemd(quoted_command(words)) == words


@given(text, text)
def test_two_profiles_never_share_a_unit(one: str, other: str) -> None:
    assume(one != other)

    assert unit_name(one) != unit_name(other)


@given(text)
def test_any_profile_makes_a_name_that_systemd_takes(profile: str) -> None:
    assert re.fullmatch(r"satfs-[A-Za-z0-9:_.\\-]+\.service", unit_name(profile))


@given(text, text)
def test_a_unit_can_be_read_again(profile: str, name: str) -> None:
    unit = Unit(profile, Path("/mnt") / name)

    assert read_unit(unit_text(unit, ["/usr/bin/satfs"], ["uid=3"])) == unit


@pytest.mark.parametrize(
    "foreign", ["", "[Service]\nExecStart=/bin/true\n", MARK, f"{MARK}\n[X-satfs]\nProfile=3\n"]
)
def test_what_is_not_ours_is_not_read(foreign: str) -> None:
    assert read_unit(foreign) is None


@pytest.mark.parametrize("profile", ["default", "a b%i$HOME\\"])
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, profile: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "satfs"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = Unit(profile, Path('/mnt/my "aleph" 100%\\'))
    file = tmp_path / "satfs-test.service"
    file.write_text(unit_text(unit, [str(program)], ["uid=3,contents=hidden"]))

    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", str(file)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert [line for line in done.stderr.splitlines() if "satfs-test" in line] == []
    assert "failed" not in done.stderr.lower(), done.stderr


# -- the commands ----------------------------------------------------------------------------------


class Systemctl:
    """A stand-in for systemctl(1) that records its calls, and responds as configured."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.query("exit 0")

    def query(self, script: str) -> None:
        program = self.directory / "systemctl"
        program.write_text(f'#!/bin/sh\necho "$*" >> {self.directory}/asked\n{script}\n')
        program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        file = self.directory / "asked"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def systemctl(tmp_path: Path) -> Systemctl:
    """Return a manager that answers."""
    (tmp_path / "bin").mkdir()
    return Systemctl(tmp_path / "bin")


@pytest.fixture
def managed(satfs: Program, systemctl: Systemctl) -> Program:
    """Return the program where systemd's user manager answers."""
    path = f"{systemctl.directory}:{os.environ['PATH']}"
    return Program({**satfs.environment, "PATH": path}, satfs.directory)


@pytest.fixture
def alone(satfs: Program, systemctl: Systemctl) -> Program:
    """Return the program where no manager answers, as in a container."""
    systemctl.query("echo Failed to connect to bus >&2; exit 1")
    path = f"{systemctl.directory}:{os.environ['PATH']}"
    return Program({**satfs.environment, "PATH": path}, satfs.directory)


def unit_file(program: Program, profile: str = "default") -> Path:
    home = Path(program.environment["HOME"])
    return home / ".config" / "systemd" / "user" / unit_name(profile)


def test_a_service_is_installed_enabled_and_started(
    managed: Program, systemctl: Systemctl, tmp_path: Path
) -> None:
    done = managed("service", "install", "default", tmp_path / "my aleph", "-o", "contents=hidden")

    assert done.returncode == 0, done.stderr
    unit = unit_file(managed).read_text()
    assert read_unit(unit) == Unit("default", tmp_path / "my aleph")
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    program = str(Path(sys.executable).with_name("satfs"))
    assert split_as_systemd(command) == [
        *(program, "mount", "--foreground", "--profile", "default"),
        *("-o", "contents=hidden", "--", str(tmp_path / "my aleph")),
    ]
    assert {"Type=notify", "NotifyAccess=main", "Restart=on-failure"} <= set(unit.splitlines())
    assert (tmp_path / "my aleph").is_dir()
    assert systemctl.asked == [
        "--user show-environment",
        "--user daemon-reload",
        "--user enable satfs-default.service",
        "--user restart satfs-default.service",
    ]


def test_without_a_manager_the_unit_is_written_and_the_rest_is_told(
    alone: Program, tmp_path: Path
) -> None:
    done = alone("service", "install", "default", tmp_path / "aleph")

    assert done.returncode == 0
    assert unit_file(alone).exists()
    assert "systemctl --user enable --now satfs-default.service" in done.stderr


def test_a_service_is_only_written_when_told_so(
    managed: Program, systemctl: Systemctl, tmp_path: Path
) -> None:
    done = managed("service", "install", "--no-start", "default", tmp_path / "aleph")

    assert done.returncode == 0
    assert systemctl.asked == ["--user show-environment"]
    assert "systemctl --user enable --now satfs-default.service" in done.stderr


def test_installed_again_a_service_is_replaced(alone: Program, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert alone("service", "install", "default", tmp_path / name).returncode == 0

    assert read_unit(unit_file(alone).read_text()) == Unit("default", tmp_path / "two")
    assert [path.name for path in unit_file(alone).parent.iterdir()] == ["satfs-default.service"]


def test_a_unit_that_somebody_else_wrote_is_left_alone(alone: Program, tmp_path: Path) -> None:
    unit_file(alone).parent.mkdir(parents=True)
    unit_file(alone).write_text("[Service]\nExecStart=/bin/true\n")

    installed = alone("service", "install", "default", tmp_path / "aleph")
    removed = alone("service", "remove", "default")

    assert (installed.returncode, removed.returncode) == (2, 2)
    assert "is not ours" in installed.stderr
    assert unit_file(alone).read_text() == "[Service]\nExecStart=/bin/true\n"


def test_a_profile_that_is_none_gets_no_service(alone: Program, tmp_path: Path) -> None:
    done = alone("service", "install", "harbuor", tmp_path / "aleph")

    assert done.returncode == 2
    assert not unit_file(alone, "harbuor").exists()
    assert not (tmp_path / "aleph").exists()


@pytest.mark.parametrize(
    ("options", "said"), [("rw", "read-only"), ("token=5eed", "SATFS_TOKEN"), ("x=1", "-o x")]
)
def test_options_are_judged_before_anything_is_written(
    alone: Program, tmp_path: Path, options: str, said: str
) -> None:
    done = alone("service", "install", "-o", options, "default", tmp_path / "aleph")

    assert done.returncode == 2
    assert said in done.stderr
    assert "5eed" not in done.stderr
    assert not unit_file(alone).exists()


def test_a_mountpoint_that_no_unit_can_hold_is_refused(alone: Program, tmp_path: Path) -> None:
    done = alone("service", "install", "default", tmp_path / "a\nExecStart=")

    assert done.returncode == 5
    assert "control characters" in done.stderr


@pytest.mark.parametrize(
    "option", ["fsname=x\nExecStartPre=/bin/evil", "fsname=x\r", "fsname=\x1b"]
)
def test_an_option_begins_no_directive(alone: Program, tmp_path: Path, option: str) -> None:
    done = alone("service", "install", "-o", option, "default", tmp_path / "aleph")

    assert done.returncode == 2
    assert "control character" in done.stderr
    assert not unit_file(alone).exists()
    assert not (tmp_path / "aleph").exists()


@given(st.text(max_size=30))
def test_no_word_of_a_unit_begins_a_line(word: str) -> None:
    """For any name of a profile, option or mountpoint: as many lines, or it is refused."""
    plain = unit_text(Unit("p", Path("/m")), ["/bin/satfs"], ["x"])
    try:
        text = unit_text(Unit(word, Path("/m", word)), ["/bin/satfs"], [word])
    except (BadSettings, ValueError):
        return
    assert len(text.split("\n")) == len(plain.split("\n"))


def test_a_unit_limits_what_the_mount_leaves_behind() -> None:
    """Enough descriptors, files for their owner, no memory on disk; and what fusermount3 needs."""
    text = unit_text(Unit("p", Path("/m")), ["/bin/satfs"])
    assert {"LimitNOFILE=65536", "UMask=0077", "LimitCORE=0"} <= set(text.splitlines())
    assert not re.search("^(NoNewPrivileges|Private|Protect|System|Restrict)", text, re.MULTILINE)


def test_variables_of_the_shell_are_remarked_on(alone: Program, tmp_path: Path) -> None:
    """They are how most people begin, and the service has none of them."""
    done = alone("service", "install", "default", tmp_path / "aleph", SATFS_TOKEN="5eedfeed")

    assert done.returncode == 0
    assert "does not see SATFS_TOKEN of this shell" in done.stderr
    assert "5eedfeed" not in done.stderr + unit_file(alone).read_text()


def test_systemds_own_words_are_told(
    managed: Program, systemctl: Systemctl, tmp_path: Path
) -> None:
    systemctl.query('case "$*" in *restart*) echo "Job failed." >&2; exit 1;; esac')

    done = managed("service", "install", "default", tmp_path / "aleph")

    assert done.returncode == 2
    assert "systemctl --user restart satfs-default.service failed: Job failed." in done.stderr
    assert "journalctl" in done.stderr


def test_a_service_is_removed_and_stopped(
    managed: Program, systemctl: Systemctl, tmp_path: Path
) -> None:
    managed("service", "install", "default", tmp_path / "aleph")
    already = len(systemctl.asked)

    done = managed("service", "remove", "default")
    again = managed("service", "remove", "default")

    assert done.returncode == 0
    assert not unit_file(managed).exists()
    assert systemctl.asked[already:] == [
        "--user show-environment",
        "--user disable --now satfs-default.service",
        "--user daemon-reload",
    ]
    assert again.returncode == 2
    assert "there is no service for the profile default" in again.stderr


def test_how_services_are_doing_is_shown(
    managed: Program, systemctl: Systemctl, tmp_path: Path
) -> None:
    managed("service", "install", "default", tmp_path / "aleph")
    systemctl.query(
        'case "$*" in *show\\ -p*) echo ActiveState=active; echo UnitFileState=enabled; '
        'echo "StatusText=satfs:default at /x";; esac'
    )

    shown = managed("service", "status")
    asked = managed("service", "status", "--json", "default")

    assert (shown.returncode, asked.returncode) == (0, 0)
    assert "active: satfs:default at /x" in shown.stdout
    assert len(shown.stdout.splitlines()) == 2, "in a pipe a row is a line"
    assert json.loads(asked.stdout) == [
        {
            "profile": "default",
            "mountpoint": str(tmp_path / "aleph"),
            "unit": "satfs-default.service",
            "file": str(unit_file(managed)),
            "is_mounted": False,
            "active": "active",
            "enabled": "enabled",
            "status": "satfs:default at /x",
        }
    ]


def test_without_services_there_is_nothing_to_show(alone: Program) -> None:
    none = alone("service", "status")
    empty = alone("service", "status", "--json")
    missing = alone("service", "status", "default")

    assert (none.returncode, empty.returncode, missing.returncode) == (0, 0, 2)
    assert "satfs service install" in none.stderr
    assert json.loads(empty.stdout) == []
    assert "satfs service install" in missing.stderr


# -- the program of mount(8) -----------------------------------------------------------------------


def test_the_program_of_mount_is_linked_and_unlinked(satfs: Program, tmp_path: Path) -> None:
    """Twice is as good as once; what is not ours stays."""
    for _ in range(2):
        done = satfs("service", "install-helper", "--directory", tmp_path)
        assert done.returncode == 0, done.stderr
    program = Path(sys.executable).with_name("mount.satfs")
    for name in ("mount.satfs", "mount.fuse.satfs"):
        assert Path(os.readlink(tmp_path / name)) == program

    assert satfs("service", "remove-helper", "--directory", tmp_path).returncode == 0
    assert not os.path.lexists(tmp_path / "mount.satfs")

    (tmp_path / "mount.satfs").write_text("#!/bin/sh\n")
    refused = satfs("service", "install-helper", "--directory", tmp_path)
    satfs("service", "remove-helper", "--directory", tmp_path)
    assert refused.returncode == 2
    assert "is not ours" in refused.stderr
    assert (tmp_path / "mount.satfs").read_text() == "#!/bin/sh\n"


def test_where_nothing_can_be_linked_is_told(satfs: Program, tmp_path: Path) -> None:
    done = satfs("service", "install-helper", "--directory", tmp_path / "nowhere")

    assert done.returncode == 2
    assert "mount.satfs cannot be changed: No such file or directory" in done.stderr


def test_a_program_that_others_can_change_is_noticed(tmp_path: Path) -> None:
    """Root's mount would run what they wrote."""
    if os.geteuid() != 0:
        pytest.skip("only root has files of root's")
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "mount.satfs"
    program.touch(mode=0o755)
    before = set(writable_by_others(program))

    directory.chmod(0o777)
    assert set(writable_by_others(program)) - before == {directory}
    directory.chmod(0o1777)
    assert set(writable_by_others(program)) == before
    os.chown(program, 1000, 1000)
    assert set(writable_by_others(program)) - before == {program}


# -- a mount under a service manager ---------------------------------------------------------------


class Manager:
    """A service manager's socket, and what was said to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(0.05)

    def times(self, line: str) -> int:
        """Return how often *line* was said by now."""
        try:
            while True:
                self.said += self.socket.recv(65536).decode().split("\n")
        except TimeoutError:
            return self.said.count(line)

    def has_heard(self, line: str) -> bool:
        """Return whether *line* was said by now."""
        return self.times(line) > 0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Return a manager that listens."""
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.socket.close()


def start(
    program: Program, manager: Manager, *arguments: object, **environment: str
) -> subprocess.Popen[str]:
    """Start a mount as a service: with the manager's socket, standard error to the journal."""
    ours, theirs = socket.socketpair()
    status = os.fstat(theirs.fileno())
    process = subprocess.Popen(
        program.command("mount", "--foreground", *arguments),
        env=program.environ(
            NOTIFY_SOCKET=str(manager.path),
            WATCHDOG_USEC="1000000",
            JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}",
            **environment,
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs.fileno(),
        text=True,
    )
    theirs.close()
    process.stderr = ours.makefile("r")
    ours.close()
    return process


def end(process: subprocess.Popen[str]) -> list[str]:
    """End the service as systemd does, and return the lines of its journal."""
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    lines = process.stderr.read().splitlines()
    process.stderr.close()
    process.wait(10)
    return lines


@pytest.mark.mounts
def test_systemd_is_told_when_it_works_that_it_lives_and_when_it_ends(
    aleph: Program, place: Path, manager: Manager
) -> None:
    """Where a service manager listens, a mount notifies it of its start, its life and its end.

    READY comes after the first listing, and when READY is there, so is the mount.
    """
    process = start(aleph, manager, "-v", place)
    try:
        wait_until(lambda: manager.has_heard("READY=1"), 30)
        assert is_mounted(place)
        wait_until(lambda: manager.times("WATCHDOG=1") >= 3)
        assert f"STATUS=satfs:default at {place}" in manager.said
        assert "STOPPING=1" not in manager.said
    finally:
        lines = end(process)

    assert process.returncode == 0
    assert manager.has_heard("STOPPING=1")
    assert manager.said.index("STATUS=waiting for the API") < manager.said.index("READY=1")
    assert not is_mounted(place)
    assert any(re.match(r"<6>mounted ", line) for line in lines), lines


@pytest.mark.mounts
def test_a_mount_that_stands_still_is_not_said_to_live(
    aleph: Program, place: Path, manager: Manager
) -> None:
    """So that the manager's watchdog finds out: a stopped process stands for a stuck one."""
    process = start(aleph, manager, place)
    try:
        wait_until(lambda: manager.has_heard("WATCHDOG=1"), 30)
        process.send_signal(signal.SIGSTOP)
        before = manager.times("WATCHDOG=1")
        time.sleep(1.5)  # the watchdog's whole patience, and more
        assert manager.times("WATCHDOG=1") == before
    finally:
        process.send_signal(signal.SIGCONT)
        end(process)


@pytest.mark.mounts
def test_why_a_service_cannot_start_is_its_status(
    aleph: Program, place: Path, manager: Manager
) -> None:
    process = start(aleph, manager, place, SATFS_CLIENT_SECRET="not-the-secret")
    lines = end_by_itself(process)

    assert process.returncode == 3
    assert not manager.has_heard("READY=1")
    (status,) = [line for line in manager.said if "SATFS_CLIENT_SECRET" in line]
    assert status.startswith("STATUS=")
    assert "not-the-secret" not in "".join([*lines, *manager.said])


def end_by_itself(process: subprocess.Popen[str]) -> Sequence[str]:
    """Wait for the end of a service that fails, and return the lines of its journal."""
    assert process.stderr is not None
    lines = process.stderr.read().splitlines()
    process.stderr.close()
    process.wait(30)
    return lines


@pytest.mark.mounts
def test_only_the_mount_itself_speaks_to_the_manager(
    aleph: Program, place: Path, manager: Manager
) -> None:
    """Workers and commands that it starts inherit neither socket nor watchdog."""
    process = start(aleph, manager, place)
    try:
        wait_until(lambda: manager.has_heard("READY=1"), 30)
        zips = list(place.glob("tasks/*/*/*/*.zip"))
        zips[0].read_bytes()
        for child in children_of(process.pid):
            assert b"NOTIFY_SOCKET=" not in Path(f"/proc/{child}/environ").read_bytes()
    finally:
        end(process)


def children_of(pid: int) -> list[int]:
    """Return the processes that *pid* has started."""
    return [
        int(child)
        for file in Path(f"/proc/{pid}/task").glob("*/children")
        for child in file.read_text().split()
    ]


@pytest.mark.mounts
def test_a_running_mount_logs_more_when_told(aleph: Program, place: Path, tmp_path: Path) -> None:
    """`satfs log --level` changes the level; nothing else happens to the mount."""
    log = tmp_path / "log"
    done = aleph("mount", "--log-file", log, "--log-format", "json", place)
    assert done.returncode == 0, done.stderr
    (pid,) = mount_processes(place)

    for level in ("info", "debug", "warning"):
        assert aleph("log", "--level", level, place).returncode == 0
    wait_until(lambda: '"level_before": "debug"' in log.read_text())
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # of the first version; no effect now
        os.kill(pid, number)

    assert is_running(pid)
    assert "tasks" in os.listdir(place)
