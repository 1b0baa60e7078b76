"""`satfs refresh` and `satfs verify` through the real program, the kernel and a vendor."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.conftest import Program, mount_processes
from cli.mounts import OTHER_TASK, TASK, Mounted, vendor
from fakes.processes import is_running, wait_until

from satfs.demo.catalogue import make_capture, make_scene, make_task

pytestmark = pytest.mark.mounts


@pytest.fixture
def aleph(satfs: Program, place: Path, tmp_path: Path) -> Iterator[Mounted]:
    """Return a mounted account with the small catalogue, whose listings are believed for long."""
    with vendor(satfs, place, tmp_path / "cache") as mounted:
        long_s = "listing_ttl_s=600,entry_timeout_s=600,attr_timeout_s=600"
        mounted.mount("-o", f"{long_s},metadata_deadline_s=5")
        yield mounted


def planned(aleph: Mounted) -> str:
    task = aleph.origin.catalogue.task(TASK)
    assert task is not None
    return next(each.capture_id for each in task.captures if not each.is_published)


def first_scene(aleph: Mounted) -> Path:
    return next((aleph.place / "tasks" / TASK).glob("*/*_L1C_*"))


def test_a_capture_shows_as_soon_as_it_is_asked_for(aleph: Mounted) -> None:
    """After `satfs refresh` new entries show at once, whatever the kernel had cached."""
    task = aleph.place / "tasks" / TASK
    before = set(os.listdir(task))
    assert not (task / planned(aleph)).exists()
    new = planned(aleph)
    aleph.origin.catalogue.set_status(new, "published")
    assert set(os.listdir(task)) == before

    done = aleph.program("refresh", task)

    assert (done.returncode, done.stdout) == (0, f"{task}: up to date, {len(before) + 1} names\n")
    assert (task / new).is_dir()
    assert set(os.listdir(task)) == before | {new}
    assert json.loads((task / "captures.json").read_text()) == [
        capture.record
        for capture in aleph.origin.catalogue.task(TASK).captures  # type: ignore[union-attr]
    ]


def test_a_capture_that_was_withdrawn_is_gone(aleph: Mounted) -> None:
    """Also for programs that name it: the kernel forgets it."""
    scene = first_scene(aleph)
    assert (scene / "scene.json").exists()
    aleph.origin.catalogue.remove_capture(scene.parent.name)

    assert aleph.program("refresh", scene.parents[1]).returncode == 0

    assert not scene.parent.exists()
    assert scene.parent.name not in os.listdir(scene.parents[1])


def test_what_lies_below_is_asked_for_anew_as_well(aleph: Mounted) -> None:
    scene = first_scene(aleph)
    aleph.origin.catalogue.add_scene(scene.parent.name, make_scene("brand-new"))

    aleph.program("refresh", aleph.place / "tasks" / TASK)

    assert "brand-new" in os.listdir(scene.parent)


def test_what_is_new_can_be_named_at_once(aleph: Mounted) -> None:
    """No program has listed it, and its name was not there a moment ago."""
    new = aleph.place / "tasks" / "900001"
    os.listdir(aleph.place / "tasks")
    assert not new.exists()
    aleph.origin.catalogue.add_task(make_task("900001", [make_capture("cap")]))

    done = aleph.program("refresh", new)

    assert done.returncode == 0, done.stderr
    assert "cap" in os.listdir(new)


def test_a_replaced_file_shows_its_new_length(aleph: Mounted) -> None:
    """Length and version are requested from the store, and the kernel forgets those it knew."""
    scene = first_scene(aleph)
    (path,) = scene.glob("*.zip")
    before = path.stat()
    aleph.origin.catalogue.replace(scene.name, b"replaced")
    assert path.stat().st_size == before.st_size

    assert aleph.program("refresh", scene).returncode == 0

    assert path.stat().st_size == len(b"replaced")
    assert path.stat().st_ino != before.st_ino
    assert path.read_bytes() == b"replaced"


def test_a_shell_that_stands_in_a_directory_goes_on_standing_there(aleph: Mounted) -> None:
    """`satfs refresh` removes no directory that is the working directory of a shell."""
    scene = first_scene(aleph)
    script = "read go; pwd -P && ls scene.json && cd .. && ls capture.json"
    shell = subprocess.Popen(
        ["/bin/sh", "-c", script],
        cwd=scene,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for path in (aleph.place, aleph.place / "tasks" / TASK, scene):
        assert aleph.program("refresh", path).returncode == 0
    said, _ = shell.communicate("go\n", timeout=10)
    assert said.split() == [str(scene), "scene.json", "capture.json"]


@pytest.mark.slow
def test_refreshing_while_everybody_looks_stops_nobody(aleph: Mounted) -> None:
    """The kernel holds a directory's lock while it waits for us, and wants it to forget a name."""
    aleph.origin.api_line.latency_s = 0.05
    failures: list[BaseException] = []
    ended = threading.Event()

    def look() -> None:
        try:
            while not ended.is_set():
                for directory, _, files in os.walk(aleph.place / "tasks" / TASK):
                    for name in files:
                        os.stat(os.path.join(directory, name))
                    (Path(directory) / "no-such-name").exists()
        except BaseException as failure:
            failures.append(failure)

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for each in lookers:
        each.start()
    started_s = time.monotonic()
    codes = [aleph.program("refresh", aleph.place / "tasks" / TASK).returncode for _ in range(5)]
    taken_s = time.monotonic() - started_s
    ended.set()
    for each in lookers:
        each.join(20)
        assert not each.is_alive()
    assert codes == [0] * 5
    assert not failures
    assert taken_s < 40
    aleph.unmount()


