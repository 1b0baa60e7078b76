"""mount(8), fstab(5) and umount(8) with `mount.satfs`, through the real programs."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cli.conftest import (
    TIMEOUT_S,
    Program,
    is_mounted,
    mount_processes,
    require_fuse_for_others,
)
from cli.mounts import programs_of_mount8
from fakes.processes import wait_until
from hypothesis import given
from hypothesis import strategies as st

from satfs.cli.exit_codes import Exit
from satfs.cli.mount_helper import (
    PROGRAMS,
    MountExit,
    MountRequest,
    become,
    environment_of,
    is_called_by_mount,
    mount_code,
    parse_arguments,
)
from satfs.cli.mount_options import join_escaped, parse_options
from satfs.errors import BadSettings

ROOT = Path(__file__).parents[2]
FSTAB_OPTIONS = (
    "defaults,_netdev,nofail,x-systemd.automount,x-systemd.idle-timeout=600,x-gvfs-show,"
    "x-gvfs-name=Aleph,comment=satfs"
)


# -- what the words mean ---------------------------------------------------------------------------


def test_the_words_of_mount_are_understood() -> None:
    """The order is that of mount(8); flags may be together, options in several `-o`."""
    words = ["satfs:prod", "/mnt/aleph", "-sn", "-v", "-o", "rw,uid=7", "-o", r"fsname=a\,b"]

    assert parse_arguments(words) == MountRequest(
        "prod",
        "/mnt/aleph",
        ("uid=7", "fsname=a,b"),
        is_sloppy=True,
        is_verbose=True,
    )


@pytest.mark.parametrize("flag", ["-s", "-f", "-n", "-v", "-sfnv"])
def test_each_flag_of_a_mount_program_is_taken(flag: str) -> None:
    assert parse_arguments(["satfs:prod", "/mnt", flag]).is_fake == ("f" in flag)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["satfs:prod"],
        ["satfs:prod", "/mnt", "more"],
        ["satfs:prod", "/mnt", "-x"],
        ["satfs:prod", "/mnt", "--offline"],
        ["satfs:prod", "/mnt", "-o"],
        ["satfs:prod", "/mnt", "-t", "ext4"],
        ["satfs:prod", "/mnt", "-N", "/proc/1/ns/mnt"],
        ["satfs:", "/mnt"],
        ["satfs", "/mnt"],
        ["prod", "/mnt"],
        ["https://api.example", "/mnt"],
        ["satfs:prod", "/mnt", "-o", "setuid="],
        ["satfs:prod", "/mnt", "-o", "profile=other"],
    ],
)
def test_words_that_make_no_sense_are_refused(words: list[str]) -> None:
    with pytest.raises(BadSettings):
        parse_arguments(words)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
def test_any_words_are_understood_or_refused(words: list[str]) -> None:
    with suppress(BadSettings):
        parse_arguments(words)


@given(st.lists(st.sampled_from(["ro", "rw", "uid=1", "noexec"])))
def test_ro_and_rw_change_nothing(options: list[str]) -> None:
    """mount(8) adds `rw` by itself, and a mount of satfs is read-only either way."""
    asked = parse_arguments(["satfs:prod", "/mnt", "-o", ",".join(["rw", *options])])

    assert list(asked.options) == [o for o in options if o not in ("ro", "rw")]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Exit.DONE, MountExit.DONE),
        (Exit.USAGE, MountExit.USAGE),
        (Exit.FAILED, MountExit.BUG),
        (Exit.FUSE, MountExit.SYSTEM),
        (Exit.INTERRUPTED, MountExit.INTERRUPTED),
        (Exit.CREDENTIALS, MountExit.FAILED),
        (Exit.NETWORK, MountExit.FAILED),
        (Exit.MOUNTPOINT, MountExit.FAILED),
    ],
)
def test_exit_codes_are_those_of_mount(code: Exit, expected: MountExit) -> None:
    """mount(8) hands on what we exit with; scripts and systemd know its codes, not ours."""
    assert mount_code(code) == expected


def test_every_failure_is_one_for_mount_too() -> None:
    assert {code for code in Exit if mount_code(code) is MountExit.DONE} == {Exit.DONE}


@pytest.mark.parametrize(
    ("words", "is_mount"),
    [
        (["/sbin/mount.satfs", "satfs:prod", "/mnt"], True),
        (["/sbin/mount.fuse.satfs", "-h"], True),
        (["satfs", "satfs:prod", "/mnt", "-o", "rw,dev,suid"], True),
        (["/usr/bin/satfs", "mount", "/mnt"], False),
        (["/usr/bin/satfs", "ls", "satfs:prod"], False),
        (["/usr/bin/satfs", "satfs:prod"], False),
        (["satfs"], False),
        ([], False),
    ],
)
def test_a_person_and_mount_are_told_apart(words: list[str], is_mount: bool) -> None:
    assert is_called_by_mount(words) == is_mount


def test_another_user_gets_nothing_of_ours() -> None:
    """Root's settings and secrets stay root's: whose process it becomes could read them."""
    environment = {
        "PATH": "/root/bin",
        "AWS_SECRET_ACCESS_KEY": "5eed",
        "CREDENTIALS_DIRECTORY": "/run/credentials/x",
        "SSH_AUTH_SOCK": "/run/ssh",
        "LD_PRELOAD": "/root/x.so",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "HTTPS_PROXY": "http://proxy:3128",
        "HOME": "/root",
        "USER": "root",
        "SATFS_TOKEN": "5eed",
        "XDG_CONFIG_HOME": "/root/.config",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/0/bus",
        "SUDO_USER": "bob",
    }

    assert environment_of("alice", "/home/alice", environment) == {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "HTTPS_PROXY": "http://proxy:3128",
        "HOME": "/home/alice",
        "USER": "alice",
        "LOGNAME": "alice",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_gets_no_open_file_of_ours() -> None:
    program = """
