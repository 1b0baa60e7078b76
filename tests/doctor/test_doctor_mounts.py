"""Mounts that are dead, stuck, or of other users; directories to mount on; leftovers."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import pytest
from doctor.conftest import MadeUp, only

from satfs.demo import scratch
from satfs.doctor import mounts
from satfs.doctor.findings import Severity
from satfs.doctor.machine import Machine, ProgramResult, run_bounded
from satfs.doctor.mountpoint import mountpoint, require_mountpoint
from satfs.errors import BadMountpoint
from satfs.kernel_tuning import READ_AHEAD_KB
from satfs.mountpoint_hold import MountpointHold

ALEPH = Path("/mnt/aleph")


def line(
    place: str = "/mnt/aleph", minor: int = 50, more: str = "", source: str = "satfs:x"
) -> str:
    """Return a line of mountinfo."""
    return f"30 1 0:{minor} / {place} ro,nosuid - fuse.satfs {source} ro,user_id=1000{more}"


def test_no_mount_is_fine(made: MadeUp) -> None:
    made.mount("22 27 0:20 / /sys rw - sysfs sysfs rw")

    assert only(mounts.mounts(made.machine)).severity is Severity.OK


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ECONNABORTED])
def test_a_dead_mount_is_told_with_the_words_that_people_search(made: MadeUp, number: int) -> None:
    made.mount(line())
    made.errnos[ALEPH] = number

    finding = only(mounts.mounts(made.machine))

    assert (finding.severity, finding.cause) == (Severity.FAILURE, BadMountpoint)
    assert os.strerror(errno.ENOTCONN) in finding.explanation
    assert finding.commands == ("satfs umount /mnt/aleph",)


def test_a_mount_that_does_not_answer_is_detached_or_cut_off(made: MadeUp) -> None:
    made.mount(line(minor=77))
    made.errnos[ALEPH] = None

    finding = only(mounts.mounts(made.machine))

    assert finding.statement == "/mnt/aleph does not answer."
    assert finding.commands == (
        "satfs umount -z /mnt/aleph",
        "echo 1 | sudo tee /sys/fs/fuse/connections/77/abort",
    )


def test_another_users_mount_is_no_failure(made: MadeUp) -> None:
    """Root is not let in either, which surprises everybody."""
    made.mount(line())
    made.errnos[ALEPH] = errno.EACCES

    finding = only(mounts.mounts(made.machine))

    assert finding.severity is Severity.NOTE
    assert "1000" in finding.statement
    assert "for root, too" in finding.explanation


def test_a_mount_that_answers_with_an_error_is_broken(made: MadeUp) -> None:
    made.mount(line())
    made.errnos[ALEPH] = errno.EIO

    assert "Input/output error" in only(mounts.mounts(made.machine)).statement


def test_of_two_mounts_at_one_place_the_upper_one_counts(made: MadeUp) -> None:
    made.mount(line(source="satfs:below"), line(source="satfs:above"))
    made.errnos[ALEPH] = 0

    assert "satfs:above" in only(mounts.mounts(made.machine)).statement


@pytest.mark.parametrize("kib", [128, READ_AHEAD_KB - 1, READ_AHEAD_KB, 4096])
def test_little_read_ahead_is_noted_with_the_file_to_write_to(made: MadeUp, kib: int) -> None:
    made.mount(line(minor=50))
    made.errnos[ALEPH] = 0
    made.write("/sys/class/bdi/0:50/read_ahead_kb", f"{kib}\n")

    _, *more = mounts.mounts(made.machine)

    if kib >= READ_AHEAD_KB:
        assert more == []
    else:
        (finding,) = more
        assert finding.severity is Severity.NOTE
        assert finding.commands == (
            f"echo {READ_AHEAD_KB} | sudo tee /sys/class/bdi/0:50/read_ahead_kb",
        )


def test_names_of_mountpoints_are_quoted_for_the_shell(made: MadeUp) -> None:
    made.mount(line("/mnt/my\\040aleph;rm"))
    made.errnos[Path("/mnt/my aleph;rm")] = errno.ENOTCONN

    (command,) = only(mounts.mounts(made.machine)).commands

    assert shlex.split(command) == ["satfs", "umount", "/mnt/my aleph;rm"]


# -- directories to mount on -----------------------------------------------------------------------


def mine(made: MadeUp) -> None:
    """Be the owner of this test's files."""
    made.uid = os.getuid()


def test_an_empty_directory_can_be_mounted_on(made: MadeUp, tmp_path: Path) -> None:
    mine(made)
    (tmp_path / "mnt").mkdir()

    assert only(mountpoint(made.machine, tmp_path / "mnt")).severity is Severity.OK


def test_what_is_mounted_already_was_looked_at(made: MadeUp) -> None:
    made.mount(line())

    assert list(mountpoint(made.machine, ALEPH)) == []


def test_a_directory_that_is_not_there_is_made(made: MadeUp, tmp_path: Path) -> None:
    finding = only(mountpoint(made.machine, tmp_path / "a b/c"))

    assert finding.severity is Severity.FAILURE
    assert finding.commands == (f"mkdir -p '{tmp_path}/a b/c'",)


def test_a_full_directory_is_a_warning(made: MadeUp, tmp_path: Path) -> None:
    mine(made)
    (tmp_path / "file").touch()

    assert only(mountpoint(made.machine, tmp_path)).severity is Severity.WARNING