def test_nobody_to_ask_is_told_and_what_was_known_stays(aleph: Mounted) -> None:
    task = aleph.place / "tasks" / TASK
    before = os.listdir(task)
    aleph.origin.stop_listening()

    done = aleph.program("refresh", task)
    query = aleph.query("refresh", "--json", task, code=4)

    assert done.returncode == 4
    assert "the API could not be reached" in done.stderr
    assert query["refreshed"][0]["is_stale"] is True
    assert sorted(os.listdir(task)) == sorted(before)


@pytest.mark.slow
def test_a_mount_that_is_stuck_does_not_keep_a_command_waiting(aleph: Mounted) -> None:
    """A command waits ten seconds for a mount that is stuck, and can be ended all the while."""
    (pid,) = mount_processes(aleph.place)
    os.kill(pid, signal.SIGSTOP)
    started_s = time.monotonic()
    try:
        done = aleph.program("refresh", aleph.place / "tasks")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert done.returncode == 5
    assert "does not answer" in done.stderr
    assert time.monotonic() - started_s < 20


def test_a_mount_whose_process_has_died_is_told_at_once(aleph: Mounted) -> None:
    (pid,) = mount_processes(aleph.place)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))
    done = aleph.program("refresh", aleph.place / "tasks")
    assert done.returncode == 5
    assert "does not listen" in done.stderr


def test_the_socket_goes_with_the_mount(aleph: Mounted) -> None:
    sockets = Path(aleph.program.environment["XDG_RUNTIME_DIR"]) / "satfs"
    assert len(list(sockets.iterdir())) == 1
    aleph.unmount()
    wait_until(lambda: not list(sockets.iterdir()))


# -- verify ----------------------------------------------------------------------------------------


def test_what_is_whole_is_said_to_be(aleph: Mounted) -> None:
    done = aleph.program("verify", aleph.place / "tasks" / TASK)

    assert (done.returncode, done.stdout) == (0, "Verified: 10 files, 228.1 kB; none failed.\n")


def test_each_file_is_held_against_what_is_said_of_it(aleph: Mounted) -> None:
    """ETag, its MD5 where it is one, and the CRC of each member."""
    messages = aleph.lines("verify", "--json", first_scene(aleph))

    ended = {Path(each["path"]).suffix: each for each in messages if each["event"] == "ended"}
    assert ended[".zip"]["members"] == 5
    assert ended[".png"]["members"] is None
    for each in ended.values():
        assert each["etag"].startswith('"')
        assert each["error"] is None
        assert each["unchecked"] == []
        assert each["is_md5"] in (True, None)


def damaged(data: bytes) -> bytes:
    """Return a zip with one byte of its largest member changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    changed = bytearray(data)
    changed[largest.header_offset + 30 + len(largest.filename) + 1000] ^= 0xFF
    return bytes(changed)


def test_a_member_whose_crc_is_wrong_is_named(aleph: Mounted) -> None:
    """`satfs verify` names a member whose CRC is wrong, though the zip is as the store has it."""
    scene = first_scene(aleph)
    content = aleph.origin.catalogue.content(scene.name)
    aleph.origin.catalogue.replace(scene.name, damaged(bytes(content.read(0, 10**9))))

    done = aleph.program("verify", scene)

    assert done.returncode == 8
    assert "_TOA_0.tif" in done.stderr
    assert done.stdout == "Verified: 1 file, 78 B; 1 file failed.\n"


def test_a_member_that_cannot_be_checked_is_named(aleph: Mounted) -> None:
    """It is no failure: one that is encrypted, or packed in an unknown way, may be right."""
    scene = first_scene(aleph)
    content = aleph.origin.catalogue.content(scene.name)
    data = bytearray(bytes(content.read(0, 10**9)))
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = data.index(signature) + place
        data[at : at + 2] = (9).to_bytes(2, "little")  # deflate64
    aleph.origin.catalogue.replace(scene.name, bytes(data))

    done = aleph.program("verify", scene)
    quiet = aleph.program("verify", "-q", scene)

    assert done.returncode == 0
    assert "not checked: " in done.stderr
    assert "deflate64" in done.stderr
    assert quiet.stderr == ""


def test_members_that_are_not_shown_are_not_called_good(aleph: Mounted) -> None:
    """`contents/` does not have them: they are in the zip alone."""
    scene = first_scene(aleph)
    with (data := io.BytesIO()), zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.txt", "a")
        archive.writestr("../b.txt", "b")
        archive.close()
        aleph.origin.catalogue.replace(scene.name, data.getvalue())

    done = aleph.program("verify", scene)

    assert done.returncode == 0
    assert "not checked: the members that contents/UNREADABLE.txt names" in done.stderr


def test_what_is_no_zip_is_told(aleph: Mounted) -> None:
    scene = first_scene(aleph)
    aleph.origin.catalogue.replace(scene.name, b"this is no zip" * 100)

    done = aleph.program("verify", scene)

    assert done.returncode == 8
    assert "cannot be read" in done.stderr


def test_a_replaced_object_is_checked_as_it_is_now(aleph: Mounted) -> None:
    scene = first_scene(aleph)
    os.listdir(scene)
    other = next((aleph.place / "tasks" / OTHER_TASK).glob("*/*_L1C_*")).name
    content = aleph.origin.catalogue.content(other)
    aleph.origin.catalogue.replace(scene.name, bytes(content.read(0, 10**9)))

    messages = aleph.lines("verify", "--json", scene)

    zipped = [each for each in messages if each["event"] == "ended" and each["members"]]
    assert [each["was_replaced"] for each in zipped] == [True]


def test_an_object_out_of_reach_is_no_damage(aleph: Mounted) -> None:
    scene = first_scene(aleph)
    os.listdir(scene)
    aleph.origin.stop_listening()

    done = aleph.program("verify", scene)

    assert done.returncode == 4
    assert "2 files failed" in done.stdout