import os
from satfs.cli.mount_helper import become
secret = os.open("/etc/shadow", os.O_RDONLY)
become("nobody", os.environ)
try:
    os.fstat(secret)
except OSError as failure:
    print(failure.strerror)
"""

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "Bad file descriptor\n"


def test_nobody_becomes_somebody_who_is_not_there() -> None:
    with pytest.raises(BadSettings, match="no such user"):
        become("nobody-of-that-name", {})


def test_only_root_becomes_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("os.getuid", lambda: 1000)

    with pytest.raises(BadSettings, match="only root"):
        become("daemon", {})


# -- for real --------------------------------------------------------------------------------------


def run(program: Program, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run another program than satfs, in the same environment."""
    beside = str(Path(sys.executable).parent)
    return subprocess.run(
        [str(word) for word in words],
        env=program.environ(PATH=f"{beside}:{os.environ['PATH']}", **environment),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def shown(place: Path) -> tuple[str, ...]:
    """Return type, source and options as findmnt(8) shows them; nothing if it is not mounted."""
    done = subprocess.run(
        ["findmnt", "-n", "-o", "FSTYPE,SOURCE,OPTIONS", "--mountpoint", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    return tuple(done.stdout.split())


@pytest.fixture
def installed(satfs: Program) -> Iterator[None]:
    """Have the programs of mount(8) in /sbin, and none afterwards that was not there before."""
    if os.geteuid() != 0:
        pytest.skip("only root can install programs of mount(8)")
    if shutil.which("findmnt") is None:
        pytest.skip("findmnt is not installed")
    with programs_of_mount8():
        there = [name for name in PROGRAMS if os.path.lexists(f"/sbin/{name}")]
        done = satfs("service", "install-helper")
        assert done.returncode == 0, done.stderr
        yield
        if not there:
            assert satfs("service", "remove-helper").returncode == 0
            assert not any(os.path.lexists(f"/sbin/{name}") for name in PROGRAMS)


@pytest.mark.mounts
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("fs_type", ["satfs", "fuse.satfs"])
def test_mount_mounts_and_umount_unmounts(aleph: Program, place: Path, fs_type: str) -> None:
    done = run(
        aleph, "mount", "-t", fs_type, "satfs:default", place, "-o", f"ro,uid=7,{FSTAB_OPTIONS}"
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    kind, source, options = shown(place)
    assert (kind, source) == ("fuse.satfs", "satfs:default")
    assert {"ro", "nosuid", "nodev"} <= set(options.split(","))
    assert "tasks" in os.listdir(place)
    pids = mount_processes(place)
    assert all(os.getsid(pid) not in (0, os.getsid(0)) for pid in pids), "no Ctrl-C reaches it"
    assert run(aleph, "umount", place).returncode == 0
    assert shown(place) == ()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@pytest.mark.mounts
@pytest.mark.usefixtures("installed")
def test_a_line_in_fstab_is_all_it_takes(aleph: Program, place: Path, tmp_path: Path) -> None:
    """`mount DIR`, and `mount -a` at boot: one mount, with owner and modes as requested."""
    fstab = tmp_path / "fstab"
    options = f"{FSTAB_OPTIONS},uid=1000,gid=4711,umask=027,allow_other"
    fstab.write_text(f"satfs:default {place} satfs {options} 0 0\n")

    for words in (("-a",), ("-a",)):
        done = run(aleph, "mount", "-T", fstab, *words)
        assert (done.returncode, done.stderr) == (0, "")
    status = (place / "README.txt").stat()
    kind, source, shown_options = shown(place)
    assert run(aleph, "umount", place).returncode == 0
    by_name = run(aleph, "mount", "-T", fstab, place)

    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1000, 4711, 0o640)
    assert (kind, source) == ("fuse.satfs", "satfs:default"), "one mount, not two"
    assert "allow_other" in shown_options.split(",")
    assert by_name.returncode == 0
    assert is_mounted(place)


@pytest.mark.mounts
@pytest.mark.usefixtures("installed")
def test_a_mount_is_read_only_whatever_its_options_say(
    aleph: Program, place: Path, tmp_path: Path
) -> None:
    """mount(8), fstab and umount(8) mount and unmount; `rw` still mounts read-only."""
    fstab = tmp_path / "fstab"
    fstab.write_text(f"satfs:default {place} satfs nofail,rw 0 0\n")
    for words in (
        ("-t", "satfs", "satfs:default", place),
        ("-t", "satfs", "-o", "rw", "satfs:default", place),
        ("-T", fstab, place),
    ):
        done = run(aleph, "mount", *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert "ro" in shown(place)[2].split(",")
        with pytest.raises(OSError, match="Read-only file system"):
            (place / "new").mkdir()
        assert run(aleph, "umount", place).returncode == 0
        assert not is_mounted(place)


@pytest.mark.mounts
@pytest.mark.usefixtures("installed")
def test_why_it_failed_is_said_by_mount(aleph: Program, place: Path, tmp_path: Path) -> None:
    aleph.environment["SATFS_CLIENT_SECRET"] = "not-the-secret"  # type: ignore[index]

    refused = run(aleph, "mount", "-t", "satfs", "-o", "ro", "satfs:default", place)
    misspelt = run(aleph, "mount", "-t", "satfs", "-o", "ro,alow_other", "satfs:default", place)
    unknown = run(aleph, "mount", "-t", "satfs", "-o", "ro", "satfs:nosuch", place)

    assert refused.returncode == 32
    assert "SATFS_CLIENT_SECRET" in refused.stderr
    assert "not-the-secret" not in refused.stderr
    assert (misspelt.returncode, unknown.returncode) == (1, 1)
    assert "-o alow_other: not an option that satfs knows" in misspelt.stderr
    assert not is_mounted(place)


@pytest.mark.mounts
@pytest.mark.usefixtures("installed")
def test_a_fake_mount_looks_and_does_not_leap(aleph: Program, place: Path) -> None:
    done = run(aleph, "mount", "-f", "-t", "satfs", "satfs:default", place)
    nowhere = run(aleph, "mount.satfs", "satfs:default", place / "nowhere", "-f")

    assert (done.returncode, is_mounted(place)) == (0, False)
    assert nowhere.returncode == 32
    assert "There is no directory" in nowhere.stderr


@pytest.mark.mounts
def test_a_sloppy_mount_forgives_what_nobody_knows(aleph: Program, place: Path) -> None:
    done = run(
        aleph, "mount.satfs", "satfs:default", place, "-s", "-v", "-o", "ro,bogus=1,intr,uid=3"
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == f"mount.satfs: satfs:default mounted on {place}\n"
    assert (place / "README.txt").stat().st_uid == 3


@pytest.mark.mounts
def test_mount_fuse3_finds_satfs_by_its_name(aleph: Program, place: Path) -> None:
    """Without anything in /sbin: it runs `satfs SOURCE DIR -o …,dev,suid`."""
    done = aleph("satfs:default", place, "-o", "ro,uid=3,dev,suid")

    assert done.returncode == 0, done.stderr
    assert shown(place)[:2] in (("fuse.satfs", "satfs:default"), ())
    assert (place / "README.txt").stat().st_uid == 3


@pytest.mark.mounts
def test_an_automounter_mounts_it_when_somebody_looks(aleph: Program, place: Path) -> None:
    """A program that looks up an automounted directory waits for the mount, and sees it.

    That is `x-systemd.automount`. The mount must not wait for itself: the kernel lets only the
    automounter's process group look at a mountpoint that is pending.
    """
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can be an automounter, in namespaces of its own")

    done = run(
        aleph,
        *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *(sys.executable, Path(__file__).with_name("automounter.py"), place),
        *("mount.satfs", "satfs:default", place, "-o", "ro"),
    )

    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no automounter can be had here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "tasks" in done.stdout.split()


def test_the_program_says_how_it_is_used(satfs: Program) -> None:
    usage = run(satfs, "mount.satfs", "--help")
    version = run(satfs, "mount.satfs", "-V")
    wrong = run(satfs, "mount.satfs", "satfs:default")

    assert (usage.returncode, version.returncode, wrong.returncode) == (0, 0, 1)
    assert "usage: mount.satfs satfs:PROFILE DIRECTORY" in usage.stdout
    assert version.stdout.startswith("mount.satfs ")
    assert "usage: mount.satfs satfs:PROFILE DIRECTORY" in wrong.stderr


@pytest.fixture
def somebody() -> Iterator[Path]:
    """Return the home of a user who is not root, and whom only the test's program knows."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    home = Path(tempfile.mkdtemp(prefix="satfs-home-"))
    home.chmod(0o755)
    (home / "mnt").mkdir()
    yield home
    pids = mount_processes(home / "mnt")
    while is_mounted(home / "mnt"):
        subprocess.run(["fusermount3", "-uz", str(home / "mnt")], check=True)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    shutil.rmtree(home)


def interpreter_for(user: int, path: str) -> str:
    """Return a Python like ours that *user* can run, and that finds satfs on *path*.

    Our own may be in root's home, which no other user may enter; so may satfs and its libraries.
    """
    known = dict.fromkeys((sys.executable, "/usr/bin/python3"))
    question = "import sys, satfs.cli.mount_helper, satfs.mount; print(*sys.version_info[:2])"
    for python in known:
        with contextlib.suppress(OSError):
            done = subprocess.run(
                [python, "-c", question],
                capture_output=True,
                text=True,
                user=user,
                group=user,
                cwd="/",
                env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
                check=False,
            )
            if done.stdout.split() == [str(part) for part in sys.version_info[:2]]:
                return python
    pytest.skip("Python, satfs or its libraries lie where nobody but root may read them")


@pytest.mark.mounts
def test_root_mounts_as_another_user(aleph: Program, somebody: Path) -> None:
    """His configuration, his cache, his process; nothing of root's."""
    require_fuse_for_others()
    user = pwd.getpwnam("nobody")
    python_path = os.pathsep.join([str(ROOT), *(p for p in sys.path if "site-packages" in p)])
    python = interpreter_for(user.pw_uid, python_path)
    config = somebody / ".config" / "satfs" / "config.toml"
    config.parent.mkdir(parents=True)
    settings = {
        name.removeprefix("SATFS_").lower(): value
        for name, value in aleph.environment.items()
        if name.startswith("SATFS_") and name != "SATFS_CACHE_DIR"
    }
    config.write_text("".join(f'{name} = "{value}"\n' for name, value in settings.items()))
    config.chmod(0o600)
    for path in (somebody, *somebody.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    moved_home = (
        "import pwd, sys; known = pwd.getpwnam; from satfs.cli.mount_helper import main; "
        "pwd.getpwnam = lambda name: pwd.struct_passwd("
        f"(*known(name)[:5], {str(somebody)!r}, '/bin/sh')); main(sys.argv[1:])"
    )

    done = run(
        aleph,
        *(python, "-c", moved_home, "satfs:default", somebody / "mnt", "-o", "ro,setuid=nobody"),
        PYTHONPATH=python_path,
    )

    assert done.returncode == 0, done.stderr
    (pid,) = mount_processes(somebody / "mnt")
    assert Path(f"/proc/{pid}").stat().st_uid == user.pw_uid
    assert (somebody / ".cache" / "satfs").is_dir()
    ids = f"user_id={user.pw_uid},group_id={user.pw_gid}"
    assert ids in next(
        line for line in Path("/proc/mounts").read_text().splitlines() if f"{somebody}/mnt" in line
    )


# -- what the page about it says -------------------------------------------------------------------


def test_the_lines_for_fstab_that_are_recommended_are_understood() -> None:
    page = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")

    lines = [line.split() for line in page.splitlines() if line.startswith("satfs:harbour  /")]

    assert len(lines) == 3
    for source, directory, fs_type, options, *_ in lines:
        asked = parse_arguments([source, directory, "-o", options])
        given_options = parse_options([join_escaped(asked.options)])
        assert (asked.profile, fs_type) == ("harbour", "satfs")
        assert given_options.settings == {}
