"""The requirements of FUSE, on machines that lack one."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from doctor.conftest import MadeUp, only

from satfs.doctor import fuse
from satfs.doctor.findings import Severity
from satfs.doctor.machine import ProgramResult
from satfs.errors import FuseMissing

CAPABILITIES_OF_DOCKER = "CapEff:\t00000000a80425fb\n"
ALL_CAPABILITIES = "CapEff:\t000001ffffffffff\n"


def test_a_device_that_can_be_opened_is_fine(made: MadeUp) -> None:
    made.write("/dev/fuse")

    assert only(fuse.device(made.machine)).severity is Severity.OK


def test_a_missing_device_is_a_missing_module(made: MadeUp) -> None:
    finding = only(fuse.device(made.machine))

    assert (finding.severity, finding.cause) == (Severity.FAILURE, FuseMissing)
    assert finding.commands[0] == "sudo modprobe fuse"


@pytest.mark.parametrize("mark", ["/.dockerenv", "/run/.containerenv", None])
def test_in_a_container_the_device_is_given_from_outside(made: MadeUp, mark: str | None) -> None:
    if mark:
        made.write(mark)
    else:
        made.environment["container"] = "podman"

    assert "--device /dev/fuse" in only(fuse.device(made.machine)).commands[0]


def test_a_device_that_cannot_be_opened_is_told_with_the_systems_words(made: MadeUp) -> None:
    (made.root / "dev/fuse").mkdir(parents=True)

    finding = only(fuse.device(made.machine))

    assert finding.severity is Severity.FAILURE
    assert finding.statement == "/dev/fuse cannot be opened: Is a directory."


def helper_of_root(made: MadeUp) -> Path:
    """Install fusermount3 as its package does."""
    path = made.program("fusermount3", is_setuid=True)
    if os.geteuid() != 0:
        pytest.skip("only root can make a program that is root's")
    made.responses["fusermount3"] = ProgramResult(0, "fusermount3 version: 3.14.0\n")
    return path


def test_a_helper_that_is_root_is_fine(made: MadeUp) -> None:
    path = helper_of_root(made)
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        pytest.skip("the temporary directory lies on a filesystem mounted with nosuid")

    assert only(fuse.helper(made.machine)).statement == f"{path} is there (3.14.0)."


def test_a_helper_without_roots_rights_cannot_mount(made: MadeUp) -> None:
    """As after a copy, or an unpacked container image; and its remedy is one."""
    path = made.program("fusermount3")

    finding = only(fuse.helper(made.machine))

    assert (finding.severity, finding.cause) == (Severity.FAILURE, FuseMissing)
    assert f"chmod u+s {path}" in finding.commands[0]


def test_a_helper_that_is_somebody_elses_cannot_mount(made: MadeUp) -> None:
    path = helper_of_root(made)
    os.chown(path, 1000, 1000)
    path.chmod(path.stat().st_mode | stat.S_ISUID)

    assert only(fuse.helper(made.machine)).statement == f"{path} is not setuid root."


def test_without_a_helper_only_root_mounts(made: MadeUp) -> None:
    assert only(fuse.helper(made.machine)).commands == ("sudo apt install fuse3",)
    assert only(fuse.helper(made.machine)).severity is Severity.FAILURE

    made.uid = 0
    assert only(fuse.helper(made.machine)).severity is Severity.NOTE


def test_a_sandbox_takes_the_helpers_rights_away(made: MadeUp) -> None:
    made.write("/proc/self/status", "Name:\tsh\nNoNewPrivs:\t1\n")

    assert only(fuse.privileges(made.machine)).severity is Severity.FAILURE


def test_root_of_a_container_may_not_mount(made: MadeUp) -> None:
    made.uid = 0
    made.write("/proc/self/status", CAPABILITIES_OF_DOCKER)

    finding = only(fuse.privileges(made.machine))

    assert "SYS_ADMIN" in finding.statement
    assert "--cap-add SYS_ADMIN" in finding.commands[0]


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("status", ["", ALL_CAPABILITIES + "NoNewPrivs:\t0\n"])
def test_elsewhere_nothing_forbids_to_mount(made: MadeUp, uid: int, status: str) -> None:
    made.uid = uid
    made.write("/proc/self/status", status)

    assert only(fuse.privileges(made.machine)).severity is Severity.OK


@pytest.mark.parametrize("text", ["", "#user_allow_other\n", "mount_max = 1000\n", None])
def test_others_are_not_let_in_unless_root_has_said_so(made: MadeUp, text: str | None) -> None:
    """A note: it is the default, and most people never miss it. Its remedy mends it."""
    if text is not None:
        made.write("/etc/fuse.conf", text)
    finding = only(fuse.allow_other(made.machine))
    assert finding.severity is Severity.NOTE
    assert finding.commands == ("echo user_allow_other | sudo tee -a /etc/fuse.conf",)

    made.write("/etc/fuse.conf", f"{text or ''}user_allow_other\n")
    assert only(fuse.allow_other(made.machine)).severity is Severity.OK

    made.uid = 0
    (made.root / "etc/fuse.conf").unlink()
    assert only(fuse.allow_other(made.machine)).severity is Severity.OK


@pytest.mark.parametrize(
    ("release", "severity"),
    [
        ("6.1.0-18-amd64", Severity.OK),
        ("5.15.167.4-microsoft-standard-WSL2", Severity.OK),
        ("4.20.0", Severity.OK),
        ("4.18.0-513.el8.x86_64", Severity.NOTE),
        ("3.8.13", Severity.FAILURE),
        ("", Severity.OK),
        ("next", Severity.OK),
    ],
)
def test_old_kernels_are_told(made: MadeUp, release: str, severity: Severity) -> None:
    made.write("/proc/sys/kernel/osrelease", f"{release}\n")

    assert only(fuse.kernel(made.machine)).severity is severity


def test_a_library_that_is_not_there_is_told_in_the_loaders_words(made: MadeUp) -> None:
    words = "ImportError: libfuse3.so.3: cannot open shared object file"
    made.responses[Path(sys.executable).name] = ProgramResult(1, "", f"Traceback …\n{words}\n")

    finding = only(fuse.library(made.machine))

    assert (finding.severity, finding.cause) == (Severity.FAILURE, FuseMissing)
    assert words in finding.statement


def test_a_library_that_never_loads_is_told_too(made: MadeUp) -> None:
    assert only(fuse.library(made.machine)).severity is Severity.FAILURE


# -- what a mount requires ----------------------------------------------------------------------


def require(made: MadeUp, *, for_others: bool = False, auto_unmount: bool = False) -> None:
    fuse.require(made.machine, for_others=for_others, auto_unmount=auto_unmount)


@pytest.fixture(params=[0, 1000])
def mountable(made: MadeUp, request: pytest.FixtureRequest) -> MadeUp:
    """Return a machine where root, or an ordinary user, can mount."""
    made.uid = request.param
    made.write("/dev/fuse")
    made.program("fusermount3")
    return made


def test_a_machine_as_it_should_be_is_enough(mountable: MadeUp) -> None:
    require(mountable)


def test_a_mount_fails_with_the_finding_and_its_remedy(mountable: MadeUp) -> None:
    """In one sentence: what is missing, and the commands that mend it."""
    (mountable.root / "dev/fuse").unlink()
    with pytest.raises(FuseMissing, match=r"/dev/fuse is missing\..*: sudo modprobe fuse; echo"):
        require(mountable)


def test_a_device_that_cannot_be_opened_is_a_container(mountable: MadeUp) -> None:
    """Libfuse opens it itself, before it starts fusermount3."""
    (mountable.root / "dev/fuse").unlink()
    (mountable.root / "dev/fuse").mkdir()
    with pytest.raises(FuseMissing, match="--device /dev/fuse"):
        require(mountable)


def test_the_helper_is_named_with_its_package(mountable: MadeUp) -> None:
    """Root mounts without it, unless a process has to unmount for it."""
    (mountable.root / "usr/bin/fusermount3").unlink()
    with pytest.raises(FuseMissing, match="apt install fuse3"):
        require(mountable, auto_unmount=True)
    if mountable.uid == 0:
        require(mountable)
    else:
        with pytest.raises(FuseMissing, match="apt install fuse3"):
            require(mountable)


@pytest.mark.parametrize("text", [None, "", "# user_allow_other\n", "mount_max = 9\n"])
def test_others_are_let_in_only_where_root_allows_it(mountable: MadeUp, text: str | None) -> None:
    if text is not None:
        mountable.write("/etc/fuse.conf", text)
    if mountable.uid == 0:
        require(mountable, for_others=True)
        return
    with pytest.raises(FuseMissing, match="user_allow_other"):
        require(mountable, for_others=True)
    mountable.write("/etc/fuse.conf", "mount_max = 9\nuser_allow_other # all\n")
    require(mountable, for_others=True)
