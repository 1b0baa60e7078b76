"""The errors of docs/troubleshooting.md, met by the programs that people meet them with."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cli.conftest import Program, mount_processes, require_fuse_for_others
from cli.mounts import programs_of_mount8
from fakes.processes import wait_until

from satfs.demo.contents import RampContent
from satfs.demo.server import DemoOrigin

pytestmark = pytest.mark.mounts

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
MIB = 1024 * 1024


def run(*command: object, pass_fds: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a program as people do, in the language that errors are searched in."""
    return subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        pass_fds=pass_fds,
    )


def assert_explained(said: str, words: str) -> None:
    """A program printed *words*, and there is a heading for them."""
    assert words in said
    assert any(f"`{words}`" in heading for heading in HEADINGS), words


@pytest.fixture(autouse=True)
def mended(origin: DemoOrigin) -> Iterator[None]:
    """Leave the vendor to the next test as it was."""
    yield
    origin.faults.clear()
    origin.resume_listening()


def a_scene(place: Path) -> Path:
    """Return the directory of a scene that holds a zip."""
    return next(path.parent for path in sorted(place.glob("tasks/*/*/*/*.zip")))


def test_a_killed_mount(aleph: Program, place: Path) -> None:
    assert aleph("mount", place).returncode == 0
    for pid in mount_processes(place):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not mount_processes(place))

    said = run("ls", place).stderr
    if "Software caused connection abort" in said:  # of the moment itself, or right after it
        assert_explained(said, "Software caused connection abort")
        said = run("ls", place).stderr
    assert_explained(said, "Transport endpoint is not connected")
    assert aleph("umount", place).returncode == 0
    assert run("ls", place).returncode == 0


def test_another_user(aleph: Program, place: Path) -> None:
    """Root's mount and an ordinary user here; it is the same the other way round."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can be another user")
    place.parent.chmod(0o755)
    assert aleph("mount", place).returncode == 0
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

    assert_explained(run(*nobody, "ls", place).stderr, "Permission denied")


def test_letting_others_in_without_leave(satfs: Program, tmp_path: Path) -> None:
    """The message is fusermount3's own.

    It gets a socket, as from libfuse: since 3.17 it looks at that before it looks at the options.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can be another user")
    require_fuse_for_others()
    if "\nuser_allow_other" in "\n" + Path("/etc/fuse.conf").read_text(encoding="utf-8"):
        pytest.skip("here root has allowed it")
    mine = Path("/tmp") / f"satfs-troubleshooting-{os.getpid()}"
    mine.mkdir(mode=0o777)
    os.chown(mine, 65534, 65534)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = theirs.fileno()
        try:
            done = run(
                *nobody, "/usr/bin/env", f"_FUSE_COMMFD={number}",
                "fusermount3", "-o", "allow_other", "--", mine, pass_fds=(number,),
            )  # fmt: skip
        finally:
            mine.rmdir()

    assert "only allowed if 'user_allow_other' is set in /etc/fuse.conf" in done.stderr
    assert done.stderr.strip() in PAGE


def test_whatever_writes(aleph: Program, place: Path) -> None:
    assert aleph("mount", place).returncode == 0

    for command in (("touch", place / "x"), ("mkdir", place / "x"), ("rm", place / "README.txt")):
        assert_explained(run(*command).stderr, "Read-only file system")


def test_unmounting_what_is_in_use(aleph: Program, place: Path) -> None:
    assert aleph("mount", place).returncode == 0
    directory = os.open(place, os.O_RDONLY)
    try:
        fusermount = run("fusermount3", "-u", place)
        umount = run("umount", place)
        ours = aleph("umount", place)
    finally:
        os.close(directory)

    assert_explained(fusermount.stderr, "Device or resource busy")
    assert_explained(umount.stderr, "target is busy")
    assert "is busy" in ours.stderr


def test_a_vendor_that_makes_no_sense(aleph: Program, origin: DemoOrigin, place: Path) -> None:
    assert aleph("mount", place, SATFS_METADATA_DEADLINE_S="3").returncode == 0
    origin.faults.add("html", "captures")
    task = next(each for each in (place / "tasks").iterdir() if each.is_dir())

    assert_explained(run("ls", task).stderr, "Input/output error")


def test_a_vendor_that_says_nothing(aleph: Program, origin: DemoOrigin, place: Path) -> None:
    assert aleph("mount", place, SATFS_METADATA_DEADLINE_S="1").returncode == 0
    origin.faults.add("hang", "captures")
    task = next(each for each in (place / "tasks").iterdir() if each.is_dir())

    assert_explained(run("ls", task).stderr, "Connection timed out")


