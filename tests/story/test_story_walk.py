"""Walking the tree through the FUSE operations: what is where, what it costs, and what counts."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from typing import Any

import pytest
from pyfuse3 import FUSEError
from story.conftest import PNG, ZIP, MountIt
from story.kernel import Kernel
from story.shelves import (
    CREATED,
    TAKEN,
    FakeCatalogue,
    FakeObjects,
    Listed,
    make_capture,
    make_scene,
    make_task,
)

from satfs.errors import NotAllowed, Unreachable
from satfs.fuse.attributes import Limits
from satfs.fuse.inodes import ROOT
from satfs.model import Capture, CaptureId
from satfs.tree.names import name_of
from satfs.tree.times import TREE_NS

SCENE = "tasks/341271/cap-1/scene-a"


async def test_the_tree_is_laid_out_as_documented(kernel: Kernel) -> None:
    """Root, tasks, captures, scenes and files are where README and SEMANTICS show them."""
    assert set(await kernel.ls()) == {"README.txt", "tasks", "captures", "scenes"}
    assert set(await kernel.ls("tasks")) == {"341271"}
    assert set(await kernel.ls("tasks/341271")) == {"task.json", "captures.json", "cap-1"}
    assert set(await kernel.ls("tasks/341271/cap-1")) == {
        "capture.json",
        "footprints.geojson",
        "scene-a",
        "scene-b",
    }
    assert set(await kernel.ls(SCENE)) == {
        "scene.json",
        "footprint.geojson",
        "scene-a.zip",
        "scene-a_preview.png",
    }


async def test_only_published_captures_are_directories(kernel: Kernel) -> None:
    """A capture without scenes to fetch is in captures.json and nowhere else."""
    with pytest.raises(FileNotFoundError):
        await kernel.walk("tasks/341271/cap-2")
    listed = json.loads(await kernel.read("tasks/341271/captures.json"))
    assert [capture["capture_id"] for capture in listed] == ["cap-1", "cap-2"]


async def test_direct_doors_lead_to_the_same_content(
    kernel: Kernel, catalogue: FakeCatalogue
) -> None:
    """A capture or scene is reached by its id alone, with the same files in it."""
    assert await kernel.read("scenes/scene-a/scene-a.zip") == ZIP
    assert await kernel.read("captures/cap-1/scene-a/scene-a_preview.png") == PNG
    assert set(await kernel.ls("captures")) == {"cap-1"}
    assert set(await kernel.ls("scenes")) == {"scene-a", "scene-b"}
    with pytest.raises(FileNotFoundError):
        await kernel.walk("captures/nothing")
    with pytest.raises(FileNotFoundError):
        await kernel.walk("scenes/nothing")
    catalogue.put_scenes("unlisted", make_scene("scene-c", "unlisted"))
    assert "scene-c" in await kernel.ls("captures/unlisted")
    with pytest.raises(FileNotFoundError):
        await kernel.walk("captures/cap-2")


async def test_what_is_looked_up_is_what_was_listed(kernel: Kernel) -> None:
    """An entry has the same attributes and inode whether it was listed or looked up."""
    for directory in ("", "tasks", "tasks/341271", "tasks/341271/cap-1", SCENE, "scenes"):
        for name, listed in (await kernel.ls(directory)).items():
            found = await kernel.walk(f"{directory}/{name}")
            if listed.entry_timeout > 0:  # else the kernel looks it up whenever it is used
                assert found.__getstate__() == listed.__getstate__()
        for name, listed in (await kernel.ls(directory)).items():
            found = await kernel.walk(f"{directory}/{name}")
            assert found.__getstate__() == listed.__getstate__()


@pytest.mark.parametrize("name", ["captures.json", "cap-1/footprints.geojson"])
async def test_a_file_that_takes_time_is_listed_by_name(
    kernel: Kernel, name: str, expect_log: Callable[..., None]
) -> None:
    """A file that takes time or requests to make is listed by name, and made at a look-up."""
    expect_log("call failed", errno="ESTALE")
    directory, _, base = f"tasks/341271/{name}".rpartition("/")
    listed = (await kernel.ls(directory))[base]
    assert stat.S_ISREG(listed.st_mode)
    assert (listed.st_size, listed.entry_timeout, listed.attr_timeout) == (0, 0, 0)
    with pytest.raises(FUSEError) as caught:
        await kernel.operations.open(listed.st_ino, os.O_RDONLY, None)  # type: ignore[arg-type]
    assert caught.value.errno == errno.ESTALE  # the kernel looks the name up again
    found = await kernel.walk(f"{directory}/{base}")
    assert found.st_size == len(await kernel.read(f"{directory}/{base}")) > 0
    assert found.st_ino != listed.st_ino
    assert (await kernel.ls(directory))[base].st_size == found.st_size


async def test_sizes_modes_and_times_are_exact(kernel: Kernel) -> None:
    """`stat` shows exact sizes, modes that a copy can keep, and times from the records."""
    zip_file = await kernel.walk(f"{SCENE}/scene-a.zip")
    assert zip_file.st_size == len(ZIP)
    assert zip_file.st_blocks == -(-len(ZIP) // 512)
    assert zip_file.st_mode == stat.S_IFREG | 0o644
    assert (zip_file.st_uid, zip_file.st_gid) == (1000, 100)
    taken_ns = int(TAKEN.timestamp()) * 10**9 + TAKEN.microsecond * 1000
    assert zip_file.st_mtime_ns == taken_ns
    scene = await kernel.walk(SCENE)
    assert scene.st_mode == stat.S_IFDIR | 0o755
    assert scene.st_mtime_ns == taken_ns
    created_ns = int(CREATED.timestamp()) * 10**9 + CREATED.microsecond * 1000
    assert (await kernel.walk("tasks/341271")).st_mtime_ns == created_ns
    assert (await kernel.walk("tasks/341271/cap-1")).st_mtime_ns == created_ns
    assert (await kernel.walk("tasks")).st_mtime_ns == TREE_NS
    for name, entry in (await kernel.ls(SCENE)).items():
        assert entry.st_size == len(await kernel.read(f"{SCENE}/{name}"))


async def test_a_umask_takes_permissions_from_everything(mount_it: MountIt) -> None:
    """With a umask the mount is for fewer people."""
    kernel = mount_it(umask=0o077)
    assert stat.S_IMODE((await kernel.walk("tasks")).st_mode) == 0o700
    assert stat.S_IMODE((await kernel.walk("README.txt")).st_mode) == 0o600


@pytest.mark.parametrize("room", [1, 2, 3, 100])
async def test_references_are_counted_as_the_kernel_counts(kernel: Kernel, room: int) -> None:
    """Each entry listed and each name found is one reference; forgets leave none."""
    await kernel.ls("tasks", room, dots=True)
    await kernel.ls("tasks/341271/cap-1", room)
    await kernel.ls(SCENE, room)
    await kernel.ls(SCENE, room)
    await kernel.read(f"{SCENE}/scene.json")
    await kernel.lookup(ROOT, ".")
    await kernel.lookup((await kernel.walk(SCENE)).st_ino, "..")
    assert len(kernel.inodes) > 5
    await kernel.forget_all()


async def test_dots_lead_where_they_should(kernel: Kernel) -> None:
    """`.` and `..` are listed with the inode numbers of the directory and its parent."""
    for path, parent in ((SCENE, "tasks/341271/cap-1"), ("tasks", ""), ("", "")):
        listed = await kernel.ls(path, dots=True)
        here, above = await kernel.walk(path), await kernel.walk(parent)
        assert listed["."].st_ino == here.st_ino
        assert listed[".."].st_ino == above.st_ino
        assert (await kernel.lookup(here.st_ino, "..")).st_ino == above.st_ino
        assert (await kernel.lookup(here.st_ino, ".")).st_ino == here.st_ino


async def test_inode_numbers_survive_a_remount(mount_it: MountIt) -> None:
    """NFS, rsync and backups see the same files after a restart."""
    before, after = mount_it(), mount_it()
    for path in ("tasks", SCENE, f"{SCENE}/scene-a.zip", f"{SCENE}/scene.json"):
        assert (await before.walk(path)).st_ino == (await after.walk(path)).st_ino


async def test_memory_answers_what_needs_no_asking(
    kernel: Kernel, catalogue: FakeCatalogue, objects: FakeObjects
) -> None:
    """The root, `statfs`, `stat` of a known inode and names that desktops poll send no request."""
    scene = await kernel.walk(SCENE)
    catalogue.calls.clear()
    await kernel.ls()
    await kernel.read("README.txt")
    for name in (".Trash", ".Trash-1000", "autorun.inf", ".hidden", "desktop.ini", ".git"):
        for inode in (ROOT, scene.st_ino):
            assert (await kernel.lookup(inode, name)).st_ino == 0
    await kernel.operations.getattr(scene.st_ino, None)  # type: ignore[arg-type]
    answer = await kernel.operations.statfs(None)  # type: ignore[arg-type]
    assert min(answer.f_blocks, answer.f_bfree, answer.f_bavail, answer.f_files) > 0
    assert answer.f_bsize * answer.f_blocks == 2**50
    assert not catalogue.calls
    assert not objects.calls


async def test_listing_asks_once_and_only_about_that_directory(
    kernel: Kernel, catalogue: FakeCatalogue, objects: FakeObjects
) -> None:
    """`ls` requests that directory alone; the sizes in a scene once, when it is listed."""
    await kernel.walk(SCENE)
    catalogue.calls.clear()
    objects.calls.clear()
    handle = await kernel.operations.opendir((await kernel.walk("tasks")).st_ino, None)  # type: ignore[arg-type]
    assert not catalogue.calls
    await kernel.operations.releasedir(handle)
    await kernel.ls("tasks")
    assert catalogue.calls == {"tasks": 1}
    assert not objects.calls
    await kernel.ls(SCENE)
    assert objects.calls == {"version": 2}


async def test_negative_answers_are_remembered_by_the_kernel_for_a_while(mount_it: MountIt) -> None:
    """A name that is not there is cached for the negative time, and not at all when that is 0."""
    kernel = mount_it(limits=Limits(negative_ttl_s=7.0))
    entry = await kernel.lookup(ROOT, "nothing")
    assert (entry.st_ino, entry.entry_timeout) == (0, 7.0)
    kernel = mount_it(limits=Limits(negative_ttl_s=0.0))
    with pytest.raises(FUSEError) as caught:
        await kernel.lookup(ROOT, "nothing")
    assert caught.value.errno == errno.ENOENT


async def test_an_attachment_that_is_not_there_yet_is_not_listed(
    kernel: Kernel, objects: FakeObjects
) -> None:
    """A scene may be published before its zip is: then there is no zip, and no error."""
    del objects.contents["scene-a", "delivery_zip"]
    assert "scene-a.zip" not in await kernel.ls(SCENE)
    with pytest.raises(FileNotFoundError):
        await kernel.walk(f"{SCENE}/scene-a.zip")
    objects.put("scene-a", ZIP)
    assert "scene-a.zip" in await kernel.ls(SCENE)


@pytest.mark.parametrize(
    ("failure", "number"),
    [(NotAllowed("no"), errno.EACCES), (Unreachable("away"), errno.EIO)],
)
async def test_an_attachment_without_a_known_size_is_no_file_of_size_zero(
    kernel: Kernel,
    objects: FakeObjects,
    expect_log: Callable[..., None],
    failure: Exception,
    number: int,
) -> None:
    """It is listed, so that the rest does not pass for the whole; every call on it is an error."""
    objects.failures["scene-a", "delivery_zip"] = failure
    entry = (await kernel.ls(SCENE))["scene-a.zip"]
    assert stat.S_IMODE(entry.st_mode) == 0
    assert (entry.entry_timeout, entry.attr_timeout) == (0, 0)
    expect_log("call failed", operation="lookup", path=f"/{SCENE}/scene-a.zip")
    expect_log("call failed", operation="getattr")
    expect_log("call failed", operation="open")
    for ask in (
        kernel.walk(f"{SCENE}/scene-a.zip"),
        kernel.operations.getattr(entry.st_ino, None),  # type: ignore[arg-type]
        kernel.operations.open(entry.st_ino, os.O_RDONLY, None),  # type: ignore[arg-type]
    ):
        with pytest.raises(FUSEError) as caught:
            await ask
        assert caught.value.errno == number
    assert await kernel.read(f"{SCENE}/scene-a_preview.png") == PNG
    del objects.failures["scene-a", "delivery_zip"]
    assert (await kernel.ls(SCENE))["scene-a.zip"].st_size == len(ZIP)
    await kernel.forget_all()


async def test_a_size_that_takes_too_long_does_not_hold_up_the_listing(
    kernel: Kernel, objects: FakeObjects, autojump_clock: object
) -> None:
    """One object that hangs does not hide the other names of its scene."""
    objects.delay_s = 1000
    listed = await kernel.ls(SCENE)
    assert stat.S_IMODE(listed["scene-a.zip"].st_mode) == 0
    assert listed["scene.json"].st_size > 0


async def test_a_listing_asks_for_a_hundred_sizes_at_most(
    kernel: Kernel, catalogue: FakeCatalogue, objects: FakeObjects
) -> None:
    """Of any number of attachments all names are listed, and a hundred sizes are requested."""
    files = [(f"a{n}", f"f{n}.tif") for n in range(3000)]
    catalogue.put_scenes("cap-1", make_scene("scene-a", "cap-1", files))
    for name, _ in files:
        objects.put("scene-a", b"x" * 7, name)
    before = objects.calls["version"]
    listed = await kernel.ls(SCENE)
    assert objects.calls["version"] - before == 100
    assert {file_name for _, file_name in files} <= set(listed)
    assert listed["f99.tif"].st_size == 7
    assert stat.S_IMODE(listed["f100.tif"].st_mode) == 0
    assert (await kernel.walk(f"{SCENE}/f2999.tif")).st_size == 7


async def test_extended_attributes_tell_ids_and_versions(kernel: Kernel) -> None:
    """`user.satfs.*` name task, capture, scene, product, status, attachment and ETag."""
    attributes = await kernel.xattrs(f"{SCENE}/scene-a.zip")
    assert attributes["user.satfs.task_id"] == b"341271"
    assert attributes["user.satfs.capture_id"] == b"cap-1"
    assert attributes["user.satfs.scene_id"] == b"scene-a"
    assert attributes["user.satfs.status"] == b"published"
    assert attributes["user.satfs.product"] == b"L1D_SR"
    assert attributes["user.satfs.attachment"] == b"delivery_zip"
    assert attributes["user.satfs.etag"] == b'"1"'
    inode = (await kernel.walk(SCENE)).st_ino
    for name, number in ((b"user.nothing", errno.ENODATA), (b"security.selinux", errno.ENOTSUP)):
        with pytest.raises(FUSEError) as caught:
            await kernel.operations.getxattr(inode, name, None)  # type: ignore[arg-type]
        assert caught.value.errno == number


async def test_sidecars_are_stable_and_of_one_version(
    kernel: Kernel, catalogue: FakeCatalogue
) -> None:
    """A sidecar has the same bytes at each read; a changed record makes another file."""
    first = await kernel.walk("tasks/341271/task.json")
    assert await kernel.read("tasks/341271/task.json") == await kernel.read(
        "tasks/341271/task.json"
    )
    assert (await kernel.walk("tasks/341271/task.json")).st_ino == first.st_ino
    catalogue.put(make_task("341271", record={"status": "failed"}), make_capture("cap-1"))
    second = await kernel.walk("tasks/341271/task.json")
    assert second.st_ino != first.st_ino
    assert json.loads(await kernel.read("tasks/341271/task.json")) == {"status": "failed"}


HOSTILE = [
    "a/b",
    "..",
    ".",
    "",
    "nul\x00",
    "line\nbreak",
    "\x1b[2Jescape",
    "x" * 300,
    "é" * 200,
    "\ud800",
    "%2F",
    ".Trash",
    "task.json",
    "scene.json",
    "captures.json",
    "../../etc/passwd",
    "-rf",
    " ",
]


async def test_hostile_ids_and_names_are_only_names(
    mount_it: MountIt, catalogue: FakeCatalogue, objects: FakeObjects
) -> None:
    """An entry of any name is listed once, found by that name, and reads right."""
    kernel = mount_it()
    catalogue._tasks = Listed()
    for task_id in HOSTILE:
        catalogue.put(make_task(task_id), *(make_capture(each) for each in HOSTILE))
    for capture_id in HOSTILE:
        scenes = [
            make_scene(
                scene_id,
                capture_id,
                [(f"key{i}", file_name) for i, file_name in enumerate(HOSTILE)]
                + [("twin", "same.zip"), ("twin2", "same.zip")],
            )
            for scene_id in HOSTILE
        ]
        catalogue.put_scenes(capture_id, *scenes)
    for scene_id in HOSTILE:
        for attachment in [*(f"key{i}" for i in range(len(HOSTILE))), "twin", "twin2"]:
            objects.put(scene_id, f"{scene_id}{attachment}".encode("utf-8", "replace"), attachment)
    tasks = await kernel.ls("tasks")
    assert len(tasks) == len(HOSTILE)
    task = os.fsdecode(name_of(HOSTILE[0]))
    captures = await kernel.ls(f"tasks/{task}")
    assert len(captures) == len(HOSTILE) + 2
    for capture in (each for each in HOSTILE if each not in ("task.json", "captures.json")):
        path = f"tasks/{task}/{os.fsdecode(name_of(capture))}"
        assert len(await kernel.ls(path)) == len(HOSTILE) + 2
    scene = f"scenes/{os.fsdecode(name_of(HOSTILE[0]))}"
    files = await kernel.ls(scene)
    assert len(files) == len(HOSTILE) + 2 + 2
    contents = {await kernel.read(f"{scene}/{name}") for name in files}
    assert len(contents) == len(files)
    for top, ids in (("tasks", HOSTILE), ("scenes", HOSTILE), ("captures", HOSTILE)):
        for each in ids:
            found = await kernel.walk(f"{top}/{os.fsdecode(name_of(each))}")
            assert stat.S_ISDIR(found.st_mode)
    await kernel.forget_all()


async def test_empty_things_are_empty(kernel: Kernel, catalogue: FakeCatalogue) -> None:
    """Tasks without captures, captures without scenes, scenes without files are directories."""
    catalogue.put(make_task("1"))
    catalogue.put(make_task("2"), make_capture("bare"))
    catalogue.put_scenes("cap-1", make_scene("bare", "cap-1", []))
    assert set(await kernel.ls("tasks/1")) == {"task.json", "captures.json"}
    assert set(await kernel.ls("tasks/2/bare")) == {"capture.json", "footprints.geojson"}
    assert set(await kernel.ls("tasks/341271/cap-1/bare")) == {"scene.json", "footprint.geojson"}


@pytest.mark.parametrize("n_calls", [1, 2])
@pytest.mark.parametrize("room", [1, 1000])
async def test_a_long_listing_may_take_several_calls(
    kernel: Kernel, catalogue: FakeCatalogue, n_calls: int, room: int
) -> None:
    """`.` and `..` keep the program waiting, a call each; then all is listed, nothing twice."""
    whole = set(await kernel.ls("tasks/341271/cap-1"))
    catalogue.n_unfinished = n_calls
    assert set(await kernel.ls("tasks/341271/cap-1", room)) == whole
    assert catalogue.n_unfinished == 0


async def test_a_listing_that_does_not_come_to_its_end_is_an_error(
    kernel: Kernel, catalogue: FakeCatalogue, expect_log: Any
) -> None:
    """After three calls; a part is never taken for the whole."""
    expect_log("call failed", errno="ETIMEDOUT")
    catalogue.n_unfinished = 3
    with pytest.raises(FUSEError) as failure:
        await kernel.ls("tasks/341271/cap-1")
    assert failure.value.errno == errno.ETIMEDOUT
    assert catalogue.n_unfinished == 0


async def test_an_unreadable_record_is_an_error_of_its_own_name(
    kernel: Kernel, catalogue: FakeCatalogue, expect_log: Any
) -> None:
    """It is listed, without anything that could be believed; its neighbours are what they are."""
    expect_log("call failed", errno="EIO")
    problem = "the response has more than 200000 values"
    catalogue.put_scenes(
        "cap-1",
        make_scene("scene-a", "cap-1"),
        make_scene("scene-x", "cap-1", problem=problem),
    )
    catalogue.put(make_task(), make_capture("cap-1"), Capture(CaptureId("cap-x"), problem=problem))
    catalogue.put(make_task("341272", problem=problem))
    for directory, unread in (
        ("tasks/341271/cap-1", "scene-x"),
        ("tasks/341271", "cap-x"),
        ("tasks", "341272"),
    ):
        listed = await kernel.ls(directory)
        assert listed[unread].st_size == 0
        assert stat.S_IMODE(listed[unread].st_mode) == 0
        with pytest.raises(FUSEError) as failure:
            await kernel.walk(f"{directory}/{unread}")
        assert failure.value.errno == errno.EIO
    assert "scene-a.zip" in await kernel.ls("tasks/341271/cap-1/scene-a")
    for path in ("scenes/scene-x", "captures/cap-x"):
        with pytest.raises(FUSEError) as failure:
            await kernel.walk(path)
        assert failure.value.errno == errno.EIO
    await kernel.walk("scenes/scene-a")