def test_a_file_is_no_directory(made: MadeUp, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    finding = only(mountpoint(made.machine, tmp_path / "file"))

    assert finding.statement == f"{tmp_path / 'file'} is not a directory."


def test_others_directories_are_not_ours_to_mount_on(made: MadeUp, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt").chmod(0o1777)
    made.uid = os.getuid() + 1

    assert "not yours" in only(mountpoint(made.machine, tmp_path / "mnt")).statement


def test_a_mount_raises_what_the_doctor_reports(made: MadeUp, tmp_path: Path) -> None:
    """The same sentence, with the remedy and the command."""
    mine(made)
    (tmp_path / "file").touch()
    (tmp_path / "full/entry").mkdir(parents=True)
    for path in (tmp_path / "nowhere", tmp_path / "file", tmp_path / "full"):
        finding = only(mountpoint(made.machine, path))

        with pytest.raises(BadMountpoint) as refused:
            require(path)

        assert str(refused.value) == str(finding.error)
        assert str(path) in finding.statement
    require(tmp_path / "full", is_nonempty_fine=True)
    require(tmp_path / "full/entry")


def require(path: Path, *, is_nonempty_fine: bool = False) -> None:
    """Look at *path* as `satfs mount` does: by the descriptor that it holds."""
    with MountpointHold(path) as hold:
        name = str(path)
        require_mountpoint(
            hold.open_directory, name, shlex.quote(name), is_nonempty_fine=is_nonempty_fine
        )


def test_a_directory_that_cannot_be_read_is_mounted_on_unlooked_at(
    made: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor says so before the mount refuses it; root can read every directory."""
    mine(made)

    def refuse(_: str) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "scandir", refuse)
    finding = only(mountpoint(made.machine, tmp_path))

    assert finding.severity is Severity.FAILURE
    assert "Permission denied" in finding.statement
    assert "--nonempty" in finding.explanation
    require(tmp_path, is_nonempty_fine=True)


@pytest.mark.parametrize("response", [None, errno.ENOTCONN, errno.EACCES])
def test_what_does_not_answer_is_not_mounted_on(made: MadeUp, response: int | None) -> None:
    made.errnos[ALEPH] = response

    finding = only(mountpoint(made.machine, ALEPH))

    assert (finding.severity, finding.cause) == (Severity.FAILURE, BadMountpoint)


# -- what is left behind ---------------------------------------------------------------------------


def test_a_socket_nobody_listens_at_is_left_behind(made: MadeUp) -> None:
    """One with a mount behind it is not; and the remedy removes the right one."""
    made.uid = os.geteuid()
    directory = made.root / "run/user/1/satfs"
    directory.mkdir(parents=True)
    made.environment["XDG_RUNTIME_DIR"] = "/run/user/1"
    living = socket.socket(socket.AF_UNIX)
    living.bind(os.fspath(directory / "living.sock"))
    living.listen()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(os.fspath(directory / "dead.sock"))
    dead.close()

    finding = only(mounts.leftovers(made.machine))
    subprocess.run(finding.commands[0], shell=True, check=True)

    assert finding.severity is Severity.NOTE
    assert [path.name for path in directory.iterdir()] == ["living.sock"]
    assert only(mounts.leftovers(made.machine)).severity is Severity.OK
    living.close()


def test_what_a_killed_demo_leaves_is_told(made: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not what a demo that runs is using."""
    made.uid = os.getuid()
    temporary = made.root / "tmp"
    (temporary / "satfs-demo-left").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with scratch.scratch_directory() as in_use:
        assert in_use.parent == temporary

        finding = only(mounts.leftovers(made.machine))

        assert finding.commands == (f"rm -r {temporary / 'satfs-demo-left'}",)
        made.uid = os.getuid() + 1
        assert only(mounts.leftovers(made.machine)).severity is Severity.OK


def test_the_next_demo_removes_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves alone what a demo that runs is using, and what is no directory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "satfs-demo-left" / "objects").mkdir(parents=True)
    (tmp_path / "satfs-demo-file").touch()
    with scratch.scratch_directory() as in_use:
        scratch.remove_abandoned()

        assert {path.name for path in tmp_path.iterdir()} == {in_use.name, "satfs-demo-file"}
    assert [path.name for path in tmp_path.iterdir()] == ["satfs-demo-file"]


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        ("satfs:x /mnt/aleph satfs ro,_netdev 0 0", Severity.WARNING),
        ("satfs:x /mnt/aleph fuse.satfs ro,_netdev 0 0", None),
        ("#satfs:x /mnt/aleph satfs ro 0 0", None),
        ("", None),
        ("/dev/sda1 / ext4", None),
    ],
)
def test_a_line_of_fstab_needs_the_helper(
    made: MadeUp, line: str, severity: Severity | None
) -> None:
    made.write("/etc/fstab", f"# the machine's\n{line}\n")
    found = list(mounts.mount_helper(made.machine))
    assert [each.severity for each in found] == ([severity] if severity else [])

    made.write("/usr/sbin/mount.satfs")
    assert {each.severity for each in mounts.mount_helper(made.machine)} <= {Severity.OK}


# -- programs --------------------------------------------------------------------------------------


def test_a_program_that_hangs_is_left_behind() -> None:
    began_s = time.monotonic()

    assert run_bounded(["sleep", "60"], limit_s=0.1) is None
    assert time.monotonic() - began_s < 5


def test_a_program_that_is_not_there_is_no_program_that_hangs() -> None:
    """A filesystem does not count as stuck because the probe could not be started."""
    assert run_bounded(["/nowhere/program"]) == ProgramResult(127, "", "No such file or directory")
    machine = Machine(run=lambda _: ProgramResult(127, "", "Permission denied"))
    assert machine.errno_of(Path("/")) == 0
    assert machine.errno_of(Path("/nowhere")) == errno.ENOENT
    assert Machine().errno_of(Path("/nowhere")) == errno.ENOENT