def test_a_vendor_that_says_no(aleph: Program, origin: DemoOrigin, place: Path) -> None:
    assert aleph("mount", place).returncode == 0
    origin.faults.add("forbidden", "captures")
    task = next(each for each in (place / "tasks").iterdir() if each.is_dir())

    assert_explained(run("ls", task).stderr, "Permission denied")


def test_an_object_that_is_replaced_while_it_is_read(
    aleph: Program, origin: DemoOrigin, place: Path
) -> None:
    scene = origin.catalogue.published_scenes()[0]
    origin.catalogue.replace(scene.scene_id, RampContent(64 * MIB, seed=1))
    assert aleph("mount", place).returncode == 0
    (path,) = place.glob(f"scenes/{scene.scene_id}/*.zip")

    with path.open("rb") as file:
        os.pread(file.fileno(), 4096, 0)
        origin.catalogue.replace(scene.scene_id, RampContent(64 * MIB, seed=2))
        with pytest.raises(OSError, match="Errno") as failure:
            os.pread(file.fileno(), 4096, 40 * MIB)

    assert_explained(str(failure.value), "Stale file handle")


def test_the_days_budget_is_spent(aleph: Program, origin: DemoOrigin, place: Path) -> None:
    scene = origin.catalogue.published_scenes()[0]
    origin.catalogue.replace(scene.scene_id, RampContent(32 * MIB))
    assert aleph("mount", "-o", "egress_limit=1MB", place).returncode == 0
    (path,) = place.glob(f"scenes/{scene.scene_id}/*.zip")

    said = run("md5sum", path).stderr

    assert_explained(said, "Disk quota exceeded")


def test_a_certificate_that_nobody_knows(satfs: Program, place: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with DemoOrigin(tls=context) as secured:
        done = satfs("mount", place, **secured.environment())

    assert done.returncode == 4
    assert_explained(done.stderr, "certificate is not trusted")
    assert "unable to get local issuer certificate" in done.stderr
    assert "unable to get local issuer certificate" in PAGE


def test_a_name_that_leads_nowhere(aleph: Program, place: Path) -> None:
    # Where no DNS server responds either, the deadline ends it.
    api = {"SATFS_API_URL": "https://api.invalid", "SATFS_METADATA_DEADLINE_S": "4"}
    done = aleph("mount", place, **api)

    known = ("Name or service not known", "Temporary failure in name resolution")
    assert done.returncode == 4
    for words in (each for each in known if each in done.stderr):
        assert_explained(done.stderr, words)
    assert any(each in done.stderr for each in known) or "no connection" in done.stderr


def test_nobody_to_be(aleph: Program, place: Path) -> None:
    done = aleph("mount", place, SATFS_CLIENT_SECRET=None)

    assert_explained(done.stderr, "no credential")
    assert done.stderr.splitlines()[0] in PAGE


def test_a_secret_that_is_wrong(aleph: Program, place: Path) -> None:
    done = aleph("mount", place, SATFS_CLIENT_SECRET="nonsense")

    assert_explained(done.stderr, "responded with 401: Unauthorized")


def test_a_directory_that_is_not_empty(aleph: Program, place: Path) -> None:
    (place / "file").touch()

    done = aleph("mount", place)

    assert_explained(done.stderr, "is not empty, and what is in it would be hidden")


def test_a_petabyte(aleph: Program, place: Path) -> None:
    assert aleph("mount", place).returncode == 0

    first, second = run("df", "-h", place).stdout.splitlines()

    assert re.sub(r"(\S+)$", "/home/anna/aleph", re.sub(r" +", " ", second)) in re.sub(
        r" +", " ", PAGE
    )
    assert first.split() == ["Filesystem", "Size", "Used", "Avail", "Use%", "Mounted", "on"]


def test_a_type_that_mount_does_not_know(place: Path) -> None:
    """Said by mount(8) where the helper is not in /sbin."""
    with programs_of_mount8():
        if os.geteuid() != 0 or shutil.which("mount.satfs", path="/sbin:/usr/sbin") is not None:
            pytest.skip("mount.satfs is installed here, or we may not mount")

        done = run("mount", "-t", "satfs", "satfs:default", place)

    assert_explained(done.stderr, "unknown filesystem type 'satfs'")


def test_sizes_are_added_up_without_the_members(aleph: Program, place: Path) -> None:
    """With the exclusions of the page, `du` counts each delivery once."""
    assert aleph("mount", place).returncode == 0
    command = re.findall(r"^\$ (du .*--exclude=contents) ~/aleph/tasks$", PAGE, re.MULTILINE)[0]

    output = run(*command.split(), "--bytes", place / "tasks").stdout.split()[0]
    files = [p for p in place.glob("tasks/**/*") if p.is_file() and "contents" not in p.parts]

    assert int(output) == sum(path.stat().st_size for path in files)
